"""Suggests a run for an amount of text and a time: model, vocabulary, batch, and how strongly to regularise it.

`alm plan`, `alm pretrain` and `alm quickstart` take its one answer, as flags.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from alm import device as devices
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.split import TRAIN
from alm.device import Choice
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.packing.shards import open_packed
from alm.tokenizers.config import vocabulary_for_text
from alm.training.config import TRAIN_SECTIONS, RunConfig, TrainingConfig
from alm.training.sizing import probe
from alm.training.sizing.autotune import choose_precision
from alm.training.sizing.budget import with_steps
from alm.training.sizing.eta import pauses_left
from alm.training.sizing.memory import MemoryLimit, preset_models
from alm.training.sizing.repeated_text import MOST_PASSES, effective_tokens, regularisation

# Hoffmann et al. 2022, "Training Compute-Optimal Large Language Models", section 3: about 20 tokens per parameter,
# from 6e18 FLOPs on, their smallest compute.
TOKENS_PER_PARAMETER = 20
_HOFFMANN_FLOPS = 6e18
# Measured here at a millionth of that compute, in two minutes of one core (docs/benchmarks.md, "What a budget
# chooses"): of an encyclopedia and of short stories a model with 2.8 tokens per parameter learned more than those with
# 0.8 and 0.3. On the tales, whose language is small, 0.45 was better; quickstart has its own model for these.
_MEASURED_FLOPS, _MEASURED_RATIO = 2e12, 2.0
# Li et al. 2025, "Predictable Scale: Part I", arXiv:2503.04715, section 1: batch ~ D^0.571. The factor comes from
# measurements here, where steps of 1,024 and of 2,048 tokens were equally good (docs/benchmarks.md).
_MEASURED_TOKENS, _MEASURED_BATCH, _BATCH_POWER = 0.41e6, 1024, 0.571
# Smaller steps cost too much time a token: 512 tokens were 4% worse than 1,024 after two minutes (docs/benchmarks.md).
_STEPS_AT_LEAST = 200
# The best share, or within 0.1% of it, in five runs on real text: worth up to 2.6% (docs/log.md).
WEIGHT_AVERAGE = 0.1
# The best embedding tables have about a quarter of the parameters of the layers (docs/vocabulary.md).
_LAYERS_PER_TABLE = 4
LEAST_VOCABULARY, MOST_VOCABULARY = 512, 65536
# English prose with 1,024 tokens, and how much more a token stands for with each doubling (docs/vocabulary.md).
_BYTES_AT_1024, _BYTES_PER_DOUBLING, _MOST_BYTES = 2.7, 0.43, 4.6
# A text gets shorter rows rather than fewer.
FEWEST_ROWS, SHORTEST_ROW = 32, 32
BYTES_PER_TOKEN = 4.0  # where no vocabulary is known
STEPS_SHARE = 0.8
MOST_MICRO_BATCH_TOKENS = 16_384
TRAIN_PRESET = "train"

Rate = Callable[[ModelConfig, int], float]
"""Tokens per second of training a model with sequences of a given length."""
Fits = Callable[[ModelConfig, int, int], bool]
"""Whether micro-batches of (sequences, tokens) of a model fit into memory."""


@dataclass(frozen=True)
class Suggestion:
    """A run worth its time. `config` is complete; `overrides` are its differences from the presets, without settings
    counted in steps, for `--set` together with `--budget`.

    It sees the text `passes` times, 0 if the amount of text is unknown. `seconds` is less than was asked for if the
    text would be seen more than `MOST_PASSES` times.
    """

    preset: str
    config: RunConfig
    vocab_size: int
    seq_len: int
    overrides: tuple[str, ...]
    passes: float
    seconds: float = 0.0


def suggest_at(
    seconds: float,
    *,
    tokens_per_second: Rate,
    models: Mapping[str, ModelConfig] | None = None,
    text_bytes: int | None = None,
    vocab_size: int | None = None,
    seq_len: int | None = None,
    steps: int | None = None,
    ranks: int = 1,
    fits: Fits = lambda model, sequences, tokens: True,
) -> Suggestion:
    """Return the largest of `models` that gets enough tokens in `seconds`, with its vocabulary and its batch.

    Learning rates are those of the preset `train`, which were measured. `vocab_size` and `seq_len` are those of packed
    data; absent, they are chosen too. `text_bytes` limits what can be learned. The number of steps follows from
    `tokens_per_second` alone, and `fit_steps` makes it exact, unless `steps` are given. Each of `ranks` gets as many
    micro-batches of a step.
    """
    best: Suggestion | None = None
    for name, shape in (models or preset_models()).items():
        vocabulary = vocab_size or vocabulary_for(shape, text_bytes)
        length = seq_len or sequence_for(shape, text_bytes)
        longest = max(shape.max_position_embeddings, length)
        model = shape.model_copy(update={"max_position_embeddings": longest}).with_vocab_size(vocabulary)
        if best is not None and not fits(model, 1, length):
            break
        rate = STEPS_SHARE * tokens_per_second(model, length)
        unique = text_bytes / bytes_per_token(vocabulary) if text_bytes else math.inf
        tokens = min(rate * seconds, MOST_PASSES * unique)
        new = effective_tokens(unique, tokens / unique) if text_bytes else tokens
        counted = count(model)
        # Where passes teach little, a larger model with fewer of them is better: 69 kB of chats seen 31 times by 500k
        # gave 0.81 bits/byte, seen 65 times by 200k 0.89.
        wanted = tokens_per_parameter(new * counted.training_flops_per_token(length)) * (new / tokens) ** 2
        if best is not None and new < wanted * counted.total:
            break
        split = _split(model, length, tokens, ranks, fits)
        if steps is not None:
            tokens = steps * split[0] * split[1] * length
        found = _suggestion(name, shape, model, length, tokens, split, passes=tokens / unique)
        needed = math.ceil(tokens / rate)
        best = replace(found, seconds=needed if steps is not None else min(seconds, needed))
    assert best is not None, "there is a first model"
    return best


def tokens_per_parameter(flops: float) -> float:
    """Return the best number of tokens per parameter for this many FLOPs, from a power law through two points.

    It is Hoffmann's constant above its range, and below it falls through the ratio measured here.
    """
    power: float = math.log(TOKENS_PER_PARAMETER / _MEASURED_RATIO) / math.log(_HOFFMANN_FLOPS / _MEASURED_FLOPS)
    share: float = (flops / _HOFFMANN_FLOPS) ** power
    return TOKENS_PER_PARAMETER * min(1.0, share)


def vocabulary_for(shape: ModelConfig, text_bytes: int | None = None) -> int:
    """Return a power of two for which the table has about a quarter of the parameters of the layers, and the text is
    long enough to show each token.
    """
    layers = _layers(shape.with_vocab_size(LEAST_VOCABULARY))
    wanted: int = 2 ** round(math.log2(layers / _LAYERS_PER_TABLE / shape.d_model))
    if text_bytes is not None:
        wanted = min(wanted, vocabulary_for_text(text_bytes))
    return min(max(wanted, LEAST_VOCABULARY), MOST_VOCABULARY)


def bytes_per_token(vocab_size: int) -> float:
    """Return about how many bytes of English a token of this vocabulary stands for."""
    return min(_BYTES_AT_1024 + _BYTES_PER_DOUBLING * math.log2(vocab_size / 1024), _MOST_BYTES)


def sequence_for(shape: ModelConfig, text_bytes: int | None = None) -> int:
    """Return the tokens of a training sequence: half of the model's context, or less if the text has few of them."""
    wanted = max(1, shape.max_position_embeddings // 2)
    if text_bytes is None:
        return wanted
    rows = text_bytes / bytes_per_token(LEAST_VOCABULARY) / FEWEST_ROWS
    longest: int = 2 ** int(math.log2(max(rows, 1)))
    return min(wanted, max(SHORTEST_ROW, longest))


def _layers(model: ModelConfig) -> int:
    counted = count(model)
    return counted.total - counted.embedding - counted.head


def _split(model: ModelConfig, seq_len: int, tokens: float, ranks: int, fits: Fits) -> tuple[int, int]:
    """Return the sequences of a micro-batch, and the micro-batches of a step, a multiple of `ranks`."""
    batch = _MEASURED_BATCH * (tokens / _MEASURED_TOKENS) ** _BATCH_POWER
    batch = max(batch, min(_MEASURED_BATCH, tokens / _STEPS_AT_LEAST))
    each = 2 ** max(0, round(math.log2(batch / seq_len / ranks)))  # sequences of a rank
    micro = min(each, 2 ** int(math.log2(max(1, MOST_MICRO_BATCH_TOKENS // seq_len))))
    while micro > 1 and not fits(model, micro, seq_len):
        micro //= 2
    return micro, ranks * (each // micro)


def _suggestion(
    name: str,
    shape: ModelConfig,
    model: ModelConfig,
    seq_len: int,
    tokens: float,
    split: tuple[int, int],
    *,
    passes: float,
) -> Suggestion:
    micro, accumulation = split
    steps = max(1, round(tokens / (micro * accumulation * seq_len)))
    overrides = [
        f"training.micro_batch_size={micro}",
        f"training.gradient_accumulation={accumulation}",
        f"training.weight_average={WEIGHT_AVERAGE:g}",
    ]
    if model.max_position_embeddings != shape.max_position_embeddings:
        overrides.append(f"model.max_position_embeddings={model.max_position_embeddings}")
    strength = regularisation(passes)
    if strength != regularisation(1):  # which the presets have
        overrides += strength.overrides
        model = model.model_copy(update={"dropout": strength.dropout})
    of_training = [change for change in overrides if not change.startswith("model.")]
    config = load(RunConfig, [Part(presets.find(TRAIN_PRESET), TRAIN_SECTIONS)], overrides=of_training)
    config = with_steps(config, steps, pauses_left(config), validation_bytes=config.validation.bytes)
    config = config.model_copy(update={"model": model})
    return Suggestion(name, config, model.known_vocab_size, seq_len, tuple(overrides), passes)


# Of `alm pretrain` and `alm quickstart` with one's own text.
DEFAULT_SECONDS = 600.0
# A first guess: the share of the rate of matrix products that training a small model reaches (docs/benchmarks.md).
TYPICAL_SHARE = 0.5
_MOST_TRIES, _TRY_SECONDS = 3, 0.5
_Precision = Literal["auto", "fp32", "bf16", "fp16"]


def suggest(
    seconds: float,
    *,
    data: Path | None = None,
    seq_len: int | None = None,
    tokens: int | None = None,
    text_bytes: int | None = None,
    steps: int | None = None,
    device_name: str = "auto",
    precision: _Precision = "auto",
    ranks: int = 1,
) -> Suggestion:
    """Return a run worth `seconds` on the device, or on `ranks` of them, with this number of steps if it is given.

    The text is packed `data`, or expected to have `text_bytes` bytes or `tokens` tokens. The speed is first estimated
    from matrix products, then measured with the suggested model, until it stays the same.
    """
    vocab_size = None
    if tokens is not None:
        text_bytes = round(tokens * BYTES_PER_TOKEN)
    if data is not None:
        metadata = open_packed(data).metadata
        vocab_size, seq_len = metadata.vocab_size, metadata.seq_len
        text_bytes = round(metadata.sequences(TRAIN) * seq_len * bytes_per_token(vocab_size))
    choice = devices.choose(device_name, precision=precision)
    flops_per_second = TYPICAL_SHARE * devices.matmul_rate(choice.device, choice.precision)

    devices_used = 1 if choice.device.type == "cpu" else ranks  # ranks on a CPU share its processors

    def rate(model: ModelConfig, tokens: int) -> float:
        return devices_used * flops_per_second / count(model).training_flops_per_token(tokens)

    def fits(model: ModelConfig, sequences: int, tokens: int) -> bool:
        config = RunConfig(model=model, training=TrainingConfig(micro_batch_size=sequences))
        largest = MemoryLimit(config, tokens, choice).largest()
        return largest is None or sequences <= largest

    before = ""
    for _ in range(_MOST_TRIES):
        found = suggest_at(
            seconds,
            tokens_per_second=rate,
            vocab_size=vocab_size,
            seq_len=seq_len,
            text_bytes=text_bytes,
            steps=steps,
            ranks=ranks,
            fits=fits,
        )
        if found.preset == before:
            break
        before = found.preset
        choice, flops_per_second = _measured(found, device_name, precision)
    return found


def _measured(found: Suggestion, device_name: str, precision: _Precision) -> tuple[Choice, float]:
    """Run a few steps of the suggestion; return the chosen device, and its FLOPs per second in them."""
    training = found.config.training.model_copy(update={"precision": precision})
    config = found.config.model_copy(update={"training": training})
    choice = choose_precision(config, device_name, seq_len=found.seq_len)
    rows = probe.random_rows(found.vocab_size, seq_len=found.seq_len)
    timings = probe.measure_steps(config, choice, rows, seq_len=found.seq_len, seconds=_TRY_SECONDS)
    speed = training.sequences_per_step * found.seq_len / timings.step(training.gradient_accumulation)
    return choice, speed * count(found.config.model).training_flops_per_token(found.seq_len)
