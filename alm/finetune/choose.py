"""Chooses the run of a fine-tuning: passes, batch, steps and rate, for the conversations, the model and the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alm import device as devices
from alm.artifacts import SourceMetadata
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.split import TRAIN
from alm.events import Listener, Noted, ignore
from alm.formatting import duration, size
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.packing.pack import REPLAY
from alm.packing.shards import PackedData
from alm.training.config import TRAIN_SECTIONS, RunConfig
from alm.training.plan import plan
from alm.training.run.initial import model_values
from alm.training.sizing.suggest import TYPICAL_SHARE

PRESET = "finetune"
# Rows hold twice the mean conversation, so that few are shortened: short rows make small steps, of which a short run
# has more.
_SHORTEST_ROW, _LONGEST_ROW, _BYTES_PER_TOKEN, _TIMES_THE_MEAN = 256, 1024, 3, 2
# Fewer conversations are seen more often; the best checkpoint is kept where that is too often.
_PASSES = ((500, 5.0), (5_000, 3.0))  # (fewer conversations than this, passes)
_PASSES_OF_MANY = 2.0
# Of the rows, for text that the model knows: so much that its score on such text rises by less than 2%
# (docs/benchmarks.md).
_REPLAY_SHARE = 0.2
# Enough steps for a rate that rises and falls, and a batch that is not needlessly noisy.
_WANTED_STEPS, _MOST_STEP_TOKENS = 200, 16_384
# So that a few steps of a large model are measured in seconds, and that its activations are small.
_MICRO_BATCH_TOKENS, _MICRO_BATCH_FLOPS = 2048, 5e11
# Rates at which a model learns to answer and keeps what it knows fall with its size (docs/benchmarks.md).
_RATE, _RATE_PARAMETERS = 3e-5, 135e6
_LOWEST_RATE, _HIGHEST_RATE = 2e-5, 1e-3
# Adapters start at zero and have few numbers: they need a higher rate.
_LORA_RATE = 10
# A forward pass costs a third of a step's token: all validations together take about a tenth of the time.
_VALIDATIONS, _VALIDATION_SHARE, _CHECKPOINTS = 6, 0.05, 4
_LEAST_BYTES, _MOST_BYTES = 4_000, 500_000


@dataclass(frozen=True)
class Wishes:
    """What the user sets: passes (None: chosen), rank of adapters (0: none), seconds, other settings, the device."""

    passes: float | None = None
    lora: int = 0
    budget: float | None = None
    changes: tuple[str, ...] = ()
    device_name: str = "auto"


@dataclass(frozen=True)
class Run:
    """A run, and when it must end (of `time.monotonic`) if its time is shorter than its passes."""

    config: RunConfig
    finish_by: float | None = None


def run(base: Path, packed: PackedData, wishes: Wishes, *, started: float, on_event: Listener = ignore) -> Run:
    """Return the run that teaches the model `base` these conversations; `started` is when the command began."""
    model = model_of(base)
    passes = wishes.passes or passes_for(packed)
    estimate = _estimate(packed, model, passes, wishes)
    if wishes.budget is not None and estimate > wishes.budget:
        return _within(base, packed, wishes, passes * wishes.budget / estimate, started, on_event)
    config = _config(base, packed, model, passes, wishes)
    found = plan(config, data=packed.folder, device_name=wishes.device_name, started=started)
    seconds = found.time.seconds
    if wishes.budget is not None and seconds is not None and seconds > wishes.budget:
        return _within(base, packed, wishes, passes * wishes.budget / seconds, started, on_event)
    time = "" if seconds is None else f", in about {duration(seconds)}"
    passes = max((seen for name, seen in found.text.epochs.items() if name != REPLAY), default=0.0)
    on_event(Noted(f"{_about(packed)}: {_number(passes)} passes, {found.text.steps:,} steps{time}"))
    on_event(Noted(_about_replay(packed, config)))
    on_event(Noted(f"It needs {size(found.memory.memory_bytes)} of memory"))
    return Run(config)


def _within(base: Path, packed: PackedData, wishes: Wishes, passes: float, started: float, on_event: Listener) -> Run:
    """Return a run that ends within the budget, with a batch for the `passes` that it will have."""
    assert wishes.budget is not None
    on_event(
        Noted(f"{_about(packed)}: about {_number(passes)} passes, as many steps as fit into {duration(wishes.budget)}")
    )
    config = _config(base, packed, model_of(base), passes, wishes)
    on_event(Noted(_about_replay(packed, config)))
    return Run(config, started + wishes.budget)


def _config(base: Path, packed: PackedData, model: ModelConfig, passes: float, wishes: Wishes) -> RunConfig:
    overrides = [*suggested(packed, model, passes, lora=wishes.lora), *wishes.changes]
    parts = [Part(presets.find(PRESET), TRAIN_SECTIONS)]
    return load(RunConfig, parts, base={"model": model_values(base)}, overrides=overrides)


def row_length(sources: Sequence[SourceMetadata], model: ModelConfig) -> int:
    """Return the tokens of a row that suit these conversations, at most the context of the model."""
    texts, number = (sum(getattr(source, name).output for source in sources) for name in ("bytes", "documents"))
    wanted = _TIMES_THE_MEAN * texts / _BYTES_PER_TOKEN / max(number, 1)
    length: int = 2 ** math.ceil(math.log2(min(max(wanted, _SHORTEST_ROW), _LONGEST_ROW)))
    return min(length, model.max_position_embeddings)


def passes_for(packed: PackedData) -> float:
    """Return how often to see the conversations, by their number."""
    conversations = packed.metadata.conversations
    number = 0 if conversations is None else conversations.conversations[TRAIN]
    return next((passes for most, passes in _PASSES if number < most), _PASSES_OF_MANY)


def suggested(packed: PackedData, model: ModelConfig, passes: float, *, lora: int = 0) -> list[str]:
    """Return the settings that suit these conversations and this model, for `--set`."""
    rows, seq_len = _rows(packed), packed.metadata.seq_len
    tokens = passes * rows * seq_len
    flops = count(model).training_flops_per_token(seq_len)
    sequences = _power_of_two(min(tokens / _WANTED_STEPS, _MOST_STEP_TOKENS) / seq_len)
    micro = min(sequences, _power_of_two(min(_MICRO_BATCH_TOKENS, _MICRO_BATCH_FLOPS / flops) / seq_len))
    steps = max(1, math.ceil(passes * rows / sequences))
    rate = _RATE * math.sqrt(_RATE_PARAMETERS / count(model).total)
    rate = min(max(rate, _LOWEST_RATE), _HIGHEST_RATE) * (_LORA_RATE if lora else 1)
    scored = min(max(_VALIDATION_SHARE * tokens * _BYTES_PER_TOKEN, _LEAST_BYTES), _MOST_BYTES)
    return [
        f"training.max_steps={steps}",
        f"training.micro_batch_size={micro}",
        f"training.gradient_accumulation={sequences // micro}",
        f"training.checkpoint_interval={max(1, steps // _CHECKPOINTS)}",
        f"validation.interval={max(1, steps // _VALIDATIONS)}",
        f"validation.bytes={round(scored)}",
        f"logging.log_interval={max(1, min(10, steps // 20))}",
        f"optim.lr={rate:.1e}",
        *([f"lora.rank={lora}", f"lora.alpha={2 * lora}"] if lora else []),
        *_mixture(packed),
    ]


def _rows(packed: PackedData) -> float:
    """Return the rows of a pass over the conversations, and of the text that is replayed meanwhile."""
    of_text = sum(shard.sequences for shard in packed.metadata.shards if shard.source == REPLAY)
    rows = packed.metadata.sequences(TRAIN) - of_text
    return rows / (1 - _REPLAY_SHARE) if of_text else rows


def _about_replay(packed: PackedData, config: RunConfig) -> str:
    weights = config.data.mixture or {}
    if not weights.get(REPLAY):
        return "No text is replayed: `--replay TEXT` names what the model should not forget"
    found = packed.metadata.conversations
    assert found is not None
    share = weights[REPLAY] / sum(weights.values())
    return f"{share:.0%} of the rows are text that the model knows, of {found.replayed_tokens:,} tokens"


def _mixture(packed: PackedData) -> list[str]:
    names = {shard.source for shard in packed.metadata.shards if shard.split == TRAIN}
    if REPLAY not in names:
        return []
    weights = {name: _REPLAY_SHARE if name == REPLAY else 1 - _REPLAY_SHARE for name in sorted(names)}
    return [f"data.mixture={{{', '.join(f'{name}: {weight:g}' for name, weight in weights.items())}}}"]


def _power_of_two(number: float) -> int:
    found: int = 2 ** max(0, round(math.log2(max(number, 1))))
    return found


def _estimate(packed: PackedData, model: ModelConfig, passes: float, wishes: Wishes) -> float:
    """Return about how many seconds the passes take, from the speed of matrix products."""
    choice = devices.choose(wishes.device_name)
    tokens = passes * _rows(packed) * packed.metadata.seq_len
    flops = tokens * count(model).training_flops_per_token(packed.metadata.seq_len)
    return flops / (TYPICAL_SHARE * devices.matmul_rate(choice.device, choice.precision))


def _number(passes: float) -> str:
    return f"{passes:.0f}" if passes >= 10 else f"{passes:.2g}"


def _about(packed: PackedData) -> str:
    found = packed.metadata.conversations
    assert found is not None
    return f"{found.conversations[TRAIN]:,} conversations with {found.answer_tokens[TRAIN]:,} tokens of answers"


def model_of(base: Path) -> ModelConfig:
    """Return the shape of the model in the checkpoint `base`."""
    return ModelConfig.model_validate(model_values(base))
