"""Kind `parquet`: columnar tables. Only the needed columns are read, one row group after another."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alm import shown
from alm.artifacts import as_text
from alm.corpus.document import Dropped, Part
from alm.corpus.formats import Reading, present, refuse_repeated, whole
from alm.corpus.formats._arrow import may_hold_text, plain
from alm.corpus.rows import Row, left_out
from alm.errors import InputError, quoted
from alm.files import chunks, compression, open_binary

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

SUFFIXES = frozenset({".parquet", ".pq"})
HAS_ROWS = True

_MAGIC = b"PAR1"
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 1000


def fits(head: bytes) -> bool:
    """Whether the file begins with the magic bytes of the format."""
    return head.startswith(_MAGIC)


def parts(path: Path, reading: Reading, *, part_bytes: int) -> list[Part]:
    """Return runs of row groups of about `part_bytes` compressed; `where` is the first group and the last."""
    if reading.spans_rows or compression(path) is not None:
        return whole(path)
    with _opened(path) as file:
        sizes = [_packed_bytes(file, group) for group in range(file.num_row_groups)]
    if sum(sizes) <= part_bytes:
        return whole(path)
    pieces: list[Part] = []
    first = size = 0
    for group, more in enumerate(sizes):
        if size and size + more > part_bytes:
            pieces.append(Part(as_text(path), size, (first, group - 1)))
            first, size = group, 0
        size += more
    return [*pieces, Part(as_text(path), size, (first, len(sizes) - 1))]


def read(path: Path, where: tuple[int, ...], reading: Reading) -> Iterator[Row | Dropped]:
    """Yield the rows of the groups. Origins are row numbers in the complete file, from 1."""
    with _opened(path) as file:
        groups = file.num_row_groups
        first, last = where or (0, groups - 1)
        row = 1 + sum(file.metadata.row_group(group).num_rows for group in range(first))
        refuse_repeated(file.schema_arrow.names, reading.columns, path=path)
        columns, others = _chosen(file.schema_arrow, reading.columns)
        for group in range(first, last + 1):
            yield from _group(file, group, row, columns, others, path=path, reading=reading)
            row += file.metadata.row_group(group).num_rows


def _chosen(schema: pyarrow.Schema, wanted: tuple[str, ...] | None) -> tuple[list[str] | None, dict[str, None]]:
    """Return the columns to read (None: all), and others to name without their values.

    If no wanted column exists, those with text are read and all are named, so that an error can propose one.
    """
    if wanted is None:
        return None, {}
    if there := present(wanted, schema.names):
        return there, {}
    return [field.name for field in schema if may_hold_text(field.type)], dict.fromkeys(schema.names)


def _group(
    file: ParquetFile,
    group: int,
    first: int,
    columns: list[str] | None,
    others: dict[str, None],
    *,
    path: Path,
    reading: Reading,
) -> Iterator[Row | Dropped]:
    """Yield the rows of one group. After damage, the rest of the group is left out together."""
    done = 0
    name = as_text(path)
    try:
        with _damage_explained(path):
            size = _batch_rows(file, group, columns)
            for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=columns, use_threads=False):
                for values in _rows(batch):
                    origin = f"{name}#{first + done}"
                    yield (
                        Row(others | values if others else values, origin)
                        if isinstance(values, dict)
                        else _bad(values, origin, path, reading)
                    )
                    done += 1
    except InputError as error:
        rows = file.metadata.row_group(group).num_rows - done
        lost = _packed_bytes(file, group) * rows // max(1, rows + done)
        dropped = Dropped("damaged", lost, documents=rows, origin=f"{name}#{first + done}")
        yield left_out(dropped, error, on_bad_input=reading.on_bad_input)


def _batch_rows(file: ParquetFile, group: int, columns: list[str] | None) -> int:
    """Return the number of rows to read at once, so that they take about `_BATCH_BYTES`."""
    metadata = file.metadata.row_group(group)
    wanted = None if columns is None else {name.partition(".")[0] for name in columns}
    size = sum(
        column.total_uncompressed_size
        for column in map(metadata.column, range(metadata.num_columns))
        if wanted is None or column.path_in_schema.partition(".")[0] in wanted
    )
    rows: int = _BATCH_BYTES * metadata.num_rows // max(1, size)
    return max(1, min(_BATCH_ROWS, rows))


def _rows(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """Yield the rows of `batch`, or the error for a row that is not UTF-8."""
    batch = plain(batch)
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError as error:
                yield error
    else:
        yield from rows


def _bad(error: UnicodeDecodeError, origin: str, path: Path, reading: Reading) -> Dropped:
    shown = error.object[:300].decode("utf-8", "replace")
    dropped = Dropped("bad_utf8", len(error.object), documents=1, origin=origin, excerpt=shown)
    said = InputError(f"`{origin}` is not UTF-8: byte 0x{error.object[error.start]:02X} at offset {error.start:,}")
    return left_out(dropped, said, on_bad_input=reading.on_bad_input)


def _packed_bytes(file: ParquetFile, group: int) -> int:
    metadata = file.metadata.row_group(group)
    return sum(metadata.column(index).total_compressed_size for index in range(metadata.num_columns))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    """Open the table. A compressed file is unpacked to disk first, because Parquet is not read from front to back."""
    from pyarrow.parquet import ParquetFile

    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_binary(path))
        if compression(path) is not None:
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            for chunk in chunks(file):
                unpacked.write(chunk)
            file = unpacked
        with _damage_explained(path):
            # With a buffer, a column of a group is read page by page rather than at once.
            table = stack.enter_context(ParquetFile(file, buffer_size=1 << 20))
        yield table


@contextlib.contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:
        said = shown.reason(error)
        raise InputError(
            f"`{path}` is damaged or not a Parquet file: {said}",
            hint=f"compare its size with that of the original: `ls -l {quoted(path)}`",
        ) from error
