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
from alm.packing.rows import PlannedShard


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


def assemble(work: ShardWork, on_event: Listener) -> PackedShard:
    """Write the shard and its index of document starts."""
    width = np.dtype(work.dtype).newbyteorder("<")
    tokens = np.full(work.planned.tokens, work.pad_id, dtype=width)
    starts = []
    at = 0
    pieces = work.planned.pieces
    for part in dict.fromkeys(pieces[:, 0].tolist()):  # so that each part is opened once
        encoded = Encoded(work.parts, part, work.dtype)
        ids, ends = encoded.ids(work.split), encoded.ends(work.split)
        begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        here = np.flatnonzero(pieces[:, 0] == part)
        places = np.concatenate([[0], np.cumsum(pieces[:, 2])])[here]
        for (_, offset, length), at in zip(pieces[here].tolist(), places.tolist(), strict=True):
            tokens[at : at + length] = ids[offset : offset + length]
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
    )


def _write(path: Path, data: bytes) -> str:
    with atomic(path) as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()
