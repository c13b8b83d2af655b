"""Settings beside the model in a Hugging Face folder: ids that end a text, and settings that an import ignores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]  # Any: JSON

GENERATION_NAME, TOKENIZER_CONFIG_NAME, TEMPLATE_NAME = (
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
NAMES = (GENERATION_NAME, TOKENIZER_CONFIG_NAME, TEMPLATE_NAME)
# Keys of generation_config.json that do not affect sampling: special ids, and the tool that wrote the file.
_NO_SETTINGS = frozenset(
    {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"}
)


@dataclass(frozen=True)
class Beside:
    """`ends` are the ids that end a text; `not_taken` names settings that the checkpoint does not hold, by file."""

    ends: tuple[int, ...]
    not_taken: tuple[str, ...]


def read(folder: Path, config: Json, load: Callable[[Path], Json]) -> Beside:
    """Read the settings beside the model of `config`; `load` reads a JSON file, or raises `InputError`."""
    generation, tokenizer = (_loaded(folder / name, load) for name in (GENERATION_NAME, TOKENIZER_CONFIG_NAME))
    ends = generation.get("eos_token_id")
    settings = sorted(key for key, value in generation.items() if value is not None and key not in _NO_SETTINGS)
    not_taken = [f"{GENERATION_NAME}: {key}" for key in settings]
    if tokenizer.get("chat_template") is not None:
        not_taken.append(f"{TOKENIZER_CONFIG_NAME}: chat_template")
    if (folder / TEMPLATE_NAME).is_file():
        not_taken.append(TEMPLATE_NAME)
    return Beside(_ids(config.get("eos_token_id") if ends is None else ends), tuple(not_taken))


def _loaded(path: Path, load: Callable[[Path], Json]) -> Json:
    return load(path) if path.is_file() else {}


def _ids(value: object) -> tuple[int, ...]:
    listed = value if isinstance(value, list) else [value]
    return tuple(id_ for id_ in listed if isinstance(id_, int) and not isinstance(id_, bool))
