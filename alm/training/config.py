"""The configuration of a pretraining run: the union of a model file and a training file."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from alm import kinds
from alm.config.base import MANY, MANY_BYTES, SEEDS, Config, OfKind
from alm.data.config import DataConfig
from alm.errors import ConfigError
from alm.model.config import ModelConfig

# Sequences in a step: a larger number is almost surely a typo.
MOST_SEQUENCES = 2**20


class TrainingConfig(Config):
    """Length of a run, how its steps are split, and when it is saved."""

    max_steps: int = Field(default=1000, ge=1, le=MANY, description="Optimizer steps of the run.")
    micro_batch_size: int = Field(default=8, ge=1, le=MOST_SEQUENCES, description="Sequences in one forward pass.")
    gradient_accumulation: int = Field(default=4, ge=1, le=MOST_SEQUENCES, description="Micro-batches in one step.")
    gradient_clip_norm: float = Field(default=1.0, gt=0, le=1e12, description="Largest norm of all gradients together.")
    z_loss: float = Field(
        default=0.0,
        ge=0,
        le=1e3,
        description="Weight of the squared log of the softmax denominator, a penalty that keeps logits small.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="Precision of the forward pass; auto uses the fastest that is safe on the device."
    )
    seed: int = Field(
        default=1337, ge=0, lt=SEEDS, description="Decides the initial weights and the order of sequences."
    )
    checkpoint_interval: int = Field(default=500, ge=1, le=MANY, description="Steps between checkpoints.")
    keep_last: int = Field(default=3, ge=1, le=MANY, description="Number of newest checkpoints to keep.")
    keep_every: int | None = Field(
        default=None,
        ge=1,
        le=MANY,
        description="Steps between checkpoints that are kept permanently; absent: none are.",
    )
    keep_best: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether each new best validation score saves a checkpoint, and the best checkpoint is kept; auto "
        "does in a run that sees some text more than once.",
    )
    stop_when_worse: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether a run stops by itself when its validation score can only get worse; auto does where text "
        "is seen more than once and the best checkpoint is kept.",
    )
    weight_average: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of the steps so far over which weights are averaged for scores, samples and checkpoints; 0: "
        "not at all.",
    )
    max_skipped_in_row: int = Field(
        default=10,
        ge=1,
        le=MANY,
        description="Stop after this many steps in a row were skipped because a loss or gradient was not finite.",
    )
    compile: bool | Literal["auto"] = Field(
        default="auto",
        description="Whether to use torch.compile; auto times both at the start of a run or plan; off on a CPU.",
    )
    parallel: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="How ranks share a model: ddp keeps all of it on each, fsdp a part; auto is ddp where that fits.",
    )
    reproducible: bool = Field(
        default=False,
        description="Whether weights have the same bits at any number of ranks that is a power of two; slower.",
    )
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        default="auto", description="CPU threads; auto is what PyTorch uses on the machine where the run starts."
    )

    @model_validator(mode="after")
    def _step_can_be_counted(self) -> Self:
        if self.sequences_per_step > MOST_SEQUENCES:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size:,} x gradient_accumulation {self.gradient_accumulation:,} "
                f"are more than {MOST_SEQUENCES:,} sequences in a step"
            )
        return self

    @property
    def sequences_per_step(self) -> int:
        """Sequences in one optimizer update."""
        return self.micro_batch_size * self.gradient_accumulation

    # Both stay `auto` in the configuration of a run: they depend on its length, which a budget or a resume may change.
    def keeps_best(self, *, repeats: bool) -> bool:
        """Whether the best checkpoint is kept, in a run that `repeats` text or does not."""
        return repeats if self.keep_best == "auto" else self.keep_best

    def stops_when_worse(self, *, repeats: bool) -> bool:
        """Whether the run stops by itself when it can only get worse, in a run that `repeats` text or does not."""
        if self.stop_when_worse == "auto":
            return repeats and self.keeps_best(repeats=repeats)
        return self.stop_when_worse


class ValidationConfig(Config):
    """Interval and amount of text of validations."""

    interval: int = Field(default=250, ge=1, le=MANY, description="Steps between validations.")
    bytes: int = Field(
        default=1_000_000, ge=1, le=MANY_BYTES, description="UTF-8 bytes of held-out text scored each time."
    )


class SamplesConfig(Config):
    """Prompts that are continued during a run, and how often. They do not change what the model learns."""

    prompts: tuple[str, ...] | Literal["auto"] = Field(
        default="auto",
        description="Texts to continue; an empty one starts a document; [] for none. auto uses an empty one and the "
        "beginnings of some held-out documents, or held-out questions of conversations.",
    )
    count: int = Field(
        default=10,
        ge=1,
        le=MANY,
        description="Number of steps with samples: the first, the last, and others at growing distances.",
    )
    max_tokens: int = Field(default=64, ge=1, le=MANY, description="Largest number of tokens in a continuation.")
    temperature: float = Field(default=0.8, ge=0, le=1e3, description="As in `alm sample`; 0 is greedy.")
    top_k: int = Field(default=40, ge=0, le=MANY, description="As in `alm sample`; 0 is greedy.")


class LoggingConfig(Config):
    """Output of a run while it trains."""

    log_interval: int = Field(default=10, ge=1, le=MANY, description="Steps between rows of metrics.")
    rich_progress: bool = Field(default=True, description="Whether a terminal shows the live panel.")
    sinks: tuple[Annotated[Config, OfKind("alm.training.monitoring.sinks")], ...] = Field(
        default=(), description="Trackers that also get the run's rows of metrics, and samples."
    )


class LoraConfig(Config):
    """Adapters that are trained in place of the weights (`alm.model.lora`)."""

    rank: int = Field(default=0, ge=0, le=4096, description="Rank of the adapters; 0: the weights are trained.")
    alpha: float = Field(default=32.0, gt=0, le=1e6, description="Adapters are added with alpha / rank as a factor.")
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Matrices with adapters.",
    )

    @property
    def scale(self) -> float:
        """Factor on the product of an adapter's matrices."""
        return self.alpha / max(self.rank, 1)


class RunConfig(Config):
    """All settings of a run."""

    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    lora: LoraConfig = LoraConfig()
    optim: Annotated[Config, OfKind("alm.optim.optimizers", default="muon")] = Field(
        default="muon", validate_default=True, description="The optimizer."
    )
    scheduler: Annotated[Config, OfKind("alm.optim.schedules", default="wsd")] = Field(
        default="wsd", validate_default=True, description="The learning rate over time."
    )
    data: DataConfig = DataConfig()
    validation: ValidationConfig = ValidationConfig()
    samples: SamplesConfig = SamplesConfig()
    logging: LoggingConfig = LoggingConfig()

    @model_validator(mode="after")
    def _adapters_are_complete(self) -> Self:
        if self.lora.rank and self.training.parallel == "fsdp":
            raise ValueError("adapters (`lora.rank`) need complete weights, and `training.parallel: fsdp` divides them")
        return self

    @field_validator("scheduler")
    @classmethod
    def _schedule_fits(cls, scheduler: Config, info: ValidationInfo) -> Config:
        if "training" in info.data:
            try:
                kinds.module_of(scheduler).check(scheduler, max_steps=info.data["training"].max_steps)
            except ValueError as error:
                raise PydanticCustomError("kind", "{message}", {"message": str(error)}) from None
        return scheduler


def checked(values: dict[str, object]) -> RunConfig:
    """Return the configuration with `values`, merged from two others; `ConfigError` if they do not fit together."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        faults = [f"`{'.'.join(map(str, fault['loc']))}`: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(
            "\n  ".join(["settings that do not go together with those of the run:", *faults]),
            hint="leave out the changed setting, or change both",
        ) from error


MODEL_SECTIONS = frozenset({"model"})
TRAIN_SECTIONS = frozenset(RunConfig.model_fields) - MODEL_SECTIONS
