from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from alm.errors import InputError
from alm.generation.sampling import SamplingConfig, candidates, sample


def scores(size: int = 100) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(0)) * 3


def spread(logits: torch.Tensor, *, temperature: float, top_k: int) -> torch.Tensor:
    ids, probabilities = candidates(logits, temperature=temperature, top_k=top_k)
    return torch.zeros(len(logits), dtype=torch.float64).index_add(0, ids, probabilities)


def draws(logits: torch.Tensor, seed: int, count: int, *, temperature: float = 1.0, top_k: int = 40) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return [sample(logits, temperature=temperature, top_k=top_k, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [1, 5, 100, 1000])
def test_equals_transformers(temperature: float, top_k: int) -> None:
    transformers = pytest.importorskip("transformers")
    logits = scores()
    logits[7] = logits[3] = logits.topk(5).values[-1]  # ties at the edge
    warped = transformers.TemperatureLogitsWarper(temperature)(None, logits[None].clone())
    warped = transformers.TopKLogitsWarper(top_k)(None, warped)
    expected = torch.softmax(warped[0].double(), dim=0)
    # They divide in fp32: scores of about 30 are rounded by 30 x 2^-24.
    torch.testing.assert_close(spread(logits, temperature=temperature, top_k=top_k), expected, rtol=1e-5, atol=0)


def test_two_ids_by_hand() -> None:
    logits = torch.tensor([1.0, 0.0, -5.0])
    odds = torch.e ** (1.0 / 0.5)
    expected = torch.tensor([odds / (1 + odds), 1 / (1 + odds), 0.0], dtype=torch.float64)
    torch.testing.assert_close(spread(logits, temperature=0.5, top_k=2), expected)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    counts = torch.bincount(torch.tensor(draws(logits, 0, 4000)), minlength=4) / 4000
    # Four standard deviations of a proportion in 4000 draws.
    torch.testing.assert_close(counts, logits.exp(), rtol=0, atol=0.032)


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, 40), (0.8, 0), (0.0, 0), (0.8, 1), (1e-320, 40)])
def test_greedy(temperature: float, top_k: int) -> None:
    logits = scores()
    assert set(draws(logits, 0, 20, temperature=temperature, top_k=top_k)) == {int(logits.argmax())}


def test_only_the_likeliest_are_drawn() -> None:
    logits = scores()
    assert set(draws(logits, 0, 300, temperature=100.0, top_k=5)) == set(logits.topk(5).indices.tolist())


def test_a_seed_is_a_sequence() -> None:
    assert draws(scores(), 1, 30) == draws(scores(), 1, 30)
    assert draws(scores(), 1, 30) != draws(scores(), 2, 30)


def test_half_precision_scores_are_enough() -> None:
    assert draws(scores().bfloat16(), 1, 5) == draws(scores().bfloat16().float(), 1, 5)


def test_scores_are_left_as_they_were() -> None:
    logits = scores()
    draws(logits, 0, 1)
    assert torch.equal(logits, scores())


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_diverged_model_is_named(broken: float) -> None:
    logits = scores()
    logits[3] = broken
    with pytest.raises(InputError, match="its training diverged") as caught:
        draws(logits, 0, 1)
    assert caught.value.hint == "use an earlier checkpoint"


def test_defaults_and_ranges() -> None:
    assert SamplingConfig().model_dump() == {"temperature": 0.8, "top_k": 40, "max_tokens": 50, "seed": 1337}
    for wrong in ({"temperature": -0.1}, {"top_k": -1}, {"max_tokens": -1}, {"seed": -1}, {"seed": 2**63}):
        with pytest.raises(ValidationError):
            SamplingConfig.model_validate(wrong)
    assert all(field.description and field.description.endswith(".") for field in SamplingConfig.model_fields.values())
