"""What the programs in benchmarks/ take from alm must be there: they run for minutes, so no test runs them."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from cases import for_each

BENCHMARKS = sorted((Path(__file__).parent.parent / "benchmarks").glob("*.py"))


@for_each("path", BENCHMARKS)
def test_what_a_benchmark_takes_from_alm_is_there(path: Path) -> None:
    taken = [
        (node.module, name.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "alm"
        for name in node.names
    ]
    missing = [f"{module}.{name}" for module, name in taken if not _has(module, name)]
    assert missing == []


def _has(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
