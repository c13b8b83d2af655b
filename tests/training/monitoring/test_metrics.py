"""What is read of a file of rows that something has damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import run_config, write_packed

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.events import Event, Warned
from alm.training.monitoring import metrics, samples
from alm.training.pretrain import pretrain

FIRST, LAST = b'{"step": 1, "loss": 2.0}', b'{"step": 3, "loss": 1.5}'
ROWS = [{"step": 1, "loss": 2.0}, {"step": 3, "loss": 1.5}]


def test_a_row_that_a_kill_cut_off_is_not_read(tmp_path: Path) -> None:
    (tmp_path / metrics.NAME).write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert metrics.read(tmp_path) == [{"step": 1, "loss": 2.0}]
    assert metrics.split(tmp_path, after=0) == (b"", FIRST + b"\n")
    events: list[Event] = []
    (tmp_path / metrics.NAME).write_bytes(FIRST + b"\n" + LAST + b'\n{"step": 4')
    assert metrics.read(tmp_path, on_event=events.append) == ROWS
    assert not events


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"step": 2, "lo',
        b'{"step": 2, "lo{"step": 3, "loss": 1.0}',
        b"\0" * 30,
        b"\xff\xfe\x80",
        b"[" * 100_000,
        b"7",
        b"null",
        b"[1, 2]",
        b'{"loss": 1.0}',
        b'{"step": "2"}',
        b'{"step": true}',
    ],
    ids=lambda garbage: str(garbage[:12]),
)
def test_a_line_that_is_no_row_is_told_once_and_left_out(tmp_path: Path, garbage: bytes) -> None:
    path, events = tmp_path / metrics.NAME, list[Event]()
    path.write_bytes(b"\n".join([FIRST, b"", garbage, LAST, b""]))
    assert metrics.read(tmp_path) == ROWS
    assert metrics.split(tmp_path, after=2, on_event=events.append) == (FIRST + b"\n", LAST + b"\n")
    assert events == [Warned(f"line 3 of `{path}` is not a row, and is left out", None)]
    path.write_bytes(FIRST + b"\n")
    assert metrics.split(tmp_path, after=2) is None


def test_many_lines_that_are_no_rows_are_one_warning(tmp_path: Path) -> None:
    path, events = tmp_path / metrics.NAME, list[Event]()
    path.write_bytes(b"".join(b"x\n" if number % 2 else FIRST + b"\n" for number in range(1, 15)))
    metrics.read(tmp_path, on_event=events.append)
    assert events == [Warned(f"lines 1, 3, 5, 7, 9 and 2 more of `{path}` are not rows, and are left out", None)]


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", [metrics.NAME, samples.NAME])
def test_a_run_with_a_garbage_line_is_resumed_and_keeps_all_else(tmp_path: Path, name: str) -> None:
    data, run, config = write_packed(tmp_path / "data")[0], tmp_path / "run", run_config(logging__log_interval=1)
    pretrain(config, data=data, out=tmp_path / "whole")
    pretrain(config, data=data, out=run)
    lines = (run / name).read_bytes().splitlines(keepends=True)
    (run / name).write_bytes(b"".join([*lines[:2], b'{"step": 1, "lo\n', *lines[2:]]))
    events: list[Event] = []
    pretrain(config, data=data, out=run, resume=run / "ckpt-step000008.pt", on_event=events.append)
    assert events.count(Warned(f"line 3 of `{run / name}` is not a row, and is left out", None)) == 1
    for each in (metrics.NAME, samples.NAME):
        found, wanted = (metrics.without_clock(metrics.read(folder, name=each)) for folder in (run, tmp_path / "whole"))
        assert found == wanted
    weights = [load_checkpoint(folder / LAST_NAME).model.values() for folder in (run, tmp_path / "whole")]
    assert all((ours == theirs).all() for ours, theirs in zip(*weights, strict=True))


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 2, "loss": "1.5"}',
        '{"step": 2, "loss": [1.5]}',
        '{"step": 2, "tokens": {}}',
        '{"step": 2, "step_seconds": true}',
        '{"step": 2, "verdict": 5}',
        '{"step": 2, "skipped_rows": "3"}',
        '{"step": 2, "skipped_rows": [[]]}',
        '{"step": -2}',
        '{"step": 2.0}',
        '{"step": 9007199254740992}',
        '{"step": 2, "tokens": ' + "9" * 4000 + "}",
        '{"step": 2, "loss": 1e999}',
        '{"loss": 1.0}',
        "[" * 100_000,
    ],
)
def test_a_row_of_other_types_is_left_out_and_told_once(tmp_path: Path, line: str) -> None:
    good = ['{"step": 1, "loss": 2.0}', '{"step": 3, "loss": NaN, "later": "text", "skipped_rows": [1, 2]}']
    (tmp_path / metrics.NAME).write_text("\n".join([good[0], line, good[1], line]) + "\n")
    events: list[Event] = []
    rows = metrics.read(tmp_path, on_event=events.append)
    assert [row["step"] for row in rows] == [1, 3]
    (warning,) = events
    assert "lines 2, 4 of" in str(warning)
    assert metrics.NAME in str(warning)
