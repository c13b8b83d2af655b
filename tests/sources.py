"""Modules as syntax trees, parsed once for all tests of one process."""

from __future__ import annotations

import ast
import gc
from functools import cache


@cache
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    """All nodes of a module, outer ones first."""
    nodes = tuple(ast.walk(ast.parse(source)))
    gc.freeze()  # they stay, so that collections need not visit them
    return nodes


def last_name(node: ast.expr) -> str:
    """`c` for the expression `a.b.c`; empty if it ends in no name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
