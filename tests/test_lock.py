"""A folder belongs to one process at a time, however processes end."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from alm.errors import AlmError
from alm.files import exclusive, holder, lock

HOLD = """
import sys
from pathlib import Path
from alm.files import exclusive
with exclusive(Path(sys.argv[1]), what="it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, as many clusters mount theirs."""

    def refuse(descriptor: int) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "_try_lock", refuse)


def test_another_process_is_refused_and_named_and_a_kill_frees_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with held_elsewhere(path) as process:
        with (
            pytest.raises(AlmError, match=f"it is being worked on by process {process.pid}"),
            exclusive(path, what="it"),
        ):
            pass
        owner = holder(path)
        assert owner is not None
        assert owner.pid == process.pid
    assert path.is_file()  # a kill leaves it
    assert holder(path) is None
    with exclusive(path, what="it"):
        pass
    assert not path.exists()


@pytest.mark.parametrize("left", [b"", b"garbage", b"\xff" * 5000, b'{"pid": 1}', str(os.getppid()).encode()])
def test_what_lies_in_the_file_locks_nothing(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / ".lock"
    path.write_bytes(left)
    assert holder(path) is None
    with exclusive(path, what="it"):
        owner = holder(path)
        assert owner is not None
        assert owner.pid == os.getpid()


def test_a_folder_made_for_the_lock_goes_again_if_nothing_came_into_it(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a" / "b" / ".lock", what="it"):
        pass
    assert not (tmp_path / "a").exists()
    with exclusive(tmp_path / "a" / "b" / ".lock", what="it"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(AlmError, match="cannot write"), exclusive(tmp_path / ".lock", what="it"):
        pass
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_file_is_the_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path, what="it"):
        with pytest.raises(AlmError, match="being worked on"), exclusive(path, what="it"):
            pass
        assert path.is_file()
    assert not path.exists()


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("change", ["boot", "pid", "started"])
def test_without_locks_one_that_was_left_behind_is_taken_over(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, me = tmp_path / ".lock", lock._myself()
    other = {"boot": "another boot", "pid": 2**31 - 2, "started": "0"}[change]
    if getattr(me, change) is None:
        pytest.skip("this system does not say")
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_myself", lambda: replace(me, **{change: other}))  # type: ignore[arg-type]
        descriptor = lock._attempt(path)
    assert descriptor is not None
    os.close(descriptor)
    with exclusive(path, what="it"):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_lock_of_another_machine_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, me = tmp_path / ".lock", lock._myself()
    with monkeypatch.context() as patch:
        patch.setattr(lock, "_myself", lambda: replace(me, host="elsewhere", pid=2**31 - 2))
        descriptor = lock._attempt(path)
    assert descriptor is not None
    os.close(descriptor)
    with pytest.raises(AlmError, match="on `elsewhere`"), exclusive(path, what="it"):
        pass


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_file_without_an_owner_is_a_lock_only_while_it_is_new(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.touch()
    with pytest.raises(AlmError, match="by another process"), exclusive(path, what="it"):
        pass
    past = time.time() - 3600
    os.utime(path, (past, past))
    with exclusive(path, what="it"):
        pass


def test_of_many_starters_one_works_at_a_time(tmp_path: Path) -> None:
    """Processes that take turns add to a number, which loses no turn if never two of them have it."""
    count = tmp_path / "count"
    count.write_text("0")
    turns = (
        "import sys; from pathlib import Path; from alm.files import exclusive\n"
        "count = Path(sys.argv[1])\n"
        "for _ in range(40):\n"
        " with exclusive(count.with_name('.lock'), what='it', patience_seconds=60):\n"
        "  count.write_text(str(int(count.read_text()) + 1))"
    )
    running = [subprocess.Popen([sys.executable, "-c", turns, str(count)]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert count.read_text() == "120"
