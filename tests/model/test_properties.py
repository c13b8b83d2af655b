"""Laws that hold for every shape of model, tried on random ones."""

from __future__ import annotations

import math
import random

import pytest
import torch
from cases import for_each
from model_kinds import TOKENS, random_ids, random_model, random_values

from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer

# fp32 sums in another order (one row instead of many, blocks cut elsewhere), through up to three blocks; as a share of
# the largest hidden value.
CACHED = 2e-5
SEEDS = range(24)


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=CACHED * expected.abs().max().item())


@torch.inference_mode()
@for_each("seed", SEEDS)
def test_cached_decoding_equals_the_full_forward(seed: int) -> None:
    model = random_model(seed)
    ids = random_ids(model)
    draw, pieces = random.Random(seed), []
    while sum(pieces) < TOKENS:
        pieces.append(min(draw.choice([1, 1, 2, 7, 50]), TOKENS - sum(pieces)))
    cache = model.new_cache(batch_size=3)
    parts = [model(piece, cache) for piece in ids.split(pieces, dim=1)]
    assert_near(torch.cat(parts, dim=1), model(ids))


@torch.inference_mode()
@for_each("seed", SEEDS)
def test_padding_on_the_left_changes_nothing(seed: int) -> None:
    """Rows of 80, 61 and 13 tokens side by side give what each gives alone, at once and token by token."""
    model = random_model(seed)
    ids, lengths = random_ids(model), [80, 61, 13]
    padding = torch.tensor([TOKENS - length for length in lengths])
    together = model(ids, padding=padding)
    cache = model.new_cache(batch_size=3, padding=padding)
    decoded = torch.cat([model(piece, cache) for piece in ids.split([67, 3, 1, 1, 8], dim=1)], dim=1)
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, -length:])[0]
        assert_near(together[row, -length:], alone)
        assert_near(decoded[row, -length:], alone)
    assert decoded.isfinite().all()


@torch.inference_mode()
@for_each("seed", SEEDS)
def test_a_document_does_not_depend_on_those_before_it(seed: int) -> None:
    attention = {"kind": "grouped", "document_mask": True, "end_of_text_id": 3}
    model = random_model(seed, attention=attention)
    ids = random_ids(model, rows=1)
    ids[ids == 3] = 4
    ids[0, 30] = 3
    whole = model(ids)
    assert_near(whole[:, 30:], model(ids[:, 30:]))
    seen = random_model(seed, attention="grouped")
    assert not torch.allclose(seen(ids)[:, 31:], seen(ids[:, 30:])[:, 1:], atol=1e-3)


@torch.inference_mode()
@for_each("seed", SEEDS)
def test_a_row_does_not_depend_on_its_neighbours(seed: int) -> None:
    model = random_model(seed)
    ids = random_ids(model)
    others = ids[[2, 1, 0]].roll(5, dims=1)
    others[1] = ids[1]
    assert torch.equal(model(ids)[1], model(others)[1])


@for_each("seed", SEEDS)
def test_every_parameter_learns(seed: int) -> None:
    model = random_model(seed).train()
    ids = random_ids(model)
    model.losses(model(ids[:, :-1]), ids[:, 1:]).total.backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    everything = {name for name, _ in model.named_parameters()}
    # A token that sees itself alone has one score, whatever its query and key are.
    deaf = {n for n in everything if getattr(model.config.attention, "window", None) == 1 and "self_attn" in n}
    assert everything - learning <= {n for n in deaf if "q_" in n or "k_" in n}


@for_each("seed", SEEDS)
def test_the_first_loss_is_that_of_guessing(seed: int) -> None:
    model = Transformer(ModelConfig.model_validate(random_values(seed)))
    initialize(model, seed=seed)
    ids = random_ids(model)
    loss = model.losses(model(ids[:, :-1]), ids[:, 1:], divisor=ids[:, 1:].numel()).nats
    assert loss.item() == pytest.approx(math.log(model.config.known_vocab_size), abs=0.3)


@torch.no_grad()
@for_each("seed", SEEDS)
def test_rows_that_are_no_tokens_are_seen_nowhere(seed: int) -> None:
    model = random_model(seed, vocab_size=101)
    state = model.state_dict()
    assert state["model.embed_tokens.weight"].shape == (101, model.config.d_model)
    other = Transformer(model.config)
    other.load_state_dict(state)
    ids = random_ids(model)
    before = other.eval()(ids)
    assert torch.equal(before, model(ids))
    logits = other.logits(before)
    assert logits.shape[-1] == 101
    nats = -logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    torch.testing.assert_close(other.token_losses(before[:, :-1], ids[:, 1:]), nats, rtol=1e-4, atol=1e-4)
