"""One lock: a folder, or an artifact in it, belongs to one process at a time.

The operating system holds the lock (flock, on Windows msvcrt), so it ends with its process however that ends, and a
number in a file that survived a reboot or came from another machine locks nothing. What the file says is for people.

Some file systems of clusters have no locks. There the file itself is the lock: made exclusively, and taken over only
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
from alm.files.write import explained, is_running

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # a link in a stranger's folder could name any file
_MOST_BYTES = 4096
_PAUSE_SECONDS = 0.01
_WRITING_SECONDS = 10.0
_GLANCE_SECONDS = 0.2  # somebody who only asks who holds the lock holds it for far less


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock. `started` and `boot` distinguish it from a later one of the same `pid`."""

    pid: int
    host: str
    boot: str | None
    started: str | None

    def may_run(self) -> bool:
        """Whether this process may still run: True unless that is known to be false."""
        here = _myself()
        if self.host != here.host:
            return True
        if None not in (self.boot, here.boot) and self.boot != here.boot:
            return False
        return is_running(self.pid) and (self.started is None or _started(self.pid) in (None, self.started))


@contextlib.contextmanager
def exclusive(lock: Path, *, what: str, patience_seconds: float = _GLANCE_SECONDS) -> Iterator[None]:
    """`what` for this process alone; `AlmError` when another one works on it. Nothing is written before that.

    A folder that is made for the lock, and still empty at the end, goes again.
    """
    _refuse_unwritable_name(lock)
    made: list[Path] = []
    try:
        with explained(lock):
            made = _make_folders(lock.parent)
            descriptor = _acquire(lock, what, patience_seconds)
        try:
            yield
        finally:
            _release(lock, descriptor)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it holds something by now
                folder.rmdir()


def _refuse_unwritable_name(lock: Path) -> None:
    """Metadata is UTF-8, and has to name what it is made from and what it promises."""
    try:
        str(lock).encode("utf-8")
    except UnicodeEncodeError as error:
        raise AlmError(
            f"`{lock.parent}` has a name that is not UTF-8, which metadata could not hold",
            hint="choose another name for the output: add `--out`",
        ) from error


def holder(lock: Path) -> Owner | None:
    """The process that holds `lock`, None when none does."""
    try:
        descriptor = _open(lock)
    except FileNotFoundError:
        return None
    except OSError:  # not ours to open: what it says is all that can be known
        found = _read(lock)
        return found if found is not None and found.may_run() else None
    try:
        is_held = not _try_lock(descriptor)
    except OSError:
        found = _read(lock)
        return found if found is not None and found.may_run() else None
    finally:
        os.close(descriptor)  # lets go of it, where we got it
    return _read(lock) or _UNKNOWN if is_held else None


def _make_folders(folder: Path) -> list[Path]:
    """Make `folder`; what had to be made, the innermost first."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(lock: Path, what: str, patience_seconds: float) -> int:
    """A descriptor of `lock` that holds it."""
    end = time.monotonic() + patience_seconds
    while (descriptor := _attempt(lock)) is None:
        if time.monotonic() >= end:
            raise _refusal(lock, what)
        time.sleep(_PAUSE_SECONDS)
    return descriptor


def _attempt(lock: Path) -> int | None:
    """A descriptor of `lock` that holds it, None where that failed for now."""
    try:
        descriptor, is_new = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINKS, 0o666), True
    except FileNotFoundError:  # another process made the folder, and removed it as it was empty
        lock.parent.mkdir(parents=True, exist_ok=True)
        return None
    except FileExistsError:
        try:
            descriptor, is_new = _open(lock), False
        except FileNotFoundError:  # its holder removed it meanwhile
            return None
    try:
        is_held = _try_lock(descriptor)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        is_held = is_new  # only one process can make it
        if not is_new:
            _remove_left_behind(lock)  # for the next attempt
    # Its last holder may have removed it while we opened it: then another one takes the new file.
    if is_held and _is_same(descriptor, lock):
        _write(descriptor)
        return descriptor
    os.close(descriptor)
    return None


def _open(lock: Path) -> int:
    """A descriptor of `lock`. One that another user left behind can be locked, and not written to."""
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
    """Where the file system has no locks: remove `lock` if the process that made it is known not to run any more."""
    owner = _read(lock)
    if owner is None:
        with contextlib.suppress(OSError):  # no owner yet: it was made just now, or is not a lock of ours
            if time.time() - lock.stat().st_mtime < _WRITING_SECONDS:
                return
    elif owner.may_run():
        return
    aside = lock.with_name(f"{lock.name}.stale-{os.getpid()}")
    with contextlib.suppress(OSError):
        lock.replace(aside)
        if _read(aside) != owner:  # another process was faster, and this is its new one: put it back
            os.link(aside, lock)
        aside.unlink()


def _release(lock: Path, descriptor: int) -> None:
    # Removed while it is held: whoever waits for it finds that the name is another file's, or none's.
    try:
        for _ in range(2):  # one error need not last
            with contextlib.suppress(OSError):
                if os.name != "nt" and _is_same(descriptor, lock):
                    lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    if os.name == "nt":  # which removes no open file
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _write(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(_myself())).encode())


def _read(lock: Path) -> Owner | None:
    """Who the file says holds it; None where it says nothing of use."""
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
    return _myself_of(os.getpid())  # another one after a fork


def _boot() -> str | None:
    """What this boot of this machine is called. Linux has a name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _started(pid: int) -> str | None:
    """When the process began, in clock ticks since the boot, None where that is not known."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]


if sys.platform == "win32":
    import msvcrt

    _FAR = 1 << 30  # beyond what the file says, which others may read

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
        """Whether the lock is ours now; `OSError` where the file system has no locks."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
