"""Reads a checkpoint's `data.pkl` without creating objects: plain values, and descriptions of tensors.

`torch.save` writes a small part of pickle's language, and only that part is read here. Nothing is imported or called,
memory use is bounded by the bytes of the file, and every loop ends, whoever wrote the file.
"""

from __future__ import annotations

import enum
import math
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

_PROTOCOL = 2
_MOST_STEPS = 3_000_000  # 1,000 layers with the moments of AdamW need 1.7 million
_MOST_DIMENSIONS = 8
_LONGEST_INT = 8  # bytes
_LONGEST_SHARED = 4  # parts of a tuple that is written once and referred to again, such as the betas of an optimizer
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
}


class UnreadableError(Exception):
    """Raised when a file is not a checkpoint; its text is the end of a sentence."""


class _Call(enum.Enum):
    """The functions that `torch.save` names."""

    TENSOR = "torch._utils _rebuild_tensor_v2"
    ORDERED_DICT = "collections OrderedDict"


@dataclass(frozen=True)
class _Storage:
    """Numbers of one type in a member of the zip file."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, repr=False)
class StoredTensor:
    """A tensor that is not read yet: it starts `offset` numbers into the member `key`, in C order."""

    key: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]

    def __repr__(self) -> str:
        return f"a tensor {str(self.dtype).removeprefix('torch.')} {list(self.shape)}"

    @property
    def numel(self) -> int:
        """Count of its numbers."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of its numbers in bytes."""
        return self.numel * self.dtype.itemsize


_SHARED = (str, int, float, type(None), torch.dtype, _Call, _Storage, StoredTensor)


def parse(data: bytes, members: Mapping[str, int]) -> Any:  # Any: dictionaries, lists, tuples, numbers, text, tensors
    """Return the value in `data`. `members` has the bytes of each storage by its key.

    Raises `UnreadableError` for anything but plain values, and tensors in C order whose numbers are all present. Each
    list and dictionary is in one place only, so the value is a tree with at most four times as many parts as `data`
    has bytes.
    """
    machine = _Machine(data, members)
    try:
        return machine.run()
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise UnreadableError(f"its `data.pkl` is damaged at byte {machine.place:,}") from error


class _Machine:
    """Pickle's stack machine, for the part of its language that `torch.save` writes."""

    def __init__(self, data: bytes, members: Mapping[str, int]) -> None:
        self._data = data
        self._members = members
        self.place = 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        push = self._stack.append
        byte = self._byte
        short, whole, signed, real = (partial(self._number, struct.Struct(form)) for form in ("<H", "<I", "<i", ">d"))
        self._actions: dict[int, Callable[[], object]] = {
            code[0]: action
            for code, action in (
                (pickle.PROTO, self._check_protocol),
                (pickle.NONE, partial(push, None)),
                (pickle.NEWTRUE, partial(push, True)),
                (pickle.NEWFALSE, partial(push, False)),
                (pickle.BININT1, lambda: push(byte())),
                (pickle.BININT2, lambda: push(short())),
                (pickle.BININT, lambda: push(signed())),
                (pickle.BINFLOAT, lambda: push(real())),
                (pickle.LONG1, self._push_long),
                (pickle.BINUNICODE, lambda: push(str(self._bytes(whole()), "utf-8"))),
                (pickle.EMPTY_TUPLE, lambda: push(())),
                (pickle.EMPTY_LIST, lambda: push([])),
                (pickle.EMPTY_DICT, lambda: push({})),
                (pickle.MARK, lambda: self._marks.append(len(self._stack))),
                (pickle.TUPLE1, lambda: push(tuple(self._popped(1)))),
                (pickle.TUPLE2, lambda: push(tuple(self._popped(2)))),
                (pickle.TUPLE3, lambda: push(tuple(self._popped(3)))),
                (pickle.TUPLE, lambda: push(tuple(self._marked()))),
                (pickle.APPEND, lambda: self._extend(self._popped(1))),
                (pickle.APPENDS, lambda: self._extend(self._marked())),
                (pickle.SETITEM, lambda: self._set(self._popped(2))),
                (pickle.SETITEMS, lambda: self._set(self._marked())),
                (pickle.BINPUT, lambda: self._keep(byte())),
                (pickle.LONG_BINPUT, lambda: self._keep(whole())),
                (pickle.BINGET, lambda: self._push_kept(byte())),
                (pickle.LONG_BINGET, lambda: self._push_kept(whole())),
                (pickle.GLOBAL, self._push_global),
                (pickle.BINPERSID, lambda: push(self._storage(self._stack.pop()))),
                (pickle.REDUCE, lambda: push(self._called(*self._popped(2)))),
            )
        }

    def run(self) -> Any:  # Any: as `parse`
        """Return the value on the stack at the end."""
        actions, data = self._actions, self._data
        for _ in range(_MOST_STEPS):
            code = data[self.place]
            self.place += 1
            if code == pickle.STOP[0]:
                return self._stack.pop()
            if code not in actions:
                raise UnreadableError(
                    f"its `data.pkl` holds more than plain values and tensors (`{chr(code)!a}` at byte {self.place:,})"
                )
            actions[code]()
        raise UnreadableError(f"its `data.pkl` has more than {_MOST_STEPS:,} parts")

    def _bytes(self, size: int) -> bytes:
        data = self._data[self.place : self.place + size]
        if len(data) < size:
            raise UnreadableError("its `data.pkl` ends too early")
        self.place += size
        return data

    def _number(self, form: struct.Struct) -> Any:  # Any: int or float
        (value,) = form.unpack_from(self._data, self.place)
        self.place += form.size
        return value

    def _byte(self) -> int:
        value = self._data[self.place]
        self.place += 1
        return value

    def _popped(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _check_protocol(self) -> None:
        protocol = self._byte()
        if protocol != _PROTOCOL:
            raise UnreadableError(f"its `data.pkl` uses pickle protocol {protocol}, but `torch.save` writes 2")

    def _push_long(self) -> None:
        size = self._byte()
        if size > _LONGEST_INT:
            raise UnreadableError(f"it holds an integer of {size} bytes")
        self._stack.append(int.from_bytes(self._bytes(size), "little", signed=True))

    def _extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise UnreadableError("its `data.pkl` appends to a value that is not a list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict:
            raise UnreadableError("its `data.pkl` sets an entry of a value that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise UnreadableError("a key in it is neither text nor an integer")
            if key in target:
                raise UnreadableError(f"it has the key `{str(key)[:60]}` twice")
            target[key] = value

    def _keep(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _push_kept(self, index: int) -> None:
        value = self._memo[index]
        is_small = type(value) is tuple and len(value) <= _LONGEST_SHARED
        # A list that contains itself has no end, and one in two places can expand to more than any memory holds.
        if not all(isinstance(part, _SHARED) for part in (value if is_small else (value,))):
            raise UnreadableError("it has the same list or dictionary in two places")
        self._stack.append(value)

    def _push_global(self) -> None:
        module, name = self._line(), self._line()
        if module == "torch" and name in _DTYPES:
            self._stack.append(_DTYPES[name])
            return
        try:
            self._stack.append(_Call(f"{module} {name}"))
        except ValueError:
            known = f"{module}.{name}"[:60]
            raise UnreadableError(f"it needs `{known}`, but alm only reads plain tensors and values") from None

    def _line(self) -> str:
        end = self._data.index(b"\n", self.place)
        line = str(self._data[self.place : end], "utf-8")
        self.place = end + 1
        return line

    def _called(self, function: Any, arguments: Any) -> Any:  # Any: what a stack holds
        if function is _Call.ORDERED_DICT and arguments == ():
            return {}
        if function is _Call.TENSOR and type(arguments) is tuple:
            return _tensor(arguments)
        raise UnreadableError("its `data.pkl` calls a function that `torch.save` does not use")

    def _storage(self, given: Any) -> _Storage:  # Any: what a stack holds
        match given:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(numel)) if type(numel) is int:
                if key not in self._members:
                    raise UnreadableError(f"its storage `{key[:60]}` is missing")
                if numel * dtype.itemsize != self._members[key]:
                    raise UnreadableError(
                        f"its storage `{key}` should have {numel:,} x {dtype.itemsize} bytes, "
                        f"but has {self._members[key]:,}"
                    )
                return _Storage(key, dtype, numel)
        raise UnreadableError("a tensor in it is not stored as `torch.save` stores them")


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor:  # Any: what a stack holds
    match arguments:
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), {}) if arguments[5] == {}:
            if not _are_sizes((offset, *shape)) or not _are_sizes(strides) or len(shape) > _MOST_DIMENSIONS:
                raise UnreadableError(f"a tensor in it has the shape {str(shape)[:60]}")
            found = StoredTensor(storage.key, storage.dtype, offset, shape)
            if not _is_in_order(shape, strides):
                raise UnreadableError(f"a tensor of shape {list(shape)} in it has strides {list(strides)}")
            if offset + found.numel > storage.numel:
                raise UnreadableError(f"a tensor of shape {list(shape)} in it has only {storage.numel:,} numbers")
            return found
    raise UnreadableError("a tensor in it is not a plain, dense one")


def _are_sizes(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def _is_in_order(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether numbers lie in C order, each once; strides do not matter in dimensions of size 1 or empty tensors."""
    if len(shape) != len(strides):
        return False
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True
