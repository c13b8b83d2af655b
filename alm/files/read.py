"""Reading files, with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from alm.errors import InputError, absent_hint, shell


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to read into an `InputError` that names the file."""
    if "\0" in os.fspath(path):
        raise InputError(f"`{path}` cannot be the name of a file", hint="leave out the zero byte in it")
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"`{path}` does not exist", hint=absent_hint(path)) from error
    except IsADirectoryError as error:
        raise InputError(f"`{path}` is a folder, but a file is needed", hint=f"run `{shell('ls', path)}`") from error
    except PermissionError as error:
        hint = f"run `{shell('ls', '-l', path)}` to see who may"
        raise InputError(f"`{path}` cannot be read: permission denied", hint=hint) from error
    except OSError as error:
        hint = f"run `{shell('ls', '-l', path)}` to see what it is"
        if error.errno in (errno.EMFILE, errno.ENFILE):
            hint = "run `ulimit -n 4096` in this shell, then the same command again"
        raise InputError(f"`{path}` cannot be read: {error.strerror or error}", hint=hint) from error


def regular(path: Path) -> Path:
    """Return `path`; `InputError` if it is neither a file nor a folder: opening a pipe would wait for its writer."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"`{path}` is not a file", hint=f"run `{shell('ls', '-l', path)}` to see what it is")
    return path


def sha256(path: Path) -> str:
    """Compute the SHA-256 of the bytes of `path`, as hex digits."""
    with readable(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path) -> bytes:
    """Read the bytes of `path`; `InputError` if it is missing or a folder."""
    with readable(path):
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Read a UTF-8 file as text, newlines unchanged; `InputError` says where it is not UTF-8."""
    return as_text(path, read_bytes(path))


def as_text(path: Path, data: bytes) -> str:
    """Decode `data`, the bytes of `path`, as text; `InputError` says where it is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(path, offset=error.start, byte=data[error.start]) from error


def not_utf8(path: Path, *, offset: int, byte: int) -> InputError:
    """Build the error for a text file in another encoding; `offset` counts bytes of the unpacked file."""
    command = f"{shell('iconv', '-f', 'WINDOWS-1252', '-t', 'UTF-8', path)} > fixed.txt"
    return InputError(
        f"`{path}` is not UTF-8: byte 0x{byte:02X} at offset {offset:,}",
        hint=f"run `{command}`, with the file's actual encoding",
    )
