"""Kind `jsonl`: rows are exact, parts are the whole, and a bad line is named and passed over."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random
from types import ModuleType

import pytest

from alm.corpus.document import Dropped
from alm.corpus.formats import Reading, jsonl
from alm.corpus.formats import json as json_format
from alm.corpus.formats._detect import format_of
from alm.corpus.rows import Row
from alm.errors import InputError

BAD = {
    b'{"text": "a"': ("bad_json", "line 2 is not JSON: Expecting ',' delimiter at column 13"),
    b'{"text": "caf\xe9"}': ("bad_utf8", "byte 0xE9 at offset 27"),
    b"[1]": ("bad_json", "line 2 is a JSON list, but must be an object"),
    b"[" * 100_000: ("bad_json", "line 2 cannot be read as JSON: maximum recursion"),
    b'{"n": ' + b"9" * 5000 + b"}": ("bad_json", "line 2 cannot be read as JSON: Exceeds the limit"),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.jsonl"


def read(path: Path, **keys: object) -> list[Row | Dropped]:
    return list(jsonl.read(path, (), Reading(**keys)))  # type: ignore[arg-type]


def test_rows_come_with_their_line_and_size(path: Path) -> None:
    path.write_bytes('\ufeff{"text": "é\\ud800\\u0000\x00"}\r\n \n\n{"a": {"b": [1, null]}}'.encode())
    assert read(path) == [
        Row({"text": "é\ud800\x00\x00"}, f"{path.as_posix()}#1", 29),
        Row({"a": {"b": [1, None]}}, f"{path.as_posix()}#4", 23),
    ]


@pytest.mark.parametrize("line", list(BAD), ids=lambda line: line[:14].decode("latin-1"))
def test_a_bad_line_is_named_or_passed_over(path: Path, line: bytes) -> None:
    reason, message = BAD[line]
    path.write_bytes(b'{"text": "x"}\n' + line + b'\n{"text": "y"}\n')
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) in caught.value.message
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)
    first, dropped, last = read(path, on_bad_input="skip")
    assert isinstance(dropped, Dropped)
    assert (dropped.reason, dropped.bytes, dropped.documents) == (reason, len(line) + 1, 1)
    assert (dropped.origin, dropped.excerpt[:4]) == (f"{path.as_posix()}#2", line[:4].decode("latin-1"))
    assert (first.origin, last.origin) == (f"{path.as_posix()}#1", f"{path.as_posix()}#3")


def test_a_line_that_is_too_long_is_passed_over(path: Path) -> None:
    line = json.dumps({"text": "x" * 5000}).encode()
    path.write_bytes(b"{}\n" + line + b"\r\n{}\n" + line)
    assert [row.bytes for row in read(path, max_document_bytes=len(line))] == [3, len(line) + 2, 3, len(line)]
    found = read(path, max_document_bytes=len(line) - 1)
    assert found[1] == Dropped("too_long", len(line) + 2, 1, f"{path.as_posix()}#2", line[:300].decode())
    assert [row.origin.rpartition("#")[2] for row in found] == ["1", "2", "3", "4"]


def test_parts_are_the_whole(path: Path) -> None:
    random = Random(0)
    lines = [random.choice([json.dumps({"n": n, "é": "x" * random.randrange(40)}), "", "bad"]) for n in range(300)]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(lines).encode())
    reading = Reading(on_bad_input="skip")
    for part_bytes in (1, 100, 1000):
        parts = jsonl.parts(path, reading, part_bytes=part_bytes)
        assert len(parts) > 3
        assert [row for part in parts for row in jsonl.read(path, part.where, reading)] == read(
            path, on_bad_input="skip"
        )


def test_what_cannot_be_cut_is_one_part(path: Path) -> None:
    path.write_bytes(b"{}\n" * 50)
    assert len(jsonl.parts(path, Reading(spans_rows=True), part_bytes=10)) == 1
    path.write_bytes(gzip.compress(b"{}\n" * 50, 0))
    assert [part.where for part in jsonl.parts(path, Reading(), part_bytes=10)] == [()]
    assert len(read(path)) == 50


def test_other_encodings_read_the_same(path: Path) -> None:
    path.write_bytes('{"text": "é"}\n{"text": "ü"}\n'.encode("utf-16"))
    assert [row.values["text"] for row in read(path) if isinstance(row, Row)] == ["é", "ü"]


@pytest.mark.parametrize("row", [b'{"text": "a", "text": "b"}', b'{"messages": [{"role": "user", "role": "x"}]}'])
def test_a_key_given_twice_is_refused(path: Path, row: bytes) -> None:
    path.write_bytes(b'{"text": "c"}\n' + row)
    with pytest.raises(InputError, match="line 2 gives a key twice: `(text|role)`") as caught:
        read(path)
    assert "format=text" not in str(caught.value.hint)
    assert [type(item) for item in read(path, on_bad_input="skip")] == [Row, Dropped]


@pytest.mark.parametrize(
    "row",
    [
        b'{"text": "a", "meta": {"x": 1, "x": 2}}',
        b'{"text": "a", "x": 1, "x": 2}',
        b'{"messages": [{"role": "user", "content": "a", "meta": {"x": 1, "x": 2}}]}',
    ],
)
@pytest.mark.parametrize("kind", [json_format, jsonl])
def test_a_key_given_twice_where_no_adapter_reads_does_no_harm(path: Path, row: bytes, kind: ModuleType) -> None:
    path.write_bytes(row)
    (found,) = kind.read(path, (), Reading(columns=("text", "messages")))
    assert isinstance(found, Row)
    assert found.values == json.loads(row)


@pytest.mark.parametrize(
    ("data", "is_spread"),
    [
        ('{"id": 1,\n "text": "x"}', True),
        ('\ufeff\n {"id": 1, "list": [\r\n{"text": "x"}]}', True),
        ('{"text":\n "' + "x" * 99_999, True),
        ('{\n"text": "x"}\n{"text": "y"}', True),
        ('{"id": 1}\n{"id": 2,\n', False),
        ('{"id": 1,\n{"id": 2}', False),  # a line cut short
        ('{"id": "x\n{"id": "y"}', False),
        ('{"id": nope,\n"text": "x"}', False),
    ],
)
def test_an_object_over_several_lines_is_known(path: Path, data: str, is_spread: bool) -> None:
    assert json_format.spans_lines(data.encode()) == is_spread
    path.write_text(data, encoding="utf-8")
    assert format_of(path, asked="auto", encoding="auto", is_named=True) == ("json" if is_spread else "jsonl")


def test_the_hint_for_an_object_over_several_lines_is_to_read_json(path: Path) -> None:
    path.write_bytes(b'{"id": 1,\n "text": "x"}\n')
    with pytest.raises(InputError) as caught:
        read(path)
    assert "format=json" in str(caught.value.hint)
