"""Check that batches are read faster than a model trains on them. Rows are sequences."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from alm.artifacts import PackedShard
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.split import TRAIN
from alm.data.config import DataConfig
from alm.data.loader import Loader, MicroBatch, batch_plan
from alm.device import Choice
from alm.doctor.check import Check, graded, skipped
from alm.doctor.end_to_end import step_loss
from alm.packing.shards import TokenStream, open_packed
from alm.training.config import MODEL_SECTIONS, RunConfig
from alm.training.state import init_state

NAME = "loader against model"
# The smallest preset: a loader that keeps up with it keeps up with all.
_PRESET = "1m"
_ROWS, _SEQ_LEN, _VOCAB_SIZE = 2048, 512, 4096
_MICRO_BATCH = 4
_SEED = 1337
_UNCHECKED = "0" * 64  # in place of hashes that are never checked: of the rows, and of an index that does not exist
_SECONDS, _LEAST_BATCHES = 0.5, 2
_AMPLE = 4.0

Clock = Callable[[], float]


def stream_of(data: Path) -> TokenStream:
    """Open the training split of the packed `data`."""
    return open_packed(data).split(TRAIN)


def made_up(folder: Path) -> TokenStream:
    """Write packed rows of random ids to `folder`."""
    draw = np.random.default_rng(_SEED)
    ids = draw.integers(1, _VOCAB_SIZE, _ROWS * _SEQ_LEN + 1, dtype=np.uint32)
    (folder / "shard_00000.bin").write_bytes(ids.astype("<u4").tobytes())
    shard = PackedShard(
        file="shard_00000.bin",
        split=TRAIN,
        source="made-up",
        sequences=_ROWS,
        tokens=len(ids),
        sha256=_UNCHECKED,
        index_file="shard_00000.npy",
        index_sha256=_UNCHECKED,
    )
    return TokenStream(folder, (shard,), _SEQ_LEN, "uint32", _SEQ_LEN)


def loader_rate(stream: TokenStream, choice: Choice, *, clock: Clock = time.perf_counter) -> float:
    """Measure the rows per second that a run's loader reads, in a run's order."""
    plan = batch_plan(stream, DataConfig(), sequences_per_step=_MICRO_BATCH, micro_batch_size=_MICRO_BATCH, seed=_SEED)
    is_cuda = choice.device.type == "cuda"
    with Loader(stream, plan, first_step=0, last_step=1 << 30, prefetch=DataConfig().prefetch, pin=is_cuda) as loader:
        return rate((micro_batches[0] for _, micro_batches in loader), lambda batch: None, clock=clock)


def model_rate(stream: TokenStream, choice: Choice, *, vocab_size: int = _VOCAB_SIZE) -> float:
    """Measure the rows per second that the smallest model trains on."""
    config = _config(stream.seq_len, vocab_size)
    state = init_state(config, choice)
    plan = batch_plan(stream, config.data, sequences_per_step=_MICRO_BATCH, micro_batch_size=_MICRO_BATCH, seed=_SEED)
    with Loader(stream, plan, first_step=0, last_step=1 << 30, prefetch=1, pin=False) as loader:
        return rate((micro_batches[0] for _, micro_batches in loader), lambda batch: step_loss(state, batch, choice))


def rate(
    batches: Iterable[MicroBatch],
    use: Callable[[MicroBatch], object],
    *,
    clock: Clock = time.perf_counter,
    seconds: float = _SECONDS,
) -> float:
    """Measure the rows per second that are read and used, for `seconds` and some batches, after a warm-up batch."""
    rows, began = 0, 0.0
    for number, batch in enumerate(batches):
        use(batch)
        now = clock()
        if number == 0:
            began = now
            continue
        rows += len(batch.inputs)
        if number >= _LEAST_BATCHES and now - began >= seconds:
            break
    return rows / max(now - began, 1e-9)


def keeps_up(loader_rows: float, model_rows: float, *, where: str) -> Check:
    """Whether `loader_rows` per second are enough for a model that uses `model_rows`."""
    times = loader_rows / model_rows
    return graded(
        NAME,
        holds=times >= 1,
        is_good=times >= _AMPLE,
        measured=f"{_number(loader_rows)} rows/s read, {_number(model_rows)} used",
        wanted=f"more than model `{_PRESET}` uses, the fastest preset",
        cause=f"{where} gives rows {f'only {times:.1f} times as fast as' if times >= 1 else 'more slowly than'} the "
        "smallest model trains on them: the device would wait for data",
        cure="copy the packed data to a faster disk and check it: `alm doctor --data FOLDER`; larger models are slower "
        "and may not wait: check `data wait` in the panel of a run",
    )


def _number(rows: float) -> str:
    return f"{rows:,.0f}" if rows >= 10 else f"{rows:.1f}"


def has_no_row(data: Path) -> Check:
    """Return the skipped check of data without a training row."""
    return skipped(NAME, f"`{data}` holds no training sequence")


def vocab_size_of(data: Path | None) -> int:
    """Return the vocabulary size of the packed data."""
    return _VOCAB_SIZE if data is None else open_packed(data).metadata.vocab_size


def _config(seq_len: int, vocab_size: int) -> RunConfig:
    part = Part(presets.find(_PRESET), MODEL_SECTIONS)
    changes = [f"model.vocab_size={vocab_size}", f"model.max_position_embeddings={seq_len}"]
    training = [f"training.micro_batch_size={_MICRO_BATCH}", "training.gradient_accumulation=1"]
    return load(RunConfig, [part], overrides=[*changes, *training, "training.compile=false"])
