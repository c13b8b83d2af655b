"""Our weights in Hugging Face's models give our logits: the default model is a Llama, with QK-norm a Qwen3."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_kinds import EXTRAS, YARN, random_ids, random_model, random_values

from alm.model.config import ModelConfig
from alm.model.transformer import Transformer

transformers = pytest.importorskip("transformers")

# fp32 on both sides, with sums in another order: as a share of the largest logit.
LOGITS = 1e-5
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


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGITS * expected.abs().max().item())


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
    assert_same(ours, theirs(model)(ids).logits)


@pytest.mark.parametrize("seed", range(16))
@torch.no_grad()
def test_logits_of_random_shapes_with_padding_on_the_left(seed: int) -> None:
    """Longer than the first training where positions are scaled."""
    attention = {"kind": "grouped", "window": 9, "full_every": 0} if seed % 4 == 3 else "grouped"
    positions = random_values(seed)["positions"]
    changes = {"feedforward": "swiglu", "attention": attention, **dict.fromkeys(EXTRAS, False)}
    qk_norm = seed % 2 == 0 and attention == "grouped"  # Mistral has windows, and no norm
    rope = "rope" if positions == "alibi" or attention != "grouped" else positions
    model = random_model(seed, **changes, positions=rope, qk_norm=qk_norm)
    ids, padding = random_ids(model), torch.tensor([0, 19, 77])
    other = theirs(model)
    assert_same(model.logits(model(ids)), other(ids).logits)
    mask = torch.arange(80) >= padding[:, None]
    places = (torch.arange(80) - padding[:, None]).clamp_min(0)
    found = model.logits(model(ids, padding=padding))
    expected = other(ids, attention_mask=mask.long(), position_ids=places).logits
    assert_same(found[mask], expected[mask])


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
