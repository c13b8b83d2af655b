from __future__ import annotations

from typing import Any

import pytest
import torch

from alm.errors import InputError
from alm.generation.config import SamplingConfig
from alm.generation.engine import Ended, Engine, NewToken, Request, needed
from alm.model.transformer import Transformer

NEVER = -1
CONTEXT = 40
PROMPTS: list[list[int]] = [[5, 17, 2, 40], [9], [5, 17, 2, 40], [1] * 20, [3, 4], [5, 17, 2, 40], []]


def request(ids: list[int], **settings: Any) -> Request:
    return Request(ids, SamplingConfig(**{"temperature": 2.0, "max_tokens": 8, **settings}))


def texts(engine: Engine, requests: list[Request]) -> list[tuple[list[int], str]]:
    """What each request came to: ids, and why it ended."""
    for each in requests:
        engine.add(each)
    ids: dict[int, list[int]] = {number: [] for number in range(len(requests))}
    ends: dict[int, str] = {}
    for event in engine.run():
        if isinstance(event, NewToken):
            assert event.number not in ends
            ids[event.number].append(event.token.id)
        else:
            assert isinstance(event, Ended)
            ends[event.number] = event.reason
    return [(ids[number], ends[number]) for number in range(len(requests))]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_text_is_the_same_alone_and_among_others(model: Transformer, rows: int, plain: bool) -> None:
    requests = [request(ids, seed=number, max_tokens=3 + 2 * number) for number, ids in enumerate(PROMPTS)]
    together = texts(Engine(model, end_of_text_id=7, rows=rows, plain=plain), requests)
    alone = [texts(Engine(model, end_of_text_id=7, plain=plain), [each])[0] for each in requests]
    assert together == alone
    assert {reason for _, reason in alone} == {"length", "stop"}


def test_a_prompt_that_several_share_is_read_once(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model, end_of_text_id=NEVER, rows=3)
    read = []
    prefill = engine._rows.prefill
    monkeypatch.setattr(engine._rows, "prefill", lambda row, ids: (read.append(list(ids)), prefill(row, ids))[1])
    found = texts(engine, [request([1, 2, 3], seed=seed) for seed in (1, 2, 1, 3, 4)])
    assert read == [[1, 2, 3]]
    assert found[0] == found[2] != found[1]


def test_texts_join_and_leave_while_others_go_on(model: Transformer) -> None:
    engine = Engine(model, end_of_text_id=NEVER, rows=2)
    first = engine.add(request([1], max_tokens=20))
    expected = texts(Engine(model, end_of_text_id=NEVER), [request([1], max_tokens=20)])[0][0]
    found = [event for _ in range(5) for event in engine.step()]
    second = engine.add(request([2], max_tokens=3))
    third = engine.add(request([3], max_tokens=3))
    found += [event for _ in range(4) for event in engine.step()]
    engine.stop(third)
    found += engine.run()
    assert [event.token.id for event in found if isinstance(event, NewToken) and event.number == first] == expected
    assert {event.number for event in found if isinstance(event, Ended)} == {first, second}
    assert list(engine.run()) == []


def test_the_context_ends_a_text(model: Transformer) -> None:
    found = texts(Engine(model, end_of_text_id=NEVER), [request([1] * 35, max_tokens=10)])
    assert (len(found[0][0]), found[0][1]) == (5, "context")
    exact = texts(Engine(model, end_of_text_id=NEVER), [request([1] * 35, max_tokens=5)])
    assert (len(exact[0][0]), exact[0][1]) == (5, "length")


def slid(model: Transformer, prompt: list[int], count: int, read: int) -> list[int]:
    """Greedy, and without a cache: what a row remembers is cut to its second half whenever it is full."""
    seen, text = prompt[-read:], []
    with torch.no_grad():
        for _ in range(count):
            if len(seen) > CONTEXT:
                seen = seen[-(CONTEXT // 2) :]
            text.append(int(model.logits(model(torch.tensor([seen])))[0, -1].argmax()))
            seen = [*seen, text[-1]]
    return text


@pytest.mark.parametrize(("length", "read"), [(10, 10), (39, 20), (100, 20)])
def test_a_text_that_slides_forgets_its_older_half(model: Transformer, length: int, read: int) -> None:
    model.eval()
    prompt = [number % 61 for number in range(length)]
    sliding = request(prompt, top_k=0, max_tokens=90, overflow="slide")
    assert texts(Engine(model, end_of_text_id=NEVER), [sliding]) == [(slid(model, prompt, 90, read), "length")]


def test_a_row_that_slid_no_longer_begins_with_its_prompt(model: Transformer) -> None:
    short = request([1, 2, 3], seed=5)
    sliding = request([1, 2, 3], seed=4, max_tokens=60, overflow="slide")
    after = texts(Engine(model, end_of_text_id=NEVER, rows=1), [sliding, short])[1]
    assert after == texts(Engine(model, end_of_text_id=NEVER), [short])[0]


def test_a_prompt_that_slides_leaves_room_for_a_short_answer(model: Transformer) -> None:
    model.eval()
    prompt = [number % 61 for number in range(100)]
    sliding = request(prompt, top_k=0, max_tokens=4, overflow="slide")
    assert texts(Engine(model, end_of_text_id=NEVER), [sliding])[0][0] == slid(model, prompt, 4, CONTEXT - 4)


@pytest.mark.parametrize("plain", [True, False])
def test_an_engine_with_less_memory_than_the_context_keeps_to_the_policy(model: Transformer, plain: bool) -> None:
    small = Engine(model, end_of_text_id=NEVER, max_tokens=16, plain=plain)
    assert [len(ids) for ids, _ in texts(small, [request([1] * 10, max_tokens=30)])] == [6]
    with pytest.raises(InputError, match="context holds 16"):
        small.add(request([1] * 20))
    sliding = Engine(model, end_of_text_id=NEVER, max_tokens=16, plain=plain)
    assert texts(sliding, [request([1] * 20, max_tokens=30, overflow="slide")])[0][1] == "length"


def test_an_empty_prompt_needs_an_end_of_text(model: Transformer) -> None:
    with pytest.raises(ValueError, match="an empty prompt"):
        Engine(model, end_of_text_id=NEVER).add(request([]))


def test_no_tokens_are_none(model: Transformer) -> None:
    assert texts(Engine(model, end_of_text_id=NEVER), [request([1], max_tokens=0)]) == [([], "length")]


def test_a_request_that_cannot_be_continued_is_refused_when_it_is_added(model: Transformer) -> None:
    engine = Engine(model, end_of_text_id=NEVER)
    with pytest.raises(InputError, match="the prompt has 41 tokens"):
        engine.add(request([1] * 41))
    with pytest.raises(InputError, match="token id 61"):
        engine.add(request([61]))
    engine.add(request([1] * 41, overflow="slide"))


def test_ids_that_the_tokenizer_does_not_have_are_never_chosen(model: Transformer) -> None:
    engine = Engine(model, end_of_text_id=0, vocab_size=5)
    ids, _ = texts(engine, [request([1], temperature=50.0, max_tokens=30, top_k=61)])[0]
    assert set(ids) <= set(range(5))


def test_memory_is_for_what_texts_can_come_to(model: Transformer) -> None:
    assert needed([request([1] * 4, max_tokens=6), request([], max_tokens=3)], model.config) == 10
    assert needed([request([], max_tokens=3)], model.config) == 4
    assert needed([request([1] * 4, max_tokens=600)], model.config) == CONTEXT
    assert needed([request([1] * 4, max_tokens=0)], model.config) == 5
