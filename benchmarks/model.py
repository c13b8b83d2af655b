"""Our training step against nanoGPT's, litgpt's and that of `transformers`, each in a process of its own, in turn.

    python benchmarks/model.py --nanogpt FOLDER                # CPU, one thread: 1M parameters and pico
    python benchmarks/model.py --nanogpt FOLDER --memory       # peak memory of pico at micro-batch 8 alone
    python benchmarks/model.py --nanogpt FOLDER --device cuda  # bf16, compiled: 29M, 124M, 350M, 1B

FOLDER is a checkout of github.com/karpathy/nanoGPT; without it, that peer is left out. litgpt and transformers must be
installed (`nox -s bench_model` does it in an environment of its own).

On the CPU peers run as they ship, and once more with everything that ours has: the fused AdamW, and freed memory kept
(`alm.device.keep_freed_memory`). Ratios are the peer's time by ours within a round, in CPU seconds (seconds on a GPU):
above 1 we are faster. nanoGPT's shape is another (GELU, as many key as query heads): `alm, its shape` is ours with
squared ReLUs and as many heads, which has the same matrices. MFU is the share of the rate of a large matrix product,
measured in the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import paired
from model_worker import ROOFLINE_WIDTH, as_nanogpt

from alm.model.config import ModelConfig
from alm.model.count import count

WORKER = Path(__file__).with_name("model_worker.py")
ROUNDS = 9
WARM_UP = 3
PRODUCTS = 20
Found = dict[str, float]
Tools = dict[str, tuple[str, bool]]


@dataclass(frozen=True)
class Work:
    """A shape, a batch, and how many steps a measurement has."""

    name: str
    shape: dict[str, Any]
    batch: int
    length: int
    steps: int
    is_large: bool = False  # so that a GPU holds one at a time


def _shape(d_model: int, n_layers: int, n_heads: int, n_kv_heads: int, ffn: int, vocab_size: int) -> dict[str, Any]:
    sizes = {"d_model": d_model, "n_layers": n_layers, "n_heads": n_heads, "n_kv_heads": n_kv_heads}
    return {**sizes, "ffn_hidden_size": ffn, "vocab_size": vocab_size, "max_position_embeddings": 2048}


PICO = _shape(384, 8, 6, 1, 1536, 32000)
CPU = [
    Work("1M parameters", _shape(128, 4, 4, 4, 352, 4096), 8, 256, 4),
    Work("pico", PICO, 2, 512, 1),
]
CPU_MEMORY = Work("pico, micro-batch 8", PICO, 8, 512, 2)
GPU = [
    Work("29M (pico)", PICO, 32, 1024, 20),
    Work("124M", _shape(768, 12, 12, 12, 2048, 50304), 16, 1024, 10),
    Work("350M", _shape(1024, 24, 16, 4, 3456, 32000), 12, 1024, 10),
    Work("1B", _shape(2048, 20, 16, 4, 5888, 32000), 4, 2048, 5, is_large=True),
]


class Contestant:
    """One worker process, asked for a number of steps at a time."""

    def __init__(self, tool: str, work: Work, arguments: argparse.Namespace, *, keep_memory: bool) -> None:
        job = {"tool": tool, "shape": work.shape, "batch": work.batch, "length": work.length}
        settings = {
            "device": arguments.device,
            "precision": "bf16" if arguments.device == "cuda" else "fp32",
            "compile": arguments.device == "cuda",
            "nanogpt": str(arguments.nanogpt),
            "keep_memory": keep_memory,
        }
        self.process = subprocess.Popen(
            [*_pinned(arguments.device), sys.executable, str(WORKER), json.dumps({**job, **settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"} if arguments.device == "cpu" else None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(self, steps: int) -> Found:
        """What the steps cost."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended: {self.process.args}")
        found: Found = json.loads(line)
        return found


def _pinned(device: str) -> list[str]:
    return ["taskset", "-c", "0"] if device == "cpu" and sys.platform == "linux" else []


def contestants(arguments: argparse.Namespace) -> Tools:
    """Tools by the name that is printed, each with whether it keeps freed memory. Ours, as it ships, is first."""
    peers = [name for name in ("litgpt", "transformers") if find_spec(name) is not None]
    peers += ["nanogpt"] if arguments.nanogpt else []
    peers = [name for name in peers if arguments.device == "cpu" or name != "litgpt"]
    found = {"alm": ("alm", True), **{name: (name, False) for name in peers}}
    if arguments.nanogpt:
        found["alm, its shape"] = ("alm_as_nanogpt", True)
    if arguments.device == "cpu":
        found["alm, memory given back"] = ("alm", False)
        found |= {f"{name}, tuned": (name, True) for name in peers}
    return found


def flops_per_token(tool: str, work: Work) -> float:
    """Forward and backward."""
    shape = ModelConfig.model_validate(work.shape)
    if "nanogpt" in tool:
        shape = ModelConfig.model_validate(as_nanogpt(work.shape))
    return count(shape).training_flops_per_token(work.length)


def compare(work: Work, arguments: argparse.Namespace) -> None:
    """All contestants in turn, ours with each peer's ratio and interval."""
    print(f"\n{work.name}: {work.batch} x {work.length} tokens a step, {arguments.device}", flush=True)
    tools = {**contestants(arguments), "matrix product": ("roofline", True)}
    costs = _one_after_the_other(work, tools, arguments) if work.is_large else _in_turn(work, tools, arguments)
    kind = "cpu" if arguments.device == "cpu" else "wall"
    _print(work, tools, {name: [cost[kind] for cost in found] for name, found in costs.items()}, costs, arguments)


def _in_turn(work: Work, tools: Tools, arguments: argparse.Namespace) -> dict[str, list[Found]]:
    """All are there, and one works at a time, in an order that rotates."""
    with ExitStack() as stack:
        live = {
            name: stack.enter_context(Contestant(tool, work, arguments, keep_memory=keep))
            for name, (tool, keep) in tools.items()
        }
        costs: dict[str, list[Found]] = {name: [] for name in live}
        for contestant in live.values():
            contestant.run(WARM_UP)
        for number in range(arguments.rounds):
            names = list(live)
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                costs[name].append(live[name].run(_steps(name, work)))
    return costs


def _one_after_the_other(work: Work, tools: Tools, arguments: argparse.Namespace) -> dict[str, list[Found]]:
    """Where memory has no room for two."""
    costs = {}
    for name, (tool, keep) in tools.items():
        with Contestant(tool, work, arguments, keep_memory=keep) as contestant:
            contestant.run(WARM_UP)
            costs[name] = [contestant.run(_steps(name, work)) for _ in range(arguments.rounds)]
    return costs


def _steps(name: str, work: Work) -> int:
    return PRODUCTS if name == "matrix product" else work.steps


def _print(
    work: Work,
    tools: Tools,
    seconds: dict[str, list[float]],
    costs: dict[str, list[Found]],
    arguments: argparse.Namespace,
) -> None:
    width = ROOFLINE_WIDTH[arguments.device]
    products = seconds.pop("matrix product")
    rates = [PRODUCTS * 2 * width**3 / cost for cost in products]
    print(f"  a product of {width} x {width}: {statistics.median(rates) / 1e9:,.1f} GFLOP/s", flush=True)
    tokens = work.batch * work.length * work.steps
    for name, found in seconds.items():
        flops = flops_per_token(tools[name][0], work) * tokens
        shares = [flops / cost / rate for cost, rate in zip(found, rates, strict=True)]
        rate, share = tokens / statistics.median(found), statistics.median(shares)
        added = max(cost["added"] for cost in costs[name])
        print(f"  {name:<24} {rate:10,.0f} tokens/s  MFU {share:5.1%}  {added:7,.0f} MB", flush=True)
    for name, found in seconds.items():
        own = {"alm", "alm, its shape"} if name.startswith("nanogpt") else {"alm"}
        for ours in sorted(own - {name}):
            ratios = [theirs / mine for mine, theirs in zip(seconds[ours], found, strict=True)]
            print(f"  {ours} against {name:<22} {paired.with_interval(ratios)}", flush=True)


def memory(work: Work, arguments: argparse.Namespace) -> None:
    """What a training step adds to the process, at the peak."""
    print(f"\n{work.name}: memory that training adds, MB", flush=True)
    for name, (tool, keep) in contestants(arguments).items():
        with Contestant(tool, work, arguments, keep_memory=keep) as contestant:
            print(f"  {name:<24} {contestant.run(work.steps)['added']:8,.0f}", flush=True)


def main() -> None:
    """On the CPU, speed and then memory; on a GPU, both at once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", help="works whose name has this in it")
    parser.add_argument("--memory", action="store_true", help="memory alone")
    arguments = parser.parse_args()
    works = CPU if arguments.device == "cpu" else GPU
    for work in works:
        if not arguments.memory and (arguments.only or "") in work.name:
            compare(work, arguments)
    if arguments.device == "cpu" and (arguments.memory or not arguments.only):
        memory(CPU_MEMORY, arguments)


if __name__ == "__main__":
    main()
