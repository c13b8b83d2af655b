"""Conversion of our model to Hugging Face's `config.json`, of the family that can hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alm.model.config import ModelConfig
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import PADDING

Json = dict[str, Any]  # Any: JSON

# The families, and their names in `architectures`.
FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3"}
_TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_LEAVES_THE_FAMILY = {
    "x0_skip": "mixes the embeddings into every block",
    "value_residual": "mixes the first block's values into those of the others",
    "smear": "adds some of the previous token's embedding to each",
}


def family(model: ModelConfig) -> str:
    """Return the `model_type` of the family that holds this model, if any does: see `refusals`.

    A model without windows is a Mistral if its `full_every` is 0, which is how one without windows is imported.
    """
    if model.qk_norm:
        return "qwen3"
    if model.attention.bias == "qkv":
        return "qwen2"
    windows = _windows(model)
    has_some = any(windows) and (not all(windows) or model.attention.bias != "none")
    if has_some or _skips(model):
        return "smollm3"  # a Llama, but for the layers without rotation and those with windows, which it lists
    is_mistral = any(windows) or model.attention.full_every == 0
    return "mistral" if is_mistral and model.attention.bias == "none" else "llama"


def _windows(model: ModelConfig) -> list[bool]:
    """Return for each layer whether it has a window narrower than the context."""
    windows = (model.attention.window_of(layer) for layer in range(model.n_layers))
    return [window is not None and window < model.max_position_embeddings for window in windows]


def _skips(model: ModelConfig) -> bool:
    """Return whether some layer of a model with rotary positions is not rotated."""
    return model.positions.kind == "rope" and not all(map(model.positions.rotates, range(model.n_layers)))


def _skip_every(model: ModelConfig) -> int:
    assert model.positions.kind == "rope"
    return model.positions.skip_every


def refusals(model: ModelConfig) -> list[str]:
    """List why none of the `FAMILIES` can hold this model, a sentence each; empty if one can."""
    found = []
    if model.positions.kind != "rope":
        found.append(f"`positions: {model.positions.kind}`: a Llama has rotary positions only")
    if model.feedforward.kind != "swiglu":
        found.append(f"`feedforward: {model.feedforward.kind}`: a Llama has SwiGLU only")
    found += [f"`{key}: true`: it {what}" for key, what in _LEAVES_THE_FAMILY.items() if getattr(model, key)]
    return found + _attention_refusals(model)


def _attention_refusals(model: ModelConfig) -> list[str]:
    found = []
    if model.qk_norm and model.attention.bias == "qkv":
        found.append(
            "`attention.bias: qkv` with `qk_norm: true`: a Qwen3 has biases on all four products (`qkvo`) or none"
        )
    if _skips(model) and family(model) != "smollm3":
        reason = f"a {FAMILIES[family(model)]} rotates queries and keys in every layer"
        found.append(f"`positions.skip_every: {_skip_every(model)}`: {reason}")
    if model.attention.document_mask:
        found.append("`attention.document_mask: true`: a Llama attends to earlier documents too")
    return found


def vocabulary_refusals(model: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    """List why this tokenizer does not fit the model."""
    if tokenizer.vocab_size <= model.known_vocab_size:
        return []
    return [f"the tokenizer has {tokenizer.vocab_size:,} ids, but the model knows only {model.known_vocab_size:,}"]


def config_json(model: ModelConfig, tokenizer: Tokenizer, *, ends: Sequence[int], dtype: str) -> Json:
    """Build the complete file, for a model without `refusals`."""
    name = family(model)
    return {
        "architectures": [f"{FAMILIES[name]}ForCausalLM"],
        "model_type": name,
        "vocab_size": model.known_vocab_size,
        "hidden_size": model.d_model,
        "intermediate_size": model.ffn_hidden_size,
        "num_hidden_layers": model.n_layers,
        "num_attention_heads": model.n_heads,
        "num_key_value_heads": model.n_kv_heads,
        "head_dim": model.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": model.max_position_embeddings,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": _rope_scaling(model),
        "tie_word_embeddings": model.tie_embeddings,
        "attention_bias": model.attention.bias == "qkvo",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        **_own(model, name),
        **token_ids(tokenizer, ends),
        "torch_dtype": _TORCH_NAMES[dtype],  # the key of transformers 4.x, which later versions also read
    }


def _own(model: ModelConfig, name: str) -> Json:
    """Return the keys that not every family has."""
    if name == "llama":
        return {"mlp_bias": False}
    if name == "mistral":
        return {"sliding_window": model.attention.window}
    layers = range(model.n_layers)
    kinds = ["full_attention" if model.attention.window_of(layer) is None else "sliding_attention" for layer in layers]
    has_windows = "sliding_attention" in kinds
    own: Json = {
        "use_sliding_window": has_windows,
        "sliding_window": model.attention.window if has_windows else None,
        **({"layer_types": kinds} if has_windows else {}),
    }
    if name != "smollm3":
        return {**own, "max_window_layers": 0 if has_windows else model.n_layers}
    rotated = [int(model.positions.rotates(layer)) for layer in layers]
    # The default of its class for the padding may be beyond the table.
    return {**own, "no_rope_layers": rotated, "mlp_bias": False, "pad_token_id": None}


def _rope_scaling(model: ModelConfig) -> Json | None:
    scaling: Json = model.positions.model_dump()["scaling"]
    method = scaling.pop("method")
    if method == "none":
        return None
    return {"rope_type": method, **{key: scaling[key] for key in _SCALING_KEYS[method]}}


_SCALING_KEYS = {
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow"),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}


def token_ids(tokenizer: Tokenizer, ends: Sequence[int]) -> Json:
    """Return the ids that begin, end and pad a text."""
    end, begin = tokenizer.end_of_text_id, tokenizer.begin_of_text_id
    ids: Json = {"bos_token_id": end if begin is None else begin, "eos_token_id": list(ends)}
    return ids | ({"pad_token_id": tokenizer.specials[PADDING]} if PADDING in tokenizer.specials else {})
