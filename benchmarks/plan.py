"""What `alm plan` says before, and what then happens: time and memory of five runs, each planned just before it.

    python benchmarks/plan.py PACKED PACKED ... [--clock wall|cpu] [--out results.jsonl]

Each PACKED is packed data; runs take them in turn. Plans and runs are processes of their own on one thread. Where other
programs share the processor in changing ways, `--clock cpu` compares processor seconds in place of those on the wall.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

STARTED = time.monotonic()  # before the imports, which take seconds
FP32 = ["training.precision=fp32", "training.threads=1", "validation.bytes=40000", "samples.count=3"]


class Work(NamedTuple):
    """A run: what it is called, the preset of its model, and what is changed."""

    name: str
    model: str
    changes: list[str]


def _work(name: str, model: str, steps: float, micro: int, number: int, *more: str) -> Work:
    """With three validations and checkpoints."""
    steps = round(steps)
    sizes = [f"training.micro_batch_size={micro}", f"training.gradient_accumulation={number}"]
    often = [f"training.checkpoint_interval={-(-steps // 3)}", f"validation.interval={-(-steps // 3)}"]
    return Work(name, model, [f"training.max_steps={steps}", *sizes, *often, *FP32, *more])


NARROW = ("model.d_model=64", "model.n_heads=2", "model.ffn_hidden_size=192")


def _runs(share: float) -> list[Work]:
    return [
        _work("width 64, 16 x 2", "1m", 100 * share, 16, 2, *NARROW),
        _work("quickstart, 2 x 1", "quickstart", 240 * share, 2, 1),
        _work("1m, 8 x 4", "1m", 24 * share, 8, 4),
        _work("3m, 8 x 1", "3m", 18 * share, 8, 1),
        _work("10m, 4 x 2", "10m", 10 * share, 4, 2),
    ]


def main() -> None:
    """Plan, run, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packed", type=Path, nargs="*")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps")
    parser.add_argument(
        "--runs", type=int, nargs="+", default=list(range(len(_runs(1.0)))), help="which of them, from 0"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_planned(**json.loads(arguments.one))))
        return
    print(
        f"{'run':<20} {'tokens':>6}  {'planned':>8} {'then':>8} {'ratio':>6}   {'planned':>9} {'then':>9} {'ratio':>6}"
    )
    for number in arguments.runs:
        row = _compare(
            _runs(arguments.share)[number], arguments.packed[number % len(arguments.packed)], arguments.clock
        )
        print(
            f"{row['name']:<20} {row['seq_len']:>6}  {row['seconds']:>7.1f} s {row['then_seconds']:>7.1f} s "
            f"{row['seconds'] / row['then_seconds']:>6.2f}   {row['bytes'] / 1e6:>6.0f} MB "
            f"{row['then_bytes'] / 1e6:>6.0f} MB {row['bytes'] / row['then_bytes']:>6.2f}",
            flush=True,
        )
        if arguments.out:
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def _compare(work: Work, packed: Path, clock: str) -> dict[str, Any]:
    job = {"model": work.model, "changes": work.changes, "packed": str(packed), "clock": clock}
    found = json.loads(_output([sys.executable, __file__, "--one", json.dumps(job)]))
    with tempfile.TemporaryDirectory() as folder:
        sets = [word for change in work.changes for word in ("--set", change)]
        command = [sys.executable, "-m", "alm", "pretrain", "-q", "--model", work.model, "--data", str(packed)]
        began = time.perf_counter()
        child = subprocess.Popen(
            [*command, "--out", f"{folder}/run", *sets], env=_environment(), stdout=subprocess.DEVNULL
        )
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        if status:
            raise SystemExit(f"the run failed: {command}")
    seconds = wall if clock == "wall" else used.ru_utime + used.ru_stime
    return {"name": work.name, **found, "then_seconds": seconds, "then_bytes": used.ru_maxrss * 1024, "clock": clock}


def _planned(*, model: str, changes: list[str], packed: str, clock: str) -> dict[str, Any]:
    from alm import device
    from alm.cli.plan import config_of
    from alm.training import plan
    from alm.training.sizing import probe

    config = config_of(model, None, None, changes)
    if clock == "wall":
        made = plan.plan(config, data=Path(packed), device_name="cpu", started=STARTED)
    else:
        clocks = SimpleNamespace(perf_counter=time.process_time, monotonic=time.process_time)
        with contextlib.ExitStack() as stack:
            for module in (device, plan, probe):
                stack.enter_context(mock.patch.object(module, "time", clocks))
            made = plan.plan(config, data=Path(packed), device_name="cpu", started=0.0)
    return {
        "seq_len": made.text.seq_len,
        "seconds": made.time.seconds,
        "parts": made.time.seconds_by_part,
        "bytes": made.memory.memory_bytes + made.memory.process_bytes,
        "added_bytes": made.memory.memory_bytes,
    }


def _output(command: list[str]) -> str:
    return subprocess.run(command, env=_environment(), stdout=subprocess.PIPE, text=True, check=True).stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
