"""Small artifacts that many tests need, made by the stages themselves."""

from __future__ import annotations

import atexit
import random
import shutil
import tempfile
from collections.abc import Callable, Hashable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from alm import artifacts
from alm.artifacts import PackMetadata, RunMetadata, RunResult
from alm.config.load import load
from alm.config.yaml_files import write_yaml
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.train import train_tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.run import run_folder

T = TypeVar("T")

VOCAB_SIZE = 300
WORDS = [
    "the",
    "a",
    "fox",
    "hen",
    "sees",
    "runs",
    "to",
    "from",
    "red",
    "old",
    "barn",
    "hill",
    "and",
    "then",
    "it",
    "said",
    "hello",
    "again",
    "Größe",
    "日本",
]


SMALL = [
    "--set", "model.d_model=16", "--set", "model.n_heads=2", "--set", "model.n_kv_heads=1", "--set", "model.n_layers=1",
    "--set", "model.ffn_hidden_size=32", "--set", "training.max_steps=6", "--set", "training.micro_batch_size=2",
    "--set", "training.gradient_accumulation=1", "--set", "training.checkpoint_interval=2",
    "--set", "training.precision=fp32", "--set", "training.threads=1",
    "--set", "logging.log_interval=2", "--set", "scheduler.warmup_steps=2",
    "--set", "samples.count=2", "--set", "samples.max_tokens=6",
]  # fmt: skip

# Packed text to a trained model, each command as a person types it.
CHAIN = [
    ["corpus", "prepare", "my-texts"],
    ["tokenizer", "train", "--vocab-size", "300"],
    ["pack", "--seq-len", "16"],
    ["pretrain", *SMALL],
]


def texts(number: int, *, seed: int = 0) -> list[str]:
    """Short documents that differ, with a little structure to learn."""
    draw = random.Random(f"texts {seed}")
    return [" ".join(draw.choices(WORDS, k=draw.randrange(5, 40))) + ".\n" for _ in range(number)]


def copy_of(make: Callable[..., T], root: Path, *arguments: Hashable) -> T:
    """Write to `root` what `make(folder, *arguments)` writes to a folder, and return what it returns.

    Each process makes a thing once and copies it from then on: several times as fast for small artifacts.
    """
    original, made = _original(make, arguments)
    shutil.copytree(original, root, dirs_exist_ok=True)
    return made


@cache
def _original(make: Callable[..., T], arguments: tuple[Hashable, ...]) -> tuple[Path, T]:
    folder = Path(tempfile.mkdtemp(prefix="alm-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, make(folder, *arguments)


def write_clean(out: Path, documents: list[str], *, source: str = "s", validation_fraction: float = 0.1) -> Path:
    """A clean corpus of one source; another one is added to a corpus that is there."""
    if out.exists():
        _make_clean(out.parent, out.name, tuple(documents), source, validation_fraction)
    else:
        copy_of(_make_clean, out.parent, out.name, tuple(documents), source, validation_fraction)
    return out


def _make_clean(root: Path, name: str, documents: tuple[str, ...], source: str, validation_fraction: float) -> None:
    folder = root / f"{name}-{source}-texts"
    folder.mkdir(parents=True)
    for number, text in enumerate(documents):
        (folder / f"{number:05d}.txt").write_text(text, encoding="utf-8", newline="")
    base: dict[str, Any] = {
        "sources": {source: {"kind": "files", "paths": str(folder)}},
        "validation_fraction": validation_fraction,
    }
    prepare(load(CorpusConfig, [], base=base), out=root / name)


def write_tokenizer(path: Path, clean: Path) -> Path:
    """A tokenizer trained on the corpus."""
    train_tokenizer(TokenizerConfig(vocab_size=VOCAB_SIZE), inputs=[clean], out=path)
    return path


def write_packed(root: Path, *, documents: int = 200, seq_len: int = 16, seed: int = 0) -> tuple[Path, PackMetadata]:
    """Packed data of one source, with its tokenizer and corpus beside it."""
    return root / "packed", copy_of(_make_packed, root, documents, seq_len, seed)


def _make_packed(root: Path, documents: int, seq_len: int, seed: int) -> PackMetadata:
    clean = write_clean(root / "clean", texts(documents, seed=seed))
    tokenizer = write_tokenizer(root / "tokenizer.json", clean)
    config = PackConfig(seq_len=seq_len, sequences_per_shard=50)
    return pack(config, tokenizer=tokenizer, clean=[clean], out=root / "packed")


def run_config(**changes: Any) -> RunConfig:
    """A model and a training so small that a step takes milliseconds; `section__key=value` changes it."""
    values: dict[str, Any] = {
        "model": {
            "d_model": 16,
            "n_layers": 1,
            "n_heads": 2,
            "n_kv_heads": 1,
            "ffn_hidden_size": 32,
            "max_position_embeddings": 64,
        },
        "training": {
            "max_steps": 12,
            "micro_batch_size": 2,
            "gradient_accumulation": 2,
            "checkpoint_interval": 4,
            "precision": "fp32",
            "threads": 1,
        },
        "optim": {"kind": "adamw", "lr": 0.01},
        "scheduler": {"kind": "cosine", "warmup_steps": 3},
        "validation": {"interval": 4, "bytes": 500},
        "samples": {"count": 4, "max_tokens": 4, "prompts": ["", "the"]},  # two of the four prompts of `auto`: time
        "logging": {"log_interval": 2},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    return RunConfig.model_validate(values)


# Adam divides a gradient by its own size, so that rounding decides the direction of those near zero: weights may then
# differ by as much as a step moves them. With an `eps` above the size of gradients updates are in proportion to them:
# with a rate of 0.01 as well a step moves a weight by no more than its gradient.
SMOOTH = {"optim__eps": 0.01}
# So far sums of gradients in another order may take weights, and losses in proportion: the 64 targets of a step of
# `run_config` by 64 x 2^-24 of gradients that are clipped to 1, in each of 12 steps.
ROUNDING = 5e-5


def logged_row(step: int, loss: float | None, **changes: Any) -> dict[str, Any]:
    """A row of a logged step as the loop writes it; without a loss where it was not finite."""
    row = {
        "step": step,
        "loss": loss,
        "gradient_norm": 1.5,
        "lr": 3e-4,
        "tokens": step * 1000,
        "tokens_per_second": 2000.0,
        "step_seconds": 0.5,
        "mfu": 0.25,
        "data_wait_share": 0.01,
        "memory_bytes": 500_000_000,
        "skipped_steps": 0,
        **changes,
    }
    return {key: value for key, value in row.items() if value is not None}


def scored_row(step: int, bits_per_byte: float, margin: float | None = 0.05) -> dict[str, Any]:
    """A row of a validation."""
    known = {} if margin is None else {"bits_per_byte_margin": margin}
    return {"step": step, "validation_loss": bits_per_byte * 2, "bits_per_byte": bits_per_byte, **known}


def sample_row(step: int, prompt: str, text: str) -> dict[str, Any]:
    """A row of a continued prompt."""
    return {"step": step, "prompt": prompt, "text": text, "temperature": 0.8, "top_k": 40, "max_tokens": 8, "seed": 1}


def write_run(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    texts: list[dict[str, Any]] | None = None,
    finished: bool = False,
    **changes: Any,
) -> Path:
    """A run's folder as training leaves it, without training: `changes` are of its configuration."""
    config = run_config(**changes)
    score = next((row["bits_per_byte"] for row in reversed(rows) if "bits_per_byte" in row), None)
    result: RunResult | None = None
    if finished:
        step = config.training.max_steps
        result = RunResult(step=step, training_tokens=1, validation_loss=score, bits_per_byte=score, seconds=1.0)
    metadata = RunMetadata(
        config=config.model_dump(mode="json"),
        inputs=(),
        data="../packed",
        data_sha256="d" * 64,
        tokenizer_sha256="e" * 64,
        parameters=12_345,
        environment={"torch": "2.13.0", "device": "cpu"},
        result=result,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / run_folder.CONFIG_NAME).write_text(write_yaml(metadata.config), encoding="utf-8")
    (folder / metrics.NAME).write_text(metrics.as_text(rows), encoding="utf-8")
    if texts is not None:
        (folder / run_folder.SAMPLES_NAME).write_text(metrics.as_text(texts), encoding="utf-8")
    artifacts.write(folder / run_folder.METADATA_NAME, metadata)
    return folder


class FakeTime:
    """Stands for the module `time`: seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now
