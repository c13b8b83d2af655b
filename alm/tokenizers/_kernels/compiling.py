"""Decorators that compile the tokenizer's kernels."""

from __future__ import annotations

from alm.compiling import Kernel, compiled
from alm.tokenizers.compiled import folder


def kernel(function: Kernel) -> Kernel:
    """Compile `function` at its first call, or load the code that an earlier process compiled."""
    return compiled(function, kept=folder())


def inlined(function: Kernel) -> Kernel:
    """Inline `function` into every kernel that calls it: for code that runs once per word or byte.

    Each array is passed as seven arguments, so a call costs more than such a function does.
    """
    return compiled(function, kept=folder(), forceinline=True)
