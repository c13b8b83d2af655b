"""What is kept of a run's rows equals what reading all of them at once gives, however they come."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest
from builders import logged_row, sample_row, scored_row, write_run
from cases import for_each

from alm.files import write_text
from alm.report import tail
from alm.report.history import MARGIN, SCORE, History, number
from alm.report.record import Record, Watched, read
from alm.training.monitoring import metrics

KEYS = ("loss", "lr", "mfu", "step_seconds", "tokens", "skipped_steps", SCORE, MARGIN, "validation_loss")
RUBBISH = [b"", b"{", b"[1]", b"null", b'{"loss": 1}', b'{"step": -1}', b'{"step": 1e3}', b"\xff", b'{"step": 1} {}']


def some_rows(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Rows as a run writes them, and now and then as none does: missing, odd and repeated."""
    step, rows = 0, []
    for _ in range(count):
        step = max(step + draw.choice([1, 1, 1, 2, 10, 0, -3]), 1)
        loss = draw.choice([draw.gauss(3, 1), draw.gauss(3, 1), None, math.nan, 10**400, "3", True])
        row = logged_row(step, loss, step_seconds=draw.random(), mfu=draw.choice([0.5, None, math.inf]))  # type: ignore[arg-type]
        if draw.random() < 0.2:
            row = scored_row(step, draw.random(), draw.choice([None, 0.5])) | {"verdict": draw.choice(["good", 3])}
        if draw.random() < 0.1:
            row = {"step": step, "skipped_rows": [1, 2]}
        rows.append(row)
    return rows


def told(record: Record) -> tuple[Any, ...]:
    """All that is shown of the rows of a run."""
    columns = tuple(tuple(record.series(key).points()) for key in KEYS)
    facts = (record.step, record.seconds, record.tokens_per_step, record.skipped, record.verdict(), record.damaged)
    return columns, facts, record.samples, record.smoothed_loss()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_come_in_pieces_are_those_read_at_once(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    lines = [json.dumps(row).encode() for row in some_rows(draw, 200)]
    for _ in range(draw.choice([0, 5])):
        lines.insert(draw.randrange(len(lines)), draw.choice(RUBBISH))
    data = b"\n".join(lines) + b"\n"
    texts = metrics.as_text([sample_row(step, "Once", "é") for step in range(5)]).encode()
    run = write_run(tmp_path / "run", [], texts=[])
    watched, seen = Watched(run), 0
    heard: list[dict[str, Any]] = []
    for at in [*sorted(draw.sample(range(len(data)), 30)), len(data)]:
        append(run / "metrics.jsonl", data[seen:at])
        append(run / "samples.jsonl", texts[len(texts) * seen // len(data) : len(texts) * at // len(data)])
        seen = at
        record = watched.look(heard.extend)
    assert repr(told(record)) == repr(told(read(run)))
    assert repr(heard) == repr(metrics.read(run))


@for_each("seed", range(5))
def test_a_column_holds_the_newest_value_of_each_step(seed: int) -> None:
    rows = some_rows(random.Random(seed), 300)
    history = History()
    for first in range(0, len(rows), 7):
        history.extend(rows[first : first + 7])
    for key in ("loss", "mfu", SCORE, MARGIN):
        among = SCORE if key in (SCORE, MARGIN) else "lr"
        found = {row["step"]: number(row.get(key)) for row in rows if among in row}
        assert history.columns()[key].points() == sorted(found.items())
    assert history.seconds == metrics.training_seconds(rows)
    assert history.step == max(row["step"] for row in rows)


def test_what_was_given_out_does_not_change(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [logged_row(2, 2.0), scored_row(2, 1.0)])
    watched = Watched(run)
    before = watched.look()
    assert watched.look() is before
    kept = told(before)
    append(run / "metrics.jsonl", metrics.as_text([logged_row(1, 9.0), *some_rows(random.Random(0), 3000)]).encode())
    assert told(watched.look()) != kept
    assert told(before) == kept


def test_each_row_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", [logged_row(step, 2.0) for step in range(1, 100)])
    lines: list[bytes] = []
    monkeypatch.setattr(tail, "parsed", lambda given: lines.extend(given) or metrics.parsed(given))
    watched = Watched(run)
    for step in range(100, 120):
        watched.look()
        append(run / "metrics.jsonl", metrics.as_text([logged_row(step, 2.0)]).encode())
    watched.look()
    assert len(lines) == len(set(lines)) == 119


@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize("more", [0, 3, 50])
def test_a_file_that_is_cut_while_it_is_watched_is_read_again(tmp_path: Path, is_in_place: bool, more: int) -> None:
    run = write_run(tmp_path / "run", [logged_row(step, 2.0) for step in range(1, 21)])
    path = run / "metrics.jsonl"
    watched = Watched(run)
    watched.look()
    made_again = [logged_row(step, 3.0, step_seconds=0.75) for step in range(11, 11 + more)]
    kept = metrics.as_text([logged_row(step, 2.0) for step in range(1, 11)])
    if is_in_place:  # as when the name of an inode is used again: the file may be longer than before
        os.truncate(path, len(kept))
    else:
        write_text(path, kept)
    append(path, metrics.as_text(made_again).encode())
    record = watched.look()
    assert told(record) == told(read(run))
    assert record.step == 10 + more
    assert [value for step, value in record.series("loss").points() if step > 10] == [3.0] * more


def test_a_line_without_end_takes_no_memory_and_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_BLOCK", 64)
    monkeypatch.setattr(tail, "_LONGEST_LINE", 256)
    path = tmp_path / "metrics.jsonl"
    rows: list[metrics.Row] = []
    followed = tail.Tail(path, rows)
    path.write_bytes(b'{"step": 1}\n{"step": 2, "x": "' + b"x" * 10_000)
    followed.look()
    assert len(followed._rest) <= 256
    append(path, b'"}\n{"step": 3}\n')
    followed.look()
    assert [row["step"] for row in rows] == [1, 3]
    assert followed.damaged == 1


@for_each(
    "lines",
    [
        [b'{"step": 1}', b'{"step": 2, "loss": NaN}'],
        [b'{"step": 1},{"step": 2}', b'{"step": 3'],
        [b'{"step": 1},{"step": 2}', b'{"step": 3, "a": [{', b"}]}"],
        [b'{"step": 1, "a": [{}', b"{}]}", b'{"step": 2},{"step": 3}'],
        [b'{"step": 1, "a": "}', b'{"}', b'{"step": 2}'],
        [b'{"step": 1, "a": {"b": 1}}', b'{"step": 2}'],
        [b'{"step": 1}', b"", b'{"step": 2}', b"\xff"],
        [b'{"step": 1, "a": "\\u007b"}', b'{"step": 2, "a": "}{"}'],
        [b'{"step": 1', b'"loss": 2}', b'{"step": 3}'],
        [b'{"step": 1}}', b'{{"step": 3}'],
        [b'{"step": 1' + b"0" * 5000 + b"}", b'{"step": 10000000000000000000000}', b'{"step": -1}'],
    ],
)
def test_lines_parsed_together_are_as_by_themselves(lines: list[bytes]) -> None:
    alone: list[Any] = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        is_row = isinstance(value, dict) and type(value.get("step")) is int and 0 <= value["step"] < 2**53
        alone.append(value if is_row else None)
    assert repr(metrics.parsed(lines)) == repr(alone)


@pytest.mark.parametrize("each", [1, 7, 100])
def test_doubled_rows_take_no_time(each: int) -> None:
    """As after a copy of the file was appended to it, or two runs wrote to one folder."""
    rows = [{"step": step, "lr": 0.1, "step_seconds": 0.5} for step in range(10, 110, 10)]
    twice = [
        *rows,
        *rows,
        {"step": 60, "lr": 0.1, "step_seconds": None},
        {"step": 110, "step_seconds": -9.0},
        {"step": 120, "step_seconds": 0.25},
    ]
    history = History()
    for first in range(0, len(twice), each):
        history.extend(twice[first : first + each])
    assert history.seconds == metrics.training_seconds(twice) == 100 * 0.5 + 20 * 0.25
