"""Arrow tables as rows of Python values, whatever types their columns have."""

from __future__ import annotations

from typing import TypeVar

import pyarrow
from pyarrow import types

_Table = TypeVar("_Table", pyarrow.Table, pyarrow.RecordBatch)


def may_hold_text(kind: pyarrow.DataType) -> bool:
    """Whether a column of this type may hold text."""
    if types.is_dictionary(kind):
        return may_hold_text(kind.value_type)
    return any(check(kind) for check in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))


def plain(table: _Table) -> _Table:
    """Return `table` with numbers in place of times: Python's cannot hold all of Arrow's, and no reader needs them."""
    for index, field in enumerate(table.schema):
        kind = _plain(field.type)
        if kind != field.type:
            table = table.set_column(index, field.name, table.column(index).cast(kind))
    return table


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
    if types.is_list(kind) or types.is_large_list(kind):
        make = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return make(kind.value_field.with_type(_plain(kind.value_type)))
    if types.is_map(kind):
        return pyarrow.map_(_plain(kind.key_type), kind.item_field.with_type(_plain(kind.item_type)))
    return kind
