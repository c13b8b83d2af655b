"""What a training step costs beside another program on each core, and how much waiting briefly costs on quiet cores.

    python benchmarks/busy.py [--rounds 12] [--threads 2]

Two processes train the preset `1m` in turn: with the threads as PyTorch lets them wait, and as alm lets them wait.
Each round measures both on quiet cores, then both beside one program a core that only computes. Ratios are taken within
a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from paired import with_interval

from alm.openmp import wait_briefly
from alm.training.sizing.memory import preset_models

WORKER = Path(__file__).with_name("model_worker.py")
VOCABULARY, BATCH, LENGTH = 4096, 4, 256
SECONDS = 3.0
OTHER = "while True: pass"
POLICIES = ("PyTorch's", "alm's")


def main() -> None:
    """Measure both policies in turn, on quiet and on busy cores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    costs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with contextlib.ExitStack() as stack:
        workers = {policy: stack.enter_context(_worker(policy, arguments.threads)) for policy in POLICIES}
        others = [stack.enter_context(_other(core)) for core in sorted(os.sched_getaffinity(0))]
        for number in range(arguments.rounds + 1):
            for place in ("quiet", "busy"):
                _let(others, run=place == "busy")
                for policy in POLICIES if number % 2 else POLICIES[::-1]:
                    cost = _cost(workers[policy])
                    if number:  # the first round warms up
                        costs.setdefault((policy, place), []).append(cost)
    for (policy, place), found in costs.items():
        wall, cpu = (sorted(values)[len(values) // 2] * 1e3 for values in zip(*found, strict=True))
        print(f"{policy:<12} {place:<6} {wall:8.1f} ms wall {cpu:8.1f} ms CPU a step")
    pairs = [((policy, "busy"), (policy, "quiet")) for policy in POLICIES]
    pairs.append((("alm's", "quiet"), ("PyTorch's", "quiet")))
    for above, below in pairs:
        both = list(zip(costs[above], costs[below], strict=True))
        wall, cpu = (with_interval([a[kind] / b[kind] for a, b in both]) for kind in (0, 1))
        print(f"{' '.join(above)} / {' '.join(below)}: wall {wall}; CPU {cpu}")


@contextlib.contextmanager
def _worker(policy: str, threads: int) -> Iterator[subprocess.Popen[str]]:
    """A process that trains as many steps as each line asks."""
    shape = preset_models()["1m"].with_vocab_size(VOCABULARY).model_dump(mode="json")
    job = {"tool": "alm", "shape": shape, "batch": BATCH, "length": LENGTH, "device": "cpu", "precision": "fp32"}
    job |= {"compile": "off", "keep_memory": True, "threads": threads}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "KMP_", "OMP_"))}
    if policy == "alm's":
        wait_briefly(environment)
    command = [sys.executable, str(WORKER), json.dumps(job)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**environment, "PYTHONHASHSEED": "0"}
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _other(core: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another program that is always busy, on one core, stopped for now."""
    process = subprocess.Popen([sys.executable, "-c", OTHER])
    os.sched_setaffinity(process.pid, {core})
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _let(others: list[subprocess.Popen[bytes]], *, run: bool) -> None:
    for other in others:
        other.send_signal(signal.SIGCONT if run else signal.SIGSTOP)
    time.sleep(0.2)


def _cost(worker: subprocess.Popen[str]) -> tuple[float, float]:
    """Return wall and CPU seconds of a step, over about `SECONDS`."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    steps, found = 2, {"wall": 0.0, "cpu": 0.0}
    for _ in range(2):  # a first look, then about SECONDS
        worker.stdin.write(f"{steps}\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
        found = {name: json.loads(answer)[name] / steps for name in found}
        steps = max(2, round(SECONDS / found["wall"]))
    return found["wall"], found["cpu"]


if __name__ == "__main__":
    main()
