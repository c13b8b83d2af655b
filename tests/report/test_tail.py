"""A file of rows while another process appends to it, cuts it, or leaves rubbish in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import logged_row, write_run

from alm.errors import InputError
from alm.files import write_bytes
from alm.report.notes import notes
from alm.report.record import read
from alm.report.tail import Tail
from alm.training.monitoring.metrics import Row


def test_rows_are_read_as_they_come_and_half_a_row_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows: list[Row] = []
    tail = Tail(path, rows)
    assert not tail.look()
    path.write_bytes(b'{"step": 1}\n{"st')
    assert tail.look()
    assert rows == [{"step": 1}]
    assert not tail.look()
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert tail.look()
    assert rows == [{"step": 1}, {"step": 2}]
    assert tail.damaged == 0


def test_rubbish_is_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rubbish = [
        b"{",
        b"[1]",
        b'"x"',
        b"null",
        b'{"loss": 1}',
        b'{"step": "1"}',
        b'{"step": true}',
        b"\xff\x00",
        b"[" * 9999,
    ]
    path.write_bytes(b"\n".join([b'{"step": 1}', *rubbish, b"", b'{"step": 2, "loss": NaN}', b""]))
    rows: list[Row] = []
    tail = Tail(path, rows)
    tail.look()
    assert [row["step"] for row in rows] == [1, 2]
    assert tail.damaged == len(rubbish)


def test_a_file_that_was_replaced_or_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    rows: list[Row] = []
    tail = Tail(path, rows)
    tail.look()
    write_bytes(path, b'{"step": 1}\n{"step": 9}\n{"step": 10}\n')  # longer than before: another file all the same
    assert tail.look()
    assert [row["step"] for row in rows] == [1, 9, 10]
    with path.open("r+b") as file:
        file.truncate(12)
    assert tail.look()
    assert [row["step"] for row in rows] == [1]
    path.unlink()
    assert tail.look()
    assert rows == []
    assert not tail.look()


def _pipe(path: Path) -> None:
    if sys.platform != "win32":
        os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Path.mkdir, "is a folder"),
        pytest.param(_pipe, "is not a file", marks=pytest.mark.skipif(sys.platform == "win32", reason="no pipes")),
    ],
)
@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "set-aside-1/metrics.jsonl"])
@pytest.mark.timeout(20)  # to open a pipe waits for its writer
def test_what_is_not_a_file_is_named(tmp_path: Path, name: str, make: Callable[[Path], None], said: str) -> None:
    run = write_run(tmp_path / "run", [logged_row(1, 2.0)])
    path = run / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    make(path)
    with pytest.raises(InputError, match=said) as caught:
        notes(read(run))
    assert str(path) in caught.value.message


def test_a_file_that_is_named_like_what_was_set_aside_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [logged_row(1, 2.0)])
    before = notes(read(run))
    (run / "set-aside-notes.txt").write_text("mine")
    assert notes(read(run)) == before
