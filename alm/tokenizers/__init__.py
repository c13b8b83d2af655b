"""Tokenizers: training, the `tokenizer.json` file that other tools read, encoding and decoding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alm.tokenizers.models.bpe import train as train_bpe
    from alm.tokenizers.models.unigram import train as train_unigram

_KINDS = {"train_bpe": "bpe", "train_unigram": "unigram"}

__all__ = ["train_bpe", "train_unigram"]


def __getattr__(name: str) -> object:
    if name not in _KINDS:
        raise AttributeError(f"module 'alm.tokenizers' has no attribute {name!r}")
    return import_module(f"alm.tokenizers.models.{_KINDS[name]}").train
