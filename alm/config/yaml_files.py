"""YAML of configurations, read as people expect (YAML 1.2).

`1e-4` is a float, `no` and `12:30` are strings, a key given twice is an error with both lines. Limits keep a stranger's
file from taking long: PyYAML reads about 30,000 values per second, and repeated aliases could fill the memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alm.errors import AlmError, ConfigError, shell
from alm.files import as_text, bounded_bytes

Values = dict[str, Any]  # Any: what YAML can hold
Location = tuple[str | int, ...]
"""The keys that lead to a value."""

MOST_BYTES = 1 << 20
MOST_VALUES = 50_000  # including those that aliases repeat
MOST_DEPTH = 64
_VALUE_SHOWN = 60
_MOST_DIGITS, _MOST_BITS = 20, 64  # checked first: int() takes quadratic time, and refuses more than 4,300 digits
_TEXT_TAG = "tag:yaml.org,2002:str"


def read_yaml(path: Path) -> Any:  # Any: what YAML can hold
    """Read the YAML file; `ConfigError` says the line of a mistake."""
    text = as_text(path, bounded_bytes(path, most=MOST_BYTES))
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        hint = f"correct it, then run `{shell('alm', 'config', 'check', path)}`"
        raise ConfigError(f"{path}: {problem_of(error)}", hint=hint) from error


def parse_yaml(text: str) -> Any:  # Any: what YAML can hold
    """Parse the YAML `text`; `yaml.YAMLError` for a mistake, and for more values than any configuration has."""
    return yaml.load(text, Loader=_Loader)


def problem_of(error: yaml.YAMLError) -> str:
    """Return the line of a mistake, if it is known, and what is wrong there."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return str(error).splitlines()[0]


def line_of(path: Path, location: Location) -> int | None:
    """Return the line, from 1, of the value that the keys of `location` lead to, or of the last one that is there."""
    try:
        node = _Loader(as_text(path, bounded_bytes(path, most=MOST_BYTES))).get_single_node()
    except (AlmError, yaml.YAMLError):
        return None
    line = None
    for key in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line + 1
            continue
        found = [pair for pair in node.value if pair[0].value == key] if isinstance(node, yaml.MappingNode) else []
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


def write_yaml(values: Values) -> str:
    """Write plain values as YAML text, in the given order."""
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return text


@dataclass(frozen=True)
class _Measure:
    """Number of values in a node, including those its aliases repeat, and their depth."""

    values: int
    levels: int


def _refusal(problem: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, place.start_mark)  # type: ignore[arg-type] # either Mark


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2 scalars and no duplicate keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute, filled below

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._levels = self._composed = 0
        self._measures: dict[yaml.Node, _Measure] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # Any: as PyYAML has it
        """Compose the next value; refuse one that is too deep or too large, contains itself, or has an unknown tag."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        self._composed += 1
        self._levels += 1
        if self._composed > MOST_VALUES:
            raise _refusal(f"there are more than {MOST_VALUES:,} values", event)
        if self._levels > MOST_DEPTH:
            raise _refusal(f"values are nested deeper than {MOST_DEPTH} levels", event)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!", _TEXT_TAG):
            raise _refusal(f"the tag `{tag:.{_VALUE_SHOWN}}` has no meaning here", event)
        node = super().compose_node(parent, index)
        self._levels -= 1
        if node is not None and node not in self._measures:
            if isinstance(event, yaml.AliasEvent):
                raise _refusal(f"`*{event.anchor:.{_VALUE_SHOWN}}` is inside the value that it refers to", event)
            self._measures[node] = self._measured(node, event)
        return node

    def _measured(self, node: yaml.Node, event: yaml.Event) -> _Measure:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        measures = [self._measures[each] for each in inner]
        values = 1 + sum(each.values for each in measures)
        levels = 1 + max((each.levels for each in measures), default=0)
        if values > MOST_VALUES or levels > MOST_DEPTH:
            raise _refusal("its aliases repeat more values than any configuration has", event)
        return _Measure(values, levels)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:  # Any: as PyYAML has it
        value = super().construct_scalar(node)
        if isinstance(value, str) and "\0" in value:
            raise _refusal("a zero byte is not text", node)
        return value

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


# Each character can match in only one way: two adjacent runs of digits would take quadratic time.
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf)|\.(?:nan|NaN)",
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
    text = str(loader.construct_scalar(node)).replace("_", "")
    is_short = len(text) <= _MOST_DIGITS + 2
    value = (int(text, 16) if text.startswith("0x") else int(text)) if is_short else None
    if value is None or value.bit_length() > _MOST_BITS:
        raise _refusal(f"`{text[:_MOST_DIGITS]}...` is too large a number", node)
    return value


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    value = float(loader.construct_yaml_float(node))
    if math.isinf(value) and "inf" not in node.value.lower():
        raise _refusal(f"`{node.value[:_MOST_DIGITS]}` is too large a number", node)
    return value


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
