"""Imports point down: the layers of docs/architecture.md, enforced."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sources import nodes_of

LAYERS = [
    ["cli"],
    ["quickstart", "serve", "doctor"],
    ["finetune"],
    ["eval", "export", "report", "trace"],
    ["training"],
    ["generation"],
    ["checkpoint", "quant"],
    ["data", "optim"],
    ["packing", "model"],
    ["tokenizers"],
    ["corpus"],
    ["artifacts", "engines", "distributed"],
    ["config", "device", "hub"],
    ["kinds", "events", "files", "page", "compiling", "available"],
    ["errors"],
    ["shown", "version", "formatting", "openmp"],
]
HEIGHT = {name: len(LAYERS) - number for number, names in enumerate(LAYERS) for name in names}


def catches_all(path: Path) -> bool:
    """Whether a module has an `except Exception` or a bare `except`."""
    handlers = [node for node in nodes_of(path.read_text("utf-8")) if isinstance(node, ast.ExceptHandler)]
    return any(node.type is None or ast.unparse(node.type) == "Exception" for node in handlers)


def test_every_exception_is_caught_in_one_place_alone(repository: Path) -> None:
    modules = (repository / "alm").rglob("*.py")
    found = [path.relative_to(repository).as_posix() for path in modules if catches_all(path)]
    assert found == ["alm/cli/main.py"]


def imports_of(path: Path) -> set[str]:
    """Top-level names below `alm` that a module imports, at any depth; annotations-only imports count too."""
    found: set[str] = set()
    for node in nodes_of(path.read_text("utf-8")):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in found if name == "alm" or name.startswith("alm.")]
    return {part[1] for part in parts if len(part) > 1}


def violations(package: Path) -> list[str]:
    """Every import that points up or sideways, and every module without a layer."""
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        own = relative.parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        if own not in HEIGHT:
            found.append(f"{relative}: `{own}` has no layer")
            continue
        for other in sorted(imports_of(path) - {own}):
            if other in HEIGHT and HEIGHT[other] >= HEIGHT[own]:
                found.append(f"{relative}: imports {other}")
    return found


def test_imports_point_down(repository: Path) -> None:
    assert violations(repository / "alm") == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("errors.py", "from alm.files import sha256", "errors.py: imports files"),
        ("files.py", "def f():\n    import alm.events", "files.py: imports events"),
        ("corpus/read.py", "from alm import packing", "corpus/read.py: imports packing"),
        ("utils.py", "", "utils.py: `utils` has no layer"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, path: str, source: str, fault: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert violations(tmp_path) == [fault]


def test_only_the_command_line_knows_typer_and_rich(repository: Path) -> None:
    package = repository / "alm"
    for path in package.rglob("*.py"):
        if path.relative_to(package).parts[0] == "cli":
            continue
        for node in nodes_of(path.read_text("utf-8")):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("typer", "rich", "click") for name in names), path
