"""Reading configuration: YAML and `--set`, into one frozen model, with every problem told at once.

YAML is read the way people expect (YAML 1.2): `1e-4` is a float, `no` and `12:30` are strings, a
key given twice is an error with both lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from alm.config.base import Config, did_you_mean, unknown_key
from alm.errors import AlmError, ConfigError
from alm.files import read_text

AnyConfig = TypeVar("AnyConfig", bound=Config)
Values = dict[str, Any]  # Any: what YAML can hold


@dataclass(frozen=True)
class Part:
    """One file and the top-level keys taken from it; None takes all of them."""

    path: Path
    keys: frozenset[str] | None = None


def load(
    schema: type[AnyConfig], parts: Sequence[Part], *, base: Values | None = None, overrides: Sequence[str] = ()
) -> AnyConfig:
    """The model made of `base`, then `parts`, with `overrides` (`a.b=c`) on top.

    Raises `ConfigError` naming every problem of every file. Top-level keys of a part's file that it
    does not take must still be keys of `schema`: a union file is welcome anywhere.
    """
    problems: list[str] = []
    values: Values = dict(base or {})
    origin: dict[str, Path] = {}
    for part in parts:
        values |= _part_values(part, schema, origin, problems)
    changed = apply_overrides(values, overrides, schema, problems)
    config = _validated(schema, values, _Places(origin, changed, parts), problems)
    if problems or config is None:
        raise ConfigError("\n       ".join(problems), hint=_hint(parts))
    return config


def _part_values(part: Part, schema: type[Config], origin: dict[str, Path], problems: list[str]) -> Values:
    loaded = _read(part.path, problems)
    if loaded is None:
        return {}
    for key in loaded:
        if key not in schema.model_fields:
            problems.append(f"{part.path}: `{key}`: {unknown_key(str(key), schema.model_fields)}")
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
        problems.append(f"{path}: is a {type(loaded).__name__}, a mapping of sections is needed")
        return None
    return loaded


@dataclass(frozen=True)
class _Places:
    """Where a value came from, for the message."""

    files: Mapping[str, Path]
    overridden: frozenset[str]
    parts: Sequence[Part]

    def of(self, location: str) -> str:
        if any(location == key or location.startswith(key + ".") for key in self.overridden):
            return "--set"
        path = self.files.get(location.split(".")[0])
        return str(path or (self.parts[0].path if self.parts else "command line"))


def _validated(schema: type[AnyConfig], values: Values, places: _Places, problems: list[str]) -> AnyConfig | None:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        for found in error.errors():
            location = ".".join(str(part) for part in found["loc"])
            problems.append(f"{places.of(location)}: `{location}`: {_sentence(found)}")
        return None


def _sentence(found: Any) -> str:  # Any: pydantic_core.ErrorDetails is not exported
    message: str = found["msg"].removeprefix("Value error, ")
    value = found["input"]
    shown = isinstance(value, str | int | float) and found["type"] not in ("unknown_key", "kind", "missing")
    return f"{message}, not {value!r}" if shown else message


def _hint(parts: Sequence[Part]) -> str:
    files = " ".join(str(part.path) for part in parts)
    return f"run `alm config check {files}` after mending" if files else "add `--help` to see what each flag takes"


def apply_overrides(
    values: Values, overrides: Sequence[str], schema: type[Config], problems: list[str]
) -> frozenset[str]:
    """Put each `a.b=c` into `values` and return the dotted keys; what cannot be put goes to `problems`."""
    done: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            problems.append(f"--set {override}: has the form key.subkey=value")
        elif path[0] not in schema.model_fields:
            problems.append(f"--set {override}: `{path[0]}`: unknown key{did_you_mean(path[0], schema.model_fields)}")
        elif _put(values, path, _scalar(override, text, problems)):
            done.add(".".join(path))
        else:
            problems.append(f"--set {override}: `{key}` lies below a value that is no mapping")
    return frozenset(done)


def _scalar(override: str, text: str, problems: list[str]) -> Any:  # Any: what YAML can hold
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        problems.append(f"--set {override}: {_yaml_problem(error)}")
        return None


def _put(values: Values, path: Sequence[str], value: Any) -> bool:  # Any: what YAML can hold
    """Set `value` at `path`, copying on the way so that no caller's mapping is changed."""
    node = values
    for key in path[:-1]:
        child = node.get(key)
        if child is None:
            child = {}
        elif isinstance(child, str):
            child = {"kind": child}  # `positions: rope` and then `positions.theta=...`
        elif not isinstance(child, dict):
            return False
        node[key] = dict(child)
        node = node[key]
    node[path[-1]] = value
    return True


def read_yaml(path: Path) -> Any:  # Any: what YAML can hold
    """What the YAML file holds; `ConfigError` says the line of a mistake."""
    try:
        return yaml.load(read_text(path), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{path}: {_yaml_problem(error)}", hint=f"run `alm config check {path}` after mending"
        ) from error


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return str(error).splitlines()[0]


def write_yaml(values: Values) -> str:
    """YAML text of plain values, in the order given."""
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return text


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars and no duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute, filled below

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[object, int] = {}
        for key, line in _keys(node):
            if key in lines:
                problem = f"key `{key}` is given twice (first in line {lines[key] + 1})"
                raise yaml.constructor.ConstructorError(
                    None, None, problem, node.value[_index(node, line)][0].start_mark
                )
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


def _keys(node: yaml.MappingNode) -> Iterator[tuple[object, int]]:
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            yield key.value, key.start_mark.line


def _index(node: yaml.MappingNode, line: int) -> int:
    return next(i for i, (key, _) in enumerate(node.value) if key.start_mark.line == line)


_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
)
for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [c if c != "\0" else "" for c in _first]
    )


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    # Decimal unless 0x: a leading zero is not octal in YAML 1.2.
    text = str(node.value).replace("_", "")
    try:
        return int(text, 16) if text.startswith("0x") else int(text)
    except ValueError as error:
        raise yaml.constructor.ConstructorError(None, None, f"`{text[:20]}` is no number", node.start_mark) from error


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
