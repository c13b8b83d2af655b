"""The size of the model and the number of tales of a quickstart, for a given time.

The preset did best in its own time (docs/benchmarks.md). For another time, or a faster device, the model grows
with the square root of the compute, as compute-optimal models do (Hoffmann et al. 2022, section 3), and so does the
text. The number of steps is measured when training begins. The vocabulary stays: the tales have few words.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from alm import artifacts, kinds
from alm.config import presets
from alm.config.base import Config
from alm.config.load import Part, load
from alm.errors import ArtifactError, InputError
from alm.files import read_json, write_text
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.training.config import RunConfig
from alm.training.plan import Plan, plan
from alm.training.sizing import probe
from alm.training.sizing.autotune import choose_precision, with_precision

NAME = "quickstart.json"
_MOST_BYTES = 1 << 16
_MOST_SECONDS = 1e9
RUN_PRESET = "quickstart"
SEQ_LEN = 416  # two tales: most rows hold two complete ones
VOCAB_SIZE = 2048
SAMPLE_TOKENS = 220
SAMPLES = 3
TALES = 10_000  # of the corpus preset
FEWEST_TALES, MOST_TALES = 2_000, 500_000
TOKENS_PER_TALE = 214
# (d_model, n_layers), from small to large; heads stay as wide as those of the preset.
SIZES = ((64, 2), (64, 3), (96, 3), (128, 3), (160, 4), (192, 5), (256, 6), (384, 8), (640, 10))
_HEAD_WIDTH, _FFN_RATIO, _FFN_MULTIPLE = 32, 2.75, 32
# Time outside training: for each tale, at the beginning and at the end.
TALE_SECONDS, OTHER_SECONDS, END_SECONDS = 8.0e-4, 6.0, 2.0
_TRY_SECONDS = 0.5
_STEPS_SHARE = 0.8  # of the time for training
LEAST_SHARE = 0.2  # of the time, at least for training


@dataclass(frozen=True)
class Recipe:
    """Differences of a quickstart from its presets: the overrides of the run, and the number of tales.

    `budget` is in seconds for the entire quickstart, of which the last `end` are reserved for the stages after
    training; `steps` is about the number of steps that allows. Both are None if the number of steps is fixed.
    """

    tales: int = TALES
    overrides: tuple[str, ...] = ()
    budget: float | None = None
    end: float = 0.0
    steps: int | None = None

    def config(self, *more: str) -> RunConfig:
        """The configuration of the run, with `more` overrides."""
        return load(RunConfig, [Part(presets.find(RUN_PRESET))], overrides=[*self.overrides, *more])


class _Stored(Config):
    """Schema of the file that stores a recipe."""

    tales: Annotated[int, Field(strict=True, ge=1, le=MOST_TALES)]
    overrides: tuple[str, ...]
    budget: Annotated[float, Field(strict=True, gt=0, le=_MOST_SECONDS)] | None
    end: Annotated[float, Field(strict=True, ge=0, le=_MOST_SECONDS)]
    steps: Annotated[int, Field(strict=True, ge=1, le=1 << 40)] | None


def read(path: Path) -> Recipe:
    """Read a recipe that `write` wrote."""
    try:
        stored = _Stored.model_validate(read_json(path, most=_MOST_BYTES))
    except (InputError, ValidationError) as error:
        reason = error.message if isinstance(error, InputError) else artifacts.first_problem(error)
        hint = "run `alm quickstart --fresh`"
        raise ArtifactError(f"`{path}` is not what a quickstart writes: {reason}", hint=hint) from error
    return Recipe(**dict(stored))


def write(recipe: Recipe, path: Path) -> None:
    """Save `recipe`, so that a resumed quickstart uses the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(recipe), indent=2) + "\n")


def for_budget(seconds: float, *, device_name: str = "auto") -> Recipe:
    """The recipe for a quickstart of `seconds` on the device, by the measured speed of the preset there.

    On a GPU the preset is measured before it is compiled: the model and the text can be smaller than the time allows.
    """
    config = Recipe().config(f"model.vocab_size={VOCAB_SIZE}")
    choice = choose_precision(config, device_name, seq_len=SEQ_LEN)
    rows = probe.random_rows(VOCAB_SIZE, seq_len=SEQ_LEN)
    timings = probe.measure_steps(config, choice, rows, seq_len=SEQ_LEN, seconds=_TRY_SECONDS)
    tokens = config.training.sequences_per_step * SEQ_LEN
    speed = tokens / timings.step(config.training.gradient_accumulation)
    end = END_SECONDS + timings.generated_token * SAMPLES * SAMPLE_TOKENS
    return for_compute(seconds, end, speed * count(config.model).training_flops_per_token(SEQ_LEN))


def for_compute(seconds: float, end: float, flops_per_second: float) -> Recipe:
    """The recipe for `seconds`, the last `end` of them after training, at this many training FLOPs per second."""
    preset = Recipe().config(f"model.vocab_size={VOCAB_SIZE}")
    training = max(seconds - OTHER_SECONDS - end - FEWEST_TALES * TALE_SECONDS, LEAST_SHARE * seconds)
    flops = _STEPS_SHARE * training * flops_per_second
    wanted = count(preset.model).total * math.sqrt(flops / _flops(preset))
    # The nearest size by ratio, as sizes are spaced by factors.
    shape = min(map(_shape, SIZES), key=lambda each: abs(math.log(count(each).total / wanted)))
    names = ("d_model", "n_layers", "n_heads", "n_kv_heads", "ffn_hidden_size")
    overrides = tuple(
        f"model.{name}={value}" for name in names if (value := getattr(shape, name)) != getattr(preset.model, name)
    )
    tales = math.ceil(flops / count(shape).training_flops_per_token(SEQ_LEN) / TOKENS_PER_TALE)
    steps = max(1, round(tales * TOKENS_PER_TALE / (preset.training.sequences_per_step * SEQ_LEN)))
    return Recipe(min(max(tales, FEWEST_TALES), MOST_TALES), overrides, seconds, round(end, 2), steps)


def _flops(config: RunConfig) -> float:
    """Training FLOPs of an entire run."""
    tokens = config.training.max_steps * config.training.sequences_per_step * SEQ_LEN
    return tokens * count(config.model).training_flops_per_token(SEQ_LEN)


def _shape(size: tuple[int, int]) -> ModelConfig:
    """The preset's model with another size."""
    d_model, n_layers = size
    heads = d_model // _HEAD_WIDTH
    values = {
        "vocab_size": VOCAB_SIZE,
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": heads,
        "n_kv_heads": heads,
        "ffn_hidden_size": math.ceil(_FFN_RATIO * d_model / _FFN_MULTIPLE) * _FFN_MULTIPLE,
    }
    return Recipe().config(*(f"model.{key}={value}" for key, value in values.items())).model


def planned(
    recipe: Recipe, *more: str, device_name: str = "auto", seq_len: int = SEQ_LEN, tokens: int | None = None
) -> Plan:
    """Plan the training of `recipe` on this device; measures a few steps, unless its budget did so already.

    `tokens` are those of the text, by default those of the tales.
    """
    steps = [] if recipe.steps is None else [f"training.max_steps={recipe.steps}", "scheduler.warmup_steps=0"]
    config = recipe.config(*more, *steps, f"model.vocab_size={VOCAB_SIZE}")
    config = with_precision(config, choose_precision(config, device_name, seq_len=seq_len))
    tokens = recipe.tales * TOKENS_PER_TALE if tokens is None else tokens
    return plan(config, seq_len=seq_len, tokens=tokens, device_name=device_name, is_measured=recipe.budget is None)


def with_steps(recipe: Recipe, steps: int) -> list[str]:
    """Return the overrides for another number of steps, with a shorter warm-up if the preset's does not fit."""
    scheduler = recipe.config().scheduler
    changes = [f"training.max_steps={steps}"]
    try:
        kinds.module_of(scheduler).check(scheduler, max_steps=steps)
    except ValueError:
        changes.append(f"scheduler.warmup_steps={steps // 5}")
    return changes


def for_training(recipe: Recipe, budget: float) -> float:
    """Seconds of a budget that remain for training in the usual case."""
    return max(budget - others(recipe), LEAST_SHARE * budget)


def others(recipe: Recipe) -> float:
    """Seconds of a quickstart outside training."""
    return recipe.tales * TALE_SECONDS + OTHER_SECONDS + (recipe.end or END_SECONDS)
