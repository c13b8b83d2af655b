"""Dropout's masks are a function of a sequence's key and of the place in the model, of nothing else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from cases import for_each

from alm.model.config import ModelConfig
from alm.model.layers import drop, step_keys
from alm.model.transformer import Transformer

# Five standard deviations of a share: about one seed in two million lies outside.
DEVIATIONS = 5
KEYS = step_keys(6, seed=1337, step=3, first=0)


def kept(
    probability: float, keys: torch.Tensor = KEYS, *, site: int = 2, shape: tuple[int, int] = (64, 48)
) -> torch.Tensor:
    return drop(torch.ones(len(keys), *shape), probability, keys, site=site) != 0


def by_hand(key: int, site: int, values: int, dropped: int) -> list[bool]:
    """The mask of one sequence in plain Python, with the published constants of SplitMix64's mixing function."""
    words, found = math.ceil(values / 4), []
    for counter in range(site * words, (site + 1) * words):
        word = (key ^ counter) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        word ^= word >> 31
        for lane in range(4):
            level = (word >> (16 * lane)) % 2**16
            signed = level - 2**16 if level >= 2**15 else level
            found.append(signed + 2**15 >= dropped)
    return found[:values]


@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (5, 7), (16, 32)])
def test_masks_are_those_of_the_published_function(tokens: int, width: int) -> None:
    keys = torch.tensor([0, -1, 2**62 + 12345, int(KEYS[0])])
    found = kept(0.25, keys, site=3, shape=(tokens, width))
    for row, key in zip(found, keys.tolist(), strict=True):
        assert row.flatten().tolist() == by_hand(key, 3, tokens * width, 2**14)


def test_a_row_has_the_same_mask_whatever_is_beside_it() -> None:
    together = kept(0.3)
    for cut in (1, 2, 3):
        apart = torch.cat([kept(0.3, KEYS[at : at + cut]) for at in range(0, len(KEYS), cut)])
        assert torch.equal(apart, together)


def test_masks_differ_between_sequences_steps_seeds_and_places() -> None:
    keys = [step_keys(2, seed=seed, step=step, first=first) for seed, step, first in [(1, 1, 0), (2, 1, 0), (1, 2, 0)]]
    masks = [row for some in keys for site in (0, 1, 2) for row in kept(0.5, some, site=site)]
    expected = 0.5
    for one, other in itertools.combinations(masks, 2):
        same = (one == other).float().mean().item()
        # Masks that have nothing to do with each other agree in half of their values.
        assert abs(same - expected) < DEVIATIONS * math.sqrt(0.25 / one.numel())


def test_a_place_in_the_step_has_its_key_however_it_is_reached() -> None:
    whole = step_keys(8, seed=5, step=9, first=0)
    assert torch.equal(torch.cat([step_keys(4, seed=5, step=9, first=at) for at in (0, 4)]), whole)
    assert len(set(whole.tolist())) == 8
    assert int(whole.min()) < 0 < int(whole.max())  # the sign is a bit like the others


@for_each("probability", [0.0, 1e-9, 0.01, 0.1, 1 / 3, 0.5, 0.9, 0.999, math.nextafter(1.0, 0.0)])
def test_the_share_that_is_kept_and_its_scale(probability: float) -> None:
    keys = step_keys(16, seed=7, step=0, first=0)
    x = torch.full((16, 128, 96), 3.0, dtype=torch.float64)
    found = drop(x, probability, keys, site=1)
    share = (found != 0).double().mean().item()
    rounded = min(round(probability * 2**16), 2**16 - 1) / 2**16  # something is always kept
    assert abs(rounded - probability) <= 2**-16
    assert abs(share - (1 - rounded)) <= DEVIATIONS * math.sqrt(rounded * (1 - rounded) / x.numel())
    # What is added up stays the same on average: the scale is that of the rounded probability.
    assert set(found.flatten().tolist()) <= {0.0, 3 / (1 - rounded)}


def test_every_token_every_column_and_every_lane_is_dropped_alike() -> None:
    mask = kept(0.25, step_keys(256, seed=3, step=0, first=0), shape=(32, 64)).double()
    for dims in ((0, 1), (0, 2)):
        shares = mask.mean(dims)
        size = mask.numel() / shares.numel()
        assert (shares - 0.75).abs().max() < DEVIATIONS * math.sqrt(0.25 * 0.75 / size)
    neighbours = (mask[..., 1:] * mask[..., :-1]).mean().item()
    assert neighbours == pytest.approx(0.75**2, abs=DEVIATIONS / math.sqrt(mask.numel()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradients_flow_through_what_is_kept_alone(dtype: torch.dtype) -> None:
    x = torch.ones(len(KEYS), 16, 24, dtype=dtype, requires_grad=True)
    out = drop(x, 0.25, KEYS, site=0)
    assert out.dtype == dtype
    out.backward(torch.full_like(out, 2.0))  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * out.detach())
    assert 0 < (x.grad == 0).sum() < x.numel()


def test_a_value_that_is_not_finite_is_not_hidden() -> None:
    assert torch.isnan(drop(torch.full((6, 4, 4), torch.nan), 0.5, KEYS, site=0)).all()


def test_a_forward_pass_that_is_done_again_drops_the_same(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor
) -> None:
    model = tiny_model(dropout=0.5).train()
    keys = step_keys(len(ids), seed=1, step=1, first=0)
    first = model(ids, keys=keys)
    assert torch.equal(model(ids, keys=keys), first)
    again = torch.utils.checkpoint.checkpoint(model, ids, keys=keys, use_reentrant=False, preserve_rng_state=False)
    assert torch.equal(again, first)
    wanted = torch.autograd.grad(first.square().sum(), model.model.norm.weight)
    assert all(map(torch.equal, torch.autograd.grad(again.square().sum(), model.model.norm.weight), wanted))
    # A row alone is what it is among others, but for the order of sums.
    torch.testing.assert_close(model(ids[1:2], keys=keys[1:2]), first[1:2])
    assert not torch.equal(model(ids, keys=keys.flip(0)), first)


def test_every_place_has_a_number_of_its_own(
    tiny_config: Callable[..., ModelConfig], ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def noting(x: torch.Tensor, probability: float, keys: torch.Tensor, *, site: int) -> torch.Tensor:
        seen.append(site)
        return drop(x, probability, keys, site=site)

    monkeypatch.setattr("alm.model.transformer.drop", noting)
    Transformer(tiny_config(dropout=0.1, n_layers=3)).train()(ids)
    assert seen == list(range(7))


def test_nothing_is_drawn_without_dropout_or_in_evaluation(
    tiny_config: Callable[..., ModelConfig], ids: torch.Tensor
) -> None:
    before = torch.get_rng_state()
    Transformer(tiny_config()).train()(ids)
    Transformer(tiny_config(dropout=0.5)).eval()(ids)
    assert torch.equal(torch.get_rng_state(), before)
