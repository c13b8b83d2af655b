"""Our model as Hugging Face's `config.json` has it: a Llama, with `qk_norm` a Qwen3."""

from __future__ import annotations

from typing import Any

from alm.model.attention import grouped
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
    """Why neither a Llama nor a Qwen3 can be this model, a sentence each; empty where one can."""
    found = []
    positions, feedforward = (part.model_dump()["kind"] for part in (model.positions, model.feedforward))
    if positions != "rope":
        found.append(f"`positions: {positions}`: a Llama knows positions by rotation alone")
    if feedforward != "swiglu":
        found.append(f"`feedforward: {feedforward}`: a Llama has SwiGLU alone")
    found += [f"`{key}: true`: it {what}" for key, what in _LEAVES_THE_FAMILY.items() if getattr(model, key)]
    return found + _attention_refusals(model)


def _attention_refusals(model: ModelConfig) -> list[str]:
    attention = model.attention.model_dump()
    if attention["kind"] != "grouped":
        return [f"`attention: {attention['kind']}`: a Llama has grouped attention alone"]
    found = []
    if _has_windows(model):
        found.append(f"`attention.window: {attention['window']}`: tokens of a Llama see all that came before")
    if attention["document_mask"]:
        found.append("`attention.document_mask: true`: tokens of a Llama see earlier documents too")
    return found


def _has_windows(model: ModelConfig) -> bool:
    """Whether a layer has a window that is narrower than the context."""
    assert isinstance(model.attention, grouped.Config)
    windows = [grouped.window_of(model.attention, layer) for layer in range(model.n_layers)]
    return any(window is not None and window < model.max_position_embeddings for window in windows)


def vocabulary_refusals(model: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    """Why this tokenizer does not go with the model."""
    if tokenizer.vocab_size <= model.known_vocab_size:
        return []
    return [f"the tokenizer has {tokenizer.vocab_size:,} ids, and the model knows {model.known_vocab_size:,}"]


def config_json(model: ModelConfig, tokenizer: Tokenizer, *, dtype: str) -> Json:
    """The whole file, for a model without `refusals`."""
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
        "torch_dtype": _TORCH_NAMES[dtype],  # the name of the 4.x of transformers, which later ones know
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
    """Which ids begin, end and pad a text."""
    ids: Json = {"bos_token_id": tokenizer.end_of_text_id, "eos_token_id": ends(tokenizer)}
    return ids | ({"pad_token_id": tokenizer.specials[PADDING]} if PADDING in tokenizer.specials else {})


def ends(tokenizer: Tokenizer) -> list[int]:
    """Ids that end an answer: that of the text's end, and that of a turn's end, which chats use."""
    turn = [tokenizer.specials[TURN_END]] if TURN_END in tokenizer.specials else []
    return [tokenizer.end_of_text_id, *turn]
