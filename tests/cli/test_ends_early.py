"""`alm verify-resume` and the flags of `alm pretrain` that end a run early."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import CHAIN, SMALL

from alm.cli import main
from alm.doctor import verify_resume as doctor
from alm.doctor.verify_resume import Side, Verdict
from alm.errors import StoppedError, shell


def verdict(*, weights: str) -> Verdict:
    before = Side(24, "a" * 64, "b" * 64, "c" * 64)
    return Verdict(
        before, replace(before, weights=weights), 1, {"starting": 1, "training": 2}, 0, 1, {"emptied": 1}, 2.5
    )


def test_the_command_prints_a_table_and_a_verdict(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "verify_resume", lambda *_, **__: verdict(weights="a" * 64))
    code, out, _ = run("verify-resume", "--kills", "3", "-q")
    assert code == 0
    assert out.splitlines()[2].split() == ["weights", "a" * 16, "a" * 16, "equal"]
    assert "3 kills: 1 while starting, 2 while training; 1 left a checkpoint half-written" in out
    assert "1 damaged checkpoints: 1 emptied" in out
    assert out.splitlines()[-1] == "nothing was lost (2 s)"
    code, out, _ = run("verify-resume", "--json")
    assert (code, json.loads(out)["is_equal"], json.loads(out)["killed"]["step"]) == (0, True, 24)


def test_the_command_fails_when_something_is_lost(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "verify_resume", lambda *_, **__: verdict(weights="d" * 64))
    code, out, err = run("verify-resume")
    assert code == 1
    assert "DIFFERENT" in out
    assert "SOMETHING WAS LOST" in out
    assert "Error: weights of the killed run differ from the undisturbed one" in err
    folder = Path(err.partition("both runs are in `")[2].partition("`")[0])
    assert folder.is_dir()
    shutil.rmtree(folder)


def test_the_runs_are_kept_when_asked_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[Path] = []

    def pretending(work: Path, **_: object) -> Verdict:
        worked.append(work)
        return verdict(weights="a" * 64)

    monkeypatch.setattr(doctor, "verify_resume", pretending)
    _, _, err = run("verify-resume", "--keep")
    assert f"both runs are in `{worked[0]}`" in err
    assert worked[0].is_dir()
    shutil.rmtree(worked[0])
    run("verify-resume")
    assert not worked[1].exists()


@pytest.mark.slow
def test_a_time_limit_shorter_than_the_start_is_an_error_and_loses_nothing(project: Path, run: Any) -> None:
    for arguments in CHAIN[:3]:
        assert run(*arguments)[0] == 0
    code, _, err = run("pretrain", *SMALL, "--time-limit", "0.001s")
    assert code == 1  # to be started again would be for nothing
    assert "the time limit was over before the first step" in err
    assert "Hint: leave more time than starting takes: add `--time-limit " in err
    code, out, _ = run("pretrain", "--time-limit", "10h")
    assert code == 0
    assert "6 steps" in out


def test_a_time_limit_without_a_unit_is_a_usage_error(project: Path, run: Any) -> None:
    code, _, err = run("pretrain", "--time-limit", "55")
    assert code == 2
    assert "Error: `--time-limit 55` has no unit" in err
    assert "`--time-limit 55m`" in err


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (
            ["quickstart", "my texts", "--budget", "5m"],
            StoppedError("interrupted", hint="run `alm pretrain`"),
            "continue",
        ),
        (["corpus", "prepare", "my texts"], SystemExit(130), "continue"),
        (["tokenizer", "train", "--vocab-size", "300"], SystemExit(130), "start again"),
    ],
)
def test_an_interrupted_command_proposes_itself(
    words: list[str],
    error: BaseException,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(**_: Any) -> None:
        raise error

    monkeypatch.setattr(main, "_command", lambda: command)
    with pytest.raises(SystemExit) as end:
        main.main(words)
    assert end.value.code == 130
    assert f"\n\nHint: run `{shell('alm', *words)}` to {said}\n" in capsys.readouterr().err


def test_an_interrupted_run_proposes_to_resume_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(**_: Any) -> None:
        raise StoppedError("interrupted", hint="run `alm pretrain --resume runs/a/ckpt-last.pt` to continue")

    monkeypatch.setattr(main, "_command", lambda: command)
    with pytest.raises(SystemExit):
        main.main(["pretrain", "--resume", "runs/a/ckpt-step000004.pt"])
    assert "--resume runs/a/ckpt-last.pt" in capsys.readouterr().err
