"""Whatever is read from a disk or a network goes through the few places that check it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sources import last_name, nodes_of

# What makes values of bytes, by its last two names or, for what may be a method of anything, by its last one.
PARSERS = frozenset(
    {
        *("json.load", "json.loads", "json.JSONDecoder", "orjson.loads", "tomllib.load", "tomllib.loads"),
        *("yaml.load", "yaml.load_all", "yaml.safe_load", "yaml.full_load", "yaml.unsafe_load", "yaml.compose"),
        *("np.load", "np.fromfile", "np.memmap", "np.loadtxt", "np.genfromtxt", "numpy.load", "numpy.fromfile"),
        *("torch.load", "torch.jit.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads"),
        *("ROW_DECODER", "model_validate_json", "safe_open", "load_file", "allow_pickle", "weights_only"),
    }
)
# Where that is meant to happen, and why there.
ALLOWED = {
    "alm/files/parse.py": "JSON and NPY, with limits",
    "alm/config/yaml_files.py": "YAML, with limits",
    "alm/corpus/formats/_json_values.py": "JSON of any size in pieces, where a bad value is counted and passed over",
    "alm/corpus/formats/jsonl.py": "lines of other people's corpora, where a bad one is counted and passed over",
    "alm/packing/mapping.py": "shards, whose sizes were checked when they were opened",
    "alm/packing/imported_tokens.py": "nanoGPT's files, which are numbers alone",
    "alm/corpus/sources/tales/data.py": "TOML that comes with alm",
    "alm/export/from_gguf_header.py": "tensors of GGUF, whose sizes were checked when the header was read",
    "alm/files/tensors.py": "safetensors: after a look at the header, or written a moment ago, to compare it",
}


def parsers_in(source: str) -> set[str]:
    """The parsers that a module names in its code, at any depth; strings and comments do not count."""
    found: set[str] = set()
    for node in nodes_of(source):
        if isinstance(node, ast.Attribute):
            before = last_name(node.value) or ast.unparse(node.value).rpartition(".")[2]
            names = {node.attr, f"{before}.{node.attr}"}
        elif isinstance(node, ast.Name):
            names = {node.id}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{(node.module or '').rpartition('.')[2]}.{alias.name}" for alias in node.names}
        else:
            continue
        found |= names & PARSERS
    return found


def strangers(package: Path) -> list[str]:
    """Every module that parses what it read by itself and is not meant to."""
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package.parent).as_posix()
        if name not in ALLOWED and (parsers := parsers_in(path.read_text("utf-8"))):
            found.append(f"{name}: {', '.join(sorted(parsers))}")
    return found


def test_what_is_read_is_parsed_in_a_few_places_alone(repository: Path) -> None:
    assert strangers(repository / "alm") == []


def test_each_of_these_places_is_needed(repository: Path) -> None:
    unused = [name for name in ALLOWED if not parsers_in((repository / name).read_text("utf-8"))]
    assert unused == []


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.loads(path.read_bytes())",
        "from json import loads",
        "def f():\n    import numpy as np\n    return np.load(path)",
        "import torch\ntorch.load(path, weights_only=True)",
        "Schema.model_validate_json(data)",
        "import pickle\npickle.loads(data)",
        "decode = json.JSONDecoder().decode",
        "yaml.load(text, Loader=yaml.SafeLoader)",
    ],
)
def test_a_planted_parser_is_found(tmp_path: Path, source: str) -> None:
    (tmp_path / "alm").mkdir()
    (tmp_path / "alm" / "new.py").write_text(source)
    assert strangers(tmp_path / "alm")


def test_what_only_names_a_parser_is_not_one() -> None:
    assert parsers_in('"""Never `json.loads`."""\nTEXT = "torch.load(x)"\nimport json\njson.dumps(1)') == set()
