"""Conversion of our model to Hugging Face's `config.json`: a Llama, or with `qk_norm` a Qwen3."""

from __future__ import annotations

from typing import Any

from alm.model.config import ModelConfig
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import PADDING, TURN_END

Json = dict[str, Any]  # Any: JSON

_TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_LEAVES_THE_FAMILY = {
    "x0_skip": "mixes the embeddings into every block",
    "value_residual": "mixes the first block's values into those of the others",
    "smear": "adds some of the previous token's embedding to each",
}


def refusals(model: ModelConfig) -> list[str]:
    """List why neither a Llama nor a Qwen3 can hold this model, a sentence each; empty if one can."""
    found = []
    if model.positions.kind != "rope":
        found.append(f"`positions: {model.positions.kind}`: a Llama has rotary positions only")
    if model.feedforward.kind != "swiglu":
        found.append(f"`feedforward: {model.feedforward.kind}`: a Llama has SwiGLU only")
    found += [f"`{key}: true`: it {what}" for key, what in _LEAVES_THE_FAMILY.items() if getattr(model, key)]
    return found + _attention_refusals(model)


def _attention_refusals(model: ModelConfig) -> list[str]:
    found = []
    if _has_windows(model):
        found.append(f"`attention.window: {model.attention.window}`: a Llama attends to all previous tokens")
    if model.attention.document_mask:
        found.append("`attention.document_mask: true`: a Llama attends to earlier documents too")
    return found


def _has_windows(model: ModelConfig) -> bool:
    """Whether any layer has a window narrower than the context."""
    windows = [model.attention.window_of(layer) for layer in range(model.n_layers)]
    return any(window is not None and window < model.max_position_embeddings for window in windows)


def vocabulary_refusals(model: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    """List why this tokenizer does not fit the model."""
    if tokenizer.vocab_size <= model.known_vocab_size:
        return []
    return [f"the tokenizer has {tokenizer.vocab_size:,} ids, but the model knows only {model.known_vocab_size:,}"]


def config_json(model: ModelConfig, tokenizer: Tokenizer, *, dtype: str) -> Json:
    """Build the complete file, for a model without `refusals`."""
    name = "Qwen3" if model.qk_norm else "Llama"
    own: Json = {"mlp_bias": False}
    if model.qk_norm:
        own = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": model.n_layers}
    return {
        "architectures": [f"{name}ForCausalLM"],
        "model_type": name.lower(),
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
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        **own,
        **token_ids(tokenizer),
        "torch_dtype": _TORCH_NAMES[dtype],  # the key of transformers 4.x, which later versions also read
    }


def _rope_scaling(model: ModelConfig) -> Json | None:
    scaling: Json = model.positions.model_dump()["scaling"]
    method = scaling.pop("method")
    if method == "none":
        return None
    if method == "linear":
        return {"rope_type": "linear", "factor": scaling["factor"]}
    return {"rope_type": method, **scaling}


def token_ids(tokenizer: Tokenizer) -> Json:
    """Return the ids that begin, end and pad a text."""
    ids: Json = {"bos_token_id": tokenizer.end_of_text_id, "eos_token_id": ends(tokenizer)}
    return ids | ({"pad_token_id": tokenizer.specials[PADDING]} if PADDING in tokenizer.specials else {})


def ends(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that end an answer: the end of the text, and the end of a turn, which chats use."""
    turn = [tokenizer.specials[TURN_END]] if TURN_END in tokenizer.specials else []
    return [tokenizer.end_of_text_id, *turn]
