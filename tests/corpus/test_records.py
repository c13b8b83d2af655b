"""Every document comes back exactly, whatever its lines look like."""

from __future__ import annotations

import io
import random

import pytest
from cases import for_each

from alm.corpus import records
from alm.corpus.records import MARK, escape, read_records, record, unescape

HARD = [
    "plain",
    "two\nlines",
    "ends in newline\n",
    "\n",
    "\n\nstarts with newlines",
    MARK,
    f"{MARK}\n",
    f"\n{MARK}\n",
    f"a\n{MARK}\nb",
    f"\\{MARK}",
    f"\\\\{MARK}\n\\{MARK}",
    f" {MARK}",
    f"{MARK} ",
    f"x{MARK}",
    "\u2028\x0b\x85",
    "日本\n語",
]


def read(data: bytes) -> list[str]:
    return [unescape(raw.decode()) for raw in read_records(io.BytesIO(data))]


def test_the_format_by_hand() -> None:
    assert record("a\nb") == b"a\nb\n<|endoftext|>\n"
    assert record(f"a\n{MARK}\n\\{MARK}") == b"a\n\\<|endoftext|>\n\\\\<|endoftext|>\n<|endoftext|>\n"


@for_each("text", HARD)
def test_each_hard_text_comes_back(text: str) -> None:
    assert unescape(escape(text)) == text
    assert read(record(text)) == [text]


def test_all_of_them_together_come_back() -> None:
    assert read(b"".join(map(record, HARD))) == HARD


def test_random_texts_come_back_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    pieces = ["\n", "\\", MARK, "<|", "a", "é", MARK[:7], "|>"]
    for size in (1, 2, 3, 15, 16, 17, 64):
        monkeypatch.setattr(records, "_CHUNK_BYTES", size)
        texts = ["".join(draw.choices(pieces, k=draw.randrange(1, 12))) for _ in range(60)]
        assert read(b"".join(map(record, texts))) == texts


@for_each(
    "data, documents",
    [
        (b"", []),
        (b"no mark at all\n", ["no mark at all\n"]),
        (b"one\n<|endoftext|>\ntwo\n", ["one", "two\n"]),
        (b"one\n<|endoftext|>\ntwo\n<|endoftext|>", ["one", "two"]),
        (b"<|endoftext|>\none\n<|endoftext|>\n", ["", "one"]),
        (b"one\n<|endoftext|>\n<|endoftext|>\ntwo\n<|endoftext|>\n\n", ["one", "", "two"]),
        (b"in a <|endoftext|> line", ["in a <|endoftext|> line"]),
        (b"<|endoftext|>", []),
    ],
)
def test_foreign_files_read_by_their_marks(data: bytes, documents: list[str]) -> None:
    assert read(data) == documents


@pytest.mark.parametrize("size", [1, 2, 15, 16, 64])
def test_lines_may_end_as_on_windows(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_CHUNK_BYTES", size)
    for text in ("a\r\nMARK\r\nb", "a\nMARK\r\nb\r\nMARK", "a\r\nMARK\nb"):
        data = text.replace("MARK", MARK).encode()
        assert read(data) == ["a", "b"]
        assert next(iter(records.ends_of(io.BytesIO(data)))) == data.index(b"b")
