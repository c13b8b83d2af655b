"""However a step is cut up and shared by ranks: the same masks, and but for rounding the same loss and gradients."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import run_config
from cases import for_each

import alm
from alm.data.loader import NO_TARGET, MicroBatch
from alm.device import choose
from alm.model import transformer
from alm.model.layers import drop
from alm.training.sizing.memory import describe_curve, keeps_loss_curve
from alm.training.state import TrainState, init_state
from alm.training.step import train_step

CPU = choose("cpu", precision="fp32")
SEQUENCES, TOKENS, VOCABULARY = 8, 12, 50
# Sums of fp64 in another order.
TOLERANCE = 1e-10
EXTRAS = {"model__x0_skip": True, "model__value_residual": True, "model__smear": True, "model__qk_norm": True}


def batches(size: int, *, first: int = 0, last: int = SEQUENCES) -> list[MicroBatch]:
    """The sequences of one step from `first` on in micro-batches of `size`; some targets are padding."""
    ids = torch.randint(VOCABULARY, (SEQUENCES, TOKENS + 1), generator=torch.Generator().manual_seed(4))
    inputs, targets = ids[:, :-1], ids[:, 1:].clone()
    targets[2, -5:] = NO_TARGET
    ends = [min(at + size, last) for at in range(first, last, size)]
    return [
        MicroBatch(inputs[at:end], targets[at:end], is_padded=True)
        for at, end in zip(range(first, last, size), ends, strict=True)
    ]


def state_of(step: int = 5, **changes: Any) -> TrainState:
    state = init_state(run_config(**{"model__n_layers": 2, "model__vocab_size": VOCABULARY, **changes}), CPU)
    state.model.double()
    state.step = step
    return state


def done(
    state: TrainState, micro_batches: list[MicroBatch], *, seed: int = 1, z_weight: float = 0.1
) -> list[torch.Tensor]:
    """The loss of a step, then its gradients."""
    targets = sum(batch.target_count() for batch in batches(SEQUENCES))
    result = train_step(
        state, micro_batches, targets=targets, choice=CPU, lr_factor=0.0, clip_norm=1e9, seed=seed,
        should_stop=lambda: False, z_weight=z_weight,
    )  # fmt: skip
    assert result is not None
    return [result.loss, *(p.grad for p in state.model.parameters() if p.grad is not None)]


@for_each("extras", [{}, EXTRAS, {"training__reproducible": True}])
@for_each("dropout", [0.0, 0.3])
def test_loss_and_gradients_do_not_depend_on_the_cut(extras: dict[str, Any], dropout: float) -> None:
    changes = {"model__dropout": dropout, **extras}
    whole = done(state_of(**changes), batches(SEQUENCES))
    for size in (1, 2, 4) if "training__reproducible" in extras else (1, 2, 3, 4):
        for ours, wanted in zip(done(state_of(**changes), batches(size)), whole, strict=True):
            torch.testing.assert_close(ours, wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_curve_stays_over_several_steps_of_other_cuts() -> None:
    """With `training.micro_batch_size` changed in the middle, as after a full memory."""
    curves = []
    for sizes in ((8, 8, 8, 8), (8, 4, 2, 1)):
        state, losses = state_of(0, model__dropout=0.3), []
        for size in sizes:
            losses.append(float(done(state, batches(size))[0]))
            with torch.no_grad():
                for parameter in state.model.parameters():
                    assert parameter.grad is not None
                    parameter.sub_(parameter.grad, alpha=0.1)
        curves.append(losses)
    assert curves[0] == pytest.approx(curves[1], rel=TOLERANCE)
    assert len(set(curves[0])) == 4


def masks(monkeypatch: pytest.MonkeyPatch, *, size: int, ranks: int, step: int = 5, seed: int = 1) -> torch.Tensor:
    """What is kept (places, sequences of the step, T, D), as ranks find it one after the other."""
    found: dict[int, list[torch.Tensor]] = {}

    def noting(x: torch.Tensor, probability: float, keys: torch.Tensor, *, site: int) -> torch.Tensor:
        found.setdefault(site, []).append(drop(torch.ones_like(x), probability, keys, site=site) != 0)
        return drop(x, probability, keys, site=site)

    each = SEQUENCES // ranks
    for rank in range(ranks):
        state = state_of(step, model__dropout=0.3)
        # As on one of several ranks, but that sums are its own.
        state.parallelism.world = SimpleNamespace(  # type: ignore[assignment]
            rank=rank, size=ranks, device=CPU.device, sum_=lambda value: value
        )
        with monkeypatch.context() as patch:
            patch.setattr(transformer, "drop", noting)
            done(state, batches(size, first=rank * each, last=(rank + 1) * each), seed=seed)
    return torch.stack([torch.cat(found[site]) for site in sorted(found)])


def test_a_sequence_has_the_same_masks_in_every_cut_and_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = masks(monkeypatch, size=8, ranks=1)
    assert whole.shape[:2] == (5, SEQUENCES)  # the embeddings, and two places in each of two layers
    for size, ranks in [(1, 1), (2, 1), (4, 1), (3, 1), (4, 2), (2, 2), (1, 2), (2, 4), (1, 4)]:
        assert torch.equal(masks(monkeypatch, size=size, ranks=ranks), whole), (size, ranks)
    flat = whole.flatten(0, 1).flatten(1)
    assert len(torch.unique(flat, dim=0)) == len(flat)  # sequences and places differ
    for other in (masks(monkeypatch, size=8, ranks=1, step=6), masks(monkeypatch, size=8, ranks=1, seed=2)):
        assert not any(torch.equal(a, b) for a, b in zip(other.flatten(0, 1), whole.flatten(0, 1), strict=True))


def test_a_step_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    state = state_of(model__dropout=0.3)
    torch.set_rng_state(before)
    done(state, batches(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_messages_say_what_other_micro_batches_do_to_this_model() -> None:
    plain, dual = run_config(model__dropout=0.3), run_config(model__feedforward="dual")
    assert (keeps_loss_curve(plain), keeps_loss_curve(dual)) == (True, False)
    assert describe_curve(plain) == "the same curve, but not bit for bit"
    assert "another curve" in describe_curve(dual)
    assert "`model.feedforward: dual`" in describe_curve(dual)
    # Whoever speaks of the curve asks: the words stand in one place, and in the one sentence of `alm plan`.
    folder = Path(alm.__file__).parent
    speak = {p.relative_to(folder).as_posix() for p in folder.rglob("*.py") if "the same curve" in p.read_text("utf-8")}
    assert speak == {"training/sizing/memory.py", "cli/plan.py"}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_what_dual_routes_depends_on_the_cut(dropout: float) -> None:
    """Its room and its balance are those of a micro-batch: what the messages say, and so this must differ."""
    changes: dict[str, Any] = {"model__feedforward": "dual", "model__dropout": dropout}
    whole, halves = (done(state_of(**changes), batches(size)) for size in (8, 4))
    assert any((ours - wanted).abs().max() > 1e3 * TOLERANCE for ours, wanted in zip(halves, whole, strict=True))
