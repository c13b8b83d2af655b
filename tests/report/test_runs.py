"""The list of runs, and the newest of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from builders import scored_row, write_run

from alm.cli.runs import age, the_checkpoint, the_run
from alm.errors import AlmError
from alm.files import exclusive
from alm.report.runs import listed, newest_run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def old(run: Path, seconds: float) -> Path:
    """`run`, whose files changed last at this time."""
    for path in run.iterdir():
        os.utime(path, (seconds, seconds))
    return run


def test_runs_are_listed_newest_first_with_their_best_score() -> None:
    rows = [scored_row(4, 2.5), scored_row(8, 2.25), scored_row(12, 2.75)]
    old(write_run(Path("runs/first"), rows), 1000)
    old(write_run(Path("alm-quickstart-2/runs/tales"), rows[:1]), 2000)
    second, first = listed()
    assert (first.run, first.step, first.bits_per_byte) == (Path("runs/first"), 12, 2.25)
    assert (second.run, second.bits_per_byte, second.state) == (
        Path("alm-quickstart-2/runs/tales"),
        2.5,
        "interrupted",
    )
    assert (first.parameters, first.text) == (12_345, ())
    assert first.model is not None
    assert first.model.count(" x ") == 1
    assert first.age_seconds > 0
    assert [run.run.name for run in listed(Path("runs/first"))] == ["first"]
    assert [run.run.name for run in listed(Path("alm-quickstart-2"))] == ["tales"]


def test_a_run_is_running_while_its_lock_is_held() -> None:
    run = write_run(Path("runs/first"), [])
    with exclusive(run / ".lock", what="the run"):
        assert listed()[0].state == "running"
    assert listed()[0].state != "running"


def test_foreign_and_damaged_folders_are_no_failure(here: Path) -> None:
    good = write_run(Path("runs/good"), [scored_row(4, 2.5)])
    texts = {"text": b"hello", "empty": b"", "list": b"[]", "json": b"{}", "bytes": b"\xff\x00", "deep": b"[" * 99999}
    for name, data in texts.items():
        folder = here / "runs" / name
        folder.mkdir()
        (folder / "run.json").write_bytes(data)
    (here / "runs/folder/run.json").mkdir(parents=True)
    (here / "runs/foreign").mkdir()
    (here / "runs/file").write_text("a file", "utf-8")
    (here / "runs/loop").symlink_to("loop")
    (here / "runs/lost").mkdir()
    (here / "runs/lost/run.json").symlink_to("nowhere")
    if hasattr(os, "mkfifo"):
        (here / "runs/pipe").mkdir()
        os.mkfifo(here / "runs/pipe/run.json")
    states = {run.run.name: run.state for run in listed()}
    assert states.pop("good") == "interrupted"
    assert set(states.values()) == {"damaged"}
    assert set(texts) < set(states)
    (good / "metrics.jsonl").write_bytes(b'\xff{"step": 1}\n{"step": "x", "bits_per_byte": []}\nnothing')
    (good / "config.yaml").write_bytes(b"model: 3\n")
    assert {run.run.name for run in listed()} == {"good", *states}


def test_the_newest_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AlmError, match="no run"):
        newest_run()
    with pytest.raises(AlmError, match="no checkpoint"):
        the_checkpoint(None, silent=False)
    old(write_run(Path("runs/first"), []), 1000)
    old(write_run(Path("runs/second"), []), 2000)
    assert the_run(None, silent=False) == Path("runs/second")
    assert "`runs/second`" in capsys.readouterr().err
    for run in ("first", "second"):
        Path(f"runs/{run}/ckpt-last.pt").write_bytes(b"")
        os.utime(f"runs/{run}/ckpt-last.pt", (3000, 3000 if run == "first" else 2000))
    assert the_checkpoint(None, silent=True) == Path("runs/first/ckpt-last.pt")
    assert the_run(Path("mine"), silent=False) == Path("mine")
    assert capsys.readouterr().err == ""


def test_an_age_has_its_largest_unit() -> None:
    assert [age(seconds) for seconds in (0, 119, 120, 7200, 200000)] == [
        "0 s",
        "119 s",
        "2 minutes",
        "2 hours",
        "2 days",
    ]
