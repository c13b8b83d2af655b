"""Kind `csv`: what the standard library writes is read back, and a broken record costs its first line alone."""

from __future__ import annotations

import csv as standard
import io
from pathlib import Path
from random import Random

import pytest

from alm.corpus.document import Dropped
from alm.corpus.formats import Reading, csv
from alm.corpus.rows import Row
from alm.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.csv"


def read(path: Path, data: bytes, **keys: object) -> list[object]:
    path.write_bytes(data)
    found = csv.read(path, (), Reading(**{"on_bad_input": "skip", **keys}))  # type: ignore[arg-type]
    return [row.values if isinstance(row, Row) else row.reason for row in found]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_what_the_standard_library_writes_is_read_back(path: Path, delimiter: str) -> None:
    random = Random(0)
    names = ["text", "other, one", "n"]
    rows = [{name: "".join(random.choices('a",;\t|\n\r é', k=6)) for name in names} for _ in range(100)]
    file = io.StringIO()
    writer = standard.DictWriter(file, names, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    assert read(path, b"\xef\xbb\xbf" + file.getvalue().encode()) == rows
    assert read(path.with_suffix(".tsv"), file.getvalue().encode()) == rows or delimiter != "\t"


def test_rows_are_numbered_and_may_be_short_and_fields_long(path: Path) -> None:
    limit = standard.field_size_limit()
    long = "x" * (limit + 1)
    path.write_text(f'a,b\n\n1\n"x\ny",2,\n{long},3\n')
    assert list(csv.read(path, (), Reading())) == [
        Row({"a": "1", "b": None}, f"{path.as_posix()}#1", 2),
        Row({"a": "x\ny", "b": "2"}, f"{path.as_posix()}#2", 9),
        Row({"a": long, "b": "3"}, f"{path.as_posix()}#3", len(long) + 3),
    ]
    assert standard.field_size_limit() == limit
    assert read(path, b"") == read(path, b"a,b\n") == []


@pytest.mark.parametrize(
    ("lines", "expected", "problem"),
    [
        (b'"x"y,2\n3,4\n', ["bad_csv", {"a": "3", "b": "4"}], "line 2 cannot be read as CSV: ',' expected after '\"'"),
        (
            b'"x,2\n3,4\n',
            ["bad_csv", {"a": "3", "b": "4"}],
            "line 2 cannot be read as CSV: a quote is not closed",
        ),
        (b"1,2,3\n3,4\n", ["bad_csv", {"a": "3", "b": "4"}], "line 2 cannot be read as CSV: it has 3 fields"),
        (b"\xe9,2\n3,4\n", ["bad_utf8", {"a": "3", "b": "4"}], "byte 0xE9 at offset 4"),
        (b'"x\n\xe9",2\n3,4\n', ["bad_utf8", "bad_utf8", {"a": "3", "b": "4"}], "byte 0xE9 at offset 7"),
        (b'"x\ny",2\n"z"w,1\n', [{"a": "x\ny", "b": "2"}, "bad_csv"], "line 4 cannot be read as CSV"),
        (b'1,2\n"x,2\n3,4', [{"a": "1", "b": "2"}, "bad_csv", {"a": "3", "b": "4"}], "line 3 cannot be read as CSV"),
    ],
)
def test_a_broken_record_is_named_or_costs_one_line(
    path: Path, lines: bytes, expected: list[object], problem: str
) -> None:
    assert read(path, b"a,b\n" + lines) == expected
    with pytest.raises(InputError, match=problem) as caught:
        read(path, b"a,b\n" + lines, on_bad_input="stop")
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)


def test_a_quote_that_never_closes_and_a_long_line_are_bounded(path: Path) -> None:
    path.write_bytes(b'a\n1\n"2\n' + b"3\n" * 50 + b"x" * 200 + b"\n4\n")
    found = list(csv.read(path, (), Reading(max_document_bytes=60, on_bad_input="skip")))
    assert [row.values["a"] for row in found if isinstance(row, Row)] == ["1", *["3"] * 50, "4"]
    assert [(row.reason, row.bytes, row.origin) for row in found if isinstance(row, Dropped)] == [
        ("bad_csv", 3, f"{path.as_posix()}#2"),
        ("too_long", 201, f"{path.as_posix()}#53"),
    ]


def test_a_file_without_a_line_of_names_is_told(path: Path) -> None:
    with pytest.raises(InputError, match="does not begin with a header line: a quote is not"):
        read(path, b'"a,b\n1,2\n')
    with pytest.raises(InputError, match="byte 0xFF at offset 1"):
        read(path, b"a\xff\n1\n")


def test_columns_of_one_name_are_refused_if_they_are_needed(path: Path) -> None:
    data = b"text,,,text\na,,,b\n"
    with pytest.raises(InputError, match="has 2 columns named `text`: 1, 4"):
        read(path, data, columns=("text",))
    assert read(path, b"text,,\na,b,c\n", columns=("text",)) == [{"text": "a", "": "c"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", ":"])
def test_the_delimiter_line_of_excel_and_blank_lines_come_before_the_header(path: Path, delimiter: str) -> None:
    table = delimiter.join(["text", "n"]) + "\r\n" + delimiter.join(['"a, b; c"', "1"]) + "\r\n"
    expected = [{"text": "a, b; c", "n": "1"}]
    for before in (
        f"sep={delimiter}\r\n",
        f"\ufeffSEP={delimiter}\n",
        f"\n \r\nsep={delimiter}\n\n",
        *(f'"sep={delimiter}"{padding}\n{padding}\n' for padding in ("", ";", ",,")),
        f"sep={delimiter};;\n;;\r\n",
        *(["sep=\\t\n"] if delimiter == "\t" else []),
    ):
        assert read(path, (before + table).encode()) == expected
    if delimiter != ":":
        assert read(path, ("\r\n  \n" + delimiter * 2 + "\n" + table).encode()) == expected


def test_lines_before_the_header_count(path: Path) -> None:
    with pytest.raises(InputError, match=r"line 5 cannot be read as CSV: it has 3 fields"):
        read(path, b"\nsep=;\n\ntext;n\na;1;x\n", on_bad_input="stop")
