from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from alm.errors import InputError
from alm.generation.config import SamplingConfig
from alm.generation.generate import generate, stream_text
from alm.model.transformer import Transformer

GREEDY = SamplingConfig(top_k=0, max_tokens=12)
WARM = SamplingConfig(temperature=3.0, max_tokens=20)
PROMPT = [5, 17, 2, 40]
NEVER = -1


def argmax_of_full_forward(model: Transformer, ids: list[int], count: int) -> list[int]:
    """Greedy decoding without a cache."""
    model.eval()
    for _ in range(count):
        with torch.no_grad():
            scores = model.logits(model(torch.tensor([ids])))[0, -1]
        ids = [*ids, int(scores.argmax())]
    return ids[-count:]


def test_greedy_equals_the_full_forward_step_by_step(model: Transformer) -> None:
    expected = argmax_of_full_forward(model, PROMPT, 12)
    assert len(set(expected)) > 3
    model.train()
    assert list(generate(model, PROMPT, sampling=GREEDY, end_of_text_id=NEVER)) == expected


def test_a_seed_is_a_text(model: Transformer) -> None:
    def text(seed: int) -> list[int]:
        return list(generate(model, PROMPT, sampling=WARM.model_copy(update={"seed": seed}), end_of_text_id=NEVER))

    assert text(1) == text(1)
    assert text(1) != text(2)


def test_the_end_of_the_text_is_not_yielded(model: Transformer) -> None:
    ids = list(generate(model, PROMPT, sampling=GREEDY, end_of_text_id=NEVER))
    end = ids[5]
    first = ids.index(end)
    assert list(generate(model, PROMPT, sampling=GREEDY, end_of_text_id=end)) == ids[:first]


def test_no_prompt_starts_from_the_end_of_text(model: Transformer) -> None:
    expected = argmax_of_full_forward(model, [9], 3)
    assert 9 not in expected
    assert list(generate(model, [], sampling=GREEDY, end_of_text_id=9))[:3] == expected


@pytest.mark.parametrize(("length", "room"), [(35, 5), (39, 1)])
def test_the_context_is_the_limit(model: Transformer, length: int, room: int) -> None:
    prompt = [1] * length
    long = SamplingConfig(top_k=0, max_tokens=10)
    assert list(generate(model, prompt, sampling=long, end_of_text_id=NEVER)) == argmax_of_full_forward(
        model, prompt, room
    )


def test_no_tokens_are_none(model: Transformer) -> None:
    assert list(generate(model, PROMPT, sampling=SamplingConfig(max_tokens=0), end_of_text_id=NEVER)) == []


@pytest.mark.parametrize("length", [40, 41])
def test_a_prompt_that_fills_the_context_is_refused_at_once(model: Transformer, length: int) -> None:
    with pytest.raises(InputError) as caught:
        generate(model, [1] * length, sampling=GREEDY, end_of_text_id=NEVER)
    assert caught.value.message == (
        f"the prompt has {length} tokens, but the model's context holds 40, answer included"
    )
    assert caught.value.hint == "shorten the prompt to at most 39 tokens, or add `--overflow slide`"


@pytest.mark.parametrize("unknown", [61, -1])
def test_ids_of_another_tokenizer_are_refused(model: Transformer, unknown: int) -> None:
    with pytest.raises(InputError, match=f"token id {unknown}, but the model's ids are 0 to 60") as caught:
        generate(model, [3, unknown], sampling=GREEDY, end_of_text_id=0)
    assert caught.value.hint == "use the tokenizer.json beside the checkpoint"


def test_the_caller_keeps_its_own_mode_between_tokens(model: Transformer) -> None:
    ids = generate(model, PROMPT, sampling=GREEDY, end_of_text_id=NEVER)
    next(ids)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_the_global_generator_is_left_alone(model: Transformer) -> None:
    before = torch.get_rng_state()
    list(generate(model, PROMPT, sampling=WARM, end_of_text_id=NEVER))
    assert torch.equal(torch.get_rng_state(), before)


class Letters:
    """An id is a letter, 0 holds back."""

    def __init__(self) -> None:
        self.held = ""

    def feed(self, token_id: int) -> str:
        if token_id == 0:
            self.held += "?"
            return ""
        piece, self.held = self.held + chr(token_id), ""
        return piece

    def finish(self) -> str:
        return self.held


@pytest.mark.parametrize(
    ("ids", "pieces"), [([], []), ([97, 0, 0, 98], ["a", "??b"]), ([97, 0], ["a", "?"]), ([0, 97], ["?a"])]
)
def test_text_comes_in_pieces_that_are_never_empty(ids: list[int], pieces: list[str]) -> None:
    assert list(stream_text(ids, Letters())) == pieces


def test_text_comes_as_soon_as_it_is_complete() -> None:
    asked = []

    def ids() -> Iterator[int]:
        for token_id in (97, 98):
            asked.append(token_id)
            yield token_id

    assert next(stream_text(ids(), Letters())) == "a"
    assert asked == [97]
