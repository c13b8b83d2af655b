"""Kind `json`: the same values as the standard library gives, in pieces of any size; what is bad is passed over."""

from __future__ import annotations

import json as standard
from pathlib import Path
from random import Random
from typing import Any

import pytest

from alm.corpus.document import Dropped
from alm.corpus.formats import Reading, _json_values, json
from alm.corpus.rows import Row
from alm.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.json"


def read(path: Path, data: bytes | str, **keys: object) -> list[Any]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    found = json.read(path, (), Reading(**{"on_bad_input": "skip", **keys}))  # type: ignore[arg-type]
    return [row.values if isinstance(row, Row) else row.reason for row in found]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
def test_arrays_objects_and_objects_in_a_row_are_read_whatever_the_pieces(
    path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(_json_values, "_CHUNK_BYTES", chunk)
    random = Random(0)
    leaves = [1, -2.5e-7, 12345678901234567890, True, None, "", 'q"\\,]}{[', "é\n😀\ud83d", [], {}, [{"a": [1]}]]
    rows = [{"n": n, "v": random.choices(leaves, k=random.randrange(5))} for n in range(40)]
    for values in (rows, []):
        assert read(path, standard.dumps(values)) == values
        assert read(path, b"\xef\xbb\xbf " + standard.dumps(values, indent=2).encode() + b"\n") == values
    assert read(path, "\n".join(map(standard.dumps, rows))) == rows
    assert read(path, standard.dumps(rows[7], indent=1)) == rows[7:8]
    assert read(path, standard.dumps([{"é": "ü😀"}], ensure_ascii=False)) == [{"é": "ü😀"}]
    assert read(path, " \n") == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('[{"a": 1}, {"a": nope, "b": [1, {}]}, {"a": 2}]', [{"a": 1}, "bad_json", {"a": 2}]),
        ('[{"a": 1}, [2], -31.5e1, {"a": 4}]', [{"a": 1}, "bad_json", "bad_json", {"a": 4}]),
        ('[{"a": 1}, {"a": "cut', [{"a": 1}, "bad_json"]),
        ('[{"a": 1},', [{"a": 1}, "bad_json"]),
        ('[{"a": 1} {"a": 2}]', [{"a": 1}, "bad_json"]),
        ('[{"a": 1}] more', [{"a": 1}, "bad_json"]),
        ('[{"a": 1},]', [{"a": 1}]),
        ('{"a": 1} {"a": ', [{"a": 1}, "bad_json"]),
        (b'[{"a": "\xff"}, {"a": "\xc3\xa9"}]', ["bad_utf8", {"a": "é"}]),
        ("[" * 100_000, ["bad_json"]),
    ],
)
def test_what_is_bad_is_passed_over(
    path: Path, monkeypatch: pytest.MonkeyPatch, data: str | bytes, expected: list[Any]
) -> None:
    assert read(path, data) == expected
    monkeypatch.setattr(_json_values, "_CHUNK_BYTES", 1)
    if len(data) < 1000:
        assert read(path, data) == expected


def test_an_error_names_the_row_and_the_character(path: Path) -> None:
    with pytest.raises(InputError, match=r"a.json` row 2 is not JSON: Expecting value at character 18") as caught:
        read(path, '[{"é": 1},\n {"a": nope}]', on_bad_input="stop")
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)
    with pytest.raises(InputError, match="row 1 is a JSON int, but must be an object"):
        read(path, "[1]", on_bad_input="stop")


@pytest.mark.parametrize("chunk", [1, 5, 64, 1 << 20])
def test_a_value_that_is_too_long_is_passed_over_in_pieces(
    path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(_json_values, "_CHUNK_BYTES", chunk)
    long = standard.dumps({"t": '\\"],}é' * 100, "u": [[{}]]})
    texts = [f'[{{"a": 1}}, {long}, {{"b": 2}}]', f'{{"a": 1}}{long}{{"b": 2}}']
    for data in texts:
        path.write_text(data)
        rows = list(json.read(path, (), Reading(max_document_bytes=400)))
        assert [row.values for row in rows if isinstance(row, Row)] == [{"a": 1}, {"b": 2}]
        assert rows[1] == Dropped("too_long", len(long), 1, f"{path.as_posix()}#2", long[:300])
        assert rows[2].origin == f"{path.as_posix()}#3"
        assert len(list(json.read(path, (), Reading(max_document_bytes=len(long))))) == 3
