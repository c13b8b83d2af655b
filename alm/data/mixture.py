"""Which row of which source a step trains on: a pure function of the position in the run.

Positions are dealt out in blocks. Every block holds each source's share exactly, in an order that is shuffled by a key
of (seed, block), so shares are exact in the long run and at the end of each block. Within a source rows come in the
order of a permutation keyed by (seed, epoch, source).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from alm.data.order import Positions, permute
from alm.errors import ConfigError

_LARGEST_BLOCK = 1 << 16
_BLOCK = 1 << 10  # a block is a multiple of the least common denominator, of about so many positions
_BLOCKS_KEY = "blocks"


@dataclass(frozen=True)
class Share:
    """Rows `first` to `first + rows` of one source, and its positions in each block."""

    source: str
    first: int
    rows: int
    per_block: int


@dataclass(frozen=True)
class Mixture:
    """Sources by share. One source that has all rows is the plain case: each epoch a permutation of all of them."""

    shares: tuple[Share, ...]

    @property
    def block(self) -> int:
        """Positions in a block."""
        return sum(share.per_block for share in self.shares)

    def fraction(self, share: Share) -> float:
        """Of all positions, those that are of this source."""
        return share.per_block / self.block

    def rows(self, positions: Positions, *, seed: int) -> Positions:
        """The rows at `positions` of the run, counted from 0."""
        if len(self.shares) == 1:
            return _source_rows(self.shares[0], positions, seed=seed)
        blocks, inside = np.divmod(positions, self.block)
        number, within = np.empty_like(inside), np.empty_like(inside)
        for block in np.unique(blocks):
            here = blocks == block
            dealt = _dealt(tuple(share.per_block for share in self.shares), seed, int(block))
            number[here], within[here] = dealt[:, inside[here]]
        rows = np.empty_like(positions)
        for index, share in enumerate(self.shares):
            here = number == index
            rows[here] = _source_rows(
                share, blocks[here] * share.per_block + within[here], seed=_keyed(seed, share.source)
            )
        return rows

    def epochs(self, positions: int) -> dict[str, float]:
        """How often each source is gone through by so many positions."""
        return {share.source: positions * self.fraction(share) / share.rows for share in self.shares}


def plain(rows: int) -> Mixture:
    """All rows alike."""
    return Mixture((Share("", 0, rows, max(1, rows)),))


def mixture(weights: Mapping[str, float], sources: Mapping[str, range]) -> Mixture:
    """Sources by `weights`, of which any multiple means the same; `sources` has the rows of each.

    Shares are multiples of one in 65,536. Raises `ConfigError` for a source that has no rows.
    """
    for name in weights:
        if not len(sources.get(name, ())):
            known = ", ".join(source for source, rows in sources.items() if rows) or "none"
            raise ConfigError(
                f"`data.mixture` names `{name}`, which has no sequences here (sources with sequences: {known})",
                hint="list the sources of the packed data with `alm info`",
            )
    quotas = _quotas({name: Fraction(str(weight)) for name, weight in weights.items() if weight})
    return Mixture(
        tuple(Share(name, sources[name].start, len(sources[name]), quota) for name, quota in sorted(quotas.items()))
    )


def _quotas(weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Positions of each source in a block: exactly in proportion, or to one in 65,536."""
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    block = lcm(*(share.denominator for share in shares.values()))
    if block <= _LARGEST_BLOCK:
        block *= max(1, _BLOCK // block)
        return {name: int(share * block) for name, share in shares.items()}
    return {name: max(1, round(share * _LARGEST_BLOCK)) for name, share in shares.items()}


@functools.lru_cache(maxsize=4)
def _dealt(quotas: tuple[int, ...], seed: int, block: int) -> NDArray[np.int64]:
    """(2, positions): the source of each position of a block, and how many before it are of the same."""
    size = sum(quotas)
    dealt = permute(np.arange(size), size=size, seed=_keyed(seed, _BLOCKS_KEY), epoch=block)
    number = np.searchsorted(np.cumsum(quotas), dealt, side="right")
    within = np.empty_like(number)
    for index in range(len(quotas)):
        here = number == index
        within[here] = np.arange(int(here.sum()))
    return np.stack([number, within])


def _source_rows(share: Share, positions: Positions, *, seed: int) -> Positions:
    epochs, inside = np.divmod(positions, share.rows)
    rows = np.empty_like(inside)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permute(inside[here], size=share.rows, seed=seed, epoch=int(epoch))
    return rows + share.first


def _keyed(seed: int, name: str) -> int:
    """A seed of its own for each name."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
