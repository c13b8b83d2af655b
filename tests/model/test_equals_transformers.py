"""Our weights in Hugging Face's models give our logits, for each family that the configuration can describe."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from cases import for_each
from model_kinds import EXTRAS, LLAMA3, YARN, random_ids, random_model, random_values

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


def family_of(config: ModelConfig) -> tuple[str, dict[str, object]]:
    """The family that can hold this model, and settings that only it has."""
    attention, layers = config.attention, range(config.n_layers)
    windows: dict[str, object] = {}
    if attention.window is not None:
        kinds = ["full_attention" if attention.window_of(n) is None else "sliding_attention" for n in layers]
        windows = {"use_sliding_window": True, "sliding_window": attention.window, "layer_types": kinds}
    every_layer = [int(config.positions.rotates(n)) for n in layers]
    if 0 in every_layer:
        return "SmolLM3", {"mlp_bias": False, "pad_token_id": None, "no_rope_layers": every_layer, **windows}
    if attention.bias == "qkv":
        return "Qwen2", windows
    if config.qk_norm:
        return "Qwen3", windows
    if attention.window is not None:
        return "Mistral", {"sliding_window": attention.window}
    return "Llama", {"mlp_bias": False}


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
        "attention_bias": config.attention.bias == "qkvo",
    }
    family, own = family_of(config)
    theirs = getattr(transformers, f"{family}Config")(**values, **own)
    other = getattr(transformers, f"{family}ForCausalLM")(theirs)
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
        {"positions": {"kind": "rope", "scaling": LLAMA3}},
        {"positions": {"kind": "rope", "scaling": {**LLAMA3, "low_freq_factor": 0.5, "high_freq_factor": 9.0}}},
        {"attention": {"kind": "grouped", "window": 5, "full_every": 0}},
        {"attention": {"kind": "grouped", "bias": "qkv"}},
        {"attention": {"kind": "grouped", "bias": "qkvo"}},
        {"attention": {"kind": "grouped", "bias": "qkvo"}, "qk_norm": True},
        {"attention": {"kind": "grouped", "bias": "qkv", "window": 5, "full_every": 2}},
        {"attention": {"kind": "grouped", "window": 6, "full_every": 3}, "qk_norm": True, "n_layers": 4},
        {"positions": {"kind": "rope", "skip_every": 2}},
        {"positions": {"kind": "rope", "skip_every": 3}, "attention": {"kind": "grouped", "window": 5}, "n_layers": 4},
        {"positions": {"kind": "rope", "skip_every": 1}, "attention": {"kind": "grouped", "bias": "qkvo"}},
    ],
)
@torch.no_grad()
def test_logits_of_each_field_that_changes_them(
    tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]
) -> None:
    """At once, and token by token: windows are shorter than the text."""
    model = tiny_model(**shape)
    ours = model.logits(model(ids))
    plain = tiny_model()
    assert (ours - plain.logits(plain(ids))).abs().max() > 0.1
    other = theirs(model)
    assert_same(ours, other(ids).logits)
    cache, past = model.new_cache(batch_size=len(ids)), transformers.DynamicCache(config=other.config)
    name = "cache" if "cache" in inspect.signature(other.forward).parameters else "past_key_values"  # before 5.24
    for piece in ids.split([7, *[1] * (ids.shape[1] - 7)], dim=1):
        expected = other(piece, use_cache=True, **{name: past}).logits
        assert_same(model.logits(model(piece, cache)), expected)


@for_each("seed", range(16))
@torch.no_grad()
def test_logits_of_random_shapes_with_padding_on_the_left(seed: int) -> None:
    """Longer than the first training where positions are scaled."""
    # Mistral has windows, but no norm and no biases.
    attention: dict[str, object] = {"kind": "grouped", "bias": ("none", "qkvo", "none", "qkv")[seed // 4]}
    if seed % 4 == 3:
        attention = {"kind": "grouped", "window": 9, "full_every": 0}
    positions = random_values(seed)["positions"]
    changes = {"feedforward": "swiglu", "attention": attention, **dict.fromkeys(EXTRAS, False)}
    qk_norm = seed % 2 == 0 and attention.get("bias") != "qkv"
    rope = "rope" if positions == "alibi" or "window" in attention else positions
    model = random_model(seed, **changes, positions=rope, qk_norm=qk_norm)
    ids, padding = random_ids(model), torch.tensor([0, 19, 77])
    other = theirs(model)
    assert_same(model.logits(model(ids)), other(ids).logits)
    mask = torch.arange(80) >= padding[:, None]
    places = (torch.arange(80) - padding[:, None]).clamp_min(0)
    found = model.logits(model(ids, padding=padding))
    expected = other(ids, attention_mask=mask.long(), position_ids=places).logits
    assert_same(found[mask], expected[mask])


@pytest.mark.parametrize(
    "shape", [{}, {"qk_norm": True}, *({"attention": {"kind": "grouped", "bias": bias}} for bias in ("qkv", "qkvo"))]
)
def test_gradients(tiny_model: Callable[..., Transformer], ids: torch.Tensor, shape: dict[str, object]) -> None:
    model = tiny_model(**shape)
    model.losses(model(ids[:, :-1]), ids[:, 1:]).total.backward()
    other = theirs(model)
    logits = other(ids[:, :-1]).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum").backward()
    expected = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = expected[name].grad
        size = wanted.abs().max().item()
        torch.testing.assert_close(parameter.grad[: len(wanted)], wanted, rtol=0, atol=GRADIENT * size, msg=name)
