"""`alm plan`, also shown by `alm pretrain --dry-run`: the numbers of a run, and a verdict in words."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from alm.cli import options, ui
from alm.errors import shell
from alm.events import Noted

if TYPE_CHECKING:
    from alm.training.config import RunConfig
    from alm.training.plan import Plan
    from alm.training.sizing.budget import Proposal

app = typer.Typer(rich_markup_mode=None)

DEFAULT_DATA = Path("data/packed")
_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_PARTS = {
    "temporary": "logits and gradients within a layer",
    "checkpoint": "copy that checkpoints are written from",
    "gaps": "code, and gaps between blocks",
}

_NOT_PROPOSED = "the budget chooses only the steps, for `--model pico`; without `--train` it chooses a model too"


@app.command(epilog="Example:  alm plan --model 10m --tokens 50M --budget 2h")
def plan(
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model file or preset; without it, --budget chooses one.  [default: pico]"),
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="Training file or preset.  [default: train]")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Packed data.  [default: data/packed, if it exists]")
    ] = None,
    seq_len: Annotated[
        int | None, typer.Option("--seq-len", metavar="N", min=1, help="Tokens per sequence, if no data is packed yet.")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens", metavar="N", help="Expected tokens of text, if no data is packed yet: 800k, 20M, 1.5B."
        ),
    ] = None,
    device: options.Device = "auto",
    nproc: Annotated[
        int, typer.Option("--nproc", metavar="N", min=1, help="Number of devices, as in `alm pretrain`.")
    ] = 1,
    budget: options.Budget = None,
    watts: Annotated[
        float | None, typer.Option("--watts", min=0, help="Power draw of the machine, to estimate the energy.")
    ] = None,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", min=0, help="Price of the machine, to estimate the cost.")
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Only calculate: run no steps and estimate no times.")
    ] = False,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Estimate whether a run fits in memory, how long it takes and whether the text suffices."""
    started = time.monotonic()  # before the imports, which take seconds
    options.check_budget(budget, set_ or [])
    _check_measured(no_measure, watts=watts, price_per_hour=price_per_hour)
    seconds = None if budget is None else options.seconds(budget, flag="--budget")
    wanted, packed = _tokens(tokens), _data(data, seq_len, tokens)
    overrides = set_ or []
    precision = _config(
        model, train, overrides
    ).training.precision  # before importing PyTorch, which takes seconds: mistakes are reported at once
    from alm.training.plan import Cost

    found: Proposal | None = None
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        if seconds is not None and model is None and train is None:
            found = _proposed(seconds, packed, seq_len, wanted, device, precision=precision, measure=not no_measure)
            overrides, model = [*found.overrides, *overrides], found.preset
            seq_len = seq_len or (None if packed else found.seq_len)
            overrides += [] if packed else [f"model.vocab_size={found.vocab_size}"]
        elif seconds is not None and model is None:
            on_event(Noted(_NOT_PROPOSED))
        show(
            _config(model, train, overrides),
            data=packed,
            device_name=device,
            ranks=nproc,
            as_json=json,
            seq_len=seq_len,
            tokens=wanted,
            is_measured=not no_measure,
            budget=seconds,
            cost=Cost(watts, price_per_hour),
            started=started,
            on_event=on_event,
            found=found,
            flag=budget,
            overrides=set_,
        )


def show(
    config: RunConfig,
    *,
    as_json: bool,
    found: Proposal | None = None,
    flag: str | None = None,
    overrides: list[str] | None = None,
    **arguments: Any,
) -> None:  # Any: as `alm.training.plan.plan` takes them
    """Plan `config` and print the result."""
    from alm.training.plan import plan as make

    made = make(config, **arguments)
    words = list(_verdict(made, arguments.get("data")))
    commands: list[str] = []
    if found is not None:
        place = {"device": arguments["device_name"], "ranks": arguments["ranks"]}
        commands = _commands(found, arguments.get("data"), flag, overrides=overrides or [], **place)
    values = {**vars(made), "verdict": words, "commands": commands}
    lines = [*ui.table(list(_rows(made))), "", *words]
    ui.show_result(
        values, [*lines, *(["", "To do so:", *(f"  {line}" for line in commands)] if commands else [])], as_json=as_json
    )


def _check_measured(no_measure: bool, *, watts: float | None, price_per_hour: float | None) -> None:
    """Raise `ConfigError` for energy or price without measuring: both need a measured time."""
    from alm.errors import ConfigError

    named = [name for name, value in (("--watts", watts), ("--price-per-hour", price_per_hour)) if value is not None]
    if no_measure and named:
        raise ConfigError(f"`{named[0]}` needs a measured time", hint="leave out `--no-measure`")


def _tokens(given: str | None) -> int | None:
    from alm.errors import ConfigError

    if given is None:
        return None
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgb]?)", given.lower().replace(",", "").replace("_", ""))
    number = round(float(parts[1]) * _SCALES[parts[2]]) if parts else 0
    if number < 1:
        raise ConfigError(f"`--tokens {given}` is not a number of tokens", hint="write it like `--tokens 20M`")
    return number


def _data(data: Path | None, seq_len: int | None, tokens: str | None) -> Path | None:
    """The packed data to plan with; None if the text is assumed."""
    from alm.errors import ConfigError
    from alm.packing.shards import METADATA_NAME, open_packed

    assumed = [name for name, value in (("--seq-len", seq_len), ("--tokens", tokens)) if value is not None]
    if assumed and data is not None:
        raise ConfigError(
            f"`{assumed[0]}` is for text that is not packed yet, but `{data}` is packed data",
            hint=f"leave out one of `{assumed[0]}` and `--data`",
        )
    if data is not None:
        open_packed(data)  # reports damaged or missing data
    if data is not None or assumed:
        return data
    return DEFAULT_DATA if (DEFAULT_DATA / METADATA_NAME).is_file() else None


def _config(model: str | None, train: str | None, overrides: list[str]) -> RunConfig:
    from alm.cli.pretrain import DEFAULT_MODEL, DEFAULT_TRAIN
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig

    parts = [
        Part(presets.find(model or DEFAULT_MODEL), MODEL_SECTIONS),
        Part(presets.find(train or DEFAULT_TRAIN), TRAIN_SECTIONS),
    ]
    return load(RunConfig, parts, overrides=overrides)


def _proposed(
    seconds: float,
    packed: Path | None,
    seq_len: int | None,
    tokens: int | None,
    device: str,
    *,
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    measure: bool,
) -> Proposal:
    from alm.errors import ConfigError
    from alm.training.sizing.proposing import proposed

    if not measure:
        raise ConfigError("`--budget` needs measured steps", hint="leave out `--no-measure`")
    return proposed(seconds, data=packed, seq_len=seq_len, tokens=tokens, device_name=device, precision=precision)


def _commands(
    found: Proposal, packed: Path | None, budget: str | None, *, overrides: list[str], device: str, ranks: int
) -> list[str]:
    """The commands for the proposal, with the requested overrides, ready to be pasted."""
    made = (
        []
        if packed
        else [
            f"alm tokenizer train --vocab-size {found.vocab_size}",
            f"alm pack --seq-len {found.seq_len}",
        ]
    )
    words = ["alm", "pretrain", "--model", found.preset]
    words += ["--data", str(packed)] if packed not in (None, DEFAULT_DATA) else []
    words += [word for change in (*found.overrides, *overrides) for word in ("--set", change)]
    words += [] if device == "auto" else ["--device", device]
    words += [] if ranks == 1 else ["--nproc", str(ranks)]
    return [*made, shell(*words, "--budget", str(budget))]


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "parameters", f"{plan.parameters:,}"
    for name, size in plan.parameters_by_part.items():
        yield "", f"{size:,} {name} ({size / plan.parameters:.0%})"
    yield "steps", f"{plan.steps:,} of {plan.tokens_per_step:,} tokens = {plan.tokens:,} tokens"
    yield "", ", ".join(f"{what} {steps:,}" for what, steps in plan.intervals.items()) + " steps"
    yield (
        "tokens",
        f"{plan.tokens_per_parameter:.3g} for each parameter; 20 (Chinchilla) would be {plan.compute_optimal_tokens:,}",
    )
    yield from _text_rows(plan)
    yield "compute", f"{plan.training_flops:.2e} FLOPs"
    yield from _memory_rows(plan)
    yield from _time_rows(plan)
    yield (
        "disk",
        f"{ui.size(plan.checkpoints * plan.checkpoint_bytes)}: checkpoints of {ui.size(plan.checkpoint_bytes)}",
    )
    yield "device", f"{plan.device}, {plan.precision}" + (f", {plan.ranks} ranks" if plan.ranks > 1 else "")


def _text_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.training_sequences is not None:
        yield (
            "data",
            f"{plan.training_sequences:,} sequences of {plan.seq_len:,} tokens, vocabulary {plan.vocab_size:,}",
        )
    else:
        yield "data", f"sequences of {plan.seq_len:,} tokens, vocabulary {plan.vocab_size:,}"
    for name, seen in plan.epochs.items():
        yield "", f"{name} seen {seen:.2f} times"
    if plan.validation_sequences is not None:
        yield "validation", f"{plan.validation_sequences:,} sequences"
    for what in plan.assumed:
        yield "assumed", what


def _memory_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    free = "" if plan.available_bytes is None else f" of {ui.size(plan.available_bytes)} that are free"
    each = " for each rank" if plan.ranks > 1 else ""
    yield "memory", f"{ui.size(plan.memory_bytes)} at the peak{each}{free}"
    for part, size in plan.memory.items():
        yield "", f"{ui.size(size)} {_PARTS.get(part, part)}"
    most = "" if plan.largest_micro_batch is None else f"; up to {plan.largest_micro_batch:,} fit"
    yield "micro-batch", f"{plan.micro_batch_size:,} sequences, {plan.gradient_accumulation:,} in a step{most}"


def _time_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    if plan.seconds is None or plan.seconds_by_part is None:
        return
    yield "speed", f"{plan.tokens_per_second:,.0f} tokens a second, {plan.step_seconds:.3g} s a step, measured"
    parts = ", ".join(f"{name} {ui.duration(value)}" for name, value in plan.seconds_by_part.items())
    yield "time", f"{ui.duration(plan.seconds)}: {parts}"
    if plan.kwh is not None:
        yield "energy", f"{plan.kwh:.3g} kWh"
    if plan.price is not None:
        yield "price", f"{plan.price:.2f}"


def _verdict(plan: Plan, data: Path | None) -> Iterator[str]:
    """A sentence each on whether it fits, how long it takes, and whether the text suffices."""
    yield _fit(plan)
    if plan.seconds is not None:
        ranks = ", without the communication of ranks" if plan.ranks > 1 else ""
        yield f"Time: about {_about(plan.seconds)} on this device{ranks}."
    elif plan.fits is not False:
        yield "Time: not measured."
    yield _text(plan)


def _fit(plan: Plan) -> str:
    needed = ui.size(plan.memory_bytes)
    if plan.fits is None:
        return f"Memory: it needs {needed}; free memory is unknown on this system."
    free = "" if plan.available_bytes is None else f" of {ui.size(plan.available_bytes)}"
    if plan.fits:
        return f"Fits: {needed}{free}."
    if plan.suggested is not None:
        flags = " ".join(f"--set training.{name}={value}" for name, value in plan.suggested.items())
        curve = "the same curve" if plan.keeps_curve else "another curve (its model routes within micro-batches)"
        return f"Does not fit: it needs {needed}{free}. It fits, with {curve}, with `{flags}`."
    if plan.model_that_fits is not None:
        largest = f"`--model {plan.model_that_fits}`"
        return f"Does not fit: even one sequence is too large. The largest preset that fits is {largest}."
    return "Does not fit: even one sequence is too large, for every preset. Use shorter ones: `alm pack --seq-len`."


def _text(plan: Plan) -> str:
    from alm.training.sizing.budget import MANY_EPOCHS

    ratio = f"{plan.tokens_per_parameter:.2g} tokens for each parameter"
    seen = max(plan.epochs.values(), default=None)
    if seen is None:
        return f"Text: {ui.count_of(plan.tokens)} tokens are needed; {ratio}."
    if seen > MANY_EPOCHS:
        return (
            f"Text: seen {seen:.1f} times, and from the fifth on it teaches little; {ratio}. Prepare more text, or "
            f"train for at most {max(1, int(plan.steps * MANY_EPOCHS / seen)):,} steps."
        )
    return f"Text: seen {seen:.2g} times; {ratio}."


def _about(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"
