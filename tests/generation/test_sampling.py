"""Samplers against `transformers`' processors, bit for bit, and what those do not have against counting by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import for_each
from pydantic import ValidationError

from alm.errors import InputError
from alm.generation import sampling
from alm.generation.config import SamplingConfig
from alm.generation.sampling import TokenSampler, candidates

V = 100
SETTINGS = 3000


def scores(size: int = V, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


def draws(logits: torch.Tensor, seed: int, count: int, **settings: Any) -> list[int]:
    sampler = TokenSampler(SamplingConfig(seed=seed, **{"temperature": 1.0, **settings}), [])
    return [sampler.choose(logits).id for _ in range(count)]


class Setting:
    """One random combination, and the scores and ids that it is tried on."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.size = draw.choice([7, 50, 300])
        self.temperature = draw.choice([0.1, 0.7, 1.0, 1.3, 5.0])
        self.top_k = draw.choice([1, 2, 5, 40, 1000])
        self.top_p = draw.choice([1.0, 0.99, 0.9, 0.5, 0.01])
        self.min_p = draw.choice([0.0, 0.01, 0.2, 1.0])
        self.penalty = draw.choice([1.0, 1.1, 1.7, 0.6])
        generator = torch.Generator().manual_seed(seed)
        self.scores = torch.randn(1, self.size, generator=generator) * draw.choice([0.5, 3.0, 10.0])
        self.has_ties = draw.random() < 0.4
        if self.has_ties:
            self.scores = self.scores.round()
        self.ids = torch.randint(self.size, (1, draw.choice([1, 4, 60])), generator=generator)
        lengths = [draw.choice([1, 1, 2, 3]) for _ in range(draw.choice([1, 3]))]
        self.banned = [self._phrase(draw, length) for length in lengths]

    def _phrase(self, draw: random.Random, length: int) -> list[int]:
        ends = self.ids[0, self.ids.shape[1] - length + 1 :].tolist() if draw.random() < 0.7 else []
        before = ends if len(ends) == length - 1 else [draw.randrange(self.size) for _ in range(length - 1)]
        return [*before, draw.randrange(self.size)]


def seen(ids: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like, dtype=torch.bool).scatter(-1, ids, True)


def pairs(setting: Setting) -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Any]]:
    """Our function and their processor, in their order."""
    t = pytest.importorskip("transformers")
    s = setting
    return {
        "repetition": (
            lambda x: sampling.repetition_penalty(x, seen(s.ids, x), s.penalty),
            t.RepetitionPenaltyLogitsProcessor(s.penalty),
        ),
        "bad words": (
            lambda x: sampling.ban(x[0], s.ids[0].tolist(), s.banned)[None],
            t.NoBadWordsLogitsProcessor(s.banned),
        ),
        "temperature": (lambda x: sampling.temperature(x, s.temperature), t.TemperatureLogitsWarper(s.temperature)),
        "top_k": (lambda x: sampling.top_k(x, s.top_k), t.TopKLogitsWarper(s.top_k)),
        "top_p": (lambda x: sampling.top_p(x, s.top_p), t.TopPLogitsWarper(s.top_p)),
        "min_p": (lambda x: sampling.min_p(x, s.min_p), t.MinPLogitsWarper(s.min_p)),
    }


def test_each_sampler_equals_transformers_exactly() -> None:
    for seed in range(SETTINGS):
        setting = Setting(seed)
        for name, (ours, theirs) in pairs(setting).items():
            expected = theirs(setting.ids, setting.scores.clone())
            assert torch.equal(ours(setting.scores), expected), (seed, name)


@pytest.mark.slow
def test_all_of_them_in_turn_equal_transformers_exactly() -> None:
    for seed in range(SETTINGS):
        setting = Setting(seed)
        ours = theirs = setting.scores
        for name, (function, processor) in pairs(setting).items():
            ours, theirs = function(ours), processor(setting.ids, theirs.clone())
            assert torch.equal(ours, theirs), (seed, name)


def test_what_can_be_chosen_equals_transformers() -> None:
    """Candidates are cut out before they are summed, which may change the last bit of a sum: among many equal scores
    that can be one more or one less.
    """
    for setting in [found for seed in range(SETTINGS) if not (found := Setting(seed)).has_ties]:
        expected = setting.scores
        # `generate` leaves those out that are at their neutral value.
        wanted = {"temperature": True, "top_k": True, "top_p": setting.top_p < 1, "min_p": setting.min_p > 0}
        for name in (name for name, is_wanted in wanted.items() if is_wanted):
            expected = pairs(setting)[name][1](setting.ids, expected.clone())
        config = SamplingConfig(
            temperature=setting.temperature, top_k=setting.top_k, top_p=setting.top_p, min_p=setting.min_p
        )
        ids, left = candidates(setting.scores[0], config)
        assert torch.equal(torch.full((setting.size,), -torch.inf).index_copy(0, ids, left), expected[0])


@pytest.mark.slow
def test_a_chooser_applies_them_in_the_order_of_transformers() -> None:
    """With ties, which the other test of candidates leaves out: here nothing is summed."""
    for seed in range(SETTINGS):
        setting = Setting(seed)
        expected = setting.scores
        for name in ("repetition", "bad words", "temperature", "top_k"):
            expected = pairs(setting)[name][1](setting.ids, expected.clone())
        config = SamplingConfig(
            temperature=setting.temperature, top_k=setting.top_k, repetition_penalty=setting.penalty
        )
        sampler = TokenSampler(config, setting.ids[0].tolist(), banned=setting.banned)
        ids, left = candidates(sampler._penalized(setting.scores[0]), config)
        assert torch.equal(torch.full((setting.size,), -torch.inf).index_copy(0, ids, left), expected[0]), seed


def test_repetition_comes_before_presence() -> None:
    sampler = TokenSampler(SamplingConfig(top_k=0, repetition_penalty=2.0, presence_penalty=1.0), [])
    assert sampler.choose(torch.tensor([4.0, 1.2])).id == 0
    assert sampler.choose(torch.tensor([4.0, 1.2])).id == 1  # 4 / 2 - 1 = 1, where (4 - 1) / 2 is more than 1.2


def test_what_a_chooser_remembers_grows_with_its_text() -> None:
    settings = {"repetition_penalty": 1.3, "presence_penalty": 0.2, "frequency_penalty": 0.4}
    sampler = TokenSampler(SamplingConfig(temperature=2.0, **settings), [1, 1, 2])
    for step in range(30):
        logits = scores(20, seed=step)
        anew = TokenSampler(SamplingConfig(**settings), [1, 1, 2])
        anew.ids += sampler.generated
        assert torch.equal(sampler._penalized(logits), anew._penalized(logits))
        sampler.choose(logits)


def test_ids_of_a_prompt_that_a_tokenizer_does_not_have_are_no_matter() -> None:
    assert TokenSampler(SamplingConfig(top_k=0, repetition_penalty=1.5), [99]).choose(torch.tensor([1.0, 2.0])).id == 1


def test_two_ids_by_hand() -> None:
    logits = torch.tensor([1.0, 0.0, -5.0])
    odds = torch.e ** (1.0 / 0.5)
    ids, left = candidates(logits, SamplingConfig(temperature=0.5, top_k=2))
    assert ids.tolist() == [0, 1]
    torch.testing.assert_close(left.softmax(0), torch.tensor([odds / (1 + odds), 1 / (1 + odds)]))


def test_penalties_for_presence_and_frequency_by_hand() -> None:
    counts = torch.tensor([0, 1, 3])
    penalized = sampling.presence_and_frequency(torch.zeros(3), counts, presence=0.5, frequency=0.25)
    assert penalized.tolist() == [0.0, -0.75, -1.25]


def test_penalties_for_presence_and_frequency_count_what_was_generated_alone() -> None:
    logits = torch.tensor([1.0, 0.9, 0.0])
    sampler = TokenSampler(SamplingConfig(top_k=0, presence_penalty=0.5), [0, 0, 0])
    assert [sampler.choose(logits).id for _ in range(3)] == [0, 1, 0]
    sampler = TokenSampler(SamplingConfig(top_k=0, frequency_penalty=0.3), [0, 0, 0])
    assert [sampler.choose(logits).id for _ in range(5)] == [0, 1, 0, 1, 0]
    sampler = TokenSampler(SamplingConfig(top_k=0, repetition_penalty=2.0), [0])
    assert sampler.choose(logits).id == 1


def test_bad_words_of_several_tokens_are_not_completed() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])
    sampler = TokenSampler(SamplingConfig(top_k=0), [2], banned=[[2, 3], [0]])
    assert [sampler.choose(logits).id for _ in range(3)] == [2, 2, 2]
    assert TokenSampler(SamplingConfig(top_k=0), [1], banned=[[2, 3]]).choose(logits).id == 3


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    counts = torch.bincount(torch.tensor(draws(logits, 0, 4000)), minlength=4) / 4000
    # Four standard deviations of a proportion in 4000 draws.
    torch.testing.assert_close(counts, logits.exp(), rtol=0, atol=0.032)


def test_a_draw_is_a_place_of_the_running_sum() -> None:
    number = torch.rand((), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    probabilities = [0.2, 0.0, 0.3, 0.5]
    expected = next(place for place in range(4) if sum(probabilities[: place + 1]) > number)
    generator = torch.Generator().manual_seed(5)
    assert sampling.draw(torch.tensor(probabilities).log(), generator) == expected


@for_each("temperature, top_k", [(0.0, 40), (0.8, 0), (0.0, 0), (0.8, 1), (1e-320, 40)])
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
    draws(logits, 0, 3, repetition_penalty=1.3, presence_penalty=1.0, top_p=0.5, min_p=0.1)
    assert torch.equal(logits, scores())


def test_probabilities_are_those_of_the_model() -> None:
    logits = scores()
    settings = SamplingConfig(temperature=9.0, top_k=3, repetition_penalty=5.0)
    choice = TokenSampler(settings, [1, 2], alternatives=4).choose(logits)
    expected = torch.log(logits.double().exp() / logits.double().exp().sum())
    assert choice.logprob == pytest.approx(float(expected[choice.id]))
    order = expected.argsort(descending=True)[:4].tolist()
    assert [token for token, _ in choice.alternatives] == order
    assert [value for _, value in choice.alternatives] == pytest.approx(expected[order].tolist())
    assert TokenSampler(settings, []).choose(logits).logprob is None


@pytest.mark.parametrize("settings", [{}, {"top_k": 0}])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_diverged_model_is_named(broken: float, settings: dict[str, int]) -> None:
    logits = scores()
    logits[3] = broken
    with pytest.raises(InputError, match="its training diverged") as caught:
        draws(logits, 0, 1, **settings)
    assert caught.value.hint == "use an earlier checkpoint"


def test_when_nothing_may_be_written_that_is_said() -> None:
    with pytest.raises(InputError, match="every token is banned"):
        TokenSampler(SamplingConfig(), [], banned=[[token] for token in range(V)]).choose(scores())


def test_defaults_and_ranges() -> None:
    defaults = SamplingConfig().model_dump()
    assert {key: defaults[key] for key in ("temperature", "top_k", "max_tokens", "seed")} == {
        "temperature": 0.8,
        "top_k": 40,
        "max_tokens": 50,
        "seed": 1337,
    }
    wrongs: list[dict[str, Any]] = [
        {"temperature": -0.1},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0},
        {"repetition_penalty": 1e-40},
        {"presence_penalty": 3},
        {"frequency_penalty": -3},
        {"stop": [""]},
        {"bad_words": [""]},
        {"overflow": "crash"},
        {"max_tokens": -1},
        {"seed": -1},
        {"seed": 2**63},
    ]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            SamplingConfig.model_validate(wrong)
    assert all(field.description and field.description.endswith(".") for field in SamplingConfig.model_fields.values())


def test_defaults_change_nothing_but_temperature_and_top_k() -> None:
    ids, left = candidates(scores(), SamplingConfig(temperature=2.0, top_k=V))
    assert ids.tolist() == list(range(V))
    assert torch.equal(left, scores() / 2)


@pytest.mark.parametrize("others", [{"top_p": 0.9}, {"min_p": 0.05}, {"top_p": 0.5, "min_p": 0.1}])
def test_a_share_of_one_candidate_is_refused(others: dict[str, float]) -> None:
    """`--top-k 0` is greedy here and means all tokens elsewhere, so the pair is ambiguous."""
    with pytest.raises(ValidationError, match="always takes the likeliest token"):
        SamplingConfig(top_k=0, **others)
    assert SamplingConfig(top_k=0, temperature=1.5).is_greedy
    assert SamplingConfig(temperature=0, **others).is_greedy
