"""The model in a GGUF file: its settings as those of a Hugging Face folder, and its tensors by our names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from alm.export import chat_template, from_hf_config
from alm.export.chat_template import ChatTemplate
from alm.export.from_gguf_header import Header
from alm.export.targets import _gguf_model as names
from alm.model.config import ModelConfig, RopeScaling
from alm.tokenizers.file import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from alm.export.targets._gguf_model import Numbers

Json = dict[str, Any]  # Any: JSON

ARCHITECTURES = ("llama", "qwen2", "qwen3", "smollm3")
_REQUIRED = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_OPTIONAL = {
    "vocab_size": "vocab_size",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
}
# Values that need nothing beyond our model; an absent key means the same. None: any value.
_PLAIN: dict[str, tuple[object, ...] | None] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "rope.scaling.finetuned": None,
    # The order of rows that llama.cpp has in every file of a Llama; it does not read the key.
    "tensor_data_layout": ("Meta AI original pth",),
}
_WINDOW = "attention.sliding_window"
_SCALING = "rope.scaling."
_SCALING_KEYS = {"factor": "factor", "original_context_length": "original_max_position_embeddings"}
_LINEAR = "rope.scale_linear"  # of files before 2023-09
# Of every Llama since 3.1. The file holds only the divisors of the frequencies that follow from them.
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_MOST_THETA = 1e12
_SHOWN = 60


@dataclass(frozen=True)
class GgufWeights:
    """The tensors of a file by our names. `tensors` reads and dequantizes them one at a time."""

    header: Header
    model: ModelConfig

    @property
    def files(self) -> tuple[Path, ...]:
        """The file."""
        return (self.header.path,)

    @property
    def _named(self) -> dict[str, str]:
        """Names in the file by ours."""
        return {names.our_name(theirs): theirs for theirs in self.header.tensors if theirs != names.FREQUENCIES}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by our names; a tensor that no model of alm has keeps its own name."""
        return {ours: self.header.tensors[theirs].shape for ours, theirs in self._named.items()}

    @property
    def dtype(self) -> str:
        """The types of the matrices, the most frequent first."""
        counts: dict[str, int] = {}
        for stored in self.header.tensors.values():
            if len(stored.shape) > 1:
                counts[stored.dtype] = counts.get(stored.dtype, 0) + 1
        return ", ".join(sorted(counts, key=lambda dtype: (-counts[dtype], dtype))).lower()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor in fp32 with our name and its rows in our order."""
        for ours, theirs in self._named.items():
            yield ours, names.our_tensor(ours, self.header.read(theirs), self.model)


def read(header: Header) -> tuple[ModelConfig | None, list[str]]:
    """Return our configuration of the model in a file, or None with the reasons, a sentence each."""
    architecture = header.settings.get("general.architecture")
    if architecture not in ARCHITECTURES:
        known = " and ".join([", ".join(ARCHITECTURES[:-1]), ARCHITECTURES[-1]])
        return None, [f"`general.architecture: {_plain(architecture)}`, but alm reads only {known}"]
    values, faults = _Settings(header, architecture).values()
    if faults:
        return None, faults
    model, faults = from_hf_config.read(values)
    return model, [_with_their_keys(fault, architecture) for fault in faults]


def _with_their_keys(fault: str, architecture: str) -> str:
    """Name a setting as the file does."""
    for theirs, key in (_REQUIRED | _OPTIONAL).items():
        fault = fault.replace(f"`{key}`", f"`{architecture}.{theirs}`")
    return fault


class _Settings:
    """The settings of the architecture, and the faults found in them."""

    def __init__(self, header: Header, architecture: str) -> None:
        self._header, self._architecture = header, architecture
        start = f"{architecture}."
        self._given = {
            key.removeprefix(start): value for key, value in header.settings.items() if key.startswith(start)
        }
        self._faults: list[str] = []

    def values(self) -> tuple[Json, list[str]]:
        """Return the same settings by Hugging Face's names, and the faults."""
        given = self._given
        self._faults = [f"it has no `{self._architecture}.{key}`" for key in _REQUIRED if key not in given]
        self._faults += [f"it has no `{name}`" for name in ("token_embd.weight",) if name not in self._header.tensors]
        if self._faults:
            return {}, self._faults
        values = {theirs: given[key] for key, theirs in (_REQUIRED | _OPTIONAL).items() if key in given}
        values.setdefault("vocab_size", self._header.tensors["token_embd.weight"].shape[0])
        values.setdefault("rope_theta", 10000.0)
        values.setdefault("head_dim", self._head_width(values))
        values["model_type"] = self._architecture
        values["tie_word_embeddings"] = "output.weight" not in self._header.tensors
        if self._architecture != "qwen2":  # which always has them, but not on the output
            values["attention_bias"] = any(name.endswith("attn_q.bias") for name in self._header.tensors)
        values |= self._windows(values)
        self._check_others(values)
        values["rope_scaling"] = self._scaling(values)
        return values, self._faults

    def _head_width(self, values: Json) -> int:
        width, heads = values["hidden_size"], values["num_attention_heads"]
        whole = type(width) is int and type(heads) is int and heads > 0
        return width // heads if whole else 0

    def _windows(self, values: Json) -> Json:
        """Return the settings of a Mistral, whose architecture here is that of a Llama, if tokens see only some."""
        window, context = self._given.get(_WINDOW), values["max_position_embeddings"]
        if window is None or (type(window) is type(context) is int and (window == 0 or window >= context)):
            return {}
        if self._architecture != "llama" or values["attention_bias"]:
            self._faults.append(self._not_ours(_WINDOW, window))
            return {}
        return {"model_type": "mistral", "sliding_window": window}

    def _not_ours(self, key: str, value: object) -> str:
        return f"`{self._architecture}.{key[:_SHOWN]}: {_plain(value)}`, which alm's model does not have"

    def _check_others(self, values: Json) -> None:
        """Record settings that change the model in a way that alm does not know."""
        same = {"attention.value_length": values["head_dim"], "rope.dimension_count": values["head_dim"]}
        plain = _PLAIN | {key: (value,) for key, value in same.items()}
        known = {
            *_REQUIRED,
            *_OPTIONAL,
            _LINEAR,
            _WINDOW,
            f"{_SCALING}type",
            *(_SCALING + key for key in _SCALING_KEYS),
        }
        for key, value in self._given.items():
            allowed = plain.get(key, () if key not in known else None)
            if allowed is not None and value not in allowed:
                self._faults.append(self._not_ours(key, value))

    def _scaling(self, values: Json) -> Json | None:
        """Return the scaling of positions as Hugging Face writes it."""
        given = self._given
        kind = given.get(f"{_SCALING}type", "linear" if given.get(_LINEAR, 1) != 1 else "none")
        if names.FREQUENCIES in self._header.tensors:
            if kind != "none":
                self._faults.append(f"positions are scaled as `{_plain(kind)}` and by `{names.FREQUENCIES}`")
            return self._by_divisors(values)
        if kind == "none":
            return None
        found = {theirs: given[key] for ours, theirs in _SCALING_KEYS.items() if (key := _SCALING + ours) in given}
        if _LINEAR in given:
            found.setdefault("factor", given[_LINEAR])
        return {"rope_type": kind, **found}

    def _by_divisors(self, values: Json) -> Json | None:
        """Return the `llama3` scaling that gives the divisors of the frequencies in the file."""
        width, theta = values["head_dim"], values["rope_theta"]
        if type(width) is int and type(theta) in (int, float) and 1 < theta < _MOST_THETA:
            divisors = self._header.read(names.FREQUENCIES)
            settings = self._header.settings
            named = {key: settings.get(names.OWN_SCALING + key, value) for key, value in _LLAMA3.items()}
            for scaling in (named, _LLAMA3):
                full = {"factor": settings.get(f"{names.OWN_SCALING}factor", float(divisors.max())), **scaling}
                if _gives(full, theta, width, divisors):
                    return {"rope_type": "llama3", **full}
        self._faults.append(f"`{names.FREQUENCIES}` scales positions in another way than Llama 3 does")
        return None


def _gives(scaling: Json, theta: float, width: int, divisors: Numbers) -> bool:
    """Whether `llama3` scaling with these settings divides the frequencies by `divisors` (width/2,)."""
    try:
        ours = names.llama3_divisors(RopeScaling.model_validate({"method": "llama3", **scaling}), theta, width)
    except ValidationError:
        return False
    return ours.shape == divisors.shape and np.allclose(ours, divisors, rtol=1e-4, atol=0)


def ends(header: Header) -> tuple[int, ...]:
    """Return the ids that end a text according to the file."""
    keys = (f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
    found = (header.settings.get(key) for key in keys)
    return tuple(dict.fromkeys(id_ for id_ in found if type(id_) is int))


def template(header: Header, tokenizer: Tokenizer) -> ChatTemplate | None:
    """Return the chat template of the file."""
    text = header.settings.get("tokenizer.chat_template")
    if not isinstance(text, str) or not text:
        return None
    names = {id_: name for name, id_ in tokenizer.specials.items()}
    ids = (header.settings.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos"))
    begin, end = (names.get(id_, "") if isinstance(id_, int) else "" for id_ in ids)
    return chat_template.of(text, begin, end)


def not_taken(header: Header) -> tuple[str, ...]:
    """List the settings of sampling that a checkpoint does not hold."""
    return tuple(sorted(key for key in header.settings if key.startswith("general.sampling.")))


def _plain(value: object) -> str:
    return str(value)[:_SHOWN]
