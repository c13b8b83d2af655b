"""What another user may not read or write: one error that names the path, with advice that changes nothing."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alm.errors import ArtifactError
from alm.files import hint_for

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")

RUN = "runs/pretrain"  # of the chain
READ = (
    ("my-texts", "corpus prepare my-texts --out other"),
    ("my-texts/003.txt", "corpus prepare my-texts --out other"),
    ("data/clean", "info data/clean"),
    ("data/clean", "tokenizer train --out other.json"),
    ("data/clean/my-texts.json", "info data/clean"),
    ("data/clean/my-texts.json", "pack --out other"),
    ("data/clean/my-texts-00000.jsonl", "tokenizer train --out other.json"),
    ("artifacts", "tokenizer encode x"),
    ("artifacts/tokenizer.json", "tokenizer encode x"),
    ("artifacts/tokenizer.meta.json", "tokenizer encode x"),
    ("data/packed", "plan"),
    ("data/packed/metadata.json", "pretrain --dry-run"),
    ("data/packed/tokenizer.json", "info data/packed"),
    ("runs", f"watch --once {RUN}"),
    (RUN, f"info {RUN}"),
    (RUN, f"report {RUN}"),
    (f"{RUN}/run.json", f"info {RUN}"),
    (f"{RUN}/run.json", f"watch --once {RUN}"),
    (f"{RUN}/metrics.jsonl", f"watch --once {RUN}"),
    (f"{RUN}/tokenizer.json", f"info {RUN}"),
    ("CHECKPOINT.json", f"info {RUN}"),
    ("CHECKPOINT.pt", f"info {RUN}"),
    ("CHECKPOINT.pt", "sample --checkpoint CHECKPOINT.pt"),
)
WRITTEN = (
    ("closed", "corpus prepare my-texts --out closed/new"),
    ("closed", "tokenizer train --out closed/tokenizer.json"),
    ("closed", "pack --out closed"),
    ("closed", "export --to safetensors --out closed/new"),
    ("closed", f"report {RUN} --out closed/report.html"),
    ("closed", "quickstart --steps 1 --out closed"),
    ("my-texts/003.txt", "corpus prepare my-texts --out my-texts/003.txt"),
    ("my-texts/003.txt", "pack --out my-texts/003.txt/below"),
)


@contextlib.contextmanager
def as_another_user() -> Iterator[None]:
    """Obey the permissions of files, as root too: without the capabilities to ignore them."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root ignores permissions here")
    libc = ctypes.CDLL(None)
    head, before = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    assert libc.capget(head, before) == 0
    effective, *others = struct.unpack("6I", before.raw)
    assert libc.capset(head, struct.pack("6I", effective & ~0b110, *others)) == 0
    try:
        yield
    finally:
        assert libc.capset(head, before.raw) == 0


def refused(run: Any, path: Path, mode: int, command: str) -> str:
    """Return what `alm COMMAND` says while `path` has `mode`; nothing in its folder may change."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        with as_another_user():
            code, _, err = run(*command.split())
    finally:
        path.chmod(before)
    assert code in (1, 2), err
    assert err.count("Error: ") == 1, err
    assert "Traceback" not in err
    assert "Usage:" not in err
    message, _, hint = err.partition("Hint: ")
    assert path.as_posix().split("/")[-1] in message, err
    assert "ls -l" in hint or "another path" in hint, err
    return str(err)


def test_what_may_not_be_read_is_named(trained: Path, run: Any) -> None:
    checkpoint = str(next(Path(RUN).glob("ckpt-step*.pt")).with_suffix(""))
    for path, command in READ:
        said = refused(run, Path(path.replace("CHECKPOINT", checkpoint)), 0, command.replace("CHECKPOINT", checkpoint))
        assert "permission denied" in said.lower(), said
        assert "--force" not in said, said
        assert "--resume" not in said, said
    assert not any(Path().glob("other*"))


def test_where_nothing_may_be_written_is_named(trained: Path, run: Any) -> None:
    closed = Path("closed")
    closed.mkdir()
    for path, command in WRITTEN:
        before = Path("my-texts/003.txt").read_bytes()
        refused(run, Path(path), 0o555, command)
        assert list(closed.iterdir()) == []
        assert Path("my-texts/003.txt").read_bytes() == before


def test_a_hint_names_a_folder_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "new" / "below" / "lock"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert f"ls -ld {tmp_path}`" in hint_for(denied, path)
    absent = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # as /proc answers
    assert f"nothing be made in `{tmp_path}`" in hint_for(absent, path)


def test_unreadable_metadata_is_not_damaged(tmp_path: Path) -> None:
    from alm import artifacts
    from alm.artifacts import RunMetadata

    path = tmp_path / "run.json"
    path.write_text("{}")
    path.chmod(0)
    with as_another_user(), pytest.raises(ArtifactError, match="permission denied") as caught:
        artifacts.read(path, RunMetadata, hint="make it again")
    assert "ls -l" in str(caught.value.hint)
