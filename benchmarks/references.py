"""Make the reference curves of `alm/training/references/` anew: scores of a preset on the built-in corpus, three seeds.

    python benchmarks/references.py [quickstart] [1m] [--work FOLDER] [--seeds 1 2 3]

Each preset's text is prepared and packed once, then one run a seed is trained, each in a process of one thread that is
scored twenty times. What is finished in `--work` is kept, so that an interrupted program goes on where it stopped; give
another folder after a change of the tales, the tokenizer or the preset. The file is written when all seeds are there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from alm.config import presets
from alm.config.load import Part, load
from alm.packing.config import PackConfig
from alm.packing.shards import open_packed
from alm.quickstart.recipe import RUN_PRESET, SEQ_LEN, VOCAB_SIZE
from alm.quickstart.run import CORPUS_PRESET, PACK_MODE
from alm.tokenizers.config import TokenizerConfig
from alm.training.config import TRAIN_SECTIONS, RunConfig
from alm.training.monitoring import metrics, reference
from alm.training.run import run_folder

POINTS = 20


@dataclass(frozen=True)
class Job:
    """A model and a way to train it, on the built-in corpus as it is packed for them."""

    model: str
    train: str
    vocab_size: int = TokenizerConfig().vocab_size
    seq_len: int = PackConfig().seq_len
    mode: str = PackConfig().mode


# But for the quickstart they are what the commands make that are given the tales, the model and nothing else.
JOBS = {
    "quickstart": Job(RUN_PRESET, RUN_PRESET, VOCAB_SIZE, SEQ_LEN, PACK_MODE),
    "1m": Job("1m", "train"),
    "pico": Job("pico", "train"),
}


def main() -> None:
    """Make the references that are asked for, all of them where none is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", help=f"some of: {', '.join(JOBS)}; all by default")
    parser.add_argument("--work", type=Path, default=Path("references"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=reference.FOLDER)
    arguments = parser.parse_intermixed_args()
    for name in arguments.presets or JOBS:
        make(name, JOBS[name], work=arguments.work, seeds=arguments.seeds, out=arguments.out)


def make(name: str, job: Job, *, work: Path, seeds: list[int], out: Path) -> None:
    """Train one run a seed and write `out`/`name`.json."""
    packed = _packed(job, work)
    runs = [_trained(job, packed, work / name / f"seed-{seed}", seed) for seed in seeds]
    made = reference.Reference(
        command=f"python benchmarks/references.py {name}",
        config=reference.deciding(run_folder.read_config(runs[0])),
        preset=name,
        data_sha256=reference.data_sha256(open_packed(packed).metadata),
        seeds=tuple(seeds),
        points=reference.band([_curve(folder) for folder in runs]),
    )
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(made.model_dump_json(indent=1, exclude={"inputs"}) + "\n", encoding="utf-8")
    last = made.points[-1]
    print(f"{path}: {last.mean:.4f} [{last.low:.4f}, {last.high:.4f}] bits/byte after {last.step} steps", flush=True)


def _packed(job: Job, work: Path) -> Path:
    clean, tokenizer = work / "clean", work / f"tokenizer-{job.vocab_size}.json"
    packed = work / f"packed-{job.vocab_size}-{job.seq_len}-{job.mode}"
    _alm("corpus", "prepare", "--src", CORPUS_PRESET, "--out", clean)
    _alm("tokenizer", "train", "--input", clean, "--vocab-size", job.vocab_size, "--out", tokenizer)
    _alm("pack", "--tokenizer", tokenizer, "--in", clean, "--out", packed, "--seq-len", job.seq_len, "--mode", job.mode)
    return packed


def _trained(job: Job, packed: Path, out: Path, seed: int) -> Path:
    steps = _steps(job)
    changes = [f"training.seed={seed}", f"validation.interval={max(1, steps // POINTS)}"]
    changes += ["samples.prompts=[]", "training.threads=1", f"training.checkpoint_interval={steps}"]
    words = [word for change in changes for word in ("--set", change)]
    _alm("pretrain", "--model", job.model, "--train", job.train, "--data", packed, "--out", out, *words)
    return out


def _steps(job: Job) -> int:
    parts = [Part(presets.find(job.train), TRAIN_SECTIONS)]
    return load(RunConfig, parts).training.max_steps


def _curve(folder: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["bits_per_byte"]) for row in metrics.read(folder) if "bits_per_byte" in row]


def _alm(*words: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "alm", *map(str, words), "-q"], env=environment, check=True)


if __name__ == "__main__":
    main()
