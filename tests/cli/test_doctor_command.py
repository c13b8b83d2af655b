"""`alm doctor`: a line for each check, a summary, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alm.cli.doctor import lines
from alm.doctor import examine
from alm.doctor.check import Check
from alm.events import Noted

SOUND = Check("first loss", "ok", "6.243 nats, ln V is 6.238", "6.238 ± 0.3 nats")
SLOW = Check("precision, speed", "ok", "0.3 times", "at least 0.8", "fp32 is faster here", "add `--set x=y`")
ABSENT = Check("device against CPU", "skipped", "this is the CPU: there is nothing to compare")
BROKEN = Check(
    "gradients", "failed", "38 of 39 parameters have one", "one for every", "nothing reaches `x`", "do `this`"
)


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the examination find these checks."""

    def found(*checks: Check) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        def examined(choice: Any, *, on_event: Any, **more: Any) -> Iterator[Check]:
            asked.update(more, choice=choice)
            for check in checks:
                on_event(Noted("compiling"))
                yield check

        monkeypatch.setattr(examine, "examine", examined)
        return asked

    return found


def test_a_sound_machine_exits_0_and_names_what_comes_next(
    run: Any, finds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alm.device._cpu_has_bf16", lambda: False)
    finds(SOUND, SLOW, ABSENT)
    code, out, err = run("doctor", "--device", "cpu")
    assert code == 0
    assert out.splitlines() == [
        "ok      first loss               6.243 nats, ln V is 6.238",
        "note    precision, speed         0.3 times",
        "        wanted  at least 0.8",
        "        cause   fp32 is faster here",
        "        cure    add `--set x=y`",
        "skipped device against CPU       this is the CPU: there is nothing to compare",
        "2 ok, 1 skipped: cpu in fp32: this CPU has no bf16 hardware",
    ]
    assert err.splitlines() == [*["compiling"] * 3, "next: alm verify-resume --device cpu"]


def test_a_failure_exits_1_with_its_cause_and_cure(run: Any, finds: Any) -> None:
    finds(BROKEN, SOUND)
    code, out, err = run("doctor", "--device", "cpu", "-q")
    assert code == 1
    assert "FAILED  gradients                38 of 39 parameters have one" in out
    assert "cause   nothing reaches `x`" in out
    assert out.splitlines()[-1].startswith("1 ok, 1 failed: cpu")
    assert err == "Error: `gradients` failed\n\nHint: do `this`\n"


def test_json_is_one_object_on_stdout(run: Any, finds: Any) -> None:
    finds(BROKEN, SLOW)
    code, out, err = run("doctor", "--device", "cpu", "--json")
    found = json.loads(out)
    assert code == 1
    assert out.count("\n") == 1
    assert (found["device"], found["is_sound"]) == ("cpu", False)
    assert found["checks"][0] == {
        "name": "gradients",
        "outcome": "failed",
        "measured": "38 of 39 parameters have one",
        "wanted": "one for every",
        "cause": "nothing reaches `x`",
        "cure": "do `this`",
    }
    assert "compiling" not in err


def test_flags_reach_the_examination(run: Any, finds: Any, tmp_path: Path) -> None:
    asked = finds(SOUND)
    assert run("doctor", "--device", "cpu", "--out", str(tmp_path), "--data", "packed", "-q")[0] == 0
    assert (asked["out"], asked["data"], str(asked["choice"].device)) == (tmp_path, Path("packed"), "cpu")


def test_a_device_that_is_not_there_exits_2(run: Any) -> None:
    code, out, err = run("doctor", "--device", "cuda:7")
    assert (code, out) == (2, "")
    assert "alm device" in err


def test_the_report_of_devices_names_the_doctor(run: Any) -> None:
    assert run("device")[2].splitlines() == ["next: alm doctor"]
    assert run("device", "--device", "cpu")[2].splitlines() == ["next: alm doctor --device cpu"]
    assert run("device", "--json")[2] == ""


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_lines_fit_the_terminal_but_for_the_cure(width: int) -> None:
    long = Check(
        "cached decoding, rules",
        "failed",
        "off by 2.7e-01 in bf16",
        "below 2.4e-05, what rounding in fp32 makes of 2 layers",
        "tokens that are generated one by one do not see what they saw while training",
        "add `--device cpu` to `alm pretrain` and `alm sample`, and report it with what `alm device` prints",
    )
    found = lines(long, width=width)
    assert found[-1] == f"        cure    {long.cure}"
    assert all(len(line) <= width for line in found[:-1])
    words = " ".join(" ".join(found).split())
    assert words == f"FAILED {long.name} {long.measured} wanted {long.wanted} cause {long.cause} cure {long.cure}"


def test_at_60_columns_short_findings_stay_beside_their_name() -> None:
    assert len(lines(SOUND, width=60)) == 1
