"""What `alm pretrain --budget` chooses for a text, against runs set by hand, in the same time on one core.

    python benchmarks/own_text.py TEXT... [--seconds 120] [--seeds 1] [--models 500k 1m 3m] [--core 0]

TEXT are texts (perhaps `.gz`). Each is prepared, tokenized and packed once, as the quickstart does. Then the chosen run
and every pair of a model and a regularisation below train in turn, each for `--seconds` on one core, with Muon and the
schedule of the preset `train`. The score of a run is that of its best checkpoint on held-out text: what `alm sample`
would use.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REGULARISED = {
    "as shipped": (),
    "weight decay 1": ("optim.weight_decay=1",),
    "dropout 0.2": ("model.dropout=0.2",),
    "both, 0.5 and 0.2": ("optim.weight_decay=0.5", "model.dropout=0.2"),
}
BATCH = ("training.micro_batch_size=8", "training.gradient_accumulation=1")
COMMON = ("training.threads=1", "training.precision=fp32", "samples.prompts=[]")


def main() -> None:
    """Every text, run and seed, in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--models", nargs="+", default=["500k", "1m", "3m"])
    parser.add_argument("--core", type=int, default=0)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {arguments.core})
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(arguments.text):
            packed = pack(text, Path(folder) / str(number))
            runs: dict[str, list[str]] = {"chosen": []}
            for model in arguments.models:
                for name, changes in REGULARISED.items():
                    runs[f"{model}, {name}"] = ["--model", model, *sets((*BATCH, *changes))]
            for name, flags in runs.items():
                scores = []
                for seed in arguments.seeds:
                    out = Path(folder) / f"{number}-{len(scores)}-{name.replace(' ', '-')}"
                    scores.append(trained(packed, out, flags, seconds=arguments.seconds, seed=seed))
                found = ", ".join(f"{best:.4f} (last {last:.4f}, {steps} steps)" for best, last, steps in scores)
                mean = statistics.fmean(best for best, _, _ in scores)
                print(f"{text.name:<40} {name:<26} {mean:.4f}   {found}", flush=True)


def pack(text: Path, folder: Path) -> Path:
    """Prepare, tokenize and pack `text`; return the folder of the packed data."""
    data = gzip.decompress(text.read_bytes()) if text.suffix == ".gz" else text.read_bytes()
    folder.mkdir(parents=True)
    source = folder / text.name.removesuffix(".gz")
    source.write_bytes(data)
    alm("corpus", "prepare", source, "--out", folder / "clean")
    alm("tokenizer", "train", "--input", folder / "clean", "--out", folder / "tokenizer.json")
    rows = ("--seq-len", "256", "--out", folder / "packed")
    alm("pack", "--tokenizer", folder / "tokenizer.json", "--in", folder / "clean", *rows)
    return folder / "packed"


def trained(packed: Path, out: Path, flags: list[str], *, seconds: int, seed: int) -> tuple[float, float, int]:
    """Train a run; return its best and last bits per byte, and its steps."""
    common = sets((*COMMON, f"training.seed={seed}"))
    alm("pretrain", "--data", packed, "--out", out, *flags, *common, "--budget", f"{seconds}s")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = [row["bits_per_byte"] for row in rows if "bits_per_byte" in row]
    for checkpoint in out.glob("*.pt"):
        checkpoint.unlink()
    return min(scores), scores[-1], max(row["step"] for row in rows)


def sets(changes: tuple[str, ...]) -> list[str]:
    """Return the flags that set `changes`."""
    return [word for change in changes for word in ("--set", change)]


def alm(*words: object) -> None:
    """Run a command quietly."""
    subprocess.run([sys.executable, "-m", "alm", *map(str, words), "--quiet"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
