"""Memory of a run: its peak by part, the largest micro-batch that fits, and how to split a step so that it fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from alm import kinds
from alm.config import presets
from alm.config.load import Part, load
from alm.device import Choice, available_bytes, resident_bytes
from alm.model.config import ModelConfig
from alm.model.count import BYTES, CPU_CODE_BYTES, CPU_GAPS, count
from alm.model.lora import adapter_parameters
from alm.optim.groups import Moments
from alm.training.config import MODEL_SECTIONS, RunConfig, TrainingConfig

# Counted memory is right to a few percent, and other programs need memory too.
USABLE_SHARE = 0.9
# Below this share of the free memory, counting alone is enough.
SURE_SHARE = 0.5
# Upper bound of the search for the largest micro-batch: no one trains with more.
MOST_SEQUENCES = 4096
# Presets that a plan or a budget may suggest, from small to large.
PRESETS = ("200k", "500k", "1m", "3m", "10m", "pico", "nano", "120m", "350m", "1b")


@dataclass(frozen=True)
class PeakMemory:
    """Bytes at the peak, by part. `gaps` counts memory that the C library of a CPU leaves unused, and code."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(self.parts.values())


def peak_memory(
    config: RunConfig,
    *,
    seq_len: int,
    precision: str,
    on_cpu: bool,
    micro_batch_size: int | None = None,
    ranks: int = 1,
) -> PeakMemory:
    """Return the peak memory of training on the device of one of `ranks`. `micro_batch_size` overrides that of the
    configuration; `training.parallel: auto` counts as ddp.

    A CPU also holds the copy from which checkpoints are written; with a GPU that copy is in the host's memory.
    """
    training, counted = config.training, count(config.model)
    size = micro_batch_size or training.micro_batch_size
    number = max(1, training.sequences_per_step // size // ranks)
    is_sharded = ranks > 1 and training.parallel == "fsdp"
    memory = counted.memory(
        size,
        seq_len,
        precision=precision,
        moments=moments(config),
        # A step with an overridden size has several micro-batches. DDP allocates gradients at the start.
        accumulates=not training.reproducible
        and (number > 1 or micro_batch_size is not None or (ranks > 1 and not is_sharded)),
        on_gpu=not on_cpu,
        shards=ranks if is_sharded else 1,
        tree_sums=(number - 1).bit_length() if training.reproducible else None,
    )
    parts = dict(vars(memory))
    if config.lora.rank:
        trained = trained_numbers(config)
        parts["optimizer"] = BYTES["fp32"] * moments(config).matrix * trained
        parts["gradients"] = BYTES["fp32"] * trained * (2 if number > 1 else 1)
    average = BYTES["fp32"] * trained_numbers(config) if training.weight_average else 0
    if average:
        parts["average"] = average // (ranks if is_sharded else 1)
    if on_cpu:
        # An average is copied while it is in the model's place, and adapters are added to a copy of the weights.
        merged = BYTES["fp32"] * counted.total if config.lora.rank else 0
        parts["checkpoint"] = checkpoint_bytes(config) + average + merged
        computing = sum(parts[name] for name in vars(memory))
        parts["gaps"] = round((CPU_GAPS - 1) * computing) + CPU_CODE_BYTES
    return PeakMemory(parts)


def moments(config: RunConfig) -> Moments:
    """Return the numbers that the optimizer keeps for a parameter."""
    found: Moments = kinds.module_of(config.optim).moments(config.optim)
    return found


def checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of a checkpoint: the weights, what the run continues with if these are an average or contain
    adapters, and the optimizer's moments.
    """
    counted, trained = count(config.model), trained_numbers(config)
    averages = trained if config.training.weight_average else 0
    if config.lora.rank:
        return BYTES["fp32"] * (counted.total + trained + averages + moments(config).matrix * trained)
    return BYTES["fp32"] * (counted.total + averages + counted.moments(**moments(config)._asdict()))


def trained_numbers(config: RunConfig) -> int:
    """Return how many numbers the run trains: the adapters' if it has any, else all."""
    lora = config.lora
    return adapter_parameters(config.model, lora.rank, lora.targets) if lora.rank else count(config.model).total


def largest_micro_batch(
    needed: Callable[[int], int], available: int | None, *, sizes: Sequence[int] | None = None
) -> int | None:
    """Return the most sequences whose `needed` bytes are within the usable share of `available`; 0 if one is too many.

    Returns None if `available` is unknown. `needed` must not decrease with size, unless `sizes` lists the candidates.
    """
    if available is None:
        return None
    room = USABLE_SHARE * available
    if sizes is not None:
        return max((size for size in sizes if needed(size) <= room), default=0)
    low, high = 0, MOST_SEQUENCES
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if needed(middle) <= room else (low, middle - 1)
    return low


def reproducible_sizes(training: TrainingConfig, *, ranks: int = 1) -> list[int] | None:
    """Return the sizes of micro-batches into which a step can be split with `reproducible`; None without it.

    Smaller micro-batches are more of them, with more partial sums of gradients: memory may grow as they shrink.
    """
    if not training.reproducible:
        return None
    found: list[int] = []
    most = training.sequences_per_step
    while (smaller := split_step(training, most=most, ranks=ranks)) is not None:
        found.append(smaller.micro_batch_size)
        most = smaller.micro_batch_size - 1
    return sorted(found)


def split_step(training: TrainingConfig, *, most: int, ranks: int = 1) -> TrainingConfig | None:
    """Return `training` with micro-batches of at most `most` sequences and the same batch; None if there is none.

    The size divides the sequences of a step, so that all micro-batches are equal; ranks share their number evenly,
    and it is a power of two with `reproducible`.

    >>> split = split_step(TrainingConfig(micro_batch_size=3, gradient_accumulation=4), most=1)
    >>> split.micro_batch_size, split.gradient_accumulation
    (1, 12)
    """
    sequences = training.sequences_per_step
    for size in range(min(most, sequences), 0, -1):
        number, rest = divmod(sequences, size)
        if rest or number % ranks or (training.reproducible and number & (number - 1)):
            continue
        return training.model_copy(update={"micro_batch_size": size, "gradient_accumulation": number})
    return None


def halve_micro_batch(training: TrainingConfig, *, ranks: int = 1) -> TrainingConfig | None:
    """Return `training` with micro-batches of half the size, or the next below that divides a step; None if none is."""
    return split_step(training, most=training.micro_batch_size // 2, ranks=ranks)


def keeps_loss_curve(config: RunConfig) -> bool:
    """Whether a run with `config` has the same curve, but for rounding, however its steps are split into micro-batches.

    Losses are divided by the targets of the full step, dropout is keyed by a sequence's place in it, and attention,
    `smear` and the other options work on one sequence: a kind that works across sequences declares it.
    """
    return not config.model.feedforward.mixes_micro_batch


def describe_curve(config: RunConfig) -> str:
    """Describe in words how the curve of a run with `config` changes with the size of its micro-batches."""
    if keeps_loss_curve(config):
        return "the same curve, but not bit for bit"
    kind = getattr(config.model.feedforward, "kind", "")
    return f"another curve, since `model.feedforward: {kind}` routes the tokens of each micro-batch together"


def micro_batch_flags(training: TrainingConfig) -> str:
    """Return the flags that set the micro-batches of `training`."""
    return (
        f"--set training.micro_batch_size={training.micro_batch_size} "
        f"--set training.gradient_accumulation={training.gradient_accumulation}"
    )


def preset_models() -> dict[str, ModelConfig]:
    """Return the models of `PRESETS` by name, from small to large."""
    return {name: load(RunConfig, [Part(presets.find(name), MODEL_SECTIONS)]).model for name in PRESETS}


@dataclass(frozen=True)
class MemoryLimit:
    """The memory that a device has free for a run now, and the peak memory of the run."""

    config: RunConfig
    seq_len: int
    choice: Choice
    ranks: int = 1

    @property
    def on_cpu(self) -> bool:
        """Whether the run uses the memory of the process, not of an accelerator."""
        return self.choice.device.type == "cpu"

    @cached_property
    def available(self) -> int | None:
        """Free bytes for one rank, None if unknown."""
        found = available_bytes(self.choice.device)
        return found // self.ranks if found is not None and self.on_cpu else found

    @property
    def process_bytes(self) -> int:
        """Bytes of this process, whose libraries a run loads too."""
        return resident_bytes() if self.on_cpu else 0

    def peak(self, micro_batch_size: int | None = None, config: RunConfig | None = None) -> PeakMemory:
        """Return the peak memory of this configuration or another, with its own micro-batches or others."""
        return peak_memory(
            config or self.config,
            seq_len=self.seq_len,
            precision=self.choice.precision,
            on_cpu=self.on_cpu,
            micro_batch_size=micro_batch_size,
            ranks=self.ranks,
        )

    def largest(self, config: RunConfig | None = None) -> int | None:
        """Return the most sequences of a micro-batch that fits; None if the free memory is unknown."""
        sizes = reproducible_sizes((config or self.config).training, ranks=self.ranks)
        return largest_micro_batch(lambda size: self.peak(size, config).total, self.available, sizes=sizes)

    @property
    def fits(self) -> bool | None:
        """Whether the run fits as configured; None if the free memory is unknown."""
        if self.available is None:
            return None
        return self.peak(self.config.training.micro_batch_size).total <= USABLE_SHARE * self.available

    def suggested(self) -> TrainingConfig | None:
        """Return the step split so that it fits; None if it fits already, or cannot be made to fit."""
        largest = self.largest()
        if largest is None or self.fits:
            return None
        return split_step(self.config.training, most=largest, ranks=self.ranks)

    def model_that_fits(self) -> str | None:
        """Return the largest preset of which one sequence fits."""
        vocab_size, found = self.config.model.known_vocab_size, None
        for name, shape in preset_models().items():
            longer = {"max_position_embeddings": max(shape.max_position_embeddings, self.seq_len)}
            model = shape.with_vocab_size(vocab_size).model_copy(update=longer)
            if self.largest(self.config.model_copy(update={"model": model})):
                found = name
        return found
