"""Our weights in Hugging Face's models give our logits: the default model is a Llama, with QK-norm a Qwen3."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_kinds import YARN

from alm.model.config import ModelConfig
from alm.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

# fp32 on both sides, with sums in another order, through two blocks; the logits are of order ten.
SAME = {"rtol": 1e-4, "atol": 1e-4}
# The same, as a share of the largest entry of each gradient.
GRADIENT = 1e-4


def rope_parameters(config: ModelConfig) -> dict[str, object]:
    scaling = config.positions.scaling  # type: ignore[attr-defined]  # rope has it
    if scaling.method == "none":
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    values = scaling.model_dump(exclude_none=True)
    return {"rope_type": values.pop("method"), "rope_theta": config.rope_theta, **values}


def theirs(model: Transformer) -> torch.nn.Module:
    config = model.config
    values = {
        "vocab_size": config.known_vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.ffn_hidden_size,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_width,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": rope_parameters(config),
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
    }
    window = config.attention.window  # type: ignore[attr-defined]  # grouped has it
    if window is not None:
        other = transformers.MistralForCausalLM(transformers.MistralConfig(**values, sliding_window=window))
    elif config.qk_norm:
        other = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**values))
    else:
        other = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values, mlp_bias=False))
    missing, unexpected = other.load_state_dict(model.state_dict(), strict=False)
    assert unexpected == []
    assert missing == (["lm_head.weight"] if config.tie_embeddings else [])
    other.tie_weights()
    return other.eval()


@pytest.mark.parametrize(
    "shape",
    [
        {"positions": {"kind": "rope", "scaling": {"method": "linear", "factor": 3.0}}},
        {"positions": {"kind": "rope", "scaling": YARN}},
        {"positions": {"kind": "rope", "scaling": {**YARN, "beta_fast": 4.0, "beta_slow": 0.1}}, "qk_norm": True},
        {"attention": {"kind": "grouped", "window": 5, "full_every": 0}},
    ],
)
@torch.no_grad()
def test_logits_of_scaled_positions_and_of_windows(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    model = tiny_model(**shape)
    ours = model.logits(model(ids))
    plain = tiny_model()
    assert (ours - plain.logits(plain(ids))).abs().max() > 0.1
    torch.testing.assert_close(ours, theirs(model)(ids).logits, **SAME)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize(
    "shape", [{}, {"n_kv_heads": 1, "tie_embeddings": False}, {"n_kv_heads": 4, "rope_theta": 500.0, "norm_eps": 0.1}]
)
@torch.no_grad()
def test_logits(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, qk_norm: bool, shape: dict[str, object]
) -> None:
    model = tiny_model(qk_norm=qk_norm, **shape)
    ours = model.logits(model(ids))
    assert ours.std() > 1
    torch.testing.assert_close(ours, theirs(model)(ids).logits, **SAME)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_gradients(tiny_model: Callable[..., Transformer], ids: torch.Tensor, qk_norm: bool) -> None:
    model = tiny_model(qk_norm=qk_norm)
    model.losses(model(ids[:, :-1]), ids[:, 1:]).total.backward()
    other = theirs(model)
    logits = other(ids[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    expected = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = expected[name].grad
        size = wanted.abs().max().item()
        torch.testing.assert_close(parameter.grad[: len(wanted)], wanted, rtol=0, atol=GRADIENT * size, msg=name)
