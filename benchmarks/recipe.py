"""Ways to train, compared: held-out bits per byte, and CPU seconds until plain AdamW's last value is reached.

    python benchmarks/recipe.py DATA --seeds 1 2 3 --steps 500 --out results.jsonl NAME=key=value,key=value ...
    python benchmarks/recipe.py --read results.jsonl

DATA is packed data (`alm pack`). Each recipe is a name and overrides of the configuration, as for `--set`, on top of
the preset `--model` (1m) with micro-batches of `--batch` sequences; `adamw` is the plain one that others are compared
with. Runs are one after the other in processes of their own, one thread each; CPU seconds are those of the steps,
validation left out. `--read` prints what files of results say.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

POINTS = 10
Row = dict[str, Any]  # Any: parsed JSON of our own making


def main() -> None:
    """Run the recipes, or read results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="DATA NAME=CHANGES", help="packed data, then recipes")
    parser.add_argument("--model", default="1m")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("recipes.jsonl"))
    parser.add_argument("--read", type=Path, nargs="+")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_intermixed_args()
    arguments.data, arguments.recipes = Path(*arguments.words[:1]), arguments.words[1:]
    if arguments.read:
        report([json.loads(line) for path in arguments.read for line in path.read_text().splitlines()])
    elif arguments.one:
        print(json.dumps(train(arguments)))
    else:
        for seed in arguments.seeds:
            for recipe in arguments.recipes:
                found = _in_a_process(arguments, recipe, seed)
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(found)
                row = json.loads(found)
                print(
                    f"{row['name']:<24} seed {seed}  {row['curve'][-1][1]:.4f} bits/byte  {row['seconds']:7.1f} CPU s"
                )


def _in_a_process(arguments: argparse.Namespace, recipe: str, seed: int) -> str:
    options = ["--model", arguments.model, "--batch", str(arguments.batch), "--steps", str(arguments.steps)]
    command = [sys.executable, __file__, "--one", *options, "--seeds", str(seed), "--", str(arguments.data), recipe]
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] + "\n"


def train(arguments: argparse.Namespace) -> Row:
    """One run: its curve of (step, bits per byte, CPU seconds)."""
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.events import Stepped, Validated
    from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig
    from alm.training.pretrain import pretrain

    name, _, changes = arguments.recipes[0].partition("=")
    fixed = {
        "training.seed": arguments.seeds[0],
        "training.max_steps": arguments.steps,
        "training.micro_batch_size": arguments.batch,
        "training.gradient_accumulation": 1,
        "training.precision": "fp32",
        "training.threads": 1,
        "training.checkpoint_interval": arguments.steps,
        "scheduler.warmup_steps": arguments.steps // 20,
        "validation.interval": max(1, arguments.steps // POINTS),
        "validation.bytes": 150_000,
        "samples.prompts": [],
    }
    own = [change.replace(";", ",") for change in changes.split(",") if change]
    parts = [Part(presets.find(arguments.model), MODEL_SECTIONS), Part(presets.find("train"), TRAIN_SECTIONS)]
    config = load(RunConfig, parts, overrides=[*(f"{k}={json.dumps(v)}" for k, v in fixed.items()), *own])
    clock = {"now": time.process_time(), "spent": 0.0}
    curve = []

    def on_event(event: object) -> None:
        now = time.process_time()
        if isinstance(event, Stepped):
            clock["spent"] += now - clock["now"]
        if isinstance(event, Validated):
            curve.append((event.step, event.bits_per_byte, round(clock["spent"], 2)))
        clock["now"] = now

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        pretrain(config, data=arguments.data, out=run, device_name="cpu", on_event=on_event)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    routing = {key: value for row in rows for key, value in row.items() if key.startswith("routing")}
    first = {key: value for row in reversed(rows) for key, value in row.items() if key.startswith("routing")}
    routed = {"first": first, "last": routing} if routing else None
    seed, changes = arguments.seeds[0], arguments.recipes[0].partition("=")[2]
    return {
        "name": name, "model": arguments.model, "steps": arguments.steps, "batch": arguments.batch, "seed": seed,
        "changes": changes, "curve": curve, "seconds": round(clock["spent"], 2), "routing": routed,
    }  # fmt: skip


def report(rows: list[Row]) -> None:
    """Means over the seeds, and when each was as good as `adamw` with the same model and seed in the end."""
    plain_rows = [row for row in rows if row["name"] == "adamw"]
    for key in dict.fromkeys((row["model"], row["steps"], row["batch"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["steps"], row["batch"]) == key]
        print(f"{key[0]}, {key[1]} steps of {key[2]} sequences")
        plain = {row["seed"]: row for row in plain_rows if row["model"] == key[0]}
        for name in dict.fromkeys(row["name"] for row in mine):
            found = [row for row in mine if row["name"] == name]
            last = [row["curve"][-1][1] for row in found]
            line = f"  {name:<24} {statistics.mean(last):.4f} bits/byte ({', '.join(f'{value:.4f}' for value in last)})"
            shares = [_share(row, plain[row["seed"]]) for row in found if row["seed"] in plain]
            if shares:
                times = ", ".join("not reached" if share is None else f"{share:.2f}" for share in shares)
                line += f"; CPU time to adamw's value: {times}"
            print(line)
            if found[0]["routing"]:
                print("   ", [row["routing"] for row in found])


def _share(row: Row, plain: Row) -> float | None:
    """CPU seconds until `row` is as good as `plain` at its end, between two points by a straight line; by `plain`'s."""
    wanted, before = plain["curve"][-1][1], None
    for _, value, seconds in row["curve"]:
        if value <= wanted:
            if before is None:
                return seconds / plain["seconds"]
            share = (before[0] - wanted) / max(before[0] - value, 1e-12)
            return (before[1] + share * (seconds - before[1])) / plain["seconds"]
        before = (value, seconds)
    return None


if __name__ == "__main__":
    main()
