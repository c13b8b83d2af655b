"""Kind `text`: what is a document, that no byte is lost, and that nothing large is held."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from cases import for_each

from alm.corpus.document import Document, Dropped, utf8_bytes
from alm.corpus.formats import Reading, _encoding, _lines, _pieces, text
from alm.corpus.formats._encoding import EncodingError
from alm.errors import InputError

MARK = "<|endoftext|>"


def read(path: Path, **keys: object) -> list[Document | Dropped]:
    return list(text.read(path, (), Reading(**keys)))  # type: ignore[arg-type]


def documents(items: list[Document | Dropped], path: Path) -> list[tuple[str, str]]:
    return [(i.origin.removeprefix(path.as_posix()), i.text) for i in items if isinstance(i, Document)]


def size(items: list[Document | Dropped]) -> int:
    return sum(utf8_bytes(item.text) if isinstance(item, Document) else item.bytes for item in items)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


def test_a_file_is_one_document_as_it_is(path: Path) -> None:
    path.write_bytes("\ufeffé\r\n\n \x00".encode())
    assert documents(read(path), path) == [("", "é\r\n\n \x00")]
    path.write_bytes(b"")
    assert documents(read(path, document="file"), path) == [("", "")]


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
def test_marks_of_either_line_end_separate_documents(path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(_pieces, "_CHUNK_BYTES", chunk)
    path.write_bytes(f"{MARK}\none\n\ntwo \r\n{MARK}\r\n\n{MARK}\nx{MARK}\n {MARK}\n\\{MARK}\n{MARK}\nend\n".encode())
    found = documents(read(path), path)
    assert found == [("#2", "one\n\ntwo "), ("#4", f"x{MARK}\n {MARK}\n{MARK}"), ("#5", "end\n")]
    assert documents(read(path, document="mark"), path) == found
    assert len(documents(read(path, document="file"), path)) == 1
    path.write_bytes(f"one\n{MARK}".encode())
    assert documents(read(path), path) == [("#1", "one")]
    path.write_bytes(f"one {MARK}\n".encode())
    assert documents(read(path), path) == [("", f"one {MARK}\n")]


def test_lines_and_blocks_are_named_by_their_line(path: Path) -> None:
    path.write_bytes(b"a\r\n \n\nb\nc\n\n\nd")
    assert documents(read(path, document="line"), path) == [("#1", "a"), ("#4", "b"), ("#5", "c"), ("#8", "d")]
    assert documents(read(path, document="block"), path) == [("#1", "a"), ("#4", "b\nc"), ("#8", "d")]


@pytest.mark.parametrize("document", ["auto", "file", "block", "line", "mark"])
@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_every_byte_is_kept_or_counted_however_long_a_document_may_be(
    path: Path, monkeypatch: pytest.MonkeyPatch, document: str, chunk: int
) -> None:
    monkeypatch.setattr(_pieces, "_CHUNK_BYTES", chunk)
    monkeypatch.setattr(_lines, "_CHUNK_BYTES", chunk)
    random = Random(chunk)
    for _ in range(20):
        pieces = ["a", "é ", "\n", "\n\n", "\r\n", f"\n{MARK}\n", f"{MARK}\r\n", "x" * 20, MARK]
        content = "".join(random.choices(pieces, k=60))
        path.write_bytes(content.encode())
        items = read(path, document=document, max_document_bytes=24)
        assert size(items) == len(content.encode())
        assert len({i.origin for i in items if i.origin}) == sum(bool(i.origin) for i in items)
        for item in items:
            if isinstance(item, Document):
                assert utf8_bytes(item.text) <= 24
            elif item.reason == "too_long":
                assert (item.documents, item.bytes > 24) == (1, True)
            else:
                assert item.reason == "separator"
        if document in ("file", "line"):
            texts = "".join(item.text for item in items if isinstance(item, Document))
            short = [line for line in re.findall("[^\n]*\n|[^\n]+", content) if len(_counted(line, document)) <= 24]
            assert re.sub(r"\s", "", texts) == re.sub(r"\s", "", "".join(short))


def _counted(line: str, document: str) -> bytes:
    """What of a line is measured: all of it where it is a piece of a document."""
    return (line if document == "file" else line.rstrip("\r\n")).encode()


def test_a_long_text_is_cut_at_the_last_blank_line_or_else_line(path: Path) -> None:
    path.write_bytes(b"aaa\nbbb\n\nccc\n" + b"d\n" * 6 + b"e" * 13 + b"\nf\n")
    items = read(path, max_document_bytes=12)
    assert documents(items, path) == [
        ("", "aaa\nbbb\n\n"),
        ("#part-2", "ccc\nd\nd\nd\nd\n"),
        ("#part-3", "d\nd\n"),
        ("#part-5", "f\n"),
    ]
    assert [i for i in items if isinstance(i, Dropped)] == [
        Dropped("too_long", 14, documents=1, origin=f"{path.as_posix()}#part-4", excerpt="e" * 13)
    ]


def test_a_mark_behind_the_first_piece_is_found(path: Path) -> None:
    path.write_bytes(b"a\n" * 10 + f"{MARK}\nb\n{MARK}\n".encode())
    found = documents(read(path, max_document_bytes=16), path)
    assert found == [("#1", "a\n" * 8), ("#1#part-2", "a\na"), ("#2", "b")]


@for_each("at", range(-20, 3))
def test_a_mark_across_two_chunks_is_found(path: Path, at: int) -> None:
    path.write_bytes(b"y\n" * ((1 << 19) + at) + f"{MARK}\r\nb".encode() + b"z" * 100)
    with path.open("rb") as file:
        assert _pieces.has_marks(file)
    assert documents(read(path, max_document_bytes=1 << 20), path)[-1][0] == "#2"
    path.write_bytes(b"y" * ((1 << 20) + at) + f"{MARK}\r\n".encode())
    with path.open("rb") as file:
        assert not _pieces.has_marks(file)


@pytest.mark.parametrize("document", ["file", "line", "block", "mark"])
def test_what_is_not_utf8_is_named_by_its_place(path: Path, document: str) -> None:
    path.write_bytes(b"ok\n\nfine\n\ncaf\xe9\n\nlast")
    with pytest.raises(InputError, match="byte 0xE9 at offset 13") as caught:
        read(path, document=document)
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)
    assert "sources.<name>.encoding" in str(caught.value.hint)
    items = read(path, document=document, on_bad_input="skip")
    bad = [i for i in items if isinstance(i, Dropped) and i.reason == "bad_utf8"]
    assert [b.documents for b in bad] == [1]
    assert "caf\ufffd" in bad[0].excerpt
    assert len(documents(items, path)) == (3 if document in ("line", "block") else 0)
    assert size(items) == 20


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_the_place_is_that_in_the_file_whatever_was_read_before(
    path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(_pieces, "_CHUNK_BYTES", chunk)
    path.write_bytes(f"\ufeffa\n{MARK}\nb\n{MARK}\n".encode() + b"caf\xe9")
    with pytest.raises(InputError, match="byte 0xE9 at offset 38"):
        read(path)
    path.write_bytes(b"a\n" * 20 + b"\xe9")
    with pytest.raises(InputError, match="byte 0xE9 at offset 40"):
        read(path, max_document_bytes=16)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-16-le", "latin-1", "shift_jis"])
@pytest.mark.parametrize("document", ["file", "line"])
def test_other_encodings_read_the_same(path: Path, encoding: str, document: str) -> None:
    content = "表\nああ\n" if encoding == "shift_jis" else "é\nx\n"
    path.write_bytes((content * 5000).encode(encoding))
    for given in {encoding, "auto" if encoding in ("utf-16", "utf-32", "utf-8-sig") else encoding}:
        joined = "\n".join(t for _, t in documents(read(path, document=document, encoding=given), path))
        assert joined.rstrip("\n") == (content * 5000).rstrip("\n")


@pytest.mark.parametrize("chunk", [3, 1 << 18])
def test_damage_in_another_encoding_is_named_by_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(_encoding, "_CHUNK_BYTES", chunk)
    path.write_bytes("\ufeff".encode("utf-16-le") + "ab".encode("utf-16-le") * 1000 + b"\x00\xd8a\x00")
    with pytest.raises(EncodingError, match="is not utf-16: illegal UTF-16 surrogate at offset 4,002"):
        read(path)


def test_a_file_of_lines_is_cut_between_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(0)
    for chunk in (1, 5, 1 << 20):
        monkeypatch.setattr(_lines, "_CHUNK_BYTES", chunk)
        for _ in range(20):
            path.write_bytes("".join(random.choices(["a", "bc", "\n", "\r\n", "é"], k=200)).encode())
            reading = Reading(document="line", max_document_bytes=6)
            parts = text.parts(path, reading, part_bytes=20)
            assert sum(part.bytes for part in parts) == path.stat().st_size
            assert max(part.bytes for part in parts[:-1]) <= 20 + 40
            together = [item for part in parts for item in text.read(path, part.where, reading)]
            assert together == read(path, document="line", max_document_bytes=6)
            # Independent: the number of each first line, counted from the start of the file.
            data = path.read_bytes()
            assert all(part.where[2] == 1 + data[: part.where[0]].count(b"\n") for part in parts)


def test_what_cannot_be_cut_is_one_part(path: Path) -> None:
    for data, reading in [
        (b"a\n" * 50, Reading(document="auto")),
        (("a\n" * 50).encode("utf-16"), Reading(document="line")),
        (b"a\n" * 50, Reading(document="line", encoding="latin-1")),
        (b"a" * 100, Reading(document="line")),
    ]:
        path.write_bytes(data)
        assert [part.where for part in text.parts(path, reading, part_bytes=10)] == [()]
