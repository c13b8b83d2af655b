"""Checkpoints: whole or not there, checked by hash, and running no code."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TABLE, TINY_MODEL, tiny_weights

from alm.checkpoint import load
from alm.checkpoint.format import BEST_NAME, LAST_NAME, Checkpoint, numbered, step_of
from alm.checkpoint.load import load_checkpoint, newest, verify
from alm.checkpoint.retain import Retention, repair, rewind
from alm.checkpoint.save import save_checkpoint
from alm.errors import AlmError, ArtifactError
from alm.events import Event, Warned
from alm.files import ensure_published


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        samples_seen=step * 8,
        model=tiny_weights(float(step)),
        optimizer={"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        rng=[{"cpu": torch.get_rng_state()}],
        config={"model": TINY_MODEL, "training": {"compile": "auto", "seed": 1}},
        environment={"torch": "2"},
        tokenizer_sha256="t",
        data_sha256="d",
    )


def save(run: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(checkpoint(step), run)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save_checkpoint(checkpoint(7), tmp_path)
    assert path.name == "ckpt-step000007.pt"
    found = load_checkpoint(path)
    assert (found.step, found.samples_seen, found.config) == (7, 56, checkpoint(7).config)
    assert torch.equal(found.model[TABLE], checkpoint(7).model[TABLE])
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], torch.ones(3))
    assert verify(path).step == 7


def test_last_is_the_newest_and_checked_against_its_metadata(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    assert verify(tmp_path / LAST_NAME).step == 2
    assert (tmp_path / LAST_NAME).samefile(tmp_path / "ckpt-step000002.pt")
    assert names(tmp_path) == [
        LAST_NAME,
        "ckpt-step000001.json",
        "ckpt-step000001.pt",
        "ckpt-step000002.json",
        "ckpt-step000002.pt",
    ]


def test_last_is_a_copy_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    save(tmp_path, 1, 2)
    assert (tmp_path / LAST_NAME).read_bytes() == (tmp_path / "ckpt-step000002.pt").read_bytes()
    assert verify(tmp_path / LAST_NAME).step == 2


@pytest.mark.parametrize("damage", [b"", b"garbage", b"[]", b'{"format": "alm-checkpoint"}', None])
def test_damaged_metadata_is_told_and_the_checkpoint_before_is_used(tmp_path: Path, damage: bytes | None) -> None:
    save(tmp_path, 1, 2)
    metadata = tmp_path / "ckpt-step000002.json"
    if damage is None:
        metadata.unlink()
    else:
        metadata.write_bytes(damage)
    events: list[Event] = []
    found = newest(tmp_path, on_event=events.append)
    assert found is not None
    assert found.step == 1
    assert [("step000002" in e.message, "falling back" in e.message) for e in events if isinstance(e, Warned)] == [
        (True, True)
    ]


def test_a_link_is_vouched_for_by_any_whole_metadata(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "ckpt-step000001.json").write_bytes(b"garbage")
    assert verify(tmp_path / LAST_NAME).step == 2


def test_no_whole_checkpoint_at_all_is_told(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "ckpt-step000001.pt").write_bytes(b"")
    events: list[Event] = []
    assert newest(tmp_path, on_event=events.append) is None
    assert isinstance(events[-1], Warned)
    assert "starts again at step 0" in events[-1].message


def test_the_hash_taken_while_writing_is_that_of_the_file(tmp_path: Path) -> None:
    path = save_checkpoint(checkpoint(3), tmp_path, bits_per_byte=1.5)
    promised = json.loads(path.with_suffix(".json").read_bytes())
    data = path.read_bytes()
    assert (promised["sha256"], promised["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert promised["bits_per_byte"] == 1.5


def test_a_checkpoint_of_before_skipped_steps_were_counted_is_read(tmp_path: Path) -> None:
    values = {k: v for k, v in checkpoint(1).values().items() if not k.startswith("skipped")}
    torch.save(values, tmp_path / "a.pt")
    found = load_checkpoint(tmp_path / "a.pt")
    assert (found.step, found.skipped_steps, found.skipped_in_row) == (1, 0, 0)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / "ckpt-step000002.pt"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    path.write_bytes({"truncate": data[:-100], "flip": data, "empty": b""}[damage])
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        verify(path)
    assert "ckpt-step000001.pt" in str(caught.value.hint)
    events: list[Event] = []
    found = newest(tmp_path, on_event=events.append)
    assert found is not None
    assert found.step == 1
    assert any(isinstance(event, Warned) and "falling back" in event.message for event in events)


def test_a_truncated_file_without_any_check_is_still_a_clear_error(tmp_path: Path) -> None:
    path = save_checkpoint(checkpoint(1), tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="is not a complete checkpoint"):
        load_checkpoint(path)


def test_a_file_from_a_stranger_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"format": "alm-checkpoint", "x": Payload()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Payload(), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ArtifactError):
            load_checkpoint(tmp_path / name)
    assert not marker.exists()


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ArtifactError, match="not a checkpoint of alm"):
        load_checkpoint(tmp_path / "other.pt")
    with pytest.raises(ArtifactError, match="does not exist"):
        verify(tmp_path / "none.pt")
    with pytest.raises(ArtifactError, match="is a folder"):
        verify(tmp_path)
    with pytest.raises(ArtifactError, match="no metadata beside it"):
        verify(tmp_path / "other.pt")


def test_a_newer_format_is_told(tmp_path: Path) -> None:
    torch.save({**checkpoint(1).values(), "format_version": 99}, tmp_path / "a.pt")
    with pytest.raises(AlmError, match="format version 99"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_checkpoint_without_metadata_is_not_whole(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "ckpt-step000002.json").unlink()
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert newest(tmp_path / "none") is None


def test_only_the_last_few_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 10, 200)
    repair(tmp_path, Retention(last=2))
    assert [path.name for path in numbered(tmp_path)] == ["ckpt-step000200.pt", "ckpt-step000010.pt"]
    assert verify(tmp_path / LAST_NAME).step == 200


def scored(run: Path, **scores: float | None) -> None:
    for step, score in scores.items():
        save_checkpoint(checkpoint(int(step[1:])), run, bits_per_byte=score)


def steps(run: Path) -> list[int]:
    return [step for path in numbered(run) if (step := step_of(path)) is not None]


def test_every_so_many_steps_and_the_best_are_kept(tmp_path: Path) -> None:
    scored(tmp_path, s5=3.0, s10=2.0, s12=1.0, s15=1.0, s20=4.0, s21=None, s22=None)
    repair(tmp_path, Retention(last=2, every=10, best=True))
    assert steps(tmp_path) == [22, 21, 20, 12, 10]
    assert (tmp_path / BEST_NAME).samefile(tmp_path / "ckpt-step000012.pt")
    assert verify(tmp_path / BEST_NAME).step == 12
    scored(tmp_path, s25=0.5)
    repair(tmp_path, Retention(last=1, every=10, best=True))
    assert steps(tmp_path) == [25, 20, 10]
    assert verify(tmp_path / BEST_NAME).step == 25


def test_the_best_is_another_one_when_it_is_set_aside(tmp_path: Path) -> None:
    scored(tmp_path, s1=2.0, s2=1.0)
    repair(tmp_path, Retention(last=2, best=True))
    rewind(tmp_path, step=1, rows={})
    assert verify(tmp_path / BEST_NAME).step == 1


@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_the_only_whole_one_stays(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1, 2)
    path = tmp_path / "ckpt-step000002.pt"
    path.write_bytes(b"half") if damage == "cut" else path.with_suffix(".json").write_bytes(b"{")
    repair(tmp_path, Retention(last=1))
    assert verify(tmp_path / "ckpt-step000001.pt").step == 1


def test_a_checkpoint_that_nobody_promises_is_never_removed(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    (tmp_path / "ckpt-step000001.json").unlink()
    repair(tmp_path, Retention(last=1))
    assert names(tmp_path) == ["ckpt-last.pt", "ckpt-step000001.pt", "ckpt-step000003.json", "ckpt-step000003.pt"]


@pytest.mark.parametrize("damage", ["missing", "older", "other"])
def test_links_are_made_right_at_the_next_start(tmp_path: Path, damage: str) -> None:
    scored(tmp_path, s1=1.0, s2=2.0)
    assert repair(tmp_path, Retention(last=2, best=True))
    assert not repair(tmp_path, Retention(last=2, best=True))
    for link in (LAST_NAME, BEST_NAME):
        (tmp_path / link).unlink()
        if damage == "older":
            other = 1 if link == LAST_NAME else 2
            os.link(tmp_path / f"ckpt-step00000{other}.pt", tmp_path / link)
        elif damage == "other":
            (tmp_path / link).write_bytes(b"x")
    assert repair(tmp_path, Retention(last=2, best=True))
    assert (verify(tmp_path / LAST_NAME).step, verify(tmp_path / BEST_NAME).step) == (2, 1)


def test_a_best_that_is_no_longer_kept_up_to_date_goes(tmp_path: Path) -> None:
    scored(tmp_path, s1=2.0, s2=3.0)
    repair(tmp_path, Retention(last=3, best=True))
    repair(tmp_path, Retention(last=3))
    assert not (tmp_path / BEST_NAME).exists()
    assert steps(tmp_path) == [2, 1]


def test_the_best_goes_with_its_checkpoint_and_never_otherwise(tmp_path: Path) -> None:
    scored(tmp_path, s1=1.0, s2=2.0, s3=3.0)
    repair(tmp_path, Retention(last=2, best=True))
    assert verify(tmp_path / BEST_NAME).step == 1
    repair(tmp_path, Retention(last=1))
    assert names(tmp_path) == ["ckpt-last.pt", "ckpt-step000003.json", "ckpt-step000003.pt"]
    (tmp_path / BEST_NAME).write_bytes(b"mine")
    repair(tmp_path, Retention(last=1))
    assert (tmp_path / BEST_NAME).read_bytes() == b"mine"


@pytest.mark.parametrize("fails", [1, 2])
def test_a_disk_that_fails_while_a_checkpoint_is_published_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """The run goes on after such an error, and saves again."""
    save_checkpoint(checkpoint(1), tmp_path, retention=Retention(last=1))
    plain, left = Path.replace, fails

    def failing(self: Path, target: Path) -> Path:
        nonlocal left
        if left and self.name.startswith("ckpt-step"):
            left -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    for step in range(2, 2 + fails):
        with pytest.raises(AlmError):
            save_checkpoint(checkpoint(step), tmp_path, retention=Retention(last=1))
    assert newest(tmp_path) is not None
    save_checkpoint(checkpoint(9), tmp_path, retention=Retention(last=2))
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 9
    assert verify(tmp_path / LAST_NAME).step == 9
    assert steps(tmp_path) == [9, 2]


def test_a_link_that_becomes_another_file_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    plain = load.load_checkpoint

    def late(path: Path, **keywords: Any) -> Checkpoint:
        if len(steps(tmp_path)) == 1:
            save(tmp_path, 2)  # training goes on between the check and the reading
        return plain(path, **keywords)

    monkeypatch.setattr(load, "load_checkpoint", late)
    found, loaded = load.open_checkpoint(tmp_path / LAST_NAME)
    assert found is not None
    assert (found.step, loaded.step) == (2, 2)


@pytest.mark.slow
def test_rows_and_later_checkpoints_are_set_aside_at_one_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die at every file-system call in turn: nothing is lost, and the next start ends in the same folder."""
    before, after = rewound(tmp_path / "clean", fatal=None, monkeypatch=monkeypatch)
    assert set(after) == {
        *(f"ckpt-step000001{ending}" for ending in (".pt", ".json")),
        *(f"set-aside-1/ckpt-step00000{step}{ending}" for step in (2, 3) for ending in (".pt", ".json")),
        "ckpt-last.pt",
        "metrics.jsonl",
        "set-aside-1/metrics.jsonl",
    }
    ends = []
    for fatal in range(1, 60):
        found, finished = rewound(tmp_path / str(fatal), fatal=fatal, monkeypatch=monkeypatch)
        ends.append(found == before)
        assert found in (before, after)
        assert finished == after
    assert ends[0]
    assert not ends[-1]


def rewound(
    run: Path, *, fatal: int | None, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What `run` holds after a rewind that dies at the call `fatal`, and after the same one is done again."""
    run.mkdir()
    save(run, 1, 2, 3)
    (run / "metrics.jsonl").write_bytes(b"1\n2\n3\n")
    plain = contents(run)
    with monkeypatch.context() as patch:
        die_at(patch, fatal)
        with contextlib.suppress(KeyboardInterrupt):
            rewind(run, step=1, rows={"metrics.jsonl": (b"1\n", b"2\n3\n")})
    ensure_published(run)
    found = plain if fatal is None else contents(run)
    if found == plain:
        rewind(run, step=1, rows={"metrics.jsonl": (b"1\n", b"2\n3\n")})
    return found, contents(run)


def contents(run: Path) -> dict[str, bytes]:
    """The visible files of `run`, by their names."""
    paths = [path for path in run.rglob("*") if path.is_file()]
    names = {path: path.relative_to(run).as_posix() for path in paths}
    return {name: path.read_bytes() for path, name in names.items() if not name.startswith(".")}


def die_at(patch: pytest.MonkeyPatch, fatal: int | None) -> list[int]:
    """Make the call number `fatal` that changes files raise; a list of one number, the calls so far."""
    calls = [0]

    def dying(real: object) -> object:
        def call(*arguments: object, **keywords: object) -> object:
            calls[0] += 1
            if calls[0] == fatal:
                raise KeyboardInterrupt
            return real(*arguments, **keywords)  # type: ignore[operator]

        return call

    for name in ("fsync", "link"):
        patch.setattr(os, name, dying(getattr(os, name)))
    for name in ("replace", "unlink"):
        patch.setattr(Path, name, dying(getattr(Path, name)))
    return calls


def test_later_checkpoints_are_set_aside(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    folder = rewind(tmp_path, step=1, rows={})
    assert folder is not None
    assert [verify(path).step for path in numbered(folder)] == [3, 2]
    assert verify(tmp_path / LAST_NAME).step == 1
    assert rewind(tmp_path, step=1, rows={}) is None


def test_a_kill_while_saving_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die at every file-system call of a save in turn; each time the newest whole checkpoint is 1 or 2, and loads."""
    for fatal in range(1, 60):
        run = tmp_path / str(fatal)
        run.mkdir()
        save(run, 1)
        with monkeypatch.context() as patch:
            die_at(patch, fatal)
            finished = True
            try:
                save_checkpoint(checkpoint(2), run, retention=Retention(last=1))
            except KeyboardInterrupt:
                finished = False
        found = newest(run)
        assert found is not None
        assert load_checkpoint(found.path).step == found.step
        assert found.step == 2 or not finished
        assert verify(run / LAST_NAME).step == found.step
        assert [path.name for path in numbered(run)] == [f"ckpt-step00000{found.step}.pt"]
        if finished:
            break
    assert finished
    assert fatal > 5
