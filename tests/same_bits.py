"""Print a hash of everything that the stages make of fixed text, to compare two states of the code.

    python tests/same_bits.py > before.txt    # and after a change that may not change anything:
    python tests/same_bits.py | diff before.txt -

Clocks, speeds and paths are left out. Takes about a minute; `--alm DIR` runs the code of another checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TALES = 400
STEPS = 20
KEPT = ("step", "loss", "lr", "gradient_norm", "tokens", "validation_loss", "bits_per_byte", "verdict")
RUN = ["--set", f"training.max_steps={STEPS}", "--set", "training.threads=1", "--set", "training.precision=fp32"]
RUN += ["--set", "training.checkpoint_interval=10", "--set", "logging.log_interval=1", "--set", "samples.max_tokens=16"]
RUN += ["--set", "training.micro_batch_size=2", "--set", "training.gradient_accumulation=2", "--device", "cpu"]
RUN += ["--set", "training.compile=off"]
COMMANDS = [
    ["corpus", "prepare", "--src", "tales", "--set", f"sources.tales.documents={TALES}", "--out", "clean"],
    ["corpus", "prepare", "given", "--out", "own"],
    ["tokenizer", "train", "--input", "clean", "--vocab-size", "1024", "--out", "bpe/tokenizer.json"],
    [
        "tokenizer",
        "train",
        "--input",
        "own",
        "--vocab-size",
        "400",
        "--set",
        "model.kind=unigram",
        "--out",
        "uni/tokenizer.json",
    ],
    ["pack", "--tokenizer", "bpe/tokenizer.json", "--in", "clean", "--out", "packed", "--seq-len", "128"],
    [
        "pack",
        "--tokenizer",
        "uni/tokenizer.json",
        "--in",
        "own",
        "--out",
        "fit",
        "--seq-len",
        "64",
        "--mode",
        "bestfit",
    ],
    ["pretrain", "--model", "1m", "--data", "packed", "--out", "runs/1m", *RUN],
    ["pretrain", "--model", "1m", "--data", "fit", "--out", "runs/fit", "--set", "model.dropout=0.1", *RUN],
    ["sample", "--checkpoint", "runs/1m/ckpt-last.pt", "--prompt", "Once", "--max-tokens", "40", "--device", "cpu"],
    ["export", "--checkpoint", "runs/1m/ckpt-last.pt", "--to", "huggingface", "--out", "exports/hf", "--no-compare"],
]


def write_given(folder: Path) -> None:
    """Texts of several formats, the same every time."""
    draw = random.Random("same bits")
    words = ["fox", "hen", "Größe", "日本", "the", "a", "runs", "I'm", "3.14", "&amp;", "barn,", "again."]
    folder.mkdir()
    for number in range(60):
        text = "\n\n".join(" ".join(draw.choices(words, k=draw.randrange(20, 90))) for _ in range(3))
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    rows = [{"text": " ".join(draw.choices(words, k=40)), "id": number} for number in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    paragraphs = "".join(f"<p>{' '.join(draw.choices(words, k=50))}</p>" for _ in range(12))
    (folder / "page.html").write_text(f"<html><body><h1>Title</h1>{paragraphs}</body></html>", encoding="utf-8")


def lines(folder: Path, log: dict[str, bytes]) -> list[str]:
    """A line for each file that holds a result, and for what was printed."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.is_symlink() or name.startswith("given/") or "/.alm/" in name:
            continue
        if path.suffix in (".txt", ".jsonl", ".npy", ".bin", ".safetensors") or path.name == "tokenizer.json":
            data = path.read_bytes()
            data = _rows(data) if path.name == "metrics.jsonl" else data
        elif path.suffix == ".pt" and path.name.startswith("ckpt-step"):
            data = _tensors(path)
        else:
            continue
        found.append(f"{hashlib.sha256(data).hexdigest()[:32]}  {name}")
    return found + [f"{hashlib.sha256(out).hexdigest()[:32]}  output of alm {words}" for words, out in log.items()]


def _rows(data: bytes) -> bytes:
    """Metrics without what a clock or the machine decides."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in data.splitlines()]
    kept = [{key: row[key] for key in sorted(row) if key in KEPT} for row in rows]
    return json.dumps(kept).encode()


def _tensors(path: Path) -> bytes:
    """The bytes of every tensor of a checkpoint."""
    import torch

    digest = hashlib.sha256()

    def take(value: Any, name: str) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                take(value[key], f"{name}.{key}")
        elif isinstance(value, list | tuple):
            for number, each in enumerate(value):
                take(each, f"{name}.{number}")

    take(torch.load(path, weights_only=True), "")
    return digest.digest()


def main() -> None:
    """Run the stages and print the hashes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alm", type=Path, default=ROOT, help="the checkout whose code is run")
    given = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(given.alm.resolve()), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    log = {}
    with TemporaryDirectory(prefix="alm-same-bits-") as name:
        folder = Path(name)
        write_given(folder / "given")
        for words in COMMANDS:
            command = [sys.executable, "-m", "alm", *words]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
            if done.returncode != 0:
                sys.exit(f"alm {' '.join(words)}: exit code {done.returncode}\n{done.stderr.decode()}")
            if words[0] == "sample":
                log[" ".join(words)] = done.stdout
        sys.stdout.write("\n".join(lines(folder, log)) + "\n")


if __name__ == "__main__":
    main()
