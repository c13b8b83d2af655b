"""Lock of a folder, or of an artifact in it: one process at a time.

The operating system holds the lock (flock, on Windows msvcrt), so it ends with its process, however that ends. A
process id in a file that survived a reboot or came from another machine locks nothing: the file's text is for people.

Some cluster file systems have no locks. There the file itself is the lock: created exclusively, and taken over only
from a process of this machine and boot that no longer runs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from alm.errors import AlmError
from alm.files.parse import parse_json
from alm.files.write import is_running, wrap_os_errors

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # a link in a stranger's folder could point at any file
_MOST_BYTES = 4096
_PAUSE_SECONDS = 0.01
_WRITING_SECONDS = 10.0
_GLANCE_SECONDS = 0.2  # `holder` takes the lock for a moment to test it, far shorter than this


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock. `started` and `boot` distinguish it from a later one with the same `pid`."""

    pid: int
    host: str
    boot: str | None
    started: str | None

    def may_run(self) -> bool:
        """Whether this process may still run: True unless it is known to have ended."""
        here = _myself()
        if self.host != here.host:
            return True
        if None not in (self.boot, here.boot) and self.boot != here.boot:
            return False
        return is_running(self.pid) and (self.started is None or _started(self.pid) in (None, self.started))


@contextlib.contextmanager
def exclusive(lock: Path, *, what: str, patience_seconds: float = _GLANCE_SECONDS) -> Iterator[None]:
    """Hold `lock`, so that `what` belongs to this process alone; `AlmError` if another process holds it.

    Nothing else is written before the lock is held. A folder created for the lock is removed if it is empty at the end.
    """
    _refuse_unwritable_name(lock)
    made: list[Path] = []
    try:
        with wrap_os_errors(lock):
            made = _make_folders(lock.parent)
            descriptor = _acquire(lock, what, patience_seconds)
        try:
            yield
        finally:
            _release(lock, descriptor)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it is no longer empty
                folder.rmdir()


def _refuse_unwritable_name(lock: Path) -> None:
    """Refuse a folder whose name is not UTF-8: metadata is UTF-8 and has to name its files and inputs."""
    try:
        str(lock).encode("utf-8")
    except UnicodeEncodeError as error:
        raise AlmError(
            f"`{lock.parent}` has a name that is not UTF-8, so metadata cannot hold it",
            hint="choose another name for the output: add `--out`",
        ) from error


def holder(lock: Path) -> Owner | None:
    """Return the process that holds `lock`; None if no process does."""
    try:
        descriptor = _open(lock)
    except FileNotFoundError:
        return None
    except OSError:  # we may not open it: its text is all the evidence
        found = _read(lock)
        return found if found is not None and found.may_run() else None
    try:
        is_held = not _try_lock(descriptor)
    except OSError:
        found = _read(lock)
        return found if found is not None and found.may_run() else None
    finally:
        os.close(descriptor)  # releases the lock if we got it
    return _read(lock) or _UNKNOWN if is_held else None


def _make_folders(folder: Path) -> list[Path]:
    """Create `folder` and return the folders that were missing, the innermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(lock: Path, what: str, patience_seconds: float) -> int:
    """Return a descriptor that holds `lock`; `AlmError` when the patience runs out."""
    end = time.monotonic() + patience_seconds
    while (descriptor := _attempt(lock)) is None:
        if time.monotonic() >= end:
            raise _refusal(lock, what)
        time.sleep(_PAUSE_SECONDS)
    return descriptor


def _attempt(lock: Path) -> int | None:
    """Try once: return a descriptor that holds `lock`, or None."""
    try:
        descriptor, is_new = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666), True
    except FileNotFoundError:  # another process created the folder, and removed it because it was empty
        lock.parent.mkdir(parents=True, exist_ok=True)
        return None
    except FileExistsError:
        try:
            descriptor, is_new = _open(lock), False
        except FileNotFoundError:  # its holder has removed it since
            return None
    try:
        is_held = _try_lock(descriptor)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        is_held = is_new  # O_EXCL: only one process can create it
        if not is_new:
            _remove_left_behind(lock)  # for the next attempt
    # Its last holder may have removed it while we opened it: then we hold a file that no one else will open.
    if is_held and _is_same(descriptor, lock):
        _write(descriptor)
        return descriptor
    os.close(descriptor)
    return None


def _open(lock: Path) -> int:
    """Open `lock`. A file that another user left behind can be locked, but not written."""
    try:
        return os.open(lock, os.O_RDWR | _NO_LINKS)
    except PermissionError:
        return os.open(lock, os.O_RDONLY | _NO_LINKS)


def _refusal(lock: Path, what: str) -> AlmError:
    owner = _read(lock)
    if owner is None:
        return AlmError(f"{what} is being worked on by another process", hint="wait for it, then run this again")
    where = "" if owner.host == _myself().host else f" on `{owner.host}`"
    return AlmError(
        f"{what} is being worked on by process {owner.pid}{where}",
        hint="wait for it, then run this again" if where else f"wait for it; `ps -p {owner.pid}` shows what it is",
    )


def _remove_left_behind(lock: Path) -> None:
    """Remove `lock` if its process is known to have ended. Only for file systems that have no locks."""
    owner = _read(lock)
    if owner is None:
        with contextlib.suppress(OSError):  # no owner yet: it was just created, or is not a lock of alm
            if time.time() - lock.stat().st_mtime < _WRITING_SECONDS:
                return
    elif owner.may_run():
        return
    aside = lock.with_name(f"{lock.name}.stale-{os.getpid()}")
    with contextlib.suppress(OSError):
        lock.replace(aside)
        if _read(aside) != owner:  # another process was faster and this is its new lock: put it back
            os.link(aside, lock)
        aside.unlink()


def _release(lock: Path, descriptor: int) -> None:
    # Unlink before closing: a process that waits finds that the name is gone or is another file (`_is_same`).
    try:
        for _ in range(2):  # an error may be transient
            with contextlib.suppress(OSError):
                if os.name != "nt" and _is_same(descriptor, lock):
                    lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    if os.name == "nt":  # Windows cannot remove an open file
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # on a full disk the lock still holds
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(_myself())).encode())


def _read(lock: Path) -> Owner | None:
    """Return the owner that the file names; None if its text is not usable."""
    try:
        with lock.open("rb") as file:
            values = parse_json(file.read(_MOST_BYTES))
        found = Owner(**values)
    except (OSError, ValueError, TypeError):
        return None
    kinds_fit = type(found.pid) is int and isinstance(found.host, str)
    others_fit = all(isinstance(value, str | None) for value in (found.boot, found.started))
    return found if kinds_fit and others_fit and 0 < found.pid < 1 << 31 else None


_UNKNOWN = Owner(pid=0, host="", boot=None, started=None)


@cache
def _myself_of(pid: int) -> Owner:
    return Owner(pid=pid, host=platform.node(), boot=_boot(), started=_started(pid))


def _myself() -> Owner:
    return _myself_of(os.getpid())  # by pid: after a fork this is another process


def _boot() -> str | None:
    """Return the id of this boot; only Linux has one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _started(pid: int) -> str | None:
    """Return the start of the process, in clock ticks since the boot; None if unknown."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # beyond the text of the file: Windows would keep others from reading a locked byte

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        """Whether we got the lock; `OSError` if the file system has no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
