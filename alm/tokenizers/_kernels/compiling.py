"""How the tokenizer's kernels are compiled."""

from __future__ import annotations

from alm.compiling import Kernel, compiled
from alm.tokenizers.compiled import folder


def kernel(function: Kernel) -> Kernel:
    """Compile `function` at its first call, or load what an earlier process compiled."""
    return compiled(function, kept=folder())


def inlined(function: Kernel) -> Kernel:
    """A kernel that is copied into each one that calls it: for what runs once a word or once a byte.

    An array is seven arguments to a call, so calling costs more than such a function does.
    """
    return compiled(function, kept=folder(), forceinline=True)
