"""Reads the zip file that `torch.save` writes, without `torch.load` and with a bound for everything in it.

Members must be stored uncompressed, one after another within the file, and match their CRC: reading never takes more
memory than the file holds, and a flipped bit does not pass.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alm.checkpoint.pickled import StoredTensor, UnreadableError, parse

_DIRECTORY_BYTES = 8 << 20  # 1,000 layers with their moments have 4 MB
_PICKLE_BYTES = 32 << 20  # 1,000 layers with their moments have 11 MB
_MOST_DEPTH = 16
_PICKLE, _BYTE_ORDER, _NUMBERS = "data.pkl", "byteorder", "data/"
_SCRIPT = ("constants.pkl", "code/")
_BYTE_ORDER_BYTES = 16
_LOCAL = struct.Struct("<4s22x2H")  # before each member: signature, lengths of its name and of what follows it
_LOCAL_SIGNATURE = b"PK\3\4"


class _Capped(io.FileIO):
    """A file with short reads only: `zipfile` reads the directory at once, at whatever length the file claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, os.fstat(self.fileno()).st_size - self.tell())
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"its directory has {wanted:,} bytes")
        return super().read(wanted)


@dataclass(frozen=True)
class _Member:
    """A part of the zip file: its header, its size, and the largest offset at which it may end."""

    name: str
    header: int
    size: int
    crc: int
    end: int


class Archive:
    """An open file of `torch.save`."""

    def __init__(self, file: _Capped) -> None:
        self._file = file
        self._members = _members(file)
        self._shared: dict[str, Tensor] = {}  # storages that more than one tensor may use
        self._check_byte_order()

    def values(self) -> Any:  # Any: as `pickled.parse`
        """Return the saved value with a `StoredTensor` for each tensor; `UnreadableError` if it has other objects."""
        member = self._members[_PICKLE]
        if member.size > _PICKLE_BYTES:
            raise UnreadableError(f"its `{_PICKLE}` has {member.size:,} bytes, more than {_PICKLE_BYTES:,}")
        found = parse(bytes(self._read(member).numpy()), self._sizes())
        _check_memory(found, sum(self._sizes().values()))
        return found

    def _sizes(self) -> Mapping[str, int]:
        """Return the bytes of each storage by its key."""
        return {
            name.removeprefix(_NUMBERS): member.size
            for name, member in self._members.items()
            if name.startswith(_NUMBERS)
        }

    def tensor(self, stored: StoredTensor) -> Tensor:
        """Return the tensor itself, on the CPU."""
        member = self._members[_NUMBERS + stored.key]
        if stored.nbytes == member.size:
            return self._read(member).view(stored.dtype).view(stored.shape)
        flat = self._shared.get(stored.key)
        if flat is None:
            flat = self._shared[stored.key] = self._read(member)
        return flat.view(stored.dtype)[stored.offset : stored.offset + stored.numel].view(stored.shape)

    def _check_byte_order(self) -> None:
        member = self._members.get(_BYTE_ORDER)
        if member is None:
            return
        found = bytes(self._read(member).numpy()) if member.size <= _BYTE_ORDER_BYTES else b""
        if found != sys.byteorder.encode():
            raise UnreadableError(f"its numbers are `{found.decode('ascii', 'replace')}` endian, not {sys.byteorder}")

    def _read(self, member: _Member) -> Tensor:
        """Return the bytes of a member."""
        self._file.seek(member.header)
        head = self._file.read(_LOCAL.size)
        if len(head) < _LOCAL.size:
            raise UnreadableError(f"its part `{member.name}` is cut off")
        signature, name_bytes, extra_bytes = _LOCAL.unpack(head)
        start = member.header + _LOCAL.size + name_bytes + extra_bytes
        if signature != _LOCAL_SIGNATURE or start + member.size > member.end:
            raise UnreadableError(f"its part `{member.name}` is not where its directory says")
        data = torch.empty(member.size, dtype=torch.uint8)
        buffer: Any = data.numpy()  # Any: its stubs do not say that an array is a buffer
        left = memoryview(buffer)
        self._file.seek(start)
        while len(left):
            count = self._file.readinto(left)
            if not count:
                raise UnreadableError(f"its part `{member.name}` is cut off")
            left = left[count:]
        if zlib.crc32(buffer) != member.crc:
            raise UnreadableError(f"its part `{member.name}` has changed since it was written")
        return data


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open the file at `path`; raise `UnreadableError` if `torch.save` did not write it."""
    with _Capped(path) as file:
        yield Archive(file)


def _members(file: _Capped) -> dict[str, _Member]:
    """Return the parts of the zip file by their names below its single folder."""
    try:
        with zipfile.ZipFile(file) as directory:
            found, start = sorted(directory.infolist(), key=lambda info: info.header_offset), directory.start_dir
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UnreadableError(f"it is not a file of `torch.save` ({reason})") from error
    folder = next((info.filename.rpartition("/")[0] for info in found if info.filename.endswith(f"/{_PICKLE}")), None)
    if folder is None or "/" in folder:
        raise UnreadableError(f"it is not a file of `torch.save`: it has no `{_PICKLE}`")
    members: dict[str, _Member] = {}
    ends = [*(info.header_offset for info in found[1:]), start]
    for info, end in zip(found, ends, strict=True):
        if not info.filename.startswith(f"{folder}/"):
            raise UnreadableError(f"it holds `{info.filename[:60]}`, which `torch.save` does not write")
        name = info.filename.removeprefix(f"{folder}/")
        if name.startswith(_SCRIPT):
            raise UnreadableError("it is a TorchScript program, which alm does not run")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise UnreadableError(f"its part `{name[:60]}` is compressed, but `torch.save` compresses nothing")
        if info.header_offset < 0 or info.header_offset + _LOCAL.size + info.file_size > end:
            raise UnreadableError(f"its part `{name[:60]}` overlaps the next one, or the end")
        if name in members:
            raise UnreadableError(f"it has the part `{name[:60]}` twice")
        members[name] = _Member(name, info.header_offset, info.file_size, info.CRC, end)
    return members


def _check_memory(values: Any, most: int) -> None:  # Any: as `pickled.parse`
    """Refuse deep nesting, and tensors with more bytes in total than the file has: views may share one storage."""
    level = [values]
    for _ in range(_MOST_DEPTH):
        level = [part for value in level for part in _parts(value) if isinstance(part, dict | list | tuple)]
    if level:
        raise UnreadableError(f"its values are nested deeper than {_MOST_DEPTH} levels")
    found = sum(tensor.nbytes for tensor in stored_tensors(values))
    if found > most:
        raise UnreadableError(f"its tensors have {found:,} bytes together, but its file holds only {most:,}")


def stored_tensors(value: Any) -> Iterator[StoredTensor]:  # Any: as `pickled.parse`
    """Yield the tensors in `value`, which is not nested deeply."""
    for part in _parts(value):
        if isinstance(part, StoredTensor):
            yield part
        else:
            yield from stored_tensors(part)


def _parts(value: Any) -> Iterable[Any]:  # Any: as `pickled.parse`
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
