"""Arrow tables as rows of Python values, whatever types their columns have."""

from __future__ import annotations

from typing import TypeVar

import pyarrow
from pyarrow import compute, types

_Table = TypeVar("_Table", pyarrow.Table, pyarrow.RecordBatch)

_LISTS = (
    (types.is_list, pyarrow.list_),
    (types.is_large_list, pyarrow.large_list),
    (types.is_list_view, pyarrow.list_view),
    (types.is_large_list_view, pyarrow.large_list_view),
)


def may_hold_text(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type may hold text."""
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return may_hold_text(kind.value_type)
    return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))


def plain(table: _Table) -> _Table:
    """Return `table` with numbers in place of times: Python's cannot hold all of Arrow's, and no reader needs them."""
    for index, field in enumerate(table.schema):
        kind = _plain(field.type)
        if kind != field.type:
            column = table.column(index)
            if isinstance(column, pyarrow.ChunkedArray):
                made = pyarrow.chunked_array([_cast(chunk, kind) for chunk in column.chunks], kind)
            else:
                made = _cast(column, kind)
            table = table.set_column(index, field.name, made)
    return table


def _cast(array: pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    """Cast to what `_plain` returns. Arrow (26) itself casts list views to wrong values, and no run-end encoding."""
    if array.type == kind:
        return array
    if types.is_run_end_encoded(array.type):
        return _cast(compute.run_end_decode(array), kind)
    nulls = array.is_null()
    if types.is_struct(kind):
        fields = [_cast(array.field(index), kind.field(index).type) for index in range(kind.num_fields)]
        return pyarrow.StructArray.from_arrays(fields, fields=list(kind), mask=nulls)
    if types.is_list(kind) or types.is_large_list(kind):
        return array.from_arrays(array.offsets, _cast(array.values, kind.value_type), type=kind, mask=nulls)
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        values = _cast(array.values, kind.value_type)
        return array.from_arrays(array.offsets, array.sizes, values, type=kind, mask=nulls)
    return (array.storage if isinstance(array, pyarrow.ExtensionArray) else array).cast(kind)


def _plain(kind: pyarrow.DataType) -> pyarrow.DataType:
    if types.is_date32(kind) or types.is_time32(kind):
        return pyarrow.int32()
    if types.is_temporal(kind) and not types.is_interval(kind):
        return pyarrow.int64()
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_plain(field.type)) for field in kind])
    if types.is_dictionary(kind):
        return pyarrow.dictionary(kind.index_type, _plain(kind.value_type), kind.ordered)
    if types.is_fixed_size_list(kind):
        return pyarrow.list_(kind.value_field.with_type(_plain(kind.value_type)), kind.list_size)
    for is_one, make in _LISTS:
        if is_one(kind):
            return make(kind.value_field.with_type(_plain(kind.value_type)))
    if types.is_run_end_encoded(kind):
        return _plain(kind.value_type)
    if isinstance(kind, pyarrow.BaseExtensionType) and _plain(kind.storage_type) != kind.storage_type:
        return _plain(kind.storage_type)
    if types.is_map(kind):
        return pyarrow.map_(_plain(kind.key_type), kind.item_field.with_type(_plain(kind.item_type)))
    return kind
