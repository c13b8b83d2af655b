"""Programs measured in turn: CPU seconds of each, and the paired ratios with an interval.

Every round runs every program once, in an order that rotates, so that what else the machine does falls on
all of them. CPU seconds are user and system time of all threads; a ratio is taken within a round.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Program = Callable[[], Callable[[], object]]
"""Sets up, unmeasured, and returns what is measured."""

CONFIDENCE = 0.95


class Cost(NamedTuple):
    """Seconds of one call."""

    cpu: float
    wall: float


def compare(programs: Mapping[str, Program], *, rounds: int, work: float = 0.0, unit: str = "") -> None:
    """Run `programs`, ours first, and print what they cost; `work` units are done in each call."""
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    names = list(programs)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            cost = measured(programs[name]())
            if number:  # the first round warms up
                costs[name].append(cost)
    width = max(map(len, names))
    for name, found in costs.items():
        cpu, wall = (statistics.median(values) for values in zip(*found, strict=True))
        rate = f"  {work / cpu:12,.2f} {unit} per CPU second" if work else ""
        print(f"  {name:<{width}}  {cpu:8.3f} CPU s  {wall:8.3f} s wall{rate}", flush=True)
    ours, *peers = names
    for peer in peers:
        pairs = list(zip(costs[ours], costs[peer], strict=True))
        cpu, wall = ([a[kind] / b[kind] for a, b in pairs] for kind in (0, 1))
        print(f"  {ours} / {peer}: CPU {with_interval(cpu)}; wall {with_interval(wall)}", flush=True)


def measured(program: Callable[[], object]) -> Cost:
    """What one call of `program` costs."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    program()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def with_interval(ratios: Sequence[float]) -> str:
    """The median, and the order statistics that hold the true one with the confidence that is printed."""
    ordered, n = sorted(ratios), len(ratios)
    ranks = [rank for rank in range(1, n // 2 + 1) if _coverage(rank, n) >= CONFIDENCE] or [1]
    low, high = ordered[ranks[-1] - 1], ordered[n - ranks[-1]]
    return f"{statistics.median(ordered):.3f} [{low:.3f}, {high:.3f}] at {_coverage(ranks[-1], n):.1%}, {n} rounds"


def _coverage(rank: int, n: int) -> float:
    """How surely the median lies between the values of this rank from below and from above: the sign test."""
    return 1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n
