"""Writing one file so that it is complete or absent, and messages for errors of the operating system."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from alm.errors import AlmError, shell

TEMPORARY = re.compile(r"\..+\.tmp-(\d{1,10})", re.ASCII | re.DOTALL)
# No space left, a quota, and the maximum size of a file. Windows has no error for quotas.
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` when the block succeeds, and is removed when it fails."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with wrap_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent, f".{glob.escape(path.name)}.tmp-*")
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # before the rename: after a power cut the name must not lead to an empty file
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove temporary files of processes that no longer run; a live process keeps its own."""
    for left in folder.glob(pattern):
        match = TEMPORARY.fullmatch(left.name)
        if match and not is_running(int(match[1])):
            with contextlib.suppress(OSError):  # a leftover does no harm, and the next writer tries again
                left.unlink()


def is_running(pid: int) -> bool:
    """Whether a process with this id runs; always True on Windows, which has no harmless probe.

    A zombie, which has ended and waits for its parent to collect its exit code, does not count.
    """
    if pid == os.getpid() or os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether the process is a zombie, as killed processes stay if a container's init collects no exit codes.

    Only Linux shows it.
    """
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
        if error.errno not in _UNSUPPORTED:  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the contents of `path`, which a library wrote, survive a power cut."""
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def wrap_os_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into an `AlmError` that names the file."""
    try:
        yield
    except OSError as error:
        raise AlmError(f"cannot write `{path}`: {error.strerror or error}", hint=hint_for(error, path)) from error


def system_error(error: OSError) -> AlmError:
    """Convert an `OSError` that no inner context has converted into an `AlmError`."""
    reason = error.strerror or str(error)
    if not isinstance(error.filename, str | bytes):
        return AlmError(f"the system refused to read or write: {reason}", hint=hint_for(error, Path("x").absolute()))
    path = Path(os.fsdecode(error.filename))
    return AlmError(f"cannot use `{path}`: {reason}", hint=hint_for(error, path))


def hint_for(error: OSError, path: Path) -> str:
    """Return what to do about `error`, raised when `path` was written or read."""
    folder = next((place for place in path.parents if os.path.lexists(place)), path.parent)
    if error.errno in _FULL:
        return f"run `{shell('df', '-h', folder)}` to see what is free; what was there before is untouched"
    if error.errno == errno.EROFS:
        return f"choose a folder on a file system that can be written: the one of `{folder}` is read-only"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "run `ulimit -n 4096` in this shell, then the same command again: too few files may be open at once"
    if error.errno == errno.ENAMETOOLONG:
        return "choose a shorter name"
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError):
        return "choose another path: there is a folder where a file should be, or a file where a folder should be"
    if isinstance(error, PermissionError):
        return f"choose a folder you may use, or run `{shell('ls', '-ld', folder)}` to see who may"
    if isinstance(error, FileNotFoundError):  # as in /proc
        return f"choose a folder on a disk: the system lets nothing be made in `{folder}`"
    return "run the same command again once the disk works: what was there before is untouched"


def is_full(error: BaseException) -> bool:
    """Whether `error`, or its cause, says that no more can be stored; files that were there are complete."""
    fault = error if isinstance(error, OSError) else error.__cause__
    return isinstance(fault, OSError) and fault.errno in _FULL


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically."""
    with atomic(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically, newlines unchanged."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, indented_json(value) + "\n")


def indented_json(value: object) -> str:
    """Return `value` as indented JSON. A string that UTF-8 cannot hold, like some file names, is written in ASCII."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _UNENCODABLE.sub(_in_ascii, text) if _SURROGATE.search(text) else text


def _in_ascii(found: re.Match[str]) -> str:
    return _NOT_ASCII.sub(lambda character: json.dumps(character[0])[1:-1], found[0])


_SURROGATE, _NOT_ASCII = re.compile("[\ud800-\udfff]"), re.compile("[^\0-~]")
_UNENCODABLE = re.compile(r'"(?:[^"\\]|\\.)*?[\ud800-\udfff](?:[^"\\]|\\.)*"')
