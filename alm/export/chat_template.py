"""The chat template of a model of another tool: kept as text for exports, and recognised as a turn format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm.export.from_hf_config import TOKENIZER_CONFIG_NAME
from alm.files import as_text, bounded_bytes
from alm.tokenizers.chat_format import LONGEST, ChatFormat, recognised
from alm.training.run.run_folder import CHAT_TEMPLATE_NAME

Json = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class ChatTemplate:
    """The text of a template, and the turn format that it writes; None if that is of no known form."""

    text: str
    chat: ChatFormat | None


def in_folder(folder: Path, load: Callable[[Path], Json]) -> ChatTemplate | None:
    """Return the template of a Hugging Face folder. The file takes precedence over the setting, as in transformers."""
    path = folder / TOKENIZER_CONFIG_NAME
    settings = load(path) if path.is_file() else {}
    text = read_beside(folder) or _chosen(settings.get("chat_template"))
    if text is None:
        return None
    return of(text, _token(settings.get("bos_token")), _token(settings.get("eos_token")))


def of(text: str, begin_of_text: str, end_of_text: str) -> ChatTemplate:
    """Return the template `text` with its format; the two names are those of the tokens that it calls bos and eos."""
    return ChatTemplate(text, recognised(text, begin_of_text=begin_of_text, end_of_text=end_of_text))


def read_beside(folder: Path) -> str | None:
    """Return the text of the template that lies in `folder`, if there is one."""
    path = folder / CHAT_TEMPLATE_NAME
    if not path.is_file():
        return None
    return as_text(path, bounded_bytes(path, most=4 * LONGEST))


def _chosen(value: object) -> str | None:
    """Return the template of a setting that may hold several by name."""
    if isinstance(value, list):
        given = [each for each in value if isinstance(each, Mapping) and isinstance(each.get("name"), str)]
        named = {each["name"]: each.get("template") for each in given}
        value = named.get("default", next(iter(named.values()), None))
    return value if isinstance(value, str) and value else None


def _token(value: object) -> str:
    """Return the name of a special token, which is a text or an object with its `content`."""
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) else ""
