"""Files are whole or absent."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from unittest.mock import Mock

import pytest
from cases import for_each

from alm import files
from alm.errors import AlmError, ArtifactError, InputError
from alm.files import packed as packing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "deep" / "a", b"one")
    assert (tmp_path / "deep" / "a").read_bytes() == b"one"
    assert names(tmp_path / "deep") == ["a"]


def test_a_failure_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def failing() -> None:
        with files.atomic(path) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["a"]


def test_the_temporary_is_on_the_disk_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to))[1])
    files.write_bytes(tmp_path / "a", b"x")
    assert calls == (["fsync", "rename"] if os.name == "nt" else ["fsync", "rename", "fsync"])


def test_a_full_disk_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def fill() -> None:
        with files.atomic(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(AlmError, match="No space left") as caught:
        fill()
    assert str(path) in caught.value.message
    assert "df -h" in str(caught.value.hint)
    assert (path.read_bytes(), names(tmp_path)) == (b"before", ["a"])


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(AlmError, match="cannot write"):
        files.write_text(tmp_path / "a", "x")


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    # A process id that cannot be alive: beyond the kernel's largest.
    left = tmp_path / ".a.tmp-4194999"
    left.write_bytes(b"half")
    files.write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == (["a"] if os.name != "nt" else [".a.tmp-4194999", "a"])


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


def read(path: Path) -> bytes:
    with files.open_binary(path) as file:
        return b"".join(files.chunks(file, 7))


def test_compression_is_known_by_name(tmp_path: Path) -> None:
    import pyarrow

    text = "Größe\n".encode() * 1000
    (tmp_path / "a.txt").write_bytes(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text, mtime=0))
    with pyarrow.CompressedOutputStream(pyarrow.OSFile(str(tmp_path / "a.txt.zst"), "wb"), "zstd") as file:
        file.write(text)
    for name in ("a.txt", "a.txt.gz", "a.txt.zst"):
        assert read(tmp_path / name) == text
        assert files.suffix(tmp_path / name) == ".txt"


@pytest.mark.parametrize("name", ["a.gz", "a.zst"])
def test_a_damaged_archive_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this was never compressed")
    with pytest.raises(InputError, match="is damaged"):
        read(tmp_path / name)


def test_a_truncated_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 10_000, mtime=0)[:-8])
    with pytest.raises(InputError, match="is damaged"):
        read(tmp_path / "a.gz")


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        files.read_bytes(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        files.read_bytes(tmp_path)


def test_text_that_is_not_utf8_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="byte 0xE9 at offset 3") as caught:
        files.read_text(tmp_path / "a")
    assert "iconv" in str(caught.value.hint)


def publish(folder: Path, contents: dict[str, bytes], *, replaces: list[str]) -> None:
    with files.staging(folder, "x") as stage:
        for name, data in contents.items():
            (stage / name).write_bytes(data)
        files.publish(stage, folder, last="meta", replaces=replaces)


def test_published_files_replace_the_old_ones_together(tmp_path: Path) -> None:
    publish(tmp_path, {"a": b"1", "b": b"1", "meta": b"1"}, replaces=[])
    publish(tmp_path, {"a": b"2", "meta": b"2"}, replaces=["a", "b"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"2", "meta": b"2"}


@pytest.mark.parametrize("call", ["fsync", "replace", "unlink"])
def test_a_kill_at_any_instant_leaves_the_old_files_or_the_next_reader_completes_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    owner = os if call == "fsync" else Path
    plain = getattr(owner, call)
    old, new = {"a": b"1", "b": b"1", "meta": b"1"}, {"a": b"2", "c": b"2", "meta": b"2"}
    seen = set()
    for fatal in range(40):
        folder = tmp_path / str(fatal)
        publish(folder, old, replaces=[])
        calls = iter(range(1000))

        def dying(*given: object, calls: Iterator[int] = calls, fatal: int = fatal, **named: object) -> object:
            if next(calls) == fatal:
                raise KeyboardInterrupt
            return plain(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, call, dying)
            with contextlib.suppress(KeyboardInterrupt):
                publish(folder, new, replaces=["a", "b"])
        promised = (folder / "meta").read_bytes() if (folder / "meta").is_file() else None
        there = contents(folder)
        if promised is not None:  # it never promises what is not there
            assert there == (old if promised == b"1" else new)
        files.ensure_published(folder)
        assert contents(folder) in ((new,) if promised != b"1" else (old, new))
        seen.add(promised)
    assert seen >= {b"1", b"2"}


@pytest.mark.parametrize("name", ["a", "c"])  # one that was there before, and one that is new
def test_a_file_that_somebody_writes_after_a_kill_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    publish(tmp_path, {"a": b"1", "b": b"1", "meta": b"1"}, replaces=[])
    with monkeypatch.context() as patch:
        # `files.publish` is the function of that name.
        patch.setattr(sys.modules["alm.files.publish"], "_move", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, {"a": b"2", "c": b"2", "meta": b"2"}, replaces=["a", "b"])
    (tmp_path / name).write_bytes(b"their own")
    before = contents(tmp_path)
    with pytest.raises(ArtifactError, match=f"`{tmp_path / name}` has changed since"):
        files.ensure_published(tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / name).unlink()  # what is staged is still there
    files.ensure_published(tmp_path)
    assert contents(tmp_path) == {"a": b"2", "c": b"2", "meta": b"2"}


def contents(folder: Path) -> dict[str, bytes]:
    """The visible files."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_failed_stage_leaves_no_trace(tmp_path: Path) -> None:
    def failing() -> None:
        with files.staging(tmp_path, "x") as stage:
            (stage / "a").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert names(tmp_path) == []


def test_an_empty_file_reads_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    opened: BinaryIO
    with files.open_binary(tmp_path / "a") as opened:
        assert list(files.chunks(opened)) == []


@for_each(
    "value",
    [
        {},
        [],
        {"a": [], "b": {}, "c": None, "d": [True, False, 1, -1.5e-7, float("inf")], 'é\n"': "\u2028\x00😀\\"},
        [[["x", 1]], {"y": {"z": [1, [2, "3"]]}}],
        ("tuple", (1, 2)),
        "text",
        3,
    ],
)
def test_indented_json_is_what_the_standard_library_writes(value: object) -> None:
    assert files.indented_json(value) == json.dumps(value, ensure_ascii=False, indent=2)


def packed(text: bytes, ending: str) -> bytes:
    import pyarrow

    if ending == ".zst":
        return bytes(pyarrow.compress(text, codec="zstd", asbytes=True))
    return gzip.compress(text, mtime=0) if ending == ".gz" else lzma.compress(text)


@pytest.mark.parametrize("ending", [".gz", ".zst", ".xz"])
def test_compression_is_known_by_content_before_name(tmp_path: Path, ending: str) -> None:
    text = "Größe\n".encode() * 1000
    (tmp_path / f"a.txt{ending}").write_bytes(packed(text, ending))
    (tmp_path / "a.txt").write_bytes(packed(text, ending))
    (tmp_path / "wrong.txt.gz").write_bytes(packed(text, ending))
    (tmp_path / os.fsdecode(b"odd\xff")).write_bytes(packed(text, ending) * 2)
    assert read(tmp_path / f"a.txt{ending}") == read(tmp_path / "a.txt") == read(tmp_path / "wrong.txt.gz") == text
    assert read(tmp_path / os.fsdecode(b"odd\xff")) == text * 2
    assert files.suffix(tmp_path / f"a.TXT{ending.upper()}") == ".txt"
    with files.open_binary(tmp_path / "a.txt") as file:
        assert (file.readline(), file.read()) == (text[:8], text[8:])


@pytest.mark.parametrize(("ending", "program"), [(".gz", "gzip"), (".zst", "zstd"), (".xz", "xz")])
def test_a_packed_file_that_is_cut_short_is_told(tmp_path: Path, ending: str, program: str) -> None:
    path = tmp_path / f"a{ending}"
    for number, data in enumerate([packed(os.urandom(50_000), ending)[:-9], b"never packed"]):
        path.write_bytes(data)
        with pytest.raises(InputError, match="is damaged") as caught:
            read(path)
        assert f"{program} -t {path}" in str(caught.value.hint), number


@pytest.mark.sampled(1)
@pytest.mark.parametrize("ending", [".gz", ".zst", ".xz"])
def test_what_unpacks_to_too_much_is_refused_when_that_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(packed(b"x" * 9_000_000, ending))
    monkeypatch.setattr(packing, "_UNPACKED_BYTES", 9_000_000)
    monkeypatch.setattr(packing, "_UNPACKED_TIMES", 0)
    assert len(read(path)) == 9_000_000
    monkeypatch.setattr(packing, "_UNPACKED_BYTES", 5_000_000)
    with files.open_binary(path) as file:
        assert len(file.read(3_000_000)) == 3_000_000
    with pytest.raises(InputError, match="unpacks to more than 5,000,000 bytes"):
        read(path)
    monkeypatch.setattr(packing, "_UNPACKED_TIMES", 1 + 9_000_000 // path.stat().st_size)
    assert len(read(path)) == 9_000_000


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux tells")
def test_a_process_that_only_waits_for_its_exit_code_to_be_asked_runs_no_more() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()  # until it ends
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is None:
            pass
        assert not files.is_running(process.pid)
        assert files.is_running(os.getppid())


def test_a_journal_of_a_stranger_touches_no_file_of_ours(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "too.txt").write_text("mine")
    (tmp_path / ".x.staging").mkdir()
    (tmp_path / ".x.staging" / "precious.txt").write_text("theirs")
    for journal in (
        {"removes": ["precious.txt", "mine/too.txt"], "stage": ".x.staging"},
        {"withdraws": ["precious.txt"], "stage": ".x.staging"},
        {"moves": [[".x.staging/precious.txt", "precious.txt"]], "stage": ".x.staging"},
        {"moves": [["precious.txt", "../x"]], "stage": ".x.staging"},
        {"removes": [], "stage": "mine"},
        {"removes": ["/etc/x"], "stage": ".x.staging"},
        {"there": {"precious.txt": [4, 0]}, "removes": ["precious.txt"], "stage": ".x.staging"},
    ):
        (tmp_path / ".journal.json").write_text(json.dumps({"last": None, "last_source": None, **journal}))
        with contextlib.suppress(AlmError):
            files.ensure_published(tmp_path)
        assert (tmp_path / "precious.txt").read_text() == "mine"
        assert (tmp_path / "mine" / "too.txt").read_text() == "mine"


def test_a_change_that_cannot_be_completed_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, {"a": b"1", "meta": b"1"}, replaces=[])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(tmp_path, {"b": b"2", "meta": b"2"}, replaces=["a"])
    shutil.rmtree(tmp_path / ".x.staging")  # by somebody who tidies up
    with pytest.raises(ArtifactError, match="cannot be completed"):
        files.ensure_published(tmp_path)
    assert contents(tmp_path) == {"a": b"1", "meta": b"1"}


def test_leftovers_of_other_programs_stay(tmp_path: Path) -> None:
    (tmp_path / ".notes.tmp-4194999").write_text("mine")
    (tmp_path / "..journal.json.tmp-4194999").write_text("half")
    files.sweep(tmp_path, "x")
    assert names(tmp_path) == [".notes.tmp-4194999"]


def test_a_folder_where_a_file_should_be_is_refused_before_anything_changes(tmp_path: Path) -> None:
    publish(tmp_path, {"a": b"1", "meta": b"1"}, replaces=[])
    (tmp_path / "b").mkdir()
    with pytest.raises(AlmError, match="Is a directory"):
        publish(tmp_path, {"a": b"2", "b": b"2", "meta": b"2"}, replaces=["a"])
    assert contents_of_files(tmp_path) == {"a": b"1", "meta": b"1"}


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_name_that_is_not_utf8_is_refused_before_work_is_done(tmp_path: Path) -> None:
    with pytest.raises(AlmError, match="not UTF-8"), files.workspace(tmp_path / "caf\udce9", "x", what="it"):
        pytest.fail("work was done")
    assert json.loads(files.indented_json({"a": "caf\udce9 é"})) == {"a": "caf\udce9 é"}


def test_who_may_not_write_waits_for_a_publication_and_is_not_kept_from_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, looks = tmp_path / ".journal.json", []
    journal.write_text("{}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    publishing = sys.modules["alm.files.publish"]  # the function has its name
    monkeypatch.setattr(publishing, "_READER_SECONDS", 0)
    with pytest.raises(ArtifactError, match="is being published"):
        files.ensure_published(tmp_path)
    monkeypatch.setattr(publishing, "_READER_SECONDS", 60)
    monkeypatch.setattr("time.sleep", lambda seconds: (looks.append(seconds), journal.unlink()))
    files.ensure_published(tmp_path)
    assert len(looks) == 1


_XZ, _GZ, _ZST = lzma.compress(b"one\n"), gzip.compress(b"one\n", mtime=0), packed(b"one\n", ".zst")
_SKIPPED = b"\x50\x2a\x4d\x18\x04\x00\x00\x00note"  # RFC 8878, section 3.1.2


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.xz", _XZ + b"\0" * 4 + lzma.compress(b"two\n"), b"one\ntwo\n"),
        ("a.xz", _XZ + lzma.compress(b"") + lzma.compress(b"two\n") + b"\0" * 8, b"one\ntwo\n"),
        ("a.xz", _XZ + b"\0" * (4 << 20) + lzma.compress(b"two\n"), b"one\ntwo\n"),
        ("a.gz", _GZ + b"\0" * 5 + gzip.compress(b"two\n", mtime=0), b"one\ntwo\n"),
        ("a.zst", _ZST + _SKIPPED + packed(b"two\n", ".zst"), b"one\ntwo\n"),
        ("a.zst", _SKIPPED + _ZST, b"one\n"),
    ],
)
def test_all_streams_of_a_compressed_file_are_read(tmp_path: Path, name: str, data: bytes, text: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with files.open_binary(tmp_path / name) as file:
        assert file.read() == text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (name, first + rest)
        for name, first, second in (("a.xz", _XZ, lzma.compress(b"two\n")), ("a.gz", _GZ, _GZ), ("a.zst", _ZST, _ZST))
        for rest in (b"more", second[:-1], second[:7], b"?" + second[1:])
    ]
    + [("a.xz", _XZ + _XZ[:30] + bytes([_XZ[30] ^ 1]) + _XZ[31:])]
    + [("a.xz", _XZ + b"\0" * 3 + _XZ), ("a.zst", _ZST + b"\0" * 4 + _ZST), ("a.xz", _XZ + _GZ)],
)
def test_what_follows_the_first_stream_is_read_or_named_as_damage(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match="is damaged") as raised, files.open_binary(path) as file:
        file.read()
    assert str(path) in str(raised.value.hint)


def test_long_distances_of_zstd_are_read(tmp_path: Path) -> None:
    zstd = pytest.importorskip("zstandard")
    text = os.urandom(1 << 16) * 3
    options = zstd.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    path = tmp_path / "a.zst"
    packer = zstd.ZstdCompressor(compression_params=options).compressobj()  # it does not know the size beforehand
    path.write_bytes(packer.compress(text) + packer.flush())
    with files.open_binary(path) as file:
        assert file.read() == text
