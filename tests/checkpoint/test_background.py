"""Saving in the background: the same bits, one at a time, and no fault goes unheard."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import TABLE, TINY_MODEL, tiny_weights

from alm.checkpoint import background, save
from alm.checkpoint.background import CheckpointWriter, HostCopy
from alm.checkpoint.format import Checkpoint, numbered
from alm.checkpoint.load import load_checkpoint, verify
from alm.checkpoint.retain import Retention
from alm.checkpoint.space import check_space
from alm.errors import AlmError, StoppedError
from alm.events import Event, Warned


def checkpoint(step: int = 1) -> Checkpoint:
    return Checkpoint(
        step=step,
        samples_seen=step,
        model=tiny_weights(float(step)),
        optimizer={"state": {0: {"exp_avg": torch.full((5,), 2.0)}}, "param_groups": [{"betas": (0.9, 0.95)}]},
        rng=[{"cpu": torch.get_rng_state()}],
        config={"model": TINY_MODEL},
        environment={},
        tokenizer_sha256="t",
        data_sha256="d",
    )


class Heard:
    """What a writer told, and a gate in front of its serialization."""

    def __init__(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saved: list[int] = []
        self.full: list[AlmError] = []
        self.gate = threading.Event()
        self.arrived = threading.Event()
        self.fault: BaseException | None = None
        serialize = save._serialize

        def gated(*arguments: Any) -> None:
            self.arrived.set()
            assert self.gate.wait(timeout=60)
            if self.fault is not None:
                raise self.fault
            serialize(*arguments)

        monkeypatch.setattr(save, "_serialize", gated)
        self.writer = CheckpointWriter(
            run, Retention(last=9), on_saved=lambda step, _: self.saved.append(step), on_full=self.full.append
        )


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    found = Heard(tmp_path, monkeypatch)
    yield found
    found.gate.set()


def test_training_that_goes_on_does_not_reach_the_file(tmp_path: Path, heard: Heard) -> None:
    live = checkpoint()
    with heard.writer as writer:
        writer.save(live)
        assert heard.arrived.wait(timeout=60)
        live.model[TABLE].fill_(-7.0)
        live.optimizer["state"][0]["exp_avg"].zero_()
        live.rng[0]["cpu"].zero_()
        live.optimizer["param_groups"][0]["betas"] = (0.0, 0.0)
        heard.gate.set()
    found, expected = load_checkpoint(tmp_path / "ckpt-step000001.pt"), checkpoint()
    assert torch.equal(found.model[TABLE], expected.model[TABLE])
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], torch.full((5,), 2.0))
    assert found.optimizer["param_groups"] == [{"betas": (0.9, 0.95)}]
    assert torch.equal(found.rng[0]["cpu"], expected.rng[0]["cpu"])
    assert heard.saved == [1]


def test_buffers_are_used_again(tmp_path: Path) -> None:
    copy = HostCopy()
    first, second = copy.of(checkpoint(1)), copy.of(checkpoint(2))
    assert first.model[TABLE].data_ptr() == second.model[TABLE].data_ptr()
    assert float(second.model[TABLE][0, 0]) == 2.0
    grown = copy.of(replace(checkpoint(3), model={TABLE: torch.ones(3)}))
    assert grown.model[TABLE].shape == (3,)


def test_the_next_save_waits_for_the_one_before(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    with heard.writer as writer:
        writer.save(checkpoint(1))
        writer.poll()
        assert heard.saved == []
        wait = background.wait

        def opening(*arguments: Any, **keywords: Any) -> Any:
            heard.gate.set()
            return wait(*arguments, **keywords)

        monkeypatch.setattr(background, "wait", opening)
        writer.save(checkpoint(2))
        assert heard.saved == [1]
    assert heard.saved == [1, 2]


def test_a_fault_of_the_thread_is_raised_here_as_it_is(tmp_path: Path, heard: Heard) -> None:
    heard.gate.set()
    heard.fault = OSError(errno.EIO, "the disk is broken")
    heard.writer.save(checkpoint())
    with pytest.raises(AlmError, match="the disk is broken") as caught:
        heard.writer.wait()
    assert "once the disk works" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_is_told_and_the_next_save_is_tried(tmp_path: Path, heard: Heard, number: int) -> None:
    heard.gate.set()
    with heard.writer as writer:
        writer.save(checkpoint(1))
        writer.wait()
        heard.fault = OSError(number, "no room")
        writer.save(checkpoint(2))
        writer.wait()
        assert not writer.has_saved(2)
        heard.fault = None
        writer.save(checkpoint(3))
    assert (heard.saved, len(heard.full)) == ([1, 3], 1)
    assert [verify(path).step for path in numbered(tmp_path)] == [3, 1]
    assert not [path for path in tmp_path.iterdir() if ".tmp-" in path.name or "000002" in path.name]


def test_a_real_limit_of_file_sizes_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    full: list[AlmError] = []
    with CheckpointWriter(tmp_path, Retention(last=3), on_saved=lambda *_: None, on_full=full.append) as writer:
        writer.save(checkpoint(1))
        writer.wait()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            writer.save(checkpoint(2))
            writer.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(full) == 1
    assert [verify(path).step for path in numbered(tmp_path)] == [1]
    assert not list(tmp_path.glob("*2*"))
    assert not list(tmp_path.glob(".*"))


def test_metadata_that_has_no_room_takes_its_checkpoint_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(save.artifacts, "write", refuse)
    with pytest.raises(OSError, match="no room"):
        save.save_checkpoint(checkpoint(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_stopped_at_once_gives_up_what_it_writes(tmp_path: Path, heard: Heard) -> None:
    heard.gate = heard.writer._cancelled  # it is still writing when it is given up

    def stopped() -> None:
        with heard.writer as writer:
            writer.save(checkpoint())
            raise StoppedError("at once")

    with pytest.raises(StoppedError, match="at once"):
        stopped()
    assert heard.arrived.is_set()
    assert heard.writer._in_flight is not None
    assert "cancel" in str(heard.writer._in_flight[1].exception()).lower()
    assert list(tmp_path.iterdir()) == []


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))


@pytest.mark.parametrize(
    ("there", "keep", "saves", "needed"),
    [
        (0, Retention(last=3), 100, 4),  # three that stay, and one that is written before the oldest goes
        (0, Retention(last=3, best=True), 100, 5),
        (2, Retention(last=3), 100, 2),
        (3, Retention(last=3), 100, 1),
        (9, Retention(last=3), 100, 1),
        (9, Retention(last=5, every=3), 100, 1),  # 0, 3 and 6 stay for ever, and are none of the last five
        (9, Retention(last=8, every=3), 100, 3),
        (0, Retention(last=3), 2, 2),
    ],
)
def test_the_disk_must_hold_the_next_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: int, keep: Retention, saves: int, needed: int
) -> None:
    for step in range(there):
        save.save_checkpoint(checkpoint(step), tmp_path)
    room(monkeypatch, needed * 50_000_000)
    check_space(tmp_path, keep, checkpoint_bytes=50_000_000, saves=saves, permanent=0)
    room(monkeypatch, needed * 50_000_000 - 1)
    total = rf"{needed * 50}\.0 MB"
    with pytest.raises(AlmError, match=rf"of free space, and the next .*50\.0 MB needs? {total}") as caught:
        check_space(tmp_path, keep, checkpoint_bytes=50_000_000, saves=saves, permanent=0)
    assert "training.keep_last=1" in str(caught.value.hint)


def test_checkpoints_for_ever_that_do_not_fit_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, 5_000_000_000)
    events: list[Event] = []
    keep = Retention(last=1, every=10)
    check_space(tmp_path, keep, checkpoint_bytes=10**9, saves=100, permanent=3, on_event=events.append)
    assert events == []
    check_space(tmp_path, keep, checkpoint_bytes=10**9, saves=100, permanent=4, on_event=events.append)
    assert [type(event) for event in events] == [Warned]
    assert "5.0 GB of free space; the 4 checkpoints" in str(events[0])
