"""Files that are whole or absent: atomic writes, hashes, and text behind .gz, .zst and .xz.

Everything `alm` writes goes through `atomic`: a temporary file in the same folder, fsync,
rename, fsync of the folder. A reader therefore never sees half a file, whatever kills us.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from alm.errors import AlmError, InputError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES = 1 << 20
_COMPRESSIONS = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd", ".xz": b"\xfd7zXZ\x00"}
_MAGIC_BYTES = 6
_UNPACKED_BYTES = 1 << 30  # whatever a file unpacks to, so much is let through
_UNPACKED_TIMES = 500  # and so many times its own size: text packs 3 to 30 times
_TEMPORARY_MARK = ".tmp-"
# No space, a quota, and the largest size a file may have. Windows has no quotas of this kind.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that becomes `path` when the block ends well, and vanishes otherwise."""
    temporary = path.with_name(f".{path.name}{_TEMPORARY_MARK}{os.getpid()}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def _remove_stale(path: Path) -> None:
    """Remove what a killed writer of `path` left behind; a live one keeps its own."""
    for left in path.parent.glob(f".{glob.escape(path.name)}{_TEMPORARY_MARK}*"):
        pid = left.name.rpartition("-")[2]
        if not (pid.isdigit() and is_running(int(pid))):
            left.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether a process of that id lives; always True on Windows, which cannot be asked harmlessly.

    What has ended and only waits to be asked for its exit code lives no more, where the system tells.
    """
    if pid == os.getpid() or os.name == "nt":  # Windows has no harmless probe of another process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """In a container whose first process asks for no exit codes a killed process stays one for ever. Linux tells."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "Z"  # after the name, which may hold anything


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut. Windows has no such call and needs none here."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into an `AlmError` that names the file."""
    try:
        yield
    except OSError as error:
        raise AlmError(f"cannot write `{path}`: {error.strerror or error}", hint=_hint_for(error, path)) from error


def _hint_for(error: OSError, path: Path) -> str:
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return "name another path: a folder is where a file should be, or the other way round"
    if isinstance(error, PermissionError):
        return f"choose a folder you may write to, or run `ls -ld {path.parent}` to see who may"
    return f"run `df -h {path.parent}` to see what is free; what was there before is untouched"


def is_full(error: BaseException) -> bool:
    """Whether `error`, or the refusal that it explains, says that no more can be stored: what was there is whole."""
    fault = error if isinstance(error, OSError) else error.__cause__
    return isinstance(fault, OSError) and fault.errno in _FULL


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` with `data`, atomically."""
    with atomic(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` as UTF-8, atomically, newlines as they are."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Replace `path` with `value` as indented JSON, atomically."""
    write_text(path, indented_json(value) + "\n")


def sha256(path: Path) -> str:
    """Hex SHA-256 of the bytes of `path`."""
    with _readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"`{path}` does not exist", hint=f"run `ls {path.parent}` to see what is there") from error
    except IsADirectoryError as error:
        raise InputError(f"`{path}` is a folder, a file is needed", hint=f"run `ls {path}`") from error
    except PermissionError as error:
        raise InputError(f"`{path}` may not be read", hint=f"run `ls -l {path}` to see who may") from error


def read_bytes(path: Path) -> bytes:
    """The bytes of `path`; `InputError` when it is missing or a folder."""
    with _readable(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, newlines as they are; `InputError` says where it is not UTF-8."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, offset=error.start, byte=data[error.start]) from error


def not_utf8(path: Path, *, offset: int, byte: int) -> InputError:
    """The error for a text file in some other encoding; `offset` counts bytes of the unpacked file."""
    return InputError(
        f"`{path}` is not UTF-8: byte 0x{byte:02X} at offset {offset:,}",
        hint=f"run `iconv -f WINDOWS-1252 -t UTF-8 {path} > fixed.txt`, naming the encoding it really has",
    )


def suffix(path: Path) -> str:
    """The file's kind by name with compression set aside: `.txt` for `book.txt.gz`."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in _COMPRESSIONS else name.suffix


def compression(path: Path) -> str | None:
    """`.gz`, `.zst` or `.xz` where the file is packed so: what its first bytes say, else what its name says."""
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
    for ending, magic in _COMPRESSIONS.items():
        if head.startswith(magic):
            return ending
    ending = path.suffix.lower()
    return ending if ending in _COMPRESSIONS else None


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """`path` opened for reading, unpacked when its first bytes or its name say that it is .gz, .zst or .xz.

    A file that unpacks to far more than text ever does is refused as damaged when that point is reached.
    """
    with _readable(path), contextlib.ExitStack() as stack:
        packed = compression(path)
        try:
            yield stack.enter_context(_unpacking(path, packed))
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise _damaged(path, error, packed) from error
        except OSError as error:
            if error.errno is not None or packed != ".zst":
                raise
            raise _damaged(path, error, packed) from error


def _damaged(path: Path, error: Exception, packed: str | None) -> InputError:
    program = {".zst": "zstd", ".xz": "xz"}.get(packed or "", "gzip")
    return InputError(f"`{path}` is damaged: {error}", hint=f"run `{program} -t {path}`")


@contextlib.contextmanager
def _unpacking(path: Path, packed: str | None) -> Iterator[BinaryIO]:
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        if packed is not None:
            unpacked = stack.enter_context(contextlib.closing(_unpacked(file, packed)))
            bounded = _Bounded(unpacked, path, max(_UNPACKED_BYTES, _UNPACKED_TIMES * path.stat().st_size))
            file = stack.enter_context(io.BufferedReader(bounded, _READ_BYTES))
        yield file


def _unpacked(file: BinaryIO, packed: str) -> io.RawIOBase:
    if packed == ".gz":
        return cast("io.RawIOBase", gzip.GzipFile(fileobj=file, mode="rb"))
    if packed == ".xz":
        return cast("io.RawIOBase", lzma.LZMAFile(file))
    from pyarrow import CompressedInputStream, PythonFile

    return cast("io.RawIOBase", CompressedInputStream(PythonFile(file, mode="r"), "zstd"))


class _Bounded(io.RawIOBase):
    """What `file` holds, and an `InputError` in place of whatever follows the first `most` bytes."""

    def __init__(self, file: io.RawIOBase, path: Path, most: int) -> None:
        self._file = file
        self._path = path
        self._most = self._left = most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        number = self._file.readinto(buffer) or 0
        self._left -= number
        if self._left < 0:
            raise InputError(
                f"`{self._path}` is damaged: it unpacks to more than {self._most:,} bytes",
                hint=f"unpack it by hand if it is what it should be, then name the result in place of {self._path}",
            )
        return number

    def readall(self) -> bytes:
        # The inherited one asks for 8 KiB at a time.
        return b"".join(chunks(cast("Readable", self)))


class Readable(Protocol):
    """What bytes can be read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        ...


def chunks(file: Readable, size: int = _READ_BYTES) -> Iterator[bytes]:
    """The rest of `file` in pieces of at most `size` bytes."""
    while data := file.read(size):
        yield bytes(data)


@contextlib.contextmanager
def exclusive(lock: Path, *, what: str) -> Iterator[None]:
    """`what` for this process alone; `AlmError` when another one of this machine works on it."""
    with explained(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        holder = lock.read_text() if lock.is_file() else ""
        if holder.isdecimal() and int(holder) != os.getpid() and os.name != "nt" and is_running(int(holder)):
            raise AlmError(
                f"{what} is being worked on by process {holder}",
                hint=f"wait for it; if that process is something else, run `rm {lock}`",
            )
        lock.write_text(str(os.getpid()))
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


@contextlib.contextmanager
def staging(folder: Path, label: str) -> Iterator[Path]:
    """A temporary folder inside `folder` for files that are to appear together; removed afterwards.

    What an earlier, killed process left under the same `label` is removed first.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f".{glob.escape(label)}{_TEMPORARY_MARK}*"):
            pid = left.name.rpartition("-")[2]
            if pid.isdigit() and (int(pid) == os.getpid() or not is_running(int(pid))):
                shutil.rmtree(left, ignore_errors=True)
        stage = folder / f".{label}{_TEMPORARY_MARK}{os.getpid()}"
        stage.mkdir()
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def publish(stage: Path, folder: Path, *, last: str, replaces: Iterable[str] = ()) -> None:
    """Move every file of `stage` into `folder`, the promise `last` after all the others.

    The old promise is withdrawn first and the files named in `replaces` that are not written anew
    are removed, so at no instant does `folder/last` describe files that are not there.
    """
    names = sorted(path.name for path in stage.iterdir())
    assert last in names, last
    with explained(folder):
        (folder / last).unlink(missing_ok=True)
        sync_folder(folder)
        for name in set(replaces) - set(names):
            (folder / name).unlink(missing_ok=True)
        for name in [*(name for name in names if name != last), last]:
            (stage / name).replace(folder / name)
        sync_folder(folder)


def indented_json(value: object, margin: str = "") -> str:
    """What `json.dumps(value, ensure_ascii=False, indent=2)` gives, several times faster for long flat parts.

    With an indent the standard library leaves its compiled encoder.
    """
    inner = margin + "  "
    if isinstance(value, dict) and value:
        items = [
            f"{inner}{_quoted(key)}: {item if type(item) is int else indented_json(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{margin}}}"
    if isinstance(value, list | tuple) and value:
        items = [f"{inner}{item if type(item) is int else indented_json(item, inner)}" for item in value]
        return "[\n" + ",\n".join(items) + f"\n{margin}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_quoted = json.encoder.encode_basestring
