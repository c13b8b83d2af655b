"""Kinds are modules: `kind: huggingface` in YAML is `alm/corpus/sources/huggingface.py`.

A kind is found by its file name inside its own package and nowhere else, and is imported only when a configuration
asks for it. There is no registry: to add a kind, add a file.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def names(package: str) -> list[str]:
    """List the kinds in `package`, sorted: its public modules and subpackages."""
    spec = find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations is not None, package
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(module.name for module in found if not module.name.startswith("_"))


def load(package: str, kind: str) -> ModuleType:
    """Import the module of `kind`, one of `names(package)` (KeyError otherwise)."""
    if kind not in names(package):
        raise KeyError(kind)
    return import_module(f"{package}.{kind}")


def module_of(config: object) -> ModuleType:
    """Return the kind module whose `Config` made `config`."""
    return import_module(type(config).__module__)


def name_of(config: object) -> str:
    """Return the name of the kind whose module declares the `Config` of `config`."""
    return type(config).__module__.rpartition(".")[2]
