"""Hugging Face's `config.json` of a Llama or a Qwen3 as our model's configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from alm.model.config import ModelConfig

Json = dict[str, Any]  # Any: JSON

ARCHITECTURES = ("llama", "qwen3")
# What their classes take where a file says nothing (transformers 5: LlamaConfig, Qwen3Config).
_DEFAULTS: dict[str, Json] = {
    "llama": {"max_position_embeddings": 2048},
    "qwen3": {"max_position_embeddings": 32768, "head_dim": 128},
}
_SHARED_DEFAULTS: Json = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0}
_NAMES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "ffn_hidden_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
}
# Values with which a file asks for nothing besides what our model does; absent means the same.
_PLAIN: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "partial_rotary_factor": (1, 1.0),
    "quantization_config": (None,),
}
_ROPE_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


@dataclass
class _Reading:
    """A file that is being read: its values, and what is found wrong with them."""

    values: Json
    faults: list[str] = field(default_factory=list)

    def scaling(self) -> Json:
        """`positions.scaling` of our model."""
        given = self._rope()
        kind = given.get("rope_type", given.get("type", "default"))
        known = {"default": self._none, "linear": self._linear, "yarn": self._yarn}
        if kind not in known:
            self.faults.append(f"positions are scaled as `{kind}`, and alm knows linear and yarn")
            return {}
        return known[kind](given)

    def _rope(self) -> Json:
        for key in ("rope_parameters", "rope_scaling"):
            if isinstance(self.values.get(key), Mapping):
                return dict(self.values[key])
        return {}

    def theta(self) -> Any:  # Any: JSON
        """The base of the frequencies: newer files keep it with the scaling."""
        return self._rope().get("rope_theta", self.values["rope_theta"])

    def _none(self, given: Json) -> Json:
        return {}

    def _linear(self, given: Json) -> Json:
        self._only(given, {"factor", "original_max_position_embeddings"})
        return {"method": "linear", "factor": given.get("factor")}

    def _yarn(self, given: Json) -> Json:
        own = ("factor", "original_max_position_embeddings", "beta_fast", "beta_slow")
        self._only(given, {*own, "attention_factor", "truncate"})
        scale = given.get("attention_factor")
        factor = given.get("factor")
        if scale is not None and not (factor and math.isclose(scale, 0.1 * math.log(factor) + 1, rel_tol=1e-6)):
            self.faults.append(f"yarn has `attention_factor: {scale}`, and alm takes it from the factor")
        if not given.get("truncate", True):
            self.faults.append("yarn has `truncate: false`, and alm rounds the pairs between which it sets in")
        known = {key: given[key] for key in own if given.get(key) is not None}
        length = self.values["max_position_embeddings"]
        return {"method": "yarn", "original_max_position_embeddings": length, **known}

    def _only(self, given: Json, known: set[str]) -> None:
        others = sorted(key for key in given.keys() - known - _ROPE_KEYS if given[key] is not None)
        self.faults += [f"positions have `{key}: {given[key]}`, which alm does not know" for key in others]

    def check_plain(self) -> None:
        """Note what asks for more than our model does."""
        rope = self._rope()
        for key, allowed in _PLAIN.items():
            value = rope.get(key, self.values.get(key, allowed[0]))
            if value not in allowed:
                self.faults.append(f"`{key}: {str(value)[:60]}`, which alm's model does not have")
        layers = self.values.get("layer_types") or []
        others = sorted({str(kind) for kind in layers} - {"full_attention"})
        self.faults += [f"layers of type `{kind}`, which alm's model does not have" for kind in others]


def read(values: Json) -> tuple[ModelConfig | None, list[str]]:
    """Our configuration of the model that `values` describe, or None and why there is none, a sentence each."""
    architecture = values.get("model_type")
    if architecture not in ARCHITECTURES:
        return None, [f"`model_type: {architecture}`, and alm reads {' and '.join(ARCHITECTURES)}"]
    given = {key: value for key, value in values.items() if value is not None}
    reading = _Reading({**_SHARED_DEFAULTS, **_DEFAULTS[architecture], **given})
    missing = [theirs for theirs in _NAMES.values() if theirs not in reading.values]
    if missing:
        return None, [f"it has no `{name}`" for name in missing]
    reading.check_plain()
    mapped = _mapped(reading, has_norm=architecture == "qwen3")
    if reading.faults:
        return None, reading.faults
    try:
        return ModelConfig.model_validate(mapped), []
    except ValidationError as error:
        found = error.errors()
        return None, [f"{'.'.join(map(str, one['loc']))}: {one['msg']}, not {one['input']!r}"[:200] for one in found]


def _mapped(reading: _Reading, *, has_norm: bool) -> Json:
    values = reading.values
    mapped = {ours: values[theirs] for ours, theirs in _NAMES.items()}
    heads, width = mapped["n_heads"], values.get("head_dim")
    if width is not None and width * heads != mapped["d_model"]:
        mapped["head_dim"] = width
    return {
        **mapped,
        "n_kv_heads": values.get("num_key_value_heads", heads),
        "rope_theta": reading.theta(),
        "positions": {"kind": "rope", "scaling": reading.scaling()},
        "qk_norm": has_norm,
    }
