"""JSON and arrays from files that anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import for_each

from alm.artifacts import FileRecord
from alm.errors import InputError
from alm.files import array, parse, parse_json, parse_row, read_json

DEEP = "[" * 65 + "]" * 65


@for_each(
    "text, reason",
    [
        ("9" * 4000, "more than 64 bits"),
        (f'{{"a": -{"9" * 5000}}}', "more than 64 bits"),
        (str(1 << 64), "more than 64 bits"),
        ("1e999", "is too large"),
        ("[1.5E+400]", "is too large"),
        ("NaN", "NaN is not a JSON value"),
        ('{"a": -Infinity}', "-Infinity is not a JSON value"),
        (DEEP, "nested deeper than 64 levels"),
        ('{"a":' * 100_000, "nested deeper than 64 levels"),
        ('{"a": 1, "b": 2, "a": 3}', "the key `a` is given twice"),
        ('"\\ud800"', "half of a surrogate pair"),
        (b'"caf\xe9"', "not UTF-8: byte 0xE9 at offset 4"),
        (b"\xff\xfe[\x00]\x00", "not UTF-8"),
        ("[" + "0," * (1 << 24) + "0]", "more than 16,777,216 values"),
        ("{} {}", "Extra data"),
    ],
)
def test_what_is_not_sane_json_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


@for_each(
    "value",
    [
        (1 << 63) - 1,
        -(1 << 63),
        (1 << 64) - 1,
        1e308,
        0.00012345678901234567,
        {"sha256": "1e999" * 12, "a": ["9" * 64]},
        json.loads("[" * 64 + "]" * 64),
        "\U0001f98a \\ud800",
        None,
    ],
)
@for_each("is_ascii", [True, False])
def test_sane_json_is_what_the_standard_library_makes_of_it(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    assert parse_json(text) == parse_json(text.encode()) == value


def test_what_may_be_allowed_is() -> None:
    assert parse_json("[1, Infinity]", allow_nan=True) == [1, float("inf")]
    assert parse_json('"\\ud800"', allow_surrogates=True) == "\ud800"
    assert parse_json('{"a": 1, "a": 2}', unique_keys=False) == {"a": 2}


def test_metadata_reaches_the_limit_of_bytes_first() -> None:
    record = FileRecord(path="a", bytes=0, sha256="0" * 64).model_dump_json() + ","
    assert sum(map(record.count, "[{,")) * (parse.MOST_BYTES // len(record)) < parse.MOST_VALUES


def test_a_file_of_ours_may_hold_more_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parse, "MOST_VALUES", 4)
    path = tmp_path / "plan.json"
    path.write_text("[1, 2, 3, 4, 5]")
    with pytest.raises(InputError, match="more than 4 values"):
        read_json(path)
    assert read_json(path, most_values=5) == [1, 2, 3, 4, 5]


@for_each(
    "text",
    [
        '{"text": "a", "id": 184467440737095516160}',
        '{"text": "a", "id": 1e999}',
        '{"text": "a", "id": NaN}',
        '{"text": "a\tb\u0000"}',
        '{"text": "\\ud800"}',
        '{"text": "a", "text": "b"}',
        '{"text": ' + "[" * 200 + "]" * 200 + "}",
    ],
)
def test_a_row_is_read_as_the_standard_library_does(text: str) -> None:
    found = parse_row(text)
    assert repr(parse_row(text.encode())) == repr(found) == repr(json.loads(text, strict=False))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("9" * 5000, "limit"),
        ("[" * 100_000, "nested too deep"),
        (b'"caf\xe9"', "not UTF-8"),
        ("{", "Expecting"),
    ],
)
def test_what_is_not_a_row_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_row(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for make, reason in (
        (lambda: None, "does not exist"),
        (lambda: path.write_text("{"), "is not JSON"),
        (lambda: path.write_text("[" + " " * 100 + "]"), "more than 64 bytes"),
    ):
        make()
        with pytest.raises(InputError, match=reason) as caught:
            read_json(path, most=64)
        assert str(path) in caught.value.message
    with pytest.raises(InputError, match="is a folder"):
        read_json(tmp_path)
    with pytest.raises(InputError, match="cannot be the name of a file"):
        read_json(Path("a\0b"))
    with pytest.raises(InputError, match="cannot be read"):
        read_json(path / "below-a-file")
    with pytest.raises(InputError, match="is not a file"):
        read_json(Path("/dev/zero"))


@pytest.mark.parametrize("mapped", [False, True])
def test_arrays_come_back(tmp_path: Path, mapped: bool) -> None:
    pairs = np.zeros(3, dtype=[("document", "<u8"), ("key", "<u8")])
    for given in (np.arange(5), np.zeros((3, 4), np.float32), np.array(3), np.zeros((0, 2), np.uint8), pairs):
        np.save(tmp_path / "a.npy", given)
        found = array(tmp_path / "a.npy", dtype=given.dtype, mapped=mapped)
        assert found.shape == given.shape
        assert (found == given).all()


def test_a_damaged_array_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(20))
    whole = path.read_bytes()
    for data in (
        b"",
        whole[:40],
        whole[:-1],
        whole + b"x",
        whole.replace(b"(20,)", b"(99999999999999,)"),
        whole.replace(b"'<i8'", b"'|O'"),
        whole.replace(b"False", b"True"),
        whole.replace(b"(20,)", b"(" * 5),
        whole.replace(b"\x93NUMPY\x01", b"\x93NUMPY\x09"),
        whole.replace(b"'shape'", b"'\xff\xff'"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"a\.npy"):
            array(path, dtype=np.int64)
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="holds"):
        array(path, dtype=np.int32)
    with pytest.raises(ValueError, match="dimensions"):
        array(path, dtype=np.int64, dimensions=2)
