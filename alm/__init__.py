"""Small language models from scratch: corpus, tokenizer, packing, pretraining, sampling.

`alm` without `alm.cli` is a library: it prints nothing, and does not import Typer or Rich. The public names below are
resolved on first use, so that `import alm` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alm import openmp
from alm.version import __version__

if TYPE_CHECKING:
    from alm.corpus.pipeline.prepare import prepare
    from alm.errors import AlmError
    from alm.generation.generate import generate
    from alm.packing.pack import pack
    from alm.tokenizers.file import Tokenizer
    from alm.tokenizers.train import train_tokenizer
    from alm.training.pretrain import pretrain

openmp.wait_briefly()

_HOMES = {
    "AlmError": "alm.errors",
    "Tokenizer": "alm.tokenizers.file",
    "generate": "alm.generation.generate",
    "pack": "alm.packing.pack",
    "prepare": "alm.corpus.pipeline.prepare",
    "pretrain": "alm.training.pretrain",
    "train_tokenizer": "alm.tokenizers.train",
}

__all__ = ["AlmError", "Tokenizer", "__version__", "generate", "pack", "prepare", "pretrain", "train_tokenizer"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'alm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
