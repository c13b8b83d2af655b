"""Batches are a pure function of (seed, step, rank, world size)."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import write_packed

from alm.corpus.split import TRAIN
from alm.data.config import DataConfig
from alm.data.loader import NO_TARGET, BatchPlan, Loader, batch_plan, micro_batch, read_step, target_count
from alm.data.mixture import Mixture, Share, plain
from alm.errors import ConfigError, InputError
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import TokenStream, open_packed


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> TokenStream:
    return open_packed(write_packed(tmp_path_factory.mktemp("data"))[0]).split(TRAIN)


def plan(stream: TokenStream, *, sequences_per_step: int = 8, micro: int = 4, seed: int = 1) -> BatchPlan:
    return BatchPlan(plain(stream.sequences), sequences_per_step, micro, seed)


def test_an_epoch_visits_each_sequence_once(stream: TokenStream) -> None:
    steps = -(-3 * stream.sequences // 8)
    visited = np.concatenate([plan(stream).rows(step) for step in range(steps)])
    for epoch in range(3):
        rows = visited[epoch * stream.sequences : (epoch + 1) * stream.sequences]
        assert sorted(rows.tolist()) == list(range(stream.sequences))
    first, second = visited[: stream.sequences], visited[stream.sequences : 2 * stream.sequences]
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_ranks_share_the_same_global_batch(stream: TokenStream, world_size: int) -> None:
    for step in (0, 3, 1000):
        whole = plan(stream).rows(step)
        parts = [plan(stream).rows(step, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("sources", [None, {"a": 2.0, "b": 1.0}])
def test_each_pass_cuts_its_rows_elsewhere_and_the_first_one_does_not(
    tmp_path: Path, sources: dict[str, float] | None
) -> None:
    stream = open_packed(write_packed(tmp_path, documents=30)[0]).split(TRAIN)
    if sources is not None:
        half = stream.sequences // 2
        shares = (Share("a", 0, half, 2), Share("b", half, stream.sequences - half, 1))
    else:
        shares = plain(stream.sequences).shares
    usual = BatchPlan(Mixture(shares), 8, 4, 1)
    recut = replace(usual, shift_below=stream.seq_len)
    every = stream.tokens(0, stream.sequences * stream.seq_len + 1)
    seen: dict[int, set[int]] = {}
    for step in range(5 * stream.sequences // 8):
        rows, passes = usual.mixture.rows(np.arange(8 * step, 8 * step + 8), seed=1)
        found, shifts = recut.cuts(step)
        assert found.tolist() == rows.tolist() == usual.rows(step).tolist()
        assert not shifts[passes == 0].any()
        inputs = torch.cat([batch.inputs for batch in read_step(stream, recut, step)])
        for row, shift, passed, ids in zip(rows.tolist(), shifts.tolist(), passes.tolist(), inputs, strict=True):
            start = row * stream.seq_len + shift
            assert ids.tolist() == every[start : start + stream.seq_len].tolist()
            seen.setdefault(passed, set()).add(start % stream.seq_len)
        for rank in range(4):
            part = [cut.tolist() for cut in recut.cuts(step, rank=rank, world_size=4)]
            assert part == [cut[2 * rank : 2 * rank + 2].tolist() for cut in (found, shifts)]
    assert seen[0] == {0}
    assert all(len(places - {0}) == 1 for passed, places in seen.items() if passed)  # beside the last row of a source
    assert len(set.union(*seen.values())) > 3


@pytest.mark.parametrize("below", [2, 3, 32])
def test_no_shift_comes_again_before_all_others_came(below: int) -> None:
    plan = BatchPlan(plain(100), 8, 4, 1, below)
    shifts = [plan._shift(number) for number in range(1, 3 * (below - 1) + 1)]
    for start in range(0, len(shifts), below - 1):
        assert sorted(shifts[start : start + below - 1]) == list(range(1, below))


def test_rows_of_bestfit_are_not_cut_elsewhere(tmp_path: Path) -> None:
    folder, _ = write_packed(tmp_path / "texts")
    packed = open_packed(folder)
    stream = packed.split(TRAIN)
    fitted = replace(stream, stride=stream.seq_len + 1)
    many = {"sequences_per_step": 8, "micro_batch_size": 4, "seed": 1}
    assert batch_plan(stream, DataConfig(recut="auto"), **many).shift_below == stream.seq_len
    assert batch_plan(fitted, DataConfig(recut="auto"), **many).shift_below == 0
    assert batch_plan(stream, DataConfig(), **many).shift_below == 0
    with pytest.raises(ConfigError, match="packed with bestfit") as caught:
        batch_plan(fitted, DataConfig(recut=True), **many)
    assert "concat" in str(caught.value.hint)


def test_targets_are_inputs_shifted_by_one(stream: TokenStream) -> None:
    for batch in read_step(stream, plan(stream), 5):
        assert batch.inputs.shape == batch.targets.shape == (4, stream.seq_len)
        assert batch.inputs.dtype == torch.int64
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_reading_ahead_changes_nothing(stream: TokenStream, prefetch: int) -> None:
    with Loader(stream, plan(stream), first_step=4, last_step=9, prefetch=prefetch, pin=False) as loader:
        found = list(loader)
    assert [step for step, _ in found] == [4, 5, 6, 7, 8]
    for step, batches in found:
        for batch, expected in zip(batches, read_step(stream, plan(stream), step), strict=True):
            assert torch.equal(batch.inputs, expected.inputs)
            assert torch.equal(batch.targets, expected.targets)


def test_a_rank_reads_its_micro_batches_alone(stream: TokenStream) -> None:
    whole = read_step(stream, plan(stream, micro=1), 6)
    found = []
    for rank in range(4):
        with Loader(
            stream, plan(stream, micro=1), first_step=6, last_step=7, prefetch=1, pin=False, rank=rank, world_size=4
        ) as loader:
            ((_, batches),) = loader
        assert len(batches) == 2
        found += batches
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(found, whole, strict=True))


def test_leaving_early_ends_the_thread(stream: TokenStream) -> None:
    with Loader(stream, plan(stream), first_step=0, last_step=10_000, prefetch=2, pin=False) as loader:
        next(iter(loader))
    assert not [thread for thread in threading.enumerate() if thread.name == "alm-loader"]


def test_a_stop_is_noticed_while_a_batch_is_waited_for(stream: TokenStream, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("alm.data.loader.read_step", lambda *_, **__: released.wait(60))
    with Loader(
        stream, plan(stream), first_step=0, last_step=9, prefetch=1, pin=False, should_stop=lambda: True
    ) as loader:
        assert list(loader) == []
        released.set()


def test_a_failure_in_the_thread_reaches_the_reader(stream: TokenStream, tmp_path: Path) -> None:
    broken = TokenStream(tmp_path, stream.shards, stream.seq_len, stream.dtype, stream.stride)
    with (
        Loader(broken, plan(stream), first_step=0, last_step=3, prefetch=2, pin=False) as loader,
        pytest.raises(InputError, match="does not exist"),
    ):
        next(iter(loader))


def test_padding_predicts_nothing_and_is_not_counted(tmp_path: Path) -> None:
    _, data = write_packed(tmp_path)
    config = PackConfig(seq_len=16, sequences_per_shard=50, mode="bestfit")
    pack(config, tokenizer=tmp_path / "tokenizer.json", clean=[tmp_path / "clean"], out=tmp_path / "fitted")
    fitted = open_packed(tmp_path / "fitted").split(TRAIN)
    assert data.seq_len == fitted.seq_len
    ((row, padding),) = fitted.padding.items()
    assert row == fitted.sequences - 1
    batch = micro_batch(fitted, np.array([0, row]))
    assert (batch.targets[1] == NO_TARGET).sum() == padding
    assert (batch.targets[0] != NO_TARGET).all()
    assert batch.target_count() == 32 - padding
    assert (batch.inputs >= 0).all()
    assert micro_batch(fitted, np.array([0])).target_count() == 16
    ways = plan(fitted, sequences_per_step=6, micro=2)
    for step in range(-(-fitted.sequences // 6)):  # the padded row is in one of them
        assert target_count(fitted, ways, step) == sum(batch.target_count() for batch in read_step(fitted, ways, step))
