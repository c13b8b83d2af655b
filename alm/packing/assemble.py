"""The last pass of packing: collects the tokens of one shard from the parts and writes them with their index."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alm.artifacts import PackedShard
from alm.events import Listener
from alm.files import atomic
from alm.packing.encode import Encoded
from alm.packing.rows import PADDING, PlannedShard
from alm.packing.shards import PADDED


@dataclass(frozen=True)
class ShardWork:
    """One shard to write."""

    number: int
    split: str
    planned: PlannedShard
    parts: Path
    stage: Path
    dtype: str
    pad_id: int
    is_masked: bool = False


def assemble(work: ShardWork, on_event: Listener) -> PackedShard:
    """Write the shard and its index of document starts."""
    width = np.dtype(work.dtype).newbyteorder("<")
    tokens = np.full(work.planned.tokens, work.pad_id, dtype=width)
    mask = np.full(len(tokens), PADDED, dtype=np.uint8) if work.is_masked else None
    starts = []
    at = 0
    pieces = work.planned.pieces
    for part in dict.fromkeys(pieces[pieces[:, 0] != PADDING, 0].tolist()):  # so that each part is opened once
        encoded = Encoded(work.parts, part, work.dtype)
        ids, ends = encoded.ids(work.split), encoded.ends(work.split)
        of_part = encoded.mask(work.split) if work.is_masked else None
        begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        here = np.flatnonzero(pieces[:, 0] == part)
        places = np.concatenate([[0], np.cumsum(pieces[:, 2])])[here]
        for (_, offset, length), at in zip(pieces[here].tolist(), places.tolist(), strict=True):
            tokens[at : at + length] = ids[offset : offset + length]
            if mask is not None and of_part is not None:
                mask[at : at + length] = of_part[offset : offset + length]
            first, last = np.searchsorted(begins, [offset, offset + length])
            starts.append(begins[first:last] - offset + at)
    index = np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *starts]))
    stem = f"shard_{work.number:05d}"
    return PackedShard(
        file=f"{stem}.bin",
        split=work.split,
        source=work.planned.source,
        sequences=work.planned.sequences,
        tokens=work.planned.tokens,
        padding=work.planned.padding,
        sha256=_write(work.stage / f"{stem}.bin", tokens.tobytes()),
        index_file=f"{stem}.idx",
        index_sha256=_write(work.stage / f"{stem}.idx", index.astype("<i8").tobytes()),
        mask_file=None if mask is None else f"{stem}.mask",
        mask_sha256=None if mask is None else _write(work.stage / f"{stem}.mask", mask.tobytes()),
    )


def _write(path: Path, data: bytes) -> str:
    with atomic(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()
