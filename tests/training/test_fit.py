"""How steps are cut, and what fits: against looking at every possibility."""

from __future__ import annotations

import itertools

import pytest
import torch
from builders import run_config

from alm import kinds
from alm.device import Choice
from alm.model.count import count
from alm.training import fit
from alm.training.config import TrainingConfig
from alm.training.fit import Room, checkpoint_bytes, cut, flags, halved, largest_micro_batch, needs

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
        found = cut(training(micro, number, reproducible=reproducible), most=most, ranks=ranks)
        if not wanted:
            assert found is None
            continue
        assert found is not None
        assert (found.micro_batch_size, found.sequences_per_step) == (max(wanted), sequences)


@pytest.mark.parametrize(
    ("micro", "number", "becomes"), [(8, 4, (4, 8)), (3, 4, (1, 12)), (6, 1, (3, 2)), (5, 4, (2, 10))]
)
def test_half_a_micro_batch_or_the_next_below_that_divides(micro: int, number: int, becomes: tuple[int, int]) -> None:
    found = halved(training(micro, number))
    assert found is not None
    assert (found.micro_batch_size, found.gradient_accumulation) == becomes
    assert flags(found) == (
        f"--set training.micro_batch_size={becomes[0]} --set training.gradient_accumulation={becomes[1]}"
    )


def test_one_sequence_cannot_be_halved() -> None:
    assert halved(training(1, 8)) is None


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    for room in (0, 9, 10, 11, 57, 1000, 10**9):
        fitting = [size for size in range(1, fit.MOST_SEQUENCES + 1) if 10 * size + 3 <= fit.USABLE_SHARE * room]
        assert largest_micro_batch(lambda size: 10 * size + 3, room) == max(fitting, default=0), room
    assert largest_micro_batch(lambda size: size, None) is None


def test_a_cpu_also_has_the_copy_that_checkpoints_are_written_from() -> None:
    config = run_config(model__vocab_size=300)
    parameters = sum(p.numel() for p in _model(config).parameters())
    on_cpu = needs(config, seq_len=16, precision="fp32", on_cpu=True)
    on_gpu = needs(config, seq_len=16, precision="fp32", on_cpu=False)
    # Weights, and both moments of Adam, of 4 bytes; the padding of the vocabulary is not saved.
    assert on_cpu.parts["checkpoint"] == pytest.approx(12 * parameters, rel=0.1)
    assert "checkpoint" not in on_gpu.parts
    assert on_cpu.total == sum(on_cpu.parts.values())
    trained = {name: size for name, size in on_cpu.parts.items() if name not in ("checkpoint", "gaps")}
    assert (
        sum(trained.values()) + on_cpu.parts["gaps"] == count(config.model).memory(2, 16, accumulates=True).of_process
    )
    assert needs(config, seq_len=16, precision="fp32", on_cpu=True, micro_batch_size=64).total > on_cpu.total


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
    assert needs(config, seq_len=16, precision="fp32", on_cpu=True).parts["optimizer"] == kept
    assert checkpoint_bytes(config) == weights + kept


def _model(config: object) -> torch.nn.Module:
    from alm.model.transformer import Transformer

    return Transformer(config.model)  # type: ignore[attr-defined]


def test_a_run_that_does_not_fit_is_told_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(model__vocab_size=300, training__micro_batch_size=8, training__gradient_accumulation=1)
    two = needs(config, seq_len=16, precision="fp32", on_cpu=True, micro_batch_size=2).total
    for free, largest, suggested in ((two * 100, None, None), (two / fit.USABLE_SHARE + 1, 2, (2, 4)), (1, 0, None)):
        monkeypatch.setattr(fit, "available_bytes", lambda _, free=free: int(free))
        room = Room(config, 16, CPU)
        assert room.fits is (suggested is None and largest is None)
        found = room.suggested()
        assert (found and (found.micro_batch_size, found.gradient_accumulation)) == suggested
        if largest is not None:
            assert room.largest() == largest
    assert room.model_that_fits() is None
    monkeypatch.setattr(fit, "available_bytes", lambda _: 2 * 10**10)
    assert Room(config, 16, CPU).model_that_fits() == "350m"  # at about 31 bytes a parameter
    monkeypatch.setattr(fit, "available_bytes", lambda _: None)
    assert (Room(config, 16, CPU).fits, Room(config, 16, CPU).suggested()) == (None, None)
