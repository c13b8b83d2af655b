"""A few faults of the most important stages; `nox -s crash` tries all of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crash import durable, promises, runs, trees
from crash.faults import EIO, FULL, FULL_FROM_HERE, KILL, KILLED, KINDS, MIDDLE, Fault, Injector, fits
from crash.sitting import Operation
from crash.trees import Entry, Tree
from crash.trial import differing

FAULTS_OF_A_CASE = 6

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a fork")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_fault_breaks_a_promise(repository: Path) -> None:
    """Kills, read and write errors and full disks in eight cases, two random kills, and two races."""
    sample = ["--fast", "--sample", str(FAULTS_OF_A_CASE), "--kills", "2", "--races", "2"]
    command = [sys.executable, str(repository / "tests/crash"), *sample]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the checker


def packed(**changes: bytes) -> Tree:
    """Packed data as docs/formats.md has it, small; `changes` are other contents of its files."""
    data = {"shard.bin": b"ids", "shard.idx": b"starts", "tokenizer.json": b"{}"}
    hashes = {name: hashlib.sha256(value).hexdigest() for name, value in data.items()}
    shard = {
        "file": "shard.bin", "sha256": hashes["shard.bin"],
        "index_file": "shard.idx", "index_sha256": hashes["shard.idx"],
    }  # fmt: skip
    values = {
        "format": "alm-packed",
        "shards": [shard],
        "tokenizer_file": "tokenizer.json",
        "tokenizer_sha256": hashes["tokenizer.json"],
    }
    data |= {"metadata.json": json.dumps(values).encode(), **changes}
    return {f"data/packed/{name}": Entry(value) for name, value in data.items()}


def test_a_promise_is_kept_only_by_the_same_bytes() -> None:
    assert promises.broken(packed()) == []
    (line,) = promises.broken(packed(**{"shard.idx": b"other"}))
    assert line == "`data/packed/metadata.json` promises `shard.idx` with another hash"
    tree = packed()
    del tree["data/packed/shard.bin"]
    (line,) = promises.broken(tree)
    assert line == "`data/packed/metadata.json` promises `shard.bin`, which is not there"
    (line,) = promises.broken(packed(**{"metadata.json": b"{"}))
    assert line == "`data/packed/metadata.json` is not JSON"


def checkpoint(step: int, score: float) -> dict[str, Entry]:
    """A numbered checkpoint and its metadata."""
    data, name = f"weights of {step}".encode(), f"ckpt-step{step:06d}"
    values = {"format": "alm-checkpoint", "file": f"{name}.pt", "step": step, "bits_per_byte": score}
    values["sha256"] = hashlib.sha256(data).hexdigest()
    return {f"run/{name}.pt": Entry(data), f"run/{name}.json": Entry(json.dumps(values).encode())}


def test_the_last_and_the_best_checkpoint_are_what_they_say() -> None:
    tree = {**checkpoint(2, 1.5), **checkpoint(4, 1.75)}
    tree["run/ckpt-last.pt"] = tree["run/ckpt-step000004.pt"]
    tree["run/ckpt-best.pt"] = tree["run/ckpt-step000002.pt"]
    clean = dict(tree)
    assert promises.broken(tree) + runs.checkpoints(clean, tree, "run", 2, None) == []
    tree["run/ckpt-last.pt"], tree["run/ckpt-best.pt"] = tree["run/ckpt-best.pt"], tree["run/ckpt-last.pt"]
    assert promises.broken(tree) == []
    assert runs.checkpoints(clean, tree, "run", 2, None) == [
        "`run/ckpt-last.pt` is not `ckpt-step000004.pt`",
        "`run/ckpt-best.pt` is not `ckpt-step000002.pt`",
    ]
    extra = {**clean, **checkpoint(3, 2.0)}
    assert runs.checkpoints(clean, extra, "run", 2, None) == []  # the best of all is kept besides the last two
    extra = {**clean, **checkpoint(1, 2.0)}
    assert runs.checkpoints(clean, extra, "run", 2, None) == ["`run/ckpt-step000001.pt` should have been removed"]
    tree["run/ckpt-last.pt"] = Entry(b"something")
    assert promises.broken(tree) == ["`run/ckpt-last.pt` is not promised"]


def test_rows_are_there_once_and_the_old_ones_are_set_aside() -> None:
    rows = [b'{"step": 1, "loss": 2.5, "mfu": 0.1}', b'{"step": 2, "loss": 2.25}', b'{"step": 2, "validation_loss": 2}']

    def run(*lines: bytes, folder: str = "run") -> Tree:
        return {f"{folder}/metrics.jsonl": Entry(b"\n".join(lines))}

    assert runs.rows(run(*rows), run(rows[0].replace(b"0.1", b"0.2"), *rows[1:]), "run") == []
    assert runs.rows(run(*rows), run(*rows[:2]), "run") == ["metrics.jsonl has no row for step 2 (score)"]
    assert runs.rows(run(*rows), run(*rows, rows[0]), "run") == ["metrics.jsonl has 2 rows for step 1 (loss)"]
    start = {**run(*rows), **checkpoint(2, 1.0)}
    assert runs.lost(start, run(rows[0]), "run", 1) == [
        "the old `ckpt-step000002.pt` is nowhere with its metadata",
        "2 of 2 old rows of metrics.jsonl are nowhere",
    ]
    aside = {name.replace("run/", "run/set-aside-1/"): entry for name, entry in checkpoint(2, 1.0).items()}
    assert runs.lost(start, {**aside, **run(*rows[1:], folder="run/set-aside-1")}, "run", 1) == []


def test_clocks_are_all_that_may_differ() -> None:
    first, second = b'{"loss": 2.5, "step_seconds": 0.01}\n', b'{"loss": 2.5, "step_seconds": 0.02}\n'
    assert trees.same("run/metrics.jsonl", first, second)
    assert not trees.same("run/metrics.jsonl", first, second.replace(b"2.5", b"2.4"))
    assert not trees.same("data/shard.bin", b"a", b"b")


def test_a_tree_comes_back_with_its_links(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"1")
    (tmp_path / "a/two").hardlink_to(tmp_path / "a/one")
    (tmp_path / "a/three").symlink_to("one")
    tree = trees.take(tmp_path / "a")
    trees.put(tree, tmp_path / "c")
    assert differing(trees.take(tmp_path / "c"), tree) == []
    assert (tmp_path / "c/one").samefile(tmp_path / "c/two")
    assert not (tmp_path / "c/one").samefile(tmp_path / "a/one")


def changes(*lines: str) -> list[Operation]:
    """Operations written as a person would: what, on what, from what."""
    return [Operation(number, *line.split(" ")) for number, line in enumerate(lines, 1)]


PUBLISHED = [
    f"{what} data/packed/{name}{source}"
    for name in ("shard.bin", "shard.idx", "tokenizer.json", "metadata.json")
    for what, source in (("create", ".tmp"), ("fsync", ".tmp"), ("rename", f" data/packed/{name}.tmp"))
]
PUBLISHED = [
    "unlink data/packed/metadata.json", "fsync data/packed", *PUBLISHED[:9], "fsync data/packed", *PUBLISHED[9:],
    "fsync data/packed",
]  # fmt: skip


def test_what_a_power_cut_may_take_is_read_off_the_order() -> None:
    def lines(*without: int) -> list[str]:
        order = [line for number, line in enumerate(PUBLISHED) if number not in without]
        return durable.misordered(packed(), packed(), changes(*order))

    assert lines() == []
    assert (
        lines(1)[0]
        == "`data/packed/shard.bin` is replaced before the disk knows that `data/packed/metadata.json` is withdrawn"
    )
    assert lines(3) == [
        "`data/packed/metadata.json` gets its name while `data/packed/shard.bin` is not on the disk",
        "`data/packed/shard.bin` may not be on the disk at the end",
    ]
    assert len(lines(11)) == 3  # the folder: none of the three files may have its name
    assert lines(15) == ["`data/packed/metadata.json` may not be on the disk at the end"]


def test_a_journal_that_is_on_the_disk_allows_any_order_until_it_goes() -> None:
    journal = "data/packed/.journal.json"
    begun = ["create data/packed/.j", "fsync data/packed/.j", f"rename {journal} data/packed/.j", "fsync data/packed"]
    renames = [line for line in PUBLISHED if line != "fsync data/packed"]

    def lines(*order: str) -> list[str]:
        return durable.misordered(packed(), packed(), changes(*order))

    assert lines(*begun, *renames, "fsync data/packed", f"unlink {journal}", "fsync data/packed") == []
    assert len(lines(*begun, *renames, f"unlink {journal}", "fsync data/packed")) == 4
    assert len(lines(*begun[:-1], *renames, "fsync data/packed", f"unlink {journal}")) > 4


# ---- the injector


def write_something(folder: Path) -> None:
    """Seven changes: create, write, fsync, rename, mkdir, unlink, and a file that is appended to."""
    with (folder / "new").open("wb") as file:
        file.write(b"abcd")
        file.flush()
        os.fsync(file.fileno())
    (folder / "new").replace(folder / "kept")
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "gone").unlink(missing_ok=True)
    with (folder / "log").open("ab", buffering=0) as file:
        file.write(b"row\n")


def injected(folder: Path, fault: Fault | None) -> tuple[int, list[str]]:
    """How a process ends that has the fault, and what it did to the folder."""
    folder.mkdir()
    (folder / "gone").write_bytes(b"")
    (folder / "log").write_bytes(b"first\n")
    log = os.open(folder.parent / f"{folder.name}.log", os.O_CREAT | os.O_RDWR)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            Injector(folder, fault, log).install()
            write_something(folder)
            (folder.parent / "elsewhere").write_bytes(b"not counted")
            code = 0
        except OSError as error:
            code = error.errno or 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    done = os.pread(log, 10_000, 0).decode().splitlines()
    os.close(log)
    return code, [" ".join(line.split("\t")[1:3]) for line in done]


CHANGES = [
    "create new", "write new", "fsync new", "rename kept", "mkdir sub", "unlink gone", "open log", "write log",
]  # fmt: skip


@pytest.mark.slow
def test_every_change_counts_and_each_can_fail(tmp_path: Path) -> None:
    assert injected(tmp_path / "clean", None) == (0, CHANGES)
    for number, change in enumerate(CHANGES, 1):
        for kind in KINDS:
            if not fits(kind, change.partition(" ")[0]):
                continue
            folder = tmp_path / f"{kind}-{number}"
            code, done = injected(folder, Fault(kind, number))
            assert done[:number] == CHANGES[:number]
            assert code == {KILL: KILLED, MIDDLE: KILLED, EIO: 5, FULL: 28, FULL_FROM_HERE: 28}[kind] or number == 8
            assert (folder / "kept").exists() == (number > 4)
            assert (folder / "sub").exists() == (number > 5)
            assert (folder / "gone").exists() == (number <= 6)
    assert (tmp_path / f"{KILL}-2/new").read_bytes() == b""
    assert (tmp_path / f"{MIDDLE}-2/new").read_bytes() == b"ab"
    assert (tmp_path / f"{FULL_FROM_HERE}-2/new").read_bytes() == b"ab"  # a short write, and an error for the rest
    assert (tmp_path / f"{MIDDLE}-8/log").read_bytes() == b"first\nro"
    assert (tmp_path / f"{FULL_FROM_HERE}-8/log").read_bytes() == b"first\nro"
