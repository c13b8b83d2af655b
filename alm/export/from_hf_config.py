"""Settings of a Hugging Face folder of one of `ARCHITECTURES`: as our model's configuration, or not supported."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from alm.model.config import ModelConfig

Json = dict[str, Any]  # Any: JSON

# Defaults of their classes for keys that a file leaves out (transformers 5: LlamaConfig, MistralConfig and so on).
_SHARED_DEFAULTS: Json = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0}
_QWEN: Json = {
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_DEFAULTS: dict[str, Json] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
    "smollm3": {
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_theta": 2000000.0,
        "no_rope_layer_interval": 4,
    },
}
ARCHITECTURES = tuple(_DEFAULTS)
_NEAREST = {
    "qwen": "Qwen/Qwen3-0.6B",
    "mi": "mistralai/Mistral-7B-v0.1",  # Mixtral and Ministral too
    "llama": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "gemma": "Qwen/Qwen3-0.6B",  # of the size of the smallest, with tokens of many languages
    "phi": "HuggingFaceTB/SmolLM2-1.7B",
    "": "HuggingFaceTB/SmolLM2-135M",
}
"""Models of the hub that alm has, by how the names of the families that they are near to begin."""
# Null in a file stands for none of it; for any other key it is the same as leaving the key out.
_NONE_IF_NULL = ("num_key_value_heads", "sliding_window")
_HAS_BIAS_FLAG = ("llama", "qwen3", "smollm3")
_HAS_WINDOW_FLAG = ("qwen2", "qwen3", "smollm3")
_FULL, _SLIDING = "full_attention", "sliding_attention"
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
# Values that need nothing beyond our model; an absent key means the same.
_PLAIN: dict[str, tuple[object, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "partial_rotary_factor": (1, 1.0),
    "quantization_config": (None,),
}


_INSTEAD = {"quantization_config": ": import the model that it was made from, or a GGUF file of it"}


class _Bounds(NamedTuple):
    """Limits of a number: no model of these families comes close to them."""

    least: float
    most: float
    is_integer: bool = True


_WIDTH, _LENGTH, _RATIO = _Bounds(1, 2**20), _Bounds(1, 2**23), _Bounds(1, 2**20, is_integer=False)
_THETA = _Bounds(1, 1e12, is_integer=False)
_NUMBERS = {
    "hidden_size": _WIDTH,
    "num_hidden_layers": _Bounds(1, 1000),
    "num_attention_heads": _WIDTH,
    "num_key_value_heads": _WIDTH,
    "head_dim": _WIDTH,
    "intermediate_size": _WIDTH,
    "vocab_size": _Bounds(1, 2**24),
    "max_position_embeddings": _LENGTH,
    "original_max_position_embeddings": _LENGTH,
    "no_rope_layer_interval": _WIDTH,
    "rms_norm_eps": _Bounds(1e-20, 1, is_integer=False),
    "rope_theta": _THETA,
}
_ROPE_NUMBERS = {
    "rope_theta": _THETA,
    "factor": _RATIO,
    "original_max_position_embeddings": _LENGTH,
    "attention_factor": _Bounds(0, 2**20, is_integer=False),
    "beta_fast": _Bounds(1e-6, 2**20, is_integer=False),
    "beta_slow": _Bounds(1e-6, 2**20, is_integer=False),
    "low_freq_factor": _Bounds(1e-3, 1e6, is_integer=False),
    "high_freq_factor": _Bounds(1e-3, 1e6, is_integer=False),
}
_NULLABLE = (
    "factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
)  # null means the same as absent
_ROPE_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


@dataclass
class _Reading:
    """A file being read: its values, and the faults found in them."""

    values: Json
    family: str
    faults: list[str] = field(default_factory=list)

    def scaling(self) -> Json:
        """Convert the scaling of positions to our `positions.scaling`."""
        given = self._rope()
        kind = given.get("rope_type", given.get("type", "default"))
        known = {"default": self._none, "linear": self._linear, "yarn": self._yarn, "llama3": self._llama3}
        if not isinstance(kind, str) or kind not in known:
            same = ""
            if kind == "dynamic":
                same = _same_without("`rope_scaling`", self._original_length(given))
            self.faults.append(
                f"positions are scaled as `{_plain(kind)}`, but alm supports only linear, yarn and llama3{same}"
            )
            return {}
        return known[kind](given)

    def _rope(self) -> Json:
        """Return the settings of positions; `rope_scaling`, the older name, takes precedence, as in transformers."""
        given = self.values.get("rope_scaling") or self.values.get("rope_parameters") or {}
        return dict(given) if isinstance(given, Mapping) else {}

    def theta(self) -> Any:  # Any: JSON
        """Return the base of the frequencies; newer files keep it with the scaling."""
        return self._rope().get("rope_theta", self.values["rope_theta"])

    def check_types(self) -> None:
        """Record values of the wrong type or out of bounds, before anything is computed with them."""
        for key, bounds in _NUMBERS.items():
            if key in self.values:
                self._check_number(key, self.values[key], bounds)
        for key in ("tie_word_embeddings", "attention_bias", "use_sliding_window"):
            if not isinstance(self.values.get(key, False), bool):
                self.faults.append(f"`{key}` is {_shown(self.values[key])}, not a flag")
        if self.values.get("use_sliding_window") is True or self.family == "mistral":
            for key, bounds in (("sliding_window", _LENGTH), ("max_window_layers", _Bounds(0, 2**20))):
                if key in self.values:
                    self._check_number(key, self.values[key], bounds)
        layers = self.values.get("layer_types", [])
        if not isinstance(layers, list) or not all(isinstance(kind, str) for kind in layers):
            self.faults.append(f"`layer_types` is {_shown(layers)}, not a list of names")
        rotated = self.values.get("no_rope_layers", [])
        if not isinstance(rotated, list) or not all(isinstance(flag, int) and flag in (0, 1) for flag in rotated):
            self.faults.append(f"`no_rope_layers` is {_shown(rotated)}, not a list of 0 and 1")
        for key in ("rope_scaling", "rope_parameters"):
            self._check_positions(key)

    def _check_positions(self, key: str) -> None:
        given = self.values.get(key, {})
        if not isinstance(given, Mapping):
            self.faults.append(f"`{key}` is {_shown(given)}, not an object")
            return
        nested = [name for name, value in given.items() if isinstance(value, Mapping)]
        if nested:
            self.faults.append(f"`{key}` is given for each type of layer (`{nested[0][:60]}`), which alm does not read")
        for name, bounds in _ROPE_NUMBERS.items():
            if name in given and not (given[name] is None and name in _NULLABLE):
                self._check_number(f"{key}.{name}", given[name], bounds)
        if not isinstance(given.get("truncate", True), bool):
            self.faults.append(f"`{key}.truncate` is {_shown(given['truncate'])}, not a flag")

    def _check_number(self, key: str, value: object, bounds: _Bounds) -> None:
        kinds = int if bounds.is_integer else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not bounds.least <= value <= bounds.most:
            kind = "a whole number" if bounds.is_integer else "a number"
            self.faults.append(f"`{key}` is {_shown(value)}, not {kind} from {bounds.least:g} to {bounds.most:g}")

    def _none(self, given: Json) -> Json:
        self._only(given, set())
        return {}

    def _linear(self, given: Json) -> Json:
        self._only(given, {"factor", "original_max_position_embeddings"})
        if given.get("factor") is None:
            self.faults.append("positions are scaled as `linear`, without a `factor`")
        return {"method": "linear", "factor": given.get("factor")}

    def _yarn(self, given: Json) -> Json:
        own = ("beta_fast", "beta_slow")
        self._only(given, {*own, "factor", "original_max_position_embeddings", "attention_factor", "truncate"})
        if "factor" not in given:
            self.faults.append("positions are scaled as `yarn`, without a `factor`")
        if self.theta() <= 1:
            self.faults.append(f"yarn needs a `rope_theta` above 1, not {self.theta()}")
        first = self._original_length(given)
        factor = given.get("factor") or self.values["max_position_embeddings"] / first
        scale = given.get("attention_factor")
        if scale is not None and not math.isclose(scale, 0.1 * math.log(max(factor, 1)) + 1, rel_tol=1e-6):
            self.faults.append(f"yarn has `attention_factor: {scale}`, but alm computes it from the factor")
        if not given.get("truncate", True):
            self.faults.append("yarn has `truncate: false`, but alm always rounds the bounds of its ramp")
        known = {key: given[key] for key in own if given.get(key) is not None}
        return {"method": "yarn", "original_max_position_embeddings": first, "factor": factor, **known}

    def _llama3(self, given: Json) -> Json:
        own = ("factor", "low_freq_factor", "high_freq_factor")
        self._only(given, {*own, "original_max_position_embeddings"})
        missing = [key for key in own if given.get(key) is None]
        self.faults += [f"positions are scaled as `llama3`, without a `{key}`" for key in missing]
        known = {key: given.get(key) for key in own}
        return {"method": "llama3", "original_max_position_embeddings": self._original_length(given), **known}

    def _original_length(self, given: Json) -> Any:  # Any: JSON
        """Return the tokens of the original sequences; the top-level value takes precedence, as in transformers."""
        key = "original_max_position_embeddings"
        return self.values.get(key) or given.get(key, self.values["max_position_embeddings"])

    def _only(self, given: Json, known: set[str]) -> None:
        others = sorted(key for key in given.keys() - known - _ROPE_KEYS if given[key] is not None)
        self.faults += [
            f"positions have `{key[:60]}: {_plain(given[key])}`, which alm does not support" for key in others
        ]

    def check_plain(self) -> None:
        """Record settings that our model does not have."""
        rope = self._rope()
        for key, allowed in _PLAIN.items():
            value = rope.get(key, self.values.get(key, allowed[0]))
            if value not in allowed:
                instead = _INSTEAD.get(key, "")
                self.faults.append(f"`{key}: {_plain(value)}`, which alm's model does not have{instead}")
        count = self.values["num_hidden_layers"]
        for key in ("layer_types", "no_rope_layers"):
            given = self.values.get(key)
            # transformers ignores entries of `no_rope_layers` beyond the last layer.
            if given is not None and (len(given) < count or (key == "layer_types" and len(given) > count)):
                self.faults.append(f"`{key}` has {len(given)} entries for {count} layers")
        if self.family == "llama" and self.values.get("use_sliding_window"):
            self.faults.append("`use_sliding_window: True`, which a llama does not have")

    def skip_every(self) -> int:
        """Return which layers are not rotated, as our `positions.skip_every`."""
        rotated = self._rotated()
        every = _every([not flag for flag in rotated])
        if every is None:
            self.faults.append(
                f"`no_rope_layers` is {_shown(rotated)}, but alm leaves the rotation out of every Nth layer"
            )
        return every or 0

    def _rotated(self) -> list[int]:
        """Return 1 for each layer whose queries and keys are rotated, else 0."""
        count = self.values["num_hidden_layers"]
        if self.family != "smollm3":
            return [1] * count
        interval = self.values["no_rope_layer_interval"]
        given: list[int] | None = self.values.get("no_rope_layers")
        if given is None:
            return [int((layer + 1) % interval != 0) for layer in range(count)]
        return given[:count]

    def windows(self) -> Json:
        """Return which layers have a window, as our `attention.window` and `attention.full_every`."""
        has_windows = self.values.get("use_sliding_window", False) if self.family in _HAS_WINDOW_FLAG else True
        width = self.values.get("sliding_window") if has_windows and self.family != "llama" else None
        kinds = self._layer_types(has_windows=width is not None)
        if self.family == "mistral" and width is not None and _FULL in kinds:
            self.faults.append(f"`layer_types` has `{_FULL}`, but all layers of a mistral have its `sliding_window`")
        if _SLIDING not in kinds:
            return {"full_every": 0} if self.family == "mistral" else {}
        every = _every([kind == _FULL for kind in kinds])
        if width is None:
            self.faults.append(f"layers of type `{_SLIDING}`, but no `sliding_window` in use")
        elif every is None:
            self.faults.append(
                "`layer_types` has windows in some layers, but alm has them in all, or in all but every Nth"
                + _same_without("`use_sliding_window` and `layer_types`", width)
            )
        return {"window": width, "full_every": every or 0}

    def _layer_types(self, *, has_windows: bool) -> list[str]:
        """Return the type of each layer, given or as its class computes it."""
        count = self.values["num_hidden_layers"]
        given: list[str] | None = self.values.get("layer_types")
        if given is not None:
            others = sorted(set(given) - {_FULL, _SLIDING})
            self.faults += [f"layers of type `{kind[:60]}`, which alm's model does not have" for kind in others]
            return given
        if not has_windows:
            return [_FULL] * count
        if self.family == "mistral":
            return [_SLIDING] * count
        if self.family == "smollm3":
            return [_FULL if flag else _SLIDING for flag in self._rotated()]
        return [_FULL if layer < self.values["max_window_layers"] else _SLIDING for layer in range(count)]


def _every(marks: list[bool]) -> int | None:
    """Return N if exactly every Nth mark is set, 0 if none is, and None otherwise."""
    if True not in marks:
        return 0
    every = marks.index(True) + 1
    return every if all(mark == (at % every == 0) for at, mark in enumerate(marks, 1)) else None


def _same_without(keys: str, tokens: int) -> str:
    return f". A copy of the folder without {keys} in its `config.json` gives the same up to {tokens:,} tokens"


def _shown(value: object) -> str:
    return json.dumps(value)[:60]


def _plain(value: object) -> str:
    return str(value)[:60]


def nearest(architecture: object) -> str:
    """Return the model of the hub that is nearest to those of this family, of those that alm has."""
    name = str(architecture).lower()
    return next(model for start, model in _NEAREST.items() if name.startswith(start))


def read(values: Json) -> tuple[ModelConfig | None, list[str]]:
    """Return our configuration of the model that `values` describe, or None with the reasons, a sentence each."""
    architecture = values.get("model_type")
    if architecture not in ARCHITECTURES:
        return None, [f"`model_type: {_plain(architecture)}`, but alm reads only {', '.join(ARCHITECTURES)}"]
    given = {key: value for key, value in values.items() if value is not None}
    usual = {**_SHARED_DEFAULTS, **_DEFAULTS[architecture]}
    for key in _NONE_IF_NULL:
        if key in values:
            usual.pop(key, None)
    reading = _Reading({**usual, **given}, architecture)
    missing = [theirs for theirs in _NAMES.values() if theirs not in reading.values]
    if missing:
        return None, [f"it has no `{name}`" for name in missing]
    reading.check_types()
    if reading.faults:
        return None, reading.faults
    reading.check_plain()
    mapped = _mapped(reading)
    if reading.faults:
        return None, reading.faults
    try:
        return ModelConfig.model_validate(mapped), []
    except ValidationError as error:
        found = error.errors()
        return None, [f"{'.'.join(map(str, one['loc']))}: {one['msg']}, not {one['input']!r}"[:200] for one in found]


def _mapped(reading: _Reading) -> Json:
    values, family = reading.values, reading.family
    mapped = {ours: values[theirs] for ours, theirs in _NAMES.items()}
    heads, width = mapped["n_heads"], values.get("head_dim")
    if width is not None and width * heads != mapped["d_model"]:
        mapped["head_dim"] = width
    has_bias = family in _HAS_BIAS_FLAG and values.get("attention_bias", False)
    return {
        **mapped,
        "n_kv_heads": values.get("num_key_value_heads", heads),
        "rope_theta": reading.theta(),
        "positions": {"kind": "rope", "scaling": reading.scaling(), "skip_every": reading.skip_every()},
        "attention": {
            "kind": "grouped",
            "bias": "qkv" if family == "qwen2" else "qkvo" if has_bias else "none",
            **reading.windows(),
        },
        "qk_norm": family == "qwen3",
    }


# ---- settings beside the model ----------------------------------------------------------------

GENERATION_NAME, TOKENIZER_CONFIG_NAME, TEMPLATE_NAME = (
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
SIDECARS = (GENERATION_NAME, TOKENIZER_CONFIG_NAME, TEMPLATE_NAME)
# Keys of generation_config.json that do not affect sampling: special ids, and the tool that wrote the file.
_NO_SETTINGS = frozenset(
    {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"}
)


@dataclass(frozen=True)
class Sidecars:
    """`ends` are the ids that end a text; `not_taken` names settings that the checkpoint does not hold, by file."""

    ends: tuple[int, ...]
    not_taken: tuple[str, ...]


def read_sidecars(folder: Path, config: Json, load: Callable[[Path], Json]) -> Sidecars:
    """Read the settings beside the model of `config`; `load` reads a JSON file, or raises `InputError`."""
    path = folder / GENERATION_NAME
    generation = load(path) if path.is_file() else {}
    ends = generation.get("eos_token_id")
    settings = sorted(key for key, value in generation.items() if value is not None and key not in _NO_SETTINGS)
    not_taken = [f"{GENERATION_NAME}: {key}" for key in settings]
    return Sidecars(_ids(config.get("eos_token_id") if ends is None else ends), tuple(not_taken))


def _ids(value: object) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    return tuple(id_ for id_ in listed if isinstance(id_, int) and not isinstance(id_, bool))
