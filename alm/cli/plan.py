"""`alm plan`, also shown by `alm pretrain --dry-run`: the numbers of a run, and a verdict in words."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.errors import quoted, shell
from alm.events import Noted

if TYPE_CHECKING:
    from alm.training.config import RunConfig
    from alm.training.plan import Plan, PlannedMemory, PlannedText
    from alm.training.sizing.suggest import Suggestion

app = Commands()

_SCALES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_PARTS = {
    "temporary": "logits and gradients within a layer",
    "checkpoint": "copy that checkpoints are written from",
    "gaps": "code, and gaps between blocks",
}

_NOT_SUGGESTED = (
    "these numbers are for `--model pico`; where no model, size or `--train` is named, `alm pretrain` chooses a model"
)


@app.command(
    examples=("alm plan --budget 2h", "alm plan --finetune --model runs/SmolLM2-135M --data chats.jsonl"),
)
def plan(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model file or preset; without it and --train, chosen for the text. With --finetune, a run or an "
            "imported model.",
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", help="Training file or preset.  [default: train, or with --init: continue]"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", help="Packed data; with --finetune, conversations.  [default: data/packed, if it exists]"
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init", metavar="CHECKPOINT", help="Plan a run that starts from this checkpoint, or from a run."
        ),
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Plan `alm finetune` with this model and these conversations.")
    ] = False,
    lora: options.Lora = None,
    epochs: options.Epochs = None,
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
        int,
        typer.Option(
            "--nproc", metavar="N", min=1, help="Number of devices, as in `alm pretrain`.", rich_help_panel=options.RARE
        ),
    ] = 1,
    budget: options.Budget = None,
    watts: Annotated[
        float | None,
        typer.Option(
            "--watts", min=0, help="Power draw of the machine, to estimate the energy.", rich_help_panel=options.RARE
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour", min=0, help="Price of the machine, to estimate the cost.", rich_help_panel=options.RARE
        ),
    ] = None,
    no_measure: Annotated[
        bool, typer.Option("--no-measure", help="Only calculate: run no steps and estimate no times.")
    ] = False,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Estimate memory, time and cost of a run.

    It also says whether the text suffices.
    """
    started = time.monotonic()  # before the imports, which take seconds
    options.check_budget(budget, set_ or [])
    _check_measured(no_measure, watts=watts, price_per_hour=price_per_hour)
    seconds = options.seconds(budget, flag="--budget")
    if finetune:
        _check_absent(
            {"--train": train, "--init": init, "--tokens": tokens, "--no-measure": no_measure or None,
             "--watts": watts, "--price-per-hour": price_per_hour},
            because="is not for a fine-tuning",
            hint="leave it out",
        )  # fmt: skip
        from alm.cli.finetune import finetune as of_finetuning

        of_finetuning(
            data=data,
            model=None if model is None else Path(model),
            epochs=epochs,
            lora=lora,
            budget=budget,
            seq_len=seq_len,
            device=device,
            nproc=nproc,
            set_=set_,
            json=json,
            quiet=quiet,
            verbose=verbose,
            dry_run=True,
        )
        return
    _check_absent({"--lora": lora, "--epochs": epochs}, because="is for a fine-tuning", hint="add `--finetune`")
    check_init(init, model)
    wanted, packed = _tokens(tokens), _data(_one(data), seq_len, tokens)
    overrides, commands = set_ or [], list[str]()
    # Before importing PyTorch, which takes seconds: mistakes are reported at once.
    precision = config_of(model, train, init, overrides).training.precision
    from alm.training.plan import Cost
    from alm.training.sizing.suggest import DEFAULT_SECONDS, suggest

    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        if not no_measure:
            ui.begin(ui.MEASURING, quiet=quiet, as_json=json)
        is_open = model is None and train is None and init is None and not options.sets_model(overrides)
        if is_open and (seconds is not None or (packed is not None and not no_measure)):
            _check_suggested(no_measure)
            given = config_of(model, train, init, overrides).training
            found = suggest(
                seconds or DEFAULT_SECONDS,
                data=packed,
                seq_len=seq_len,
                tokens=wanted,
                steps=given.max_steps if options.sets_steps(overrides) else None,
                device_name=device,
                precision=precision,
                ranks=nproc,
            )
            found = _without(found, overrides)
            commands = _commands(found, packed, overrides=overrides, device=device, ranks=nproc)
            seconds = None if options.sets_steps(overrides) else found.seconds
            overrides, model = [*found.overrides, *overrides], found.preset
            if packed is None:
                seq_len = seq_len or found.seq_len
                overrides.append(f"model.vocab_size={found.vocab_size}")
        elif model is None and init is None:
            on_event(Noted(_NOT_SUGGESTED))
        show(
            config_of(model, train, init, overrides),
            as_json=json,
            commands=commands,
            data=packed,
            init=init,
            device_name=device,
            ranks=nproc,
            seq_len=seq_len,
            tokens=wanted,
            is_measured=not no_measure,
            budget=seconds,
            cost=Cost(watts, price_per_hour),
            started=started,
            on_event=on_event,
        )


def show(
    config: RunConfig, *, as_json: bool, commands: Sequence[str] = (), data: Path | None = None, **arguments: Any
) -> None:  # Any: as `alm.training.plan.plan` takes them
    """Plan `config` and print the result."""
    from alm.training.plan import plan as make

    show_made(make(config, data=data, **arguments), config, as_json=as_json, commands=commands)


def show_made(made: Plan, config: RunConfig, *, as_json: bool, commands: Sequence[str] = ()) -> None:
    """Print the plan of a run with `config`, and the commands that do it."""
    verdict = list(_verdict(made, config))
    lines = [*ui.table(list(_rows(made))), "", *verdict]
    if commands:
        lines += ["", "To do so:", *(f"  {line}" for line in commands)]
    ui.show_result({**made.values(), "verdict": verdict, "commands": list(commands)}, lines, as_json=as_json)


def _check_absent(given: Mapping[str, object], *, because: str, hint: str) -> None:
    """Raise `ConfigError` for the first flag that has a value."""
    from alm.errors import ConfigError

    for flag, value in given.items():
        if value is not None:
            raise ConfigError(f"`{flag}` {because}", hint=hint)


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
    return options.DEFAULT_DATA if (options.DEFAULT_DATA / METADATA_NAME).is_file() else None


def _one(data: list[str] | None) -> Path | None:
    """The packed data that is named, if any."""
    from alm.errors import ConfigError

    if data and len(data) > 1:
        raise ConfigError(
            f"`--data` names {len(data)} folders: a run has one",
            hint=f"use `{shell('--data', data[0])}`, or add `--finetune` if these are conversations",
        )
    return Path(data[0]) if data else None


def check_init(init: Path | None, model: str | None) -> None:
    """Raise `ConfigError` for a checkpoint to start from, which has a model, and another model."""
    from alm.errors import ConfigError

    if init is not None and model is not None:
        raise ConfigError(
            "`--init` and `--model` cannot be combined", hint="leave out `--model`: the checkpoint has one"
        )


def config_of(
    model: str | None,
    train: str | None,
    init: Path | None,
    overrides: list[str],
    *,
    typed: Mapping[str, str] | None = None,
) -> RunConfig:
    """The configuration of a new run, which starts from random weights or those of the checkpoint `init`."""
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig

    train = train or (options.DEFAULT_TRAIN if init is None else options.CONTINUED_TRAIN)
    part = Part(presets.find(train), TRAIN_SECTIONS)
    if init is None:
        of_model = Part(presets.find(model or options.DEFAULT_MODEL), MODEL_SECTIONS)
        return load(RunConfig, [of_model, part], overrides=overrides, typed=typed)
    from alm.training.run.initial import model_values

    return load(RunConfig, [part], base={"model": model_values(init)}, overrides=overrides, typed=typed)


def _check_suggested(no_measure: bool) -> None:
    """Raise `ConfigError` for a budget without measuring."""
    from alm.errors import ConfigError

    if no_measure:
        raise ConfigError("`--budget` needs measured steps", hint="leave out `--no-measure`")


@dataclass(frozen=True)
class Chosen:
    """A run that `alm pretrain` chooses: a preset, its overrides, and a time, None if the number of steps is given.

    `lines` say so to a person; `command` does the same.
    """

    preset: str
    overrides: tuple[str, ...]
    seconds: float | None
    lines: tuple[str, ...]
    command: str

    def added_to(self, words: list[str], folder: Path) -> list[str]:
        """Return the command line `words` with these choices and the run's folder; what it names itself counts."""
        at = words.index("pretrain") + 1
        chosen = ["--model", self.preset, "--out", str(folder), *options.set_flags([*self.overrides])]
        time = [] if self.seconds is None else ["--budget", options.duration(self.seconds)]
        return [*words[:at], *chosen, *words[at:], *time]


def chosen(
    seconds: float | None,
    packed: Path,
    *,
    overrides: list[str],
    device: str,
    ranks: int,
    config: RunConfig,
    folder: Path,
) -> Chosen:
    """Choose a run for the text and the time, by default `DEFAULT_SECONDS`; `config` has what the user sets."""
    from alm.training.sizing.suggest import DEFAULT_SECONDS, suggest

    asked = seconds or DEFAULT_SECONDS
    steps = config.training.max_steps if options.sets_steps(overrides) else None
    found = suggest(
        asked, data=packed, steps=steps, device_name=device, precision=config.training.precision, ranks=ranks
    )
    found = _without(found, overrides)
    command = _commands(found, packed, overrides=overrides, device=device, ranks=ranks, folder=folder)[-1]
    return Chosen(
        found.preset,
        found.overrides,
        None if steps is not None else found.seconds,
        (*_about_choice(found, asked, steps), f"The same choice by hand: {command}"),
        command,
    )


def _without(found: Suggestion, overrides: list[str]) -> Suggestion:
    """Return the suggestion without the settings that the user sets."""
    own = {options.key_of(change) for change in overrides}
    left = tuple(change for change in found.overrides if options.key_of(change) not in own)
    return replace(found, overrides=left)


def _about_choice(found: Suggestion, asked: float, steps: int | None) -> Iterator[str]:
    from alm.model.count import count

    length = _about(asked) if steps is None else f"{steps:,} steps"
    yield (
        f"Chosen for this text and {length}: a model of {ui.count_of(count(found.config.model).total)} "
        f"parameters, which sees the text about {found.passes:.2g} times"
    )
    if steps is None and found.seconds < asked:
        yield f"More passes over this text teach little: the run takes about {_about(found.seconds)}"


def _commands(
    found: Suggestion,
    packed: Path | None,
    *,
    overrides: list[str],
    device: str,
    ranks: int,
    folder: Path | None = None,
) -> list[str]:
    """The commands for the suggested run, with the requested overrides, ready to be pasted."""
    before = [f"alm tokenizer train --vocab-size {found.vocab_size}", f"alm pack --seq-len {found.seq_len}"]
    words = ["alm", "pretrain", "--model", found.preset]
    words += ["--data", str(packed)] if packed not in (None, options.DEFAULT_DATA) else []
    words += ["--out", str(folder)] if folder is not None else []
    words += [word for change in (*found.overrides, *overrides) for word in ("--set", change)]
    words += [] if device == "auto" else ["--device", device]
    words += [] if ranks == 1 else ["--nproc", str(ranks)]
    words += [] if options.sets_steps(overrides) else ["--budget", options.duration(found.seconds)]
    return [*([] if packed else before), shell(*words)]


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    model, text, disk = plan.model, plan.text, plan.disk
    if plan.initial_weights is not None:
        yield "start", f"the weights of {plan.initial_weights}"
    yield "parameters", f"{model.parameters:,}"
    for name, size in model.parameters_by_part.items():
        yield "", f"{size:,} {name} ({size / model.parameters:.0%})"
    yield "steps", f"{text.steps:,} of {text.tokens_per_step:,} tokens = {text.tokens:,} tokens"
    yield "", ", ".join(f"{what} {steps:,}" for what, steps in plan.intervals.items()) + " steps"
    if plan.initial_weights is None:
        optimal = f"20 (Chinchilla) would be {text.compute_optimal_tokens:,}"
        yield "tokens", f"{text.tokens_per_parameter:.3g} for each parameter; {optimal}"
    yield from _text_rows(text)
    yield "compute", f"{text.training_flops:.2e} FLOPs"
    yield from _memory_rows(plan)
    yield from _time_rows(plan)
    all_checkpoints = ui.size(disk.checkpoints * disk.checkpoint_bytes)
    yield "disk", f"{all_checkpoints}: checkpoints of {ui.size(disk.checkpoint_bytes)}"
    rounded = ", ".join(f"{ui.size(size)} in {to}" for to, size in model.quantized_bytes.items())
    yield "", f"{ui.size(4 * model.parameters)} the weights; after `alm quantize` {rounded}"
    yield "device", f"{plan.device}, {plan.precision}" + (f", {plan.ranks} ranks" if plan.ranks > 1 else "")


def _text_rows(text: PlannedText) -> Iterator[tuple[str, str]]:
    number = "" if text.training_sequences is None else f"{text.training_sequences:,} "
    yield "data", f"{number}sequences of {text.seq_len:,} tokens, vocabulary {text.vocab_size:,}"
    if text.conversations is not None:
        yield "", f"{text.conversations:,} conversations with {text.answer_tokens:,} tokens of answers"
    for name, seen in text.epochs.items():
        yield "", f"{name} seen {seen:.2f} times"
    if text.validation_sequences is not None:
        yield "validation", f"{text.validation_sequences:,} sequences"
    for what in text.assumed:
        yield "assumed", what


def _memory_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    memory = plan.memory
    free = "" if memory.available_bytes is None else f" of {ui.size(memory.available_bytes)} that are free"
    each = " for each rank" if plan.ranks > 1 else ""
    yield "memory", f"{ui.size(memory.memory_bytes)} at the peak{each}{free}"
    for part, size in memory.memory.items():
        yield "", f"{ui.size(size)} {_PARTS.get(part, part)}"
    most = "" if memory.largest_micro_batch is None else f"; up to {memory.largest_micro_batch:,} fit"
    yield "micro-batch", f"{memory.micro_batch_size:,} sequences, {memory.gradient_accumulation:,} in a step{most}"


def _time_rows(plan: Plan) -> Iterator[tuple[str, str]]:
    found = plan.time
    if found.seconds is None or found.seconds_by_part is None:
        return
    yield "speed", f"{found.tokens_per_second:,.0f} tokens a second, {found.step_seconds:.3g} s a step, measured"
    parts = ", ".join(f"{name} {ui.duration(value)}" for name, value in found.seconds_by_part.items())
    yield "time", f"{ui.duration(found.seconds)}: {parts}"
    if plan.cost.kwh is not None:
        yield "energy", f"{plan.cost.kwh:.3g} kWh"
    if plan.cost.price is not None:
        yield "price", f"{plan.cost.price:.2f}"


def _verdict(plan: Plan, config: RunConfig) -> Iterator[str]:
    """A sentence each on whether it fits, how long it takes, and whether the text suffices."""
    yield _memory_verdict(plan.memory, is_from_random=plan.initial_weights is None)
    if plan.time.seconds is not None:
        ranks = ", without the communication of ranks" if plan.ranks > 1 else ""
        yield f"Time: about {_about(plan.time.seconds)} on this device{ranks}."
    elif plan.memory.fits is not False:
        yield "Time: not measured."
    yield _text_verdict(plan, config)


def _memory_verdict(memory: PlannedMemory, *, is_from_random: bool) -> str:
    needed = ui.size(memory.memory_bytes)
    if memory.fits is None:
        return f"Memory: it needs {needed}; free memory is unknown on this system."
    free = "" if memory.available_bytes is None else f" of {ui.size(memory.available_bytes)}"
    if memory.fits:
        return f"Fits: {needed}{free}."
    if memory.suggested is not None:
        flags = " ".join(f"--set training.{name}={value}" for name, value in memory.suggested.items())
        curve = "the same curve" if memory.keeps_curve else "another curve (its model routes within micro-batches)"
        return f"Does not fit: it needs {needed}{free}. It fits, with {curve}, with `{flags}`."
    if not is_from_random:
        return (
            "Does not fit: even one sequence is too large. Shorter ones need less (`alm pack --seq-len`), and so do "
            "adapters (`--set lora.rank=16`)."
        )
    if memory.model_that_fits is not None:
        largest = f"`--model {quoted(memory.model_that_fits)}`"
        return f"Does not fit: even one sequence is too large. The largest preset that fits is {largest}."
    return "Does not fit: even one sequence is too large, for every preset. Use shorter ones: `alm pack --seq-len`."


def _text_verdict(plan: Plan, config: RunConfig) -> str:
    from alm.packing.pack import REPLAY
    from alm.training.sizing.repeated_text import is_too_weak, regularisation

    text = plan.text
    ratio = f"; {text.tokens_per_parameter:.2g} tokens for each parameter" if plan.initial_weights is None else ""
    seen = max((seen for name, seen in text.epochs.items() if name != REPLAY), default=None)
    if seen is None:
        return f"Text: {ui.count_of(text.tokens)} tokens are needed{ratio}."
    if text.conversations is None and is_too_weak(config, seen):  # what is advised was measured for text
        flags = " ".join(f"--set {change}" for change in regularisation(seen).overrides)
        return f"Text: seen {seen:.1f} times, so often that it is learned by heart{ratio}. Add `{flags}`."
    return f"Text: seen {seen:.2g} times{ratio}."


def _about(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.0f} seconds"
