"""Kind `parquet`: rows are exact, parts are the whole, and of a damaged file what can be read is read."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from cases import for_each

from alm.corpus.document import Dropped
from alm.corpus.formats import Reading, parquet
from alm.corpus.formats._arrow import plain
from alm.corpus.rows import Row
from alm.errors import InputError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.parquet"


def write(path: Path, table: dict[str, Any], *, rows: int = 100, **keys: Any) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(table), path, row_group_size=rows, **keys)


def read(path: Path, **keys: Any) -> list[Row | Dropped]:
    return list(parquet.read(path, (), Reading(**keys)))


def test_rows_are_exact_and_only_what_is_needed_is_read(path: Path) -> None:
    texts = [None, *(f"é{n}\x00" for n in range(249))]
    write(path, {"text": texts, "meta": [{"a": n} for n in range(250)], "n": list(range(250))})
    rows = read(path, columns=("text", "gone"))
    assert rows == [Row({"text": text}, f"{path.as_posix()}#{n}") for n, text in enumerate(texts, 1)]
    assert [row.values for row in read(path, columns=("meta",))[:2]] == [{"meta": {"a": 0}}, {"meta": {"a": 1}}]
    assert set(read(path)[0].values) == set(read(path, columns=("gone",))[0].values) == {"text", "meta", "n"}


def test_parts_are_whole_groups_and_together_the_whole(path: Path) -> None:
    write(path, {"text": [f"{n} " * n for n in range(950)]}, rows=100)
    parts = parquet.parts(path, Reading(), part_bytes=3000)
    assert len(parts) > 3
    assert [part.where[0] for part in parts[1:]] == [part.where[1] + 1 for part in parts[:-1]]
    assert 0 < sum(part.bytes for part in parts) < path.stat().st_size
    assert [row for part in parts for row in parquet.read(path, part.where, Reading())] == read(path)
    assert [part.where for part in parquet.parts(path, Reading(), part_bytes=1)] == [(n, n) for n in range(10)]
    assert [part.where for part in parquet.parts(path, Reading(), part_bytes=1 << 20)] == [()]
    assert [part.where for part in parquet.parts(path, Reading(spans_rows=True), part_bytes=300)] == [()]


def test_a_packed_table_is_unpacked_first(path: Path) -> None:
    write(path, {"text": ["a", "b"]})
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert [row.values for row in read(path)] == [{"text": "a"}, {"text": "b"}]
    assert [part.where for part in parquet.parts(path, Reading(), part_bytes=1)] == [()]


def test_long_texts_are_read_a_few_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow.parquet import ParquetFile

    asked: list[int] = []
    real = ParquetFile.iter_batches
    monkeypatch.setattr(
        ParquetFile, "iter_batches", lambda self, **keys: (asked.append(keys["batch_size"]), real(self, **keys))[1]
    )
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 10_000)
    write(path, {"text": ["x" * 1000 + str(n) for n in range(40)], "n": list(range(40))}, compression="none")
    read(path, columns=("text",))
    read(path, columns=("n",))
    assert 5 <= asked[0] <= 10
    assert 20 <= asked[1] <= 1000


def test_a_file_cut_short_is_told(path: Path) -> None:
    write(path, {"text": ["x" * 100] * 100})
    for data in (path.read_bytes()[:-10], b"", b"no table"):
        path.write_bytes(data)
        with pytest.raises(InputError, match="is damaged or not a Parquet file"):
            read(path)


def test_a_damaged_group_costs_its_rows_alone(path: Path) -> None:
    write(path, {"text": [f"{n:0100}" for n in range(300)]}, rows=100, compression="gzip", use_dictionary=False)
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        chunk = file.metadata.row_group(1).column(0)
        at = chunk.data_page_offset + chunk.total_compressed_size // 2
        size = chunk.total_compressed_size
    data = bytearray(path.read_bytes())
    data[at : at + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged") as caught:
        read(path)
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)
    rows = read(path, on_bad_input="skip")
    assert [row for row in rows if isinstance(row, Dropped)] == [
        Dropped("damaged", size, documents=100, origin=f"{path.as_posix()}#101")
    ]
    assert [row.origin.rpartition("#")[2] for row in rows if isinstance(row, Row)] == [
        str(n) for n in (*range(1, 101), *range(201, 301))
    ]


def test_a_text_that_is_not_utf8_costs_its_row_alone(path: Path) -> None:
    import pyarrow

    binary = pyarrow.array([b"a", b"caf\xe9", b"b"])
    text = pyarrow.Array.from_buffers(pyarrow.string(), 3, binary.buffers())
    write(path, {"text": text})
    with pytest.raises(InputError, match="a.parquet#2` is not UTF-8: byte 0xE9 at offset 3"):
        read(path)
    first, dropped, last = read(path, on_bad_input="skip")
    assert dropped == Dropped("bad_utf8", 4, 1, f"{path.as_posix()}#2", "caf\ufffd")
    assert (first, last) == (Row({"text": "a"}, f"{path.as_posix()}#1"), Row({"text": "b"}, f"{path.as_posix()}#3"))


@pytest.mark.parametrize("columns", [("text",), ("gone",), ("nested",), ("ms", "us", "ns", "lasts", "day"), None])
def test_times_beyond_python_are_read_as_numbers(path: Path, columns: tuple[str, ...] | None) -> None:
    import pyarrow

    late = [1 << 62, None]
    made = {"text": ["a", "b"], "nested": pyarrow.array([[{"at": 1 << 62}], []], kind_of_nested())}
    times = {unit: pyarrow.array(late, pyarrow.timestamp(unit, "Nowhere")) for unit in ("ms", "us", "ns")}
    lasts = pyarrow.array(late, pyarrow.duration("ns"))
    write(path, {**made, **times, "lasts": lasts, "day": pyarrow.array([2**31 - 1, 0], pyarrow.date32())})
    first = read(path, columns=columns)[0]
    assert isinstance(first, Row)
    expected = {"text": "a", "nested": [{"at": 1 << 62}], "lasts": 1 << 62, "day": 2**31 - 1}
    expected |= dict.fromkeys(("ms", "us", "ns"), 1 << 62)
    if columns == ("gone",):  # named, so that an error can list them, and not read
        expected |= dict.fromkeys(expected.keys() - {"text"})
        assert first.values == expected
    else:
        assert first.values == {name: expected[name] for name in columns or expected}


@for_each("kind", ["dictionary", "fixed", "view", "large view", "ends", "ends in list", "tensor"])
def test_times_beyond_python_in_any_list_or_dictionary_are_numbers(kind: str) -> None:
    import pyarrow

    late = pyarrow.array([1 << 62, None, 3], pyarrow.timestamp("ms"))
    ends = pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([1, 2, 3]), late)
    fixed = pyarrow.FixedSizeListArray.from_arrays(late, 1)
    at, sizes = pyarrow.array([2, 0, 1], pyarrow.int32()), pyarrow.array([1, 2, 0], pyarrow.int32())
    view, large = pyarrow.ListViewArray, pyarrow.LargeListViewArray
    made = {
        "dictionary": lambda: pyarrow.DictionaryArray.from_arrays(pyarrow.array([0, 1, 2]), late),
        "fixed": lambda: fixed,
        "view": lambda: view.from_arrays(at, sizes, late, mask=pyarrow.array([False, False, True])),
        "large view": lambda: large.from_arrays(at.cast("int64"), sizes.cast("int64"), late),
        "ends": lambda: ends,
        "ends in list": lambda: pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 3, 3], pyarrow.int32()), ends),
        "tensor": lambda: pyarrow.ExtensionArray.from_storage(pyarrow.fixed_shape_tensor(late.type, [1]), fixed),
    }[kind]()
    expected: dict[str, list[Any]] = {
        "fixed": [[1 << 62], [None], [3]],
        "tensor": [[1 << 62], [None], [3]],
        "view": [[3], [1 << 62, None], None],
        "large view": [[3], [1 << 62, None], []],
        "ends in list": [[1 << 62], [None, 3], []],
    }
    values = expected.get(kind, [1 << 62, None, 3])
    assert plain(pyarrow.table({"at": made})).to_pylist() == [{"at": value} for value in values]
    nested = pyarrow.StructArray.from_arrays([made], ["at"], mask=pyarrow.array([False, True, False]))
    rows = [{"inner": {"at": values[0]}}, {"inner": None}, {"inner": {"at": values[2]}}]
    assert plain(pyarrow.record_batch({"inner": nested})).to_pylist() == rows


def test_a_text_in_a_list_view_is_read_as_it_is(path: Path) -> None:
    import pyarrow

    at, sizes = pyarrow.array([2, 0], pyarrow.int32()), pyarrow.array([1, 2], pyarrow.int32())
    talks = pyarrow.ListViewArray.from_arrays(at, sizes, pyarrow.array(["a", "b", "c"]))
    write(path, {"messages": talks})
    assert [row.values["messages"] for row in read(path) if isinstance(row, Row)] == [["c"], ["a", "b"]]


def kind_of_nested() -> Any:
    import pyarrow

    return pyarrow.list_(pyarrow.struct([("at", pyarrow.timestamp("ms"))]))


def test_columns_of_one_name_are_refused_if_they_are_needed(path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_arrays([pyarrow.array([n]) for n in "abc"], names=["x", "text", "x"]), path)
    assert [row.values for row in read(path, columns=("text",))] == [{"text": "b"}]
    with pytest.raises(InputError, match="has 2 columns named `x`: 1, 3"):
        read(path, columns=("x",))
