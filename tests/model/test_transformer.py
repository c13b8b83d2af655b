from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_kinds import EXTRAS, KINDS
from torch.nn import functional as F

from alm.errors import ConfigError
from alm.model.config import ModelConfig
from alm.model.context import ForwardContext
from alm.model.init import initialize
from alm.model.layers import drop
from alm.model.transformer import Transformer

SHAPES = [{}, {"qk_norm": True}, {"tie_embeddings": False, "n_kv_heads": 1}, *KINDS]


def mean_loss(model: Transformer, ids: torch.Tensor) -> torch.Tensor:
    return model.losses(model(ids[:, :-1]), ids[:, 1:], divisor=ids[:, 1:].numel()).total


def test_names_and_shapes(tiny_model: Callable[..., Transformer]) -> None:
    shapes = {name: tuple(value.shape) for name, value in tiny_model(n_layers=1, qk_norm=True).state_dict().items()}
    assert shapes == {
        "model.embed_tokens.weight": (61, 32),
        "model.layers.0.self_attn.q_proj.weight": (32, 32),
        "model.layers.0.self_attn.k_proj.weight": (16, 32),
        "model.layers.0.self_attn.v_proj.weight": (16, 32),
        "model.layers.0.self_attn.o_proj.weight": (32, 32),
        "model.layers.0.self_attn.q_norm.weight": (8,),
        "model.layers.0.self_attn.k_norm.weight": (8,),
        "model.layers.0.mlp.gate_proj.weight": (48, 32),
        "model.layers.0.mlp.up_proj.weight": (48, 32),
        "model.layers.0.mlp.down_proj.weight": (32, 48),
        "model.layers.0.input_layernorm.weight": (32,),
        "model.layers.0.post_attention_layernorm.weight": (32,),
        "model.norm.weight": (32,),
    }
    assert set(tiny_model(tie_embeddings=False).state_dict()) - set(tiny_model().state_dict()) == {"lm_head.weight"}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_gets_a_gradient(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    model = tiny_model(**shape)
    mean_loss(model, ids).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert still == []


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_equal_those_of_plain_autograd(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    """Our own backward passes (norm, rotation, loss) in fp32 against PyTorch's everywhere in fp64."""
    model, exact = tiny_model(**shape), tiny_model(**shape).double()
    mean_loss(model, ids).backward()
    logits = exact.logits(exact(ids[:, :-1]))
    F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_one_batch_can_be_overfitted(tiny_config: Callable[..., ModelConfig], ids: torch.Tensor) -> None:
    model = Transformer(tiny_config())
    initialize(model, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)
    for _ in range(120):
        optimizer.zero_grad()
        mean_loss(model, ids).backward()
        optimizer.step()
    assert mean_loss(model, ids).item() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
def test_no_token_changes_what_comes_before_it(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    model, changed = tiny_model(**shape), ids.clone()
    changed[:, 13] = (changed[:, 13] + 1) % 61
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.equal(before[:, :13], after[:, :13])
    # In two layers with a window, what a token says reaches so far; otherwise to the end.
    attention = model.config.attention
    reach = 1 + 2 * (attention.window - 1) if attention.window and not attention.full_every else 11
    assert (before[:, 13:] != after[:, 13:]).any(dim=-1).sum() == 3 * min(11, reach)


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    model, others = tiny_model(), ids.clone()
    others[0], others[2] = ids[2].flip(0), ids[0]
    assert torch.equal(model(ids)[1], model(others)[1])


def test_dropout_only_in_training(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    model, without = tiny_model(dropout=0.5), tiny_model()
    assert torch.equal(model(ids), without(ids))
    model.train()
    torch.manual_seed(0)
    first, second = model(ids), model(ids)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(model(ids), first)


def test_dropout_falls_on_what_is_added(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    """On the embeddings, after attention and after the feed-forward layer, and on what `x0_skip` adds."""
    model = tiny_model(dropout=0.5, n_layers=1, x0_skip=True).train()
    block, keys = model.model.layers[0], torch.tensor([-5, 7, 2**62])
    found = model(ids, keys=keys)
    x = drop(model.model.embed_tokens(ids), 0.5, keys, site=0)
    context = ForwardContext(model.model.positions(0, ids.shape[1]))
    mixed = block.residual_scale * x + block.x0_scale * x
    mixed = mixed + drop(block.self_attn(block.input_layernorm(mixed), context), 0.5, keys, site=1)
    mixed = mixed + drop(block.mlp(block.post_attention_layernorm(mixed)), 0.5, keys, site=2)
    torch.testing.assert_close(found, model.model.norm(mixed))


def test_the_loss_of_the_model_has_a_z_loss_and_a_divisor(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor
) -> None:
    model = tiny_model()
    hidden = model(ids[:, :-1])
    log_z = model.logits(hidden).logsumexp(-1)
    found = model.losses(hidden, ids[:, 1:], divisor=5.0, z_weight=0.1)
    torch.testing.assert_close(found.total - found.nats, 0.1 * log_z.square().sum() / 5)
    torch.testing.assert_close(found.nats, model.token_losses(hidden, ids[:, 1:]).sum() / 5)


def test_rows_that_are_no_tokens_are_zero_and_not_looked_up(tiny_model: Callable[..., Transformer]) -> None:
    model = Transformer(tiny_model().config)
    initialize(model, seed=0)
    model.load_state_dict(model.state_dict())
    table = model.model.embed_tokens.weight
    assert table.shape == (64, 32)
    assert (table[61:] == 0).all()
    with pytest.raises(IndexError):
        model(torch.tensor([[62]]))


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "shape", [{}, EXTRAS, *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[1:] if shape != EXTRAS)]
)
def test_a_model_compiles_to_one_graph(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    model = tiny_model(**shape)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids), model(ids), rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()


def test_making_a_model_draws_no_random_number(tiny_config: Callable[..., ModelConfig]) -> None:
    before = torch.get_rng_state()
    initialize(Transformer(tiny_config(tie_embeddings=False)), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_autocast_is_near_fp32(tiny_model: Callable[..., Transformer], ids: torch.Tensor) -> None:
    model = tiny_model(qk_norm=True)
    exact = mean_loss(model, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = mean_loss(model, ids)
    assert rounded.dtype == torch.float32
    # bf16 keeps 8 bits: half a per cent of the loss after two blocks.
    torch.testing.assert_close(rounded, exact, rtol=5e-3, atol=0)
    rounded.backward()


def test_a_sequence_that_is_too_long_is_refused(tiny_model: Callable[..., Transformer]) -> None:
    with pytest.raises(ValueError, match="0 \\+ 41 tokens do not fit in 40"):
        tiny_model()(torch.zeros(1, 41, dtype=torch.int64))


def test_a_model_needs_to_know_its_vocabulary(tiny_config: Callable[..., ModelConfig]) -> None:
    with pytest.raises(ConfigError, match="is `auto`"):
        Transformer(tiny_config(vocab_size="auto"))
