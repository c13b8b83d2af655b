"""Text for `alm quantize`: rows on which int4 is calibrated, and others on which its cost is measured.

R rows, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from alm import files
from alm.corpus.split import TRAIN, VALIDATION
from alm.data.loader import MicroBatch, micro_batch
from alm.data.order import permute
from alm.errors import InputError
from alm.export.held_out import data_of_run
from alm.export.source import Source
from alm.packing.shards import METADATA_NAME, PackedData, TokenStream
from alm.tokenizers.file import Tokenizer

CALIBRATION_TOKENS = 16_384
_MOST_MEASURED, _LEAST_MEASURED, _MEASURED_FLOPS = 16_384, 4_096, 2e12  # some minutes at most, on one core
_WORDS_TOKENS = 4_000_000  # of the training text, whose words are known
_ROW_TOKENS, _LEAST_ROW = 512, 64
FEWEST_ROWS = 8  # for an interval
_HELD_OUT_SHARE = 0.2  # of given text
_LEAST_TOKENS = 2_000
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")


@dataclass(frozen=True)
class Texts:
    """Rows to calibrate on and rows to measure on, which share no text. `words` are those that the model knows.

    `words` is empty where they are not known: of a model that has read more than these texts. `name` says which text is
    measured, `calibration_name` on which it is calibrated.
    """

    name: str
    calibration_name: str
    calibration: tuple[MicroBatch, ...]
    measured: tuple[MicroBatch, ...]
    words: frozenset[str]


def of_run(source: Source) -> Texts | str:
    """Return the text that the run of `source` was trained on and holds out, or why it cannot be used."""
    packed = _packed(source)
    if isinstance(packed, str):
        return packed
    train, held_out = packed.split(TRAIN), packed.split(VALIDATION)
    return Texts(
        f"held-out text of `{packed.folder}`",
        f"training text of `{packed.folder}`",
        tuple(_rows(train, CALIBRATION_TOKENS)),
        tuple(_rows(held_out, _measured_tokens(source))),
        frozenset(_words_of(train, source.tokenizer)),
    )


def data_of(source: Source) -> list[Path]:
    """Return the metadata of the data that `of_run` uses; empty if it uses none."""
    packed = _packed(source)
    return [] if isinstance(packed, str) else [packed.folder / METADATA_NAME]


def _packed(source: Source) -> PackedData | str:
    packed = data_of_run(source)
    if isinstance(packed, str) or (packed.split(TRAIN).sequences and packed.split(VALIDATION).sequences):
        return packed
    return f"`{packed.folder}` holds no text out"


def of_files(paths: Sequence[Path], source: Source) -> Texts:
    """Return rows of the texts in `paths`: the last fifth of each is measured. `InputError` if they are too short."""
    length = min(_ROW_TOKENS, source.model.max_position_embeddings)
    calibration: list[MicroBatch] = []
    measured: list[MicroBatch] = []
    for path in paths:
        ids = source.tokenizer.encode(files.read_text(path))
        first = int(len(ids) * (1 - _HELD_OUT_SHARE))
        calibration += _cut(ids[:first], length)
        # Rows short enough for an interval: it needs some of them.
        measured += _cut(ids[first:], min(length, max(_LEAST_ROW, (len(ids) - first) // FEWEST_ROWS)))
    tokens = sum(batch.inputs.numel() for batch in measured)
    if tokens < _LEAST_TOKENS * _HELD_OUT_SHARE:
        raise InputError(
            f"the text given with `--text` is too short: {tokens:,} tokens are left to measure on",
            hint=f"give at least {_LEAST_TOKENS:,} tokens, a few pages, of text like that the model will write",
        )
    calibration, measured = _some(calibration, CALIBRATION_TOKENS), _some(measured, _measured_tokens(source))
    name = ", ".join(f"`{path}`" for path in paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
    named = f"the last fifth of {name}", f"the first four fifths of {name}"
    return Texts(*named, tuple(calibration), tuple(measured), frozenset())


def _measured_tokens(source: Source) -> int:
    """Return how many tokens are measured: fewer for a large model, which takes longer for each."""
    wanted = _MEASURED_FLOPS / (2 * source.parameters)
    return int(min(_MOST_MEASURED, max(_LEAST_MEASURED, wanted)))


def words_in(text: str) -> list[str]:
    """Return the words of `text` in lower case.

    >>> words_in("Don't stop: 3 foxes!")
    ["don't", 'stop', 'foxes']
    """
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]


def _rows(stream: TokenStream, tokens: int) -> Iterator[MicroBatch]:
    order = permute(np.arange(stream.sequences), size=stream.sequences, seed=0, epoch=0)
    for row in order[: max(1, -(-tokens // stream.seq_len))]:
        yield micro_batch(stream, np.array([row]))


def _words_of(stream: TokenStream, tokenizer: Tokenizer) -> set[str]:
    found: set[str] = set()
    most = max(1, _WORDS_TOKENS // stream.seq_len)
    order = permute(np.arange(stream.sequences), size=stream.sequences, seed=0, epoch=0)[:most]
    for row in np.sort(order).tolist():
        ids = stream.rows(np.array([row]))[0].tolist()
        found.update(words_in(tokenizer.decode(ids)))
    return found


def _cut(ids: Sequence[int], length: int) -> list[MicroBatch]:
    parts = (ids[start : start + length + 1] for start in range(0, len(ids) - 1, length))
    rows = (torch.tensor([part]) for part in parts if len(part) > 1)
    return [MicroBatch(inputs=row[:, :-1], targets=row[:, 1:]) for row in rows]


def _some(batches: list[MicroBatch], tokens: int) -> list[MicroBatch]:
    """Return batches of at most `tokens` tokens in all, spread evenly; at least one."""
    sizes = [batch.inputs.numel() for batch in batches]
    total, seen, taken = sum(sizes), 0, 0
    found = []
    for batch, size in zip(batches, sizes, strict=True):
        seen += size
        if (taken + size) * total <= tokens * seen:
            found.append(batch)
            taken += size
    return found or batches[:1]
