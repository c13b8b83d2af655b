"""Reference curves: typical scores of each preset on the built-in corpus, to compare runs with.

A file of `references/` holds the scores of a few runs that differ only in their seed. A run is comparable if its text,
its model, its length and its schedule are the same; the optimizer may differ, as that is what is compared.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alm import artifacts
from alm.artifacts import FileRecord, Metadata, PackMetadata, Values
from alm.config.base import Config
from alm.training.config import RunConfig

FOLDER = Path(__file__).parent / "references"
_SECTIONS = ("model.", "scheduler.", "data.mixture")
_KEYS = frozenset({"training.max_steps", "validation.bytes"})
# Student's t for 90% of future values, by degrees of freedom: there are few seeds.
_T90 = {1: 6.314, 2: 2.920, 3: 2.353, 4: 2.132}
# The spread of three scores is itself uncertain, so neighbouring validations pool theirs.
_NEIGHBOURS = 2


class Point(Config):
    """Bits per byte after `step` steps: the mean of the seeds, and the interval of nine in ten other seeds."""

    step: int
    mean: float
    low: float
    high: float


class Reference(Metadata):
    """Contents of `references/<preset>.json`. `config` has the settings that a comparable run must share."""

    format: Literal["alm-reference"] = "alm-reference"
    inputs: tuple[FileRecord, ...] = ()
    preset: str
    data_sha256: str
    seeds: tuple[int, ...]
    points: tuple[Point, ...]

    def at(self, step: int) -> Point | None:
        """Return the band after `step` steps, interpolated linearly in the logarithm of the step; None outside."""
        right = bisect_left(self.points, step, key=lambda point: point.step)
        if right == len(self.points) or step < self.points[0].step:
            return None
        after = self.points[right]
        if after.step == step:
            return after
        before = self.points[right - 1]
        share = math.log(step / before.step) / math.log(after.step / before.step)
        mean, low, high = (
            a + share * (b - a)
            for a, b in ((before.mean, after.mean), (before.low, after.low), (before.high, after.high))
        )
        return Point(step=step, mean=mean, low=low, high=high)


def matching(config: RunConfig, packed: PackMetadata, *, folder: Path = FOLDER) -> Reference | None:
    """Return the reference to compare a run with `config` on `packed` with, if there is one."""
    for path in sorted(folder.glob("*.json")):
        hint = "install `a-lm` again: `pip install --force-reinstall a-lm`"
        reference = artifacts.read(path, Reference, hint=hint, is_packaged=True)
        if reference.data_sha256 == data_sha256(packed) and is_alike(config, reference):
            return reference
    return None


def is_alike(config: RunConfig, reference: Reference) -> bool:
    """Whether a run with `config` matches the reference; settings newer than the reference must have their default."""
    values, usual = deciding(config), deciding(RunConfig())
    is_same = all(values.get(key) == value for key, value in reference.config.items())
    return is_same and all(value == usual.get(key) for key, value in values.items() if key not in reference.config)


def data_sha256(packed: PackMetadata) -> str:
    """Return a hash of the training and held-out data that does not depend on where it was packed."""
    parts = [packed.tokenizer_sha256, packed.mode, str(packed.seq_len), *(shard.sha256 for shard in packed.shards)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def deciding(config: RunConfig) -> Values:
    """Return the settings that comparable runs share."""
    values = dict(artifacts.flat(config.model_dump(mode="json")))
    kept = {key: value for key, value in values.items() if key.startswith(_SECTIONS) or key in _KEYS}
    return kept | {"training.sequences_per_step": config.training.sequences_per_step}


def band(curves: Sequence[Sequence[tuple[int, float]]]) -> tuple[Point, ...]:
    """Return the points of curves of (step, bits per byte), one per seed, at the same steps.

    The band is a prediction interval for one more seed, from the standard deviation pooled over neighbouring points.
    """
    seeds = len(curves)
    factor = _T90[seeds - 1] * math.sqrt(1 + 1 / seeds)
    columns = [tuple(value for _, value in column) for column in zip(*curves, strict=True)]
    variances = [statistics.variance(column) for column in columns]
    points = []
    for number, (step, _) in enumerate(curves[0]):
        near = variances[max(0, number - _NEIGHBOURS) : number + _NEIGHBOURS + 1]
        mean, half = statistics.fmean(columns[number]), factor * math.sqrt(statistics.fmean(near))
        points.append(Point(step=step, mean=round(mean, 4), low=round(mean - half, 4), high=round(mean + half, 4)))
    return tuple(points)
