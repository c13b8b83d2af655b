"""The corpus file for files and folders given by their paths. The fields of their rows decide how rows are read.

The first rows of the first file decide, for all files whose names differ only in numbers. The choice is part of the
configuration, as if the user had set it. A folder whose files need several choices becomes several sources.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from alm.config.load import load
from alm.config.yaml_files import parse_yaml
from alm.corpus.adapters import texts_in
from alm.corpus.config import CorpusConfig, free_name, values_for_paths
from alm.corpus.rows import Row
from alm.corpus.sources import files
from alm.errors import AlmError, shell
from alm.events import Listener, Noted, ignore

_MOST_LOOKS, _MOST_ROWS = 200, 20
_CONVERSATION = ("messages", "conversations", "conversation")
_ASKED, _GIVEN = ("instruction", "prompt", "question"), ("input", "context")
_ANSWERED = ("output", "response", "answer", "completion")
_FLAT_TREE = {"message_id", "parent_id", "message_tree_id", "text", "role"}
_PREFERENCE = {"chosen", "rejected"}
_SMALL_PART = 0.1  # of the bytes of a source
_LONG, _FEW_WORDS, _NAME_CHARACTERS = 80, 4, 40
# Fields beside a text that may have many words.
_DESCRIBING = "title headline subtitle name author authors subject category categories tags keywords description url "
_DESCRIBING += "source date license licence copyright meta metadata id path file filename"
_BESIDE = frozenset(_DESCRIBING.split())


class RowChoice(NamedTuple):
    """How to read rows: the adapter, its settings and the field, where they are not the defaults; and why, in words."""

    adapter: str = "text"
    settings: tuple[tuple[str, str], ...] = ()
    field: str | None = None
    why: str = ""

    def keys(self) -> dict[str, Any]:  # Any: raw configuration
        """Return the keys to set in a source."""
        adapter = {"adapter": {"kind": self.adapter, **dict(self.settings)}} if self.adapter != "text" else {}
        return adapter | ({"field": self.field} if self.field else {})

    def flags(self, source: str) -> str:
        """Return the flags that make the same choice."""
        found = [("adapter", self.adapter)] if self.adapter != "text" else []
        found += [(f"adapter.{name}", value) for name, value in self.settings]
        found += [("field", self.field)] if self.field else []
        return shell(*(word for key, value in found for word in ("--set", f"sources.{source}.{key}={_yaml(value)}")))


def corpus_of_paths(
    given: Sequence[str], *, overrides: Sequence[str] = (), on_event: Listener = ignore
) -> CorpusConfig:
    """Return the corpus file that reads the files and folders `given`, with the user's `overrides`.

    `on_event` receives a line for each source whose fields decided how its rows are read.
    """
    values = values_for_paths(given)
    sources = values["sources"]
    changes = [*overrides]
    known = [each for each in overrides if not _is_of_another(each, sources)]
    with contextlib.suppress(AlmError, OSError):  # wrong overrides: raised below
        for name, source in load(CorpusConfig, [], base=values, overrides=known).sources.items():
            if isinstance(source, files.Config) and source.kind == "files":
                for line in _choose(name, source, sources, changes):
                    on_event(Noted(line))
    return load(CorpusConfig, [], base=values, overrides=changes)


def _is_of_another(override: str, sources: Iterable[str]) -> bool:
    """Whether `override` sets a key of a source that is none of `sources`."""
    return override.startswith("sources.") and not any(override.startswith(f"sources.{name}.") for name in sources)


def _choose(name: str, source: files.Config, sources: dict[str, Any], changes: list[str]) -> Iterator[str]:
    """Set in `sources` how the rows of a source are read, and yield what was chosen, in words.

    Files that need another choice become a source of their own. If the user excludes files of this one, `changes`
    receives an override that excludes these too.
    """
    if source.model_fields_set & {"adapter", "field"}:
        return
    groups, unfit = _groups(source)
    if _is_small_part(source, unfit):
        sources[name]["exclude"] = [glob.escape(file.below) for file in unfit]
        number = "1 file" if len(unfit) == 1 else f"{len(unfit):,} files"
        yield f"`{name}`: {number} with rows that hold no text are left out, such as `{unfit[0].below}`"
    if not groups:
        return
    (first, _), *others = groups.items()
    sources[name] |= first.keys()
    if first.why:
        yield f"`{name}`: {first.why}" + (f" (`{first.flags(name)}`)" if "." not in name and not others else "")
    for choice, below in others:
        own = free_name(f"{name}-{choice.field or choice.adapter}", sources)
        sources[own] = {"kind": "files", "paths": list(source.paths), "include": below, **choice.keys()}
        number = "1 file" if len(below) == 1 else f"{len(below):,} files"
        yield f"`{own}`: in {number} of `{name}`, {choice.why or 'the field `text` is read'}"
    if others:
        excluded = sources[name].get("exclude", source.exclude)
        exclude = [*excluded, *(pattern for _, patterns in others for pattern in patterns)]
        sources[name]["exclude"] = exclude
        changes += [f"sources.{name}.exclude={json.dumps(exclude)}"] if source.exclude else []


def _is_small_part(source: files.Config, unfit: Sequence[files.File]) -> bool:
    """Whether the user leaves open what to exclude, and the files `unfit` are a small part of the source's bytes."""
    if not unfit or source.exclude:
        return False
    return sum(file.path.stat().st_size for file in unfit) < _SMALL_PART * files.stored_bytes(source)


def _groups(source: files.Config) -> tuple[dict[RowChoice, list[str]], list[files.File]]:
    """Return patterns for the names of the files that need each choice, in the order of the files, and the files whose
    rows show none, such as the settings of a project among its sources.
    """
    choices: dict[str, RowChoice | None] = {}
    groups: dict[RowChoice, list[str]] = {}
    unfit: list[files.File] = []
    for file in files.with_rows(source):
        kind = re.sub(r"\d+", "0", file.below)
        if kind not in choices and len(choices) < _MOST_LOOKS:
            rows: list[Row] = []
            with contextlib.suppress(AlmError, OSError):  # reading the text will raise it
                rows = files.first_rows(file, source, most=_MOST_ROWS)
            if not rows:
                continue
            choices[kind] = choice_for([row.values for row in rows])
        if (choice := choices.get(kind)) is not None:
            groups.setdefault(choice, []).append(glob.escape(file.below))
        elif kind in choices:
            unfit.append(file)
    return groups, unfit


def choice_for(rows: Sequence[Mapping[str, Any]]) -> RowChoice | None:
    """Return how to read `rows`, the first of a file; None if their fields do not show it."""
    found = (_by_fields(row) for row in rows)
    return next((choice for choice in found if choice is not None), None) or _by_length(rows)


def _by_fields(row: Mapping[str, Any]) -> RowChoice | None:
    if row.keys() >= _FLAT_TREE or _is_tree(row.get("prompt")):
        return RowChoice("oasst", why="trees of messages are read as conversations")
    if "text" in row:
        return RowChoice()
    lists = [(name, adapter) for name, value in row.items() if (adapter := _adapter_of_list(value))]
    is_preference = row.keys() >= _PREFERENCE  # a list beside the two replies ends before them
    for name in ("messages",) if is_preference else _CONVERSATION:
        if adapter := dict(lists).get(name):
            return _of_list(name, adapter)
    asked, given, answered = (
        next((name for name in names if isinstance(row.get(name), str)), None) for names in (_ASKED, _GIVEN, _ANSWERED)
    )
    if asked and answered:
        named = {"instruction": asked, "input": given or "input", "output": answered}
        settings = tuple((key, name) for key, name in named.items() if key != name)
        return RowChoice("alpaca", settings, why=f"rows with `{asked}` and `{answered}` are read as conversations")
    return _of_list(*lists[0]) if len(lists) == 1 and not is_preference else None


def _is_tree(value: object) -> bool:
    return isinstance(value, dict) and value.keys() >= {"text", "role"}


def _adapter_of_list(value: object) -> str | None:
    """Return the adapter that reads a list of messages; None for any other value."""
    if not isinstance(value, list) or not value:
        return None
    first = value[0].keys() if isinstance(value[0], dict) else set()
    return "messages" if first >= {"role", "content"} else "sharegpt" if first >= {"from", "value"} else None


def _of_list(name: str, adapter: str) -> RowChoice:
    own = {"messages": ("messages", "conversation"), "sharegpt": ("conversations",)}[adapter]
    return RowChoice(adapter, field=None if name in own else name, why=f"rows with `{name}` are read as conversations")


def _by_length(rows: Sequence[Mapping[str, Any]]) -> RowChoice | None:
    """Choose the field with long text if no other field has more than a few words."""
    longest: dict[str, int] = {}
    for name, value in itertools.chain.from_iterable(row.items() for row in rows):
        if name.lower() not in _BESIDE and (words := [text for text in texts_in(value) if _has_words(text)]):
            longest[name] = max(longest.get(name, 0), *map(len, words))
    if len(longest) != 1:
        return None
    [(name, length)] = longest.items()
    is_name = len(name) <= _NAME_CHARACTERS and not _has_words(name)  # the first row of a table without a header
    if length < _LONG or not is_name or not isinstance(rows[0].get(name), str):
        return None
    return RowChoice(field=name, why=f"rows with `{name}` are read as documents")


def _has_words(text: str) -> bool:
    return len(text) >= _LONG or len(text.split()) > _FEW_WORDS


def _yaml(value: str) -> str:
    """Return YAML that stands for the text `value`."""
    return value if re.fullmatch(r"[\w-]+", value) and parse_yaml(value) == value else json.dumps(value)
