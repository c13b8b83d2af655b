"""Chooses the row and source of each position in a run, as a pure function of the position.

Positions are dealt in blocks. Each block holds every source's exact share, in an order shuffled by a key of (seed,
block), so shares are exact at the end of each block and in the long run. Within a source, rows follow a permutation
keyed by (seed, epoch, source).
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
_BLOCK = 1 << 10  # positions; a block is a multiple of the least common denominator near this size
_BLOCKS_KEY = "blocks"


@dataclass(frozen=True)
class Share:
    """Rows `first` to `first + rows` of one source, and its number of positions per block."""

    source: str
    first: int
    rows: int
    per_block: int


@dataclass(frozen=True)
class Mixture:
    """Sources by share. The plain case is one source with all rows: each epoch is a permutation of them."""

    shares: tuple[Share, ...]

    @property
    def block(self) -> int:
        """Number of positions in a block."""
        return sum(share.per_block for share in self.shares)

    def fraction(self, share: Share) -> float:
        """Return the share of all positions that are of this source."""
        return share.per_block / self.block

    def rows(self, positions: Positions, *, seed: int) -> tuple[Positions, Positions]:
        """Return the rows at `positions` of the run, counted from 0, and the pass over its source that each is of."""
        if len(self.shares) == 1:
            return _source_rows(self.shares[0], positions, seed=seed)
        blocks, inside = np.divmod(positions, self.block)
        number, within = np.empty_like(inside), np.empty_like(inside)
        for block in np.unique(blocks):
            here = blocks == block
            dealt = _dealt(tuple(share.per_block for share in self.shares), seed, int(block))
            number[here], within[here] = dealt[:, inside[here]]
        rows, passes = np.empty_like(positions), np.empty_like(positions)
        for index, share in enumerate(self.shares):
            here = number == index
            rows[here], passes[here] = _source_rows(
                share, blocks[here] * share.per_block + within[here], seed=keyed(seed, share.source)
            )
        return rows, passes

    def epochs(self, positions: int) -> dict[str, float]:
        """Return the number of epochs of each source in this many positions."""
        return {share.source: positions * self.fraction(share) / share.rows for share in self.shares}


def plain(rows: int) -> Mixture:
    """Return the mixture of all rows as one source."""
    return Mixture((Share("", 0, rows, max(1, rows)),))


def mixture(weights: Mapping[str, float], sources: Mapping[str, range]) -> Mixture:
    """Return the mixture of sources by `weights`, of which only the ratios matter. `sources` has the rows of each.

    Shares are exact if a block of at most 65,536 positions allows it, and else rounded to multiples of 1/65,536.
    Raises `ConfigError` for a source without rows.
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
    """Return the positions of each source in a block: exactly in proportion, or rounded to 1/65,536."""
    total = sum(weights.values())
    shares = {name: weight / total for name, weight in weights.items()}
    block = lcm(*(share.denominator for share in shares.values()))
    if block <= _LARGEST_BLOCK:
        block *= max(1, _BLOCK // block)
        return {name: int(share * block) for name, share in shares.items()}
    return {name: max(1, round(share * _LARGEST_BLOCK)) for name, share in shares.items()}


@functools.lru_cache(maxsize=4)
def _dealt(quotas: tuple[int, ...], seed: int, block: int) -> NDArray[np.int64]:
    """Return (2, positions): the source of each position of a block, and the number of earlier ones of that source."""
    size = sum(quotas)
    dealt = permute(np.arange(size), size=size, seed=keyed(seed, _BLOCKS_KEY), epoch=block)
    number = np.searchsorted(np.cumsum(quotas), dealt, side="right")
    within = np.empty_like(number)
    for index in range(len(quotas)):
        here = number == index
        within[here] = np.arange(int(here.sum()))
    return np.stack([number, within])


def _source_rows(share: Share, positions: Positions, *, seed: int) -> tuple[Positions, Positions]:
    epochs, inside = np.divmod(positions, share.rows)
    rows = np.empty_like(inside)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        rows[here] = permute(inside[here], size=share.rows, seed=seed, epoch=int(epoch))
    return rows + share.first, epochs


def keyed(seed: int, name: str) -> int:
    """Derive a separate seed for each name."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
