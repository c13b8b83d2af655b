"""Faults at the n-th change that a process makes to a folder, put under Python's own functions.

Counted are the calls that change something under the folder: open for writing, write, fsync, rename, link, symlink,
unlink, rmdir, mkdir, truncate and copies inside the kernel. Files are opened with a raw file of our own, so a buffered
write counts when it really happens, and a killed process loses its buffers as it would.
"""

from __future__ import annotations

import builtins
import ctypes
import errno
import functools
import io
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL, MIDDLE, EIO, FULL, FULL_FROM_HERE = "kill", "middle", "eio", "enospc", "full"
KINDS = (KILL, MIDDLE, EIO, FULL, FULL_FROM_HERE)
KILLED = 137
SHIM = "ALM_CRASH_SHIM"  # where the shim lies, which LD_PRELOAD has loaded

# What needs room on a disk; the rest succeeds on a full one.
GROWING = frozenset({"create", "write", "mkdir", "link", "symlink", "copy"})
# What can be cut in two.
DIVISIBLE = frozenset({"write", "copy"})


@dataclass(frozen=True)
class Fault:
    """`kind` at the `number`-th change, from 1."""

    kind: str
    number: int

    @property
    def is_kill(self) -> bool:
        return self.kind in (KILL, MIDDLE)

    @property
    def errno(self) -> int:
        return errno.EIO if self.kind == EIO else errno.ENOSPC


def fits(kind: str, operation: str) -> bool:
    """Whether a fault of `kind` says something of its own at `operation`."""
    if kind == MIDDLE:
        return operation in DIVISIBLE
    return operation in GROWING if kind == FULL_FROM_HERE else True


def install(root: Path, fault: Fault | None, log: int) -> None:
    """Count the changes under `root` from now on: below Python where the shim is loaded, else in Python."""
    shim = os.environ.get(SHIM)
    if shim is None:
        Injector(root, fault, log).install()
        return
    if fault is None:
        what, error, forever, number = 0, 0, 0, 0
    else:
        what = {KILL: 0, MIDDLE: 1}.get(fault.kind, 2)
        error, forever, number = fault.errno, int(fault.kind == FULL_FROM_HERE), fault.number
    folder = os.fsencode(os.path.realpath(root))
    ctypes.CDLL(shim).crash_begin(folder, what, 0 if what < 2 else error, forever, ctypes.c_long(number), log)


class Injector:
    """Counts the changes under `root`, logs them to the descriptor `log`, and makes the fault at its number."""

    def __init__(self, root: Path, fault: Fault | None, log: int) -> None:
        self._root = os.path.realpath(root) + os.sep
        self._fault = fault
        self._log = log
        self._count = 0
        self._full = False
        self._lock = threading.RLock()
        self._real: dict[str, Any] = {}

    # ---- the decision

    def before(
        self, operation: str, path: object, half: Callable[[], int] | None = None, source: str | None = None
    ) -> int | None:
        """Count an operation on `path`; ends or raises where the fault is due.

        `half` does a half of it. A disk that fills up takes a half, and that is the answer then.
        """
        place = self._place(path)
        if place is None:
            return None
        with self._lock:
            fault = self._fault
            if self._full:
                if operation in GROWING:
                    self._note(0, operation, place, source)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
                return None
            self._count += 1
            self._note(self._count, operation, place, source)
            if fault is None or self._count != fault.number:
                return None
            if fault.is_kill:
                if fault.kind == MIDDLE and half is not None:
                    half()
                os._exit(KILLED)
            self._full = fault.kind == FULL_FROM_HERE
            if self._full and half is not None:
                return half()
            raise OSError(fault.errno, os.strerror(fault.errno), place)

    def _note(self, number: int, operation: str, place: str, source: str | None) -> None:
        words = [str(number), operation, self._inside(place), *([] if source is None else [self._inside(source)])]
        self._real["write"](self._log, ("\t".join(words) + "\n").encode("utf-8", "replace"))

    def _inside(self, place: str) -> str:
        return place[len(self._root) :] or "."

    def _place(self, path: object, dir_fd: int | None = None) -> str | None:
        """The absolute path if it lies under the root."""
        try:
            if isinstance(path, int):
                found = os.readlink(f"/proc/self/fd/{path}").removesuffix(" (deleted)")
            else:
                found = os.fsdecode(os.fspath(path))  # type: ignore[call-overload]
                if dir_fd is not None:
                    found = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), found)
        except (OSError, TypeError):
            return None
        absolute = os.path.abspath(found)
        return absolute if (absolute + os.sep).startswith(self._root) else None

    # ---- the functions

    def install(self) -> None:
        """Put the counting under `os`, `open`, and the libraries that write by themselves. There is no way back."""
        self._real = {name: getattr(os, name) for name in dir(os) if callable(getattr(os, name))}
        self._install_paths()
        self._install_descriptors()
        opening = functools.partial(_open, self, io.open)
        builtins.open = io.open = opening  # type: ignore[assignment]
        self._install_libraries()

    def _install_paths(self) -> None:
        real = self._real
        for name, operation in (("unlink", "unlink"), ("remove", "unlink"), ("rmdir", "rmdir"), ("mkdir", "mkdir")):
            setattr(os, name, self._on_one(real[name], operation))
        for name, operation in (("rename", "rename"), ("replace", "rename"), ("link", "link"), ("symlink", "symlink")):
            if name in real:
                setattr(os, name, self._on_two(real[name], operation))
        os.truncate = self._on_one(real["truncate"], "truncate")

        def opened(path: Any, flags: int, *arguments: Any, dir_fd: int | None = None, **named: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                place = self._place(path, dir_fd)
                if place is not None:
                    self.before("open" if os.path.exists(place) else "create", place)
            return int(real["open"](path, flags, *arguments, dir_fd=dir_fd, **named))

        os.open = opened

    def _on_one(self, real: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def counted(path: Any, *arguments: Any, dir_fd: int | None = None, **named: Any) -> Any:
            place = self._place(path, dir_fd)
            # What changes nothing is not counted: making a folder that is there, removing what is not.
            if place is not None and os.path.lexists(place) == (operation != "mkdir"):
                self.before(operation, place)
            more = {} if dir_fd is None else {"dir_fd": dir_fd}
            return real(path, *arguments, **more, **named)

        return counted

    def _on_two(self, real: Callable[..., Any], operation: str) -> Callable[..., Any]:
        def counted(source: Any, target: Any, *arguments: Any, **named: Any) -> Any:
            place = self._place(target)
            if place is not None and operation == "symlink":
                self.before(operation, place)
            elif place is not None and os.path.lexists(source):
                self.before(operation, place, source=os.path.abspath(source))
            return real(source, target, *arguments, **named)

        return counted

    def _install_descriptors(self) -> None:
        real = self._real

        def write(descriptor: int, data: Any) -> int:
            view = memoryview(data).cast("B")
            short = self.before("write", descriptor, lambda: real["write"](descriptor, view[: len(view) // 2]))
            return int(real["write"](descriptor, data)) if short is None else short

        os.write = write
        for name, operation in (("fsync", "fsync"), ("fdatasync", "fsync"), ("ftruncate", "truncate")):
            if name in real:
                setattr(os, name, self._on_descriptor(real[name], operation, 0))
        for name, place, size in (("sendfile", 0, 3), ("copy_file_range", 1, 2), ("pwrite", 0, None)):
            if name in real:
                setattr(os, name, self._on_descriptor(real[name], "copy" if size else "write", place, size))

    def _on_descriptor(
        self, real: Callable[..., Any], operation: str, place: int, size: int | None = None
    ) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            half = None
            if size is not None and len(arguments) > size:
                less = [*arguments[:size], max(1, arguments[size] // 2), *arguments[size + 1 :]]
                half = functools.partial(real, *less, **named)
            target = arguments[place]
            short = self.before(operation, target if isinstance(target, int) else target.fileno(), half)
            return real(*arguments, **named) if short is None else short

        return counted

    def _install_libraries(self) -> None:
        """Writers that are not Python, where they are loaded: what they do to a file is one operation."""
        numpy_format, safetensors = (sys.modules.get(name) for name in ("numpy.lib._format_impl", "safetensors"))
        if numpy_format is not None:
            numpy_format.isfileobj = lambda _: False  # type: ignore[attr-defined] # write through the file, not past it
        if hasattr(safetensors, "torch"):
            self._install_safetensors(safetensors)

    def _install_safetensors(self, library: Any) -> None:
        real = library.torch.save_file

        def save_file(tensors: Any, filename: Any, *arguments: Any, **named: Any) -> None:
            def half() -> int:
                real(tensors, filename, *arguments, **named)
                self._real["truncate"](filename, os.stat(filename).st_size // 2)
                return 0

            try:
                if self.before("write", filename, half) is not None:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                raise library.SafetensorError(
                    f"Error while serializing: I/O error: {error.strerror} (os error {error.errno})"
                ) from None
            real(tensors, filename, *arguments, **named)

        library.torch.save_file = save_file


class _Raw(io.FileIO):
    """A raw file whose writes, truncations and descriptors count."""

    def __init__(self, injector: Injector, file: Any, mode: str, *, closefd: bool, opener: Any) -> None:
        self._injector = injector
        super().__init__(file, mode, closefd=closefd, opener=opener)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        short = self._injector.before("write", self.fileno(), lambda: io.FileIO.write(self, view[: len(view) // 2]))
        return super().write(data) if short is None else short

    def truncate(self, size: int | None = None) -> int:
        self._injector.before("truncate", self.fileno())
        return super().truncate(size)


def _open(
    injector: Injector,
    real: Callable[..., Any],
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """`open`, whose writing files are `_Raw` at the bottom."""
    if not set(mode) & set("wax+"):
        return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
    if not isinstance(file, int):
        place = injector._place(file)
        if place is None:
            return real(file, mode, buffering, encoding, errors, newline, closefd, opener)
        injector.before("open" if os.path.exists(place) else "create", place)
    is_binary = "b" in mode
    raw = _Raw(injector, file, mode.replace("b", "").replace("t", ""), closefd=closefd, opener=opener)
    if buffering == 0:
        return raw
    size = io.DEFAULT_BUFFER_SIZE if buffering in (-1, 1) else buffering
    buffered: Any = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
    if is_binary:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode  # type: ignore[misc]
    return text
