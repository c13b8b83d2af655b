from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from alm.errors import InputError
from alm.events import Event, Warned
from alm.generation.completions import Completion, Finished, seed_of, write
from alm.generation.config import SamplingConfig
from alm.generation.generate import generate
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.tokenizers.file import Tokenizer

WARM = SamplingConfig(temperature=2.0, max_tokens=30)


@pytest.fixture
def tokenizer() -> Tokenizer:
    """The bytes, and two merges."""
    return Tokenizer.from_merges([(16 + 97, 16 + 98), (272, 16 + 99)])


@pytest.fixture
def model(tokenizer: Tokenizer) -> Transformer:
    shape = ModelConfig(
        d_model=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_hidden_size=48,
        vocab_size=tokenizer.vocab_size, max_position_embeddings=64,
    )  # fmt: skip
    model = Transformer(shape)
    initialize(model, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(12.0 if parameter.dim() > 1 else 1.0)
    return model.eval()


def written(
    model: Transformer, tokenizer: Tokenizer, prompts: Sequence[str], sampling: SamplingConfig
) -> list[Completion]:
    found = [Completion(seed_of(sampling, number)) for number in range(len(prompts))]
    for event in write(model, tokenizer, prompts, sampling):
        assert found[event.number].reason is None
        found[event.number].add(event)
    assert all(text.reason for text in found)
    return found


def test_texts_are_what_their_ids_decode_to(model: Transformer, tokenizer: Tokenizer) -> None:
    for text in written(model, tokenizer, ["abc", "", "é", "abc"], WARM):
        assert text.text == tokenizer.decode(text.ids)
        assert text.ids


def test_each_text_has_the_next_seed_and_is_the_same_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    texts = written(model, tokenizer, ["abc"] * 4, WARM)
    assert [text.seed for text in texts] == [1337, 1338, 1339, 1340]
    assert len({text.text for text in texts}) == 4
    for text in texts:
        alone = WARM.model_copy(update={"seed": text.seed})
        assert written(model, tokenizer, ["abc"], alone)[0].text == text.text
        ids = generate(model, tokenizer.encode("abc"), sampling=alone, end_of_text_id=tokenizer.end_of_text_id)
        assert list(ids) == text.ids


def test_the_last_seed_is_followed_by_the_first() -> None:
    assert seed_of(SamplingConfig(seed=2**63 - 1), 1) == 0


def test_a_stop_cuts_the_text_before_it(model: Transformer, tokenizer: Tokenizer) -> None:
    whole = written(model, tokenizer, ["abc"], WARM)[0]
    stop = whole.text[6:9]
    place = whole.text.index(stop)
    cut = written(model, tokenizer, ["abc"] * 2, WARM.model_copy(update={"stop": (stop, "never there")}))
    assert cut[0].text == whole.text[:place]
    assert cut[0].reason == "stop"
    assert cut[0].ids == whole.ids[: len(cut[0].ids)]
    assert len(cut[0].ids) < len(whole.ids)


def test_no_stop_is_lost_at_the_end(model: Transformer, tokenizer: Tokenizer) -> None:
    whole = written(model, tokenizer, ["abc"], WARM)[0].text
    held = WARM.model_copy(update={"stop": (whole[-2:] + "more",)})
    assert written(model, tokenizer, ["abc"], held)[0].text == whole


def test_bad_words_are_not_written(model: Transformer, tokenizer: Tokenizer) -> None:
    free = SamplingConfig(temperature=2.0, max_tokens=60, top_k=400)
    whole = written(model, tokenizer, [""], free)[0]
    token = next(token for token in whole.ids if token >= 16 and tokenizer.decode([token]).isalnum())
    banned = written(model, tokenizer, [""], free.model_copy(update={"bad_words": (tokenizer.decode([token]),)}))[0]
    assert token not in banned.ids


def test_a_prompt_without_room_is_refused_at_once(model: Transformer, tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="context holds 64"):
        write(model, tokenizer, ["", "x" * 64], WARM)


@pytest.mark.parametrize(("overflow", "says"), [("refuse", "the text may end there"), ("slide", "is dropped")])
def test_what_happens_at_the_end_of_the_context_is_said(
    model: Transformer, tokenizer: Tokenizer, overflow: str, says: str
) -> None:
    told: list[Event] = []
    long = SamplingConfig(max_tokens=100, overflow=overflow)  # type: ignore[arg-type]
    events = list(write(model, tokenizer, ["ab", "ab"], long, on_event=told.append))
    warnings = [event.message for event in told if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert says in warnings[0]
    ends = {event.reason for event in events if isinstance(event, Finished)}
    assert ends <= ({"context", "stop"} if overflow == "refuse" else {"length", "stop"})
