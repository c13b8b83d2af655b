"""A file of rows while another process appends to it, cuts it, or leaves rubbish in it."""

from __future__ import annotations

from pathlib import Path

from alm.files import write_bytes
from alm.report.tail import Tail
from alm.training.metrics import Row


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
