"""Forecasts of a run's last score, against what the run then came to: coverage and width of the intervals.

    python benchmarks/forecast.py run OUT --runs 64 DATA...
    python benchmarks/forecast.py fit OUT [--minutes 10]
    python benchmarks/forecast.py read OUT

`run` trains so many small models, one after the other and with one thread, on packed data, in the folders OUT/00,
OUT/01 and so on: every setting of each is drawn by its number, so that an interrupted `run` goes on where it stopped.
`fit` looks for the prior of `alm/training/monitoring/forecast.py` under which the last scores of one half of them were
least surprising. `read` forecasts each run from the rows that it had when a share of its steps was done: the half
that the prior was fitted to, and the half that it has not seen.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import statistics
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from alm.artifacts import PackMetadata
from alm.config import presets
from alm.config.load import Part, load
from alm.packing.shards import open_packed
from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig
from alm.training.loop import lr_factor
from alm.training.monitoring import forecast, metrics
from alm.training.monitoring.forecast import PRIOR, Curve, Prior, Schedule
from alm.training.pretrain import pretrain
from alm.training.run import run_folder

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
# Every so many runs the halves change places: with so many data sets, each has runs in both.
TURN = 8
STEPS = (150, 200, 300, 400, 600, 600)
WIDTHS = (128, 96, 64, 48, 32)
# Of one run: CPU seconds at about 25 GFLOP/s. A run that is drawn too large becomes narrower.
MOST_FLOPS = 2e11


def main() -> None:
    """Train the runs, fit the prior to half of them, or read them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "fit", "read"])
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="*", help="packed data; runs take them in turn")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10)
    arguments = parser.parse_intermixed_args()
    if arguments.action == "run":
        for number in range(arguments.runs):
            train(arguments.out / f"{number:02d}", arguments.data[number % len(arguments.data)], number)
        return
    cases = [case for folder in sorted(arguments.out.glob("[0-9]*")) for case in cases_of(folder)]
    if arguments.action == "fit":
        print(fit([case for case in cases if case.is_fitted], seconds=60 * arguments.minutes))
    else:
        read(cases)


def train(out: Path, data: Path, number: int) -> None:
    """Run `number`, whose weights are thrown away: its metrics stay."""
    if run_folder.exists(out) and run_folder.read_metadata(out).result is not None:
        return
    shutil.rmtree(out, ignore_errors=True)
    parts = [Part(presets.find("1m"), MODEL_SECTIONS), Part(presets.find("train"), TRAIN_SECTIONS)]
    config = load(RunConfig, parts, overrides=settings(number, open_packed(data).metadata))
    result = pretrain(config, data=data, out=out, device_name="cpu").result
    for path in out.glob("ckpt-*"):
        path.unlink()
    print(out, config.scheduler.kind, result and result.bits_per_byte, flush=True)


def settings(number: int, packed: PackMetadata) -> list[str]:
    """What run `number` differs in."""
    draw = random.Random(f"forecast {number}")
    steps, layers, sequences = draw.choice(STEPS), draw.choice([1, 2, 3, 4]), draw.choice([1, 2, 4, 8])
    sequences = max(1, sequences * 128 // packed.seq_len)
    widths = WIDTHS[draw.randrange(len(WIDTHS)) :]
    tokens = steps * sequences * packed.seq_len
    fitting = [w for w in widths if 6 * tokens * (12 * layers * w * w + packed.vocab_size * w) <= MOST_FLOPS]
    width = fitting[0] if fitting else widths[-1]
    schedule = draw.choice(["cosine", "wsd", "linear"])
    values = {
        "training.max_steps": steps,
        "training.seed": number,
        "training.micro_batch_size": sequences,
        "training.gradient_accumulation": 1,
        "training.checkpoint_interval": steps,
        "training.threads": 1,
        "training.precision": "fp32",
        "model.d_model": width,
        "model.n_heads": width // 16,
        "model.n_kv_heads": 1,
        "model.n_layers": layers,
        "model.ffn_hidden_size": 3 * width,
        "model.qk_norm": draw.choice(["true", "false"]),
        "optim.lr": round(10 ** draw.uniform(-3.0, -2.0), 5),
        "scheduler.kind": schedule,
        "scheduler.warmup_steps": round(steps * draw.choice([0.02, 0.05, 0.1])),
        "scheduler.final_fraction": draw.choice([0.0, 0.02, 0.1, 0.3]),
        "validation.interval": steps // draw.choice([10, 20]),
        "validation.bytes": 30_000,
        "logging.log_interval": draw.choice([5, 10]),
        "samples.prompts": "[]",
    }
    if schedule == "wsd":
        values["scheduler.decay_fraction"] = draw.choice([0.2, 0.4, 0.6])
    if draw.random() < 0.6:
        values["optim.embedding_lr"] = 0.03
    return [f"{key}={value}" for key, value in values.items()]


@dataclass(frozen=True)
class Case:
    """A run as it was when `share` of its steps were done, and the score that it ended with."""

    name: str
    is_fitted: bool
    share: float
    curve: Curve
    schedule: Schedule
    last: float


def cases_of(folder: Path) -> list[Case]:
    """The cases of a run that ended."""
    if not run_folder.exists(folder) or run_folder.read_metadata(folder).result is None:
        return []
    config, rows = run_folder.read_config(folder), metrics.read(folder)
    steps = config.training.max_steps
    schedule, last = Schedule.of(partial(lr_factor, config), steps), Curve(rows).scores[-1]
    begun = {share: Curve(row for row in rows if row["step"] <= share * steps) for share in SHARES}
    number = int(folder.name)
    is_fitted = (number + number // TURN) % 2 == 0
    return [Case(folder.name, is_fitted, share, curve, schedule, last) for share, curve in begun.items()]


def fit(cases: list[Case], *, seconds: float) -> Prior:
    """The prior with the least mean surprise, by changing one of its numbers at a time for so long."""
    draw, began = random.Random(0), time.monotonic()
    best, steps = PRIOR, dict.fromkeys(asdict(PRIOR), 0.4)
    least = surprise(cases, best)
    while time.monotonic() - began < seconds:
        name = draw.choice(list(steps))
        factor = math.exp(draw.choice([-1, 1]) * steps[name])
        tried = replace(best, **{name: getattr(best, name) * factor})
        found = surprise(cases, tried)
        steps[name] = steps[name] * 1.3 if found < least else max(0.8 * steps[name], 0.03)
        if found < least:
            best, least = tried, found
    print(f"{least:.4f} nats, {surprise(cases, PRIOR):.4f} with the prior as it is")
    return Prior(**{name: float(f"{value:.2g}") for name, value in asdict(best).items()})


def surprise(cases: list[Case], prior: Prior) -> float:
    """Minus the logarithm of the density of the last scores, mean over the cases that have a forecast."""
    found = []
    for case in cases:
        forecasted = forecast.forecast(case.curve, case.schedule, prior=prior)
        if forecasted is not None:
            spread = (forecasted.high - forecasted.low) / (2 * 1.645)
            away = (case.last - forecasted.value) / spread
            found.append(math.log(spread) + away**2 / 2)
    return statistics.fmean(found)


def read(cases: list[Case]) -> None:
    """A line for each forecast at 30%, then coverage, width and error at every share, both halves apart."""
    print("| share | runs | forecasts | held | width, mean | error, root mean square | ms |")
    print("|---|---|---|---|---|---|---|")
    for share in SHARES:
        for half, is_fitted in (("fitted to", True), ("unseen", False)):
            print(_line(f"| {share:.0%} | {half}", [c for c in cases if (c.share, c.is_fitted) == (share, is_fitted)]))


def _line(name: str, cases: list[Case]) -> str:
    held, widths, errors, times = 0, [], [], []
    for case in cases:
        began = time.perf_counter()
        found = forecast.forecast(case.curve, case.schedule)
        if found is None:
            continue
        times.append(time.perf_counter() - began)
        held += found.low <= case.last <= found.high
        widths.append((found.high - found.low) / case.last)
        errors.append((found.value / case.last - 1) ** 2)
        if case.share == 0.3:
            print(f"{case.name}: {case.curve.scores[-1]:.3f}, {found}, was {case.last:.3f}")
    if not widths:
        return f"{name} | 0 of {len(cases)} | | | | |"
    return (
        f"{name} | {len(widths)} of {len(cases)} | {held / len(widths):.0%} | {statistics.fmean(widths):.1%} "
        f"| {math.sqrt(statistics.fmean(errors)):.1%} | {statistics.median(times) * 1e3:.1f} |"
    )


if __name__ == "__main__":
    main()
