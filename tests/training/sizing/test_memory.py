"""How steps are cut, and what fits: against looking at every possibility."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from builders import run_config
from live import Live

from alm import kinds
from alm.data.loader import MicroBatch
from alm.device import Choice
from alm.distributed import World
from alm.model.count import count
from alm.training.config import RunConfig, TrainingConfig
from alm.training.sizing import memory
from alm.training.sizing.memory import (
    MemoryLimit,
    checkpoint_bytes,
    halve_micro_batch,
    largest_micro_batch,
    micro_batch_flags,
    peak_memory,
    split_step,
)
from alm.training.state import init_state
from alm.training.step import train_step

CPU = Choice(torch.device("cpu"), "fp32", "", "")


def training(micro: int, number: int, *, reproducible: bool = False) -> TrainingConfig:
    return TrainingConfig(micro_batch_size=micro, gradient_accumulation=number, reproducible=reproducible)


@pytest.mark.parametrize("reproducible", [False, True])
def test_a_cut_step_has_the_same_sequences_in_equal_micro_batches_that_ranks_can_share(reproducible: bool) -> None:
    for micro, number, ranks, most in itertools.product(range(1, 9), range(1, 7), (1, 2, 3), range(1, 9)):
        sequences = micro * number
        wanted = [
            size
            for size in range(1, min(most, sequences) + 1)
            if sequences % size == 0
            and (sequences // size) % ranks == 0
            and (not reproducible or (sequences // size) in (1, 2, 4, 8, 16, 32))
        ]
        found = split_step(training(micro, number, reproducible=reproducible), most=most, ranks=ranks)
        if not wanted:
            assert found is None
            continue
        assert found is not None
        assert (found.micro_batch_size, found.sequences_per_step) == (max(wanted), sequences)


@pytest.mark.parametrize(
    ("micro", "number", "becomes"), [(8, 4, (4, 8)), (3, 4, (1, 12)), (6, 1, (3, 2)), (5, 4, (2, 10))]
)
def test_half_a_micro_batch_or_the_next_below_that_divides(micro: int, number: int, becomes: tuple[int, int]) -> None:
    found = halve_micro_batch(training(micro, number))
    assert found is not None
    assert (found.micro_batch_size, found.gradient_accumulation) == becomes
    assert micro_batch_flags(found) == (
        f"--set training.micro_batch_size={becomes[0]} --set training.gradient_accumulation={becomes[1]}"
    )


def test_one_sequence_cannot_be_halved() -> None:
    assert halve_micro_batch(training(1, 8)) is None


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    for room in (0, 9, 10, 11, 57, 1000, 10**9):
        fitting = [size for size in range(1, memory.MOST_SEQUENCES + 1) if 10 * size + 3 <= memory.USABLE_SHARE * room]
        assert largest_micro_batch(lambda size: 10 * size + 3, room) == max(fitting, default=0), room
    assert largest_micro_batch(lambda size: size, None) is None


def test_a_cpu_also_has_the_copy_that_checkpoints_are_written_from() -> None:
    config = run_config(model__vocab_size=300)
    parameters = sum(p.numel() for p in _model(config).parameters())
    on_cpu = peak_memory(config, seq_len=16, precision="fp32", on_cpu=True)
    on_gpu = peak_memory(config, seq_len=16, precision="fp32", on_cpu=False)
    # Weights, and both moments of Adam, of 4 bytes; the padding of the vocabulary is not saved.
    assert on_cpu.parts["checkpoint"] == pytest.approx(12 * parameters, rel=0.1)
    assert "checkpoint" not in on_gpu.parts
    assert on_cpu.total == sum(on_cpu.parts.values())
    trained = {name: size for name, size in on_cpu.parts.items() if name not in ("checkpoint", "gaps")}
    assert (
        sum(trained.values()) + on_cpu.parts["gaps"] == count(config.model).memory(2, 16, accumulates=True).of_process
    )
    assert peak_memory(config, seq_len=16, precision="fp32", on_cpu=True, micro_batch_size=64).total > on_cpu.total


def test_muon_keeps_one_moment_for_the_matrices_of_the_blocks() -> None:
    config = run_config(model__vocab_size=320, optim__kind="muon", optim__lr=0.02)
    model = _model(config)
    optimizer = kinds.module_of(config.optim).build(config.optim, model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    kept = sum(value.nbytes for value in moments if value.dim())
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert peak_memory(config, seq_len=16, precision="fp32", on_cpu=True).parts["optimizer"] == kept
    assert checkpoint_bytes(config) == weights + kept


def _model(config: object) -> torch.nn.Module:
    from alm.model.transformer import Transformer

    return Transformer(config.model)  # type: ignore[attr-defined]


def test_a_run_that_does_not_fit_is_told_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(model__vocab_size=300, training__micro_batch_size=8, training__gradient_accumulation=1)
    two = peak_memory(config, seq_len=16, precision="fp32", on_cpu=True, micro_batch_size=2).total
    for free, largest, suggested in ((two * 100, None, None), (two / memory.USABLE_SHARE + 1, 2, (2, 4)), (1, 0, None)):
        monkeypatch.setattr(memory, "available_bytes", lambda _, free=free: int(free))
        room = MemoryLimit(config, 16, CPU)
        assert room.fits is (suggested is None and largest is None)
        found = room.suggested()
        assert (found and (found.micro_batch_size, found.gradient_accumulation)) == suggested
        if largest is not None:
            assert room.largest() == largest
    assert room.model_that_fits() is None
    monkeypatch.setattr(memory, "available_bytes", lambda _: 2 * 10**10)
    assert MemoryLimit(config, 16, CPU).model_that_fits() == "350m"  # at about 31 bytes a parameter
    monkeypatch.setattr(memory, "available_bytes", lambda _: None)
    assert (MemoryLimit(config, 16, CPU).fits, MemoryLimit(config, 16, CPU).suggested()) == (None, None)


# By rank. Blocks that FSDP has not let go of yet are counted although the last of them is smaller.
SHARED_MEMORY = 0.1
SHAPE = {
    "d_model": 128, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "ffn_hidden_size": 352, "vocab_size": 2048,
    "max_position_embeddings": 256,
}  # fmt: skip


@pytest.fixture
def fake_ranks() -> Iterator[Callable[[int], World]]:
    """The main one of so many ranks, to whom nobody answers: what is sent and received has the right size."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def join(size: int) -> World:
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
        return World(size=size, local_size=size)

    yield join
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def peak(config: RunConfig, world: World, *, seq_len: int) -> tuple[int, int]:
    """Bytes of two steps on this rank as they were, and as they are counted."""
    training = config.training
    ids = torch.zeros(training.micro_batch_size, seq_len, dtype=torch.int64)
    state = init_state(config, CPU, world, seq_len=seq_len)
    with Live(state.model.parameters()) as live:
        for _ in range(2):
            train_step(
                state,
                [MicroBatch(ids, ids)] * (training.gradient_accumulation // world.size),
                targets=training.sequences_per_step * seq_len,
                choice=CPU,
                lr_factor=1.0,
                clip_norm=1.0,
                seed=1,
                should_stop=lambda: False,
                z_weight=0.0,
            )
    parts = peak_memory(config, seq_len=seq_len, precision="fp32", on_cpu=True, ranks=world.size).parts
    return live.most, sum(size for name, size in parts.items() if name not in ("checkpoint", "gaps"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
@pytest.mark.parametrize(("sequences", "tokens"), [(2, 32), (4, 64)])
def test_a_tree_of_gradients_is_counted(micro_batches: int, sequences: int, tokens: int) -> None:
    config = shared(sequences, micro_batches, training__reproducible=True)
    found, counted = peak(config, World(), seq_len=tokens)
    assert counted == pytest.approx(found, rel=0.02)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize(("sequences", "tokens", "micro_batches"), [(2, 64, 1), (2, 64, 3), (4, 256, 1)])
@pytest.mark.parametrize("vocab_size", [256, 2048])
def test_a_part_of_everything_is_counted_with_fsdp(
    fake_ranks: Callable[[int], World], ranks: int, sequences: int, tokens: int, micro_batches: int, vocab_size: int
) -> None:
    config = shared(
        sequences, micro_batches * ranks, training__parallel="fsdp", model={**SHAPE, "vocab_size": vocab_size}
    )
    found, counted = peak(config, fake_ranks(ranks), seq_len=tokens)
    assert counted == pytest.approx(found, rel=SHARED_MEMORY)


def shared(sequences: int, micro_batches: int, *, model: dict[str, int] | None = None, **changes: Any) -> RunConfig:
    shape = {f"model__{key}": value for key, value in (model or SHAPE).items()}
    return run_config(
        **shape, training__micro_batch_size=sequences, training__gradient_accumulation=micro_batches, **changes
    )


def test_micro_batches_of_a_tree_are_those_that_fit_though_smaller_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen sequences one by one have four sums of all gradients; all at once have none, and little more besides."""
    config = shared(1, 16, training__reproducible=True)
    sizes = {
        size: peak_memory(config, seq_len=16, precision="fp32", on_cpu=True, micro_batch_size=size).total
        for size in (1, 2, 4, 8, 16)
    }
    assert sizes[1] > sizes[16]
    monkeypatch.setattr(memory, "available_bytes", lambda _: sizes[16] / memory.USABLE_SHARE + 1)
    room = MemoryLimit(config, 16, CPU)
    assert (room.fits, room.largest()) == (False, 16)
    found = room.suggested()
    assert found is not None
    assert (found.micro_batch_size, found.gradient_accumulation) == (16, 1)
