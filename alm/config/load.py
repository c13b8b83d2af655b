"""Reading of configuration from YAML and `--set` into one frozen model; all problems are reported at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from alm.config import presets
from alm.config.base import Config, did_you_mean, kinds_at, unknown_key
from alm.config.yaml_files import Location, Values, line_of, parse_yaml, problem_of, read_yaml
from alm.errors import AlmError, ConfigError, quoted, shell

AnyConfig = TypeVar("AnyConfig", bound=Config)

# A type as pydantic names it in the place of an error: `constrained-int`, `tuple[str, ...]`, `literal['auto']`.
_TYPE = re.compile(r"[a-z-]+\[.*\]|[a-z]+-[a-z]+|int|float|str|bool|none", re.DOTALL)

_VALUE_SHOWN = 60


@dataclass(frozen=True)
class Part:
    """One file and the top-level keys taken from it; None takes all of them."""

    path: Path
    keys: frozenset[str] | None = None


def load(
    schema: type[AnyConfig],
    parts: Sequence[Part],
    *,
    base: Values | None = None,
    overrides: Sequence[str] = (),
    typed: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> AnyConfig:
    """Build the model from `base`, then `parts`, with `overrides` (`a.b=c`) on top.

    An override that changes a `kind` drops the settings of the files that only the kind before has. Raises
    `ConfigError` with every problem of every file, and with `hint` if given. `typed` has what a user wrote for an
    override where that was not `--set` with it. Top-level keys of a file that its part does not take must still be
    keys of `schema`, so that one file can hold all sections.
    """
    problems: list[str] = []
    values: Values = dict(base or {})
    origin: dict[str, Path] = {}  # by top-level key
    for part in parts:
        values |= _part_values(part, schema, origin, problems)
    given = [(typed or {}).get(override, f"--set {override}") for override in overrides]
    changes = _changes(overrides, given, schema, problems)
    changed = deepcopy(values)
    for change in changes:
        if not _put(changed, change):
            problems.append(f"{change.given}: {_below_a_value(changed, change.path)}")
    config, faults = _validated(schema, values, changes)
    for location, sentence in faults:
        named = [change for change in changes if location[: len(change.path)] == change.path][-1:]
        causes = named or [change for change in changes if _causes(change, schema, values, changes, location)]
        path = origin.get(str(location[0]) if location else "", parts[0].path if parts else None)
        place = " ".join(change.given for change in causes) or _place(path, location)
        key = f"`{'.'.join(map(str, location))}`: " if location else ""
        problems.append(f"{place}: {key}{sentence}")
    if problems or config is None:
        raise ConfigError("\n       ".join(problems), hint=hint or _hint(parts, problems, overrides, given))
    return config


def _below_a_value(values: Values, path: Sequence[str]) -> str:
    """Say which key of `path` holds a value that has no keys, and how to set that value."""
    node: Any = values
    length = 0
    while isinstance(node, dict):
        node = node[path[length]]
        length += 1
    holder = ".".join(path[:length])
    if isinstance(node, list | tuple):
        return f"`{holder}` is a list, which is set as a whole: `--set {quoted(holder)}='[a, b]'`"
    return f"`{holder}` is {node!r:.{_VALUE_SHOWN}}, which has no key `{path[length]}`"


def _part_values(part: Part, schema: type[Config], origin: dict[str, Path], problems: list[str]) -> Values:
    loaded = _read(part.path, problems)
    if loaded is None:
        return {}
    for key in loaded:
        if key not in schema.model_fields:
            problems.append(f"{_place(part.path, (key,))}: `{key}`: {unknown_key(str(key), schema.model_fields)}")
    taken = {key: value for key, value in loaded.items() if key in (part.keys or schema.model_fields)}
    known = {key: value for key, value in taken.items() if key in schema.model_fields}
    if part.keys is not None and not known:
        problems.append(f"{part.path}: has no `{'`, `'.join(sorted(part.keys))}`")
    origin.update(dict.fromkeys(part.keys or known, part.path))
    return known


def _read(path: Path, problems: list[str]) -> Values | None:
    try:
        loaded = read_yaml(path)
    except AlmError as error:
        problems.append(error.message)
        return None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        problems.append(f"{path}: is a {type(loaded).__name__}, but must be a mapping of sections")
        return None
    return loaded


def _place(path: Path | None, location: Location) -> str:
    """Name the file, and the line of the value at `location` if it is there."""
    if path is None:
        return "command line"
    line = line_of(path, location)
    return str(path) if line is None else f"{path}: line {line}"


def _validated(
    schema: type[AnyConfig], values: Values, changes: Sequence[_Change]
) -> tuple[AnyConfig | None, list[tuple[Location, str]]]:
    """Return the model of `values` with `changes`, or None and what is wrong where."""
    changed = deepcopy(values)
    for change in changes:
        if change.path[-1] == "kind":
            _drop_settings_of_other_kind(schema, changed, change)
        _put(changed, change)
    try:
        return schema.model_validate(changed), []
    except ValidationError as error:
        return None, _faults(error, changed)


def _faults(error: ValidationError, values: Values) -> list[tuple[Location, str]]:
    """Return the keys of each value that is wrong, and what is wrong with it.

    Pydantic adds the name of each type that a value may have to the keys, with an error for each.
    """
    sentences: dict[Location, list[str]] = {}
    of_one_type: set[Location] = set()
    for found in error.errors():
        location = _without_types(found["loc"], values)
        sentences.setdefault(location, []).append(_sentence(found))
        if len(location) < len(found["loc"]):
            of_one_type.add(location)
    # Inside a list more is known than that it might be another type.
    inside = {place[:length] for place in of_one_type for length in range(len(place))}
    return [
        (place, "; or: ".join(dict.fromkeys(found)))
        for place, found in sentences.items()
        if not (place in of_one_type and place in inside)
    ]


def _without_types(location: Location, values: Any) -> Location:  # Any: what YAML can hold
    """Return the keys of `location` that lead through `values`, without the names of types that pydantic adds."""
    keys: list[str | int] = []
    for key in location:
        is_there = isinstance(values, dict) and key in values
        if is_there or (isinstance(values, list) and isinstance(key, int) and key < len(values)):
            values = values[key]
        elif isinstance(key, int) or _TYPE.fullmatch(key):
            continue
        keys.append(key)
    return tuple(keys)


def _causes(
    change: _Change, schema: type[Config], values: Values, changes: Sequence[_Change], location: Location
) -> bool:
    """Whether nothing is wrong at `location` without `change`."""
    without = _validated(schema, values, [each for each in changes if each is not change])[1]
    return location not in (place for place, _ in without)


def _drop_settings_of_other_kind(schema: type[Config], values: Values, change: _Change) -> None:
    """Remove what is particular to the kind in `values` from the mapping whose kind `change` sets.

    That is what the new kind does not accept or has another default for: a rate for Muon is 60 times one for AdamW.
    """
    node: Any = values
    for key in change.path[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    kinds = kinds_at(schema, values, change.path[:-1])
    if kinds is None or not isinstance(node, dict) or change.value not in kinds.names():
        return
    before, after = kinds.config_of_value(node), kinds.config_of(change.value)
    for key in [key for key in node if key != "kind"]:
        if before is None or _refuses(before, key, node[key]):
            continue  # wrong in either kind: an error says so
        if _refuses(after, key, node[key]) or before.model_fields[key].default != after.model_fields[key].default:
            del node[key]


def _refuses(schema: type[Config], key: str, value: Any) -> bool:  # Any: what YAML can hold
    try:
        schema.model_validate({key: value})
    except ValidationError as error:
        return any(found["loc"][:1] == (key,) for found in error.errors())
    return False


def _sentence(found: Any) -> str:  # Any: pydantic_core.ErrorDetails is not exported
    message: str = found["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list, as `[a, b]`")
    value = found["input"]
    if found["type"] in ("unknown_key", "kind", "missing"):
        return message
    if isinstance(value, dict | list) and found["type"].endswith("_type"):
        return f"{message}, not a {'mapping' if isinstance(value, dict) else 'list'}"
    return f"{message}, not {value!r:.{_VALUE_SHOWN}}" if isinstance(value, str | int | float) else message


def _hint(parts: Sequence[Part], problems: Sequence[str], overrides: Sequence[str], given: Sequence[str]) -> str:
    if not parts:
        return "add `--help` to see what each flag takes"
    files = [presets.name_of(part.path) for part in parts]
    if all(problem.startswith(tuple(given)) for problem in problems):
        return f"run `{shell('alm', 'config', 'show', *files)}` to see every key with its value"
    changes = [word for override in overrides for word in ("--set", override)]
    return f"correct it, then run `{shell('alm', 'config', 'check', *files, *changes)}`"


@dataclass(frozen=True)
class _Change:
    """One override: the words that a user `given` it in, the keys that lead to the value, and the value."""

    given: str
    path: tuple[str, ...]
    value: Any  # what YAML can hold


def _changes(
    overrides: Sequence[str], given: Sequence[str], schema: type[Config], problems: list[str]
) -> list[_Change]:
    """Parse each `a.b=c`, which a user wrote as `given`; those that cannot be parsed are added to `problems`.

    A mapping comes before its keys, and a kind before settings of its own: their order does not matter to a user.
    """
    changes: list[_Change] = []
    for override, words in zip(overrides, given, strict=True):
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            problems.append(f"{words}: must have the form key.subkey=value")
        elif path[0] not in schema.model_fields:
            problems.append(f"{words}: `{path[0]}`: unknown key{did_you_mean(path[0], schema.model_fields)}")
        else:
            try:
                changes.append(_Change(words, path, parse_yaml(text)))
            except yaml.YAMLError as error:
                problems.append(f"{words}: `{key}`: {problem_of(error)}")
    return sorted(changes, key=lambda change: (len(change.path), change.path[-1] != "kind"))


def _put(values: Values, change: _Change) -> bool:
    """Set the value of `change` in `values`; False if it is below a value that is not a mapping."""
    node = values
    for key in change.path[:-1]:
        child = node.get(key)
        if child is None or isinstance(child, str):
            child = {} if child is None else {"kind": child}  # `positions: rope` and then `positions.theta=...`
        elif not isinstance(child, dict):
            return False
        node[key] = child
        node = child
    node[change.path[-1]] = change.value
    return True
