"""`alm pretrain`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alm.cli import options, plan, ui
from alm.cli import ranks as launcher
from alm.cli.event_lines import result_score
from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.cli.help import Commands

if TYPE_CHECKING:
    from alm.artifacts import RunMetadata
    from alm.distributed import Place
    from alm.training.config import RunConfig

app = Commands()


@app.command(
    cls=FieldsCommand,
    examples=("alm pretrain --budget 20m", "alm pretrain --model 3m --set training.max_steps=200 --out runs/first"),
)
@with_fields
def pretrain(
    *,
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option("--model", help="Model file or preset; without it and --train, chosen for the text.")
    ] = None,
    train: Annotated[
        str | None,
        typer.Option("--train", help="Training file or preset.  [default: train, or with --init: continue]"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Packed data; a resumed run keeps its own.  [default: data/packed]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder.  [default: runs/pretrain, or runs/MODEL-pretrain]")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="CHECKPOINT",
            help="Start from the model and weights of this checkpoint, or of a run, with a new optimizer at low rates.",
        ),
    ] = None,
    device: options.Device = "auto",
    nproc: Annotated[
        int | None,
        typer.Option(
            "--nproc",
            metavar="N",
            min=1,
            help="Train on N devices of this machine at once.",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    resume: Annotated[
        str,
        typer.Option(
            "--resume",
            help="auto: resume the run in --out, if any; never: fail if there is one; PATH: resume this run or "
            "checkpoint.",
        ),
    ] = "auto",
    training: Annotated[Values, Fields("alm.training.config.TrainingConfig", "seed", is_optional=True)],
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time-limit",
            metavar="DURATION",
            help="Save and stop after this long, counted from the start of the command: 90s, 55m, 1h30m. Exits with "
            "75 (start it again), or with 1 if the time is over before the first step.",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    budget: options.Budget = None,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a model.

    Without --model and --train, it chooses a run for the text, the machine and --budget (10 minutes), and prints it as
    flags. Interrupt it at any time: it saves, and the same command resumes it, bit for bit.
    """
    started = launcher.started(time.monotonic())  # before the imports, which take seconds
    limit, seconds = options.seconds(time_limit, flag="--time-limit"), options.seconds(budget, flag="--budget")
    plan.check_init(init, model)
    folder, point = out or _folder(resume, model, train, init), _resume_point(resume)
    typed = {f"training.{name}={value}": f"--{name} {value}" for name, value in training.items()}
    overrides = [*(set_ or []), *typed]
    options.check_budget(budget, overrides)
    packed = data or _own_data(folder) or options.DEFAULT_DATA
    config = _config(folder, model, train, overrides, typed, resume=point, init=init, has_budget=budget is not None)
    from alm import distributed  # PyTorch takes seconds: mistakes in options have been reported
    from alm.training import pretrain as stage

    here = distributed.place()
    ranks = _ranks(nproc, here)
    # The context holds the arguments of the command line: each rank runs the same command.
    words, commands = list(context.obj), list[str]()
    if _is_open(folder, model, train, init, overrides, resume=point):
        found = _choose(seconds, packed, overrides, device, ranks, here, config, folder, quiet=quiet or json)
        words, commands, seconds = found.added_to(words, folder), [found.command], found.seconds
        overrides = [*found.overrides, *overrides]
        config = _config(folder, found.preset, None, overrides, typed, resume=point, init=None, has_budget=True)
    if dry_run:
        plan.show(
            config,
            data=packed,
            init=init,
            device_name=device,
            ranks=ranks,
            as_json=json,
            commands=commands,
            budget=seconds,
            started=started,
        )
        return
    if ranks > here.size:
        launcher.run(words, ranks=ranks, started=started)
        return
    live = config.logging.rich_progress
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=live, rank=here.rank) as on_event:
        made = stage.pretrain(
            config,
            data=packed,
            out=folder,
            init=init,
            device_name=device,
            resume=point,
            deadline=None if limit is None else started + limit,
            finish_by=None if seconds is None else started + seconds,
            started=started,
            on_event=on_event,
        )
    if here.is_main:
        show_result(made, folder, as_json=json, quiet=quiet)
        if commands and not (quiet or json):
            ui.echo_err(same_run(folder, packed))


def show_result(made: RunMetadata, folder: Path, *, as_json: bool, quiet: bool) -> None:
    """Print the result of the run in `folder`, and the next command."""
    from alm.checkpoint.choose import checkpoint_at
    from alm.packing.shards import open_packed

    answers = open_packed(Path(os.path.normpath(folder / made.data))).metadata.conversations is not None
    ui.show_result(made.model_dump(mode="json"), [_line(made, folder, answers=answers)], as_json=as_json)
    words = ("chat", folder) if answers else ("sample", "--checkpoint", checkpoint_at(folder))
    ui.next_step("alm", *words, quiet=quiet, as_json=as_json)


def same_run(folder: Path, packed: Path) -> str:
    """A line with the command that trains the run in `folder` again, in a folder beside it."""
    from alm.errors import shell
    from alm.training.run.run_folder import CONFIG_NAME, free_name

    config = folder / CONFIG_NAME
    command = shell(
        "alm", "pretrain", "--model", config, "--train", config, "--data", packed, "--out", free_name(folder)
    )
    return f"The same run again, bit for bit: {command}"


def _is_open(
    folder: Path,
    model: str | None,
    train: str | None,
    init: Path | None,
    overrides: list[str],
    *,
    resume: Path | Literal["auto", "never"],
) -> bool:
    """Whether `alm` chooses the run: a new one for which no model and no training file is named."""
    from alm.training.run import run_folder

    is_named = any(given is not None for given in (model, train, init)) or options.sets_model(overrides)
    return not is_named and not isinstance(resume, Path) and not run_folder.exists(folder)


def _choose(
    seconds: float | None,
    packed: Path,
    overrides: list[str],
    device: str,
    ranks: int,
    here: Place,
    config: RunConfig,
    folder: Path,
    *,
    quiet: bool,
) -> plan.Chosen:
    """Choose the run, and say so. Raises `ConfigError` under torchrun, where each rank would choose for itself."""
    from alm.errors import ConfigError

    if here.size > 1:
        raise ConfigError(
            "torchrun has started several ranks, and no model is named",
            hint=f"run `alm pretrain --nproc {here.size}`, or `alm plan --budget 10m` and paste its flags",
        )
    ui.begin(ui.MEASURING, quiet=quiet, as_json=False)
    found = plan.chosen(seconds, packed, overrides=overrides, device=device, ranks=ranks, config=config, folder=folder)
    if not quiet:
        for line in found.lines:
            ui.echo_err(line)
    return found


def _line(made: RunMetadata, folder: Path, *, answers: bool) -> str:
    result = made.result
    assert result is not None
    line = f"{folder}: {result.step:,} steps, {result.training_tokens:,} tokens, {made.parameters:,} parameters"
    score = result_score(result, of=" on answers held out" if answers else " on held-out text")
    return f"{line}, {score}" if score else line


def _ranks(nproc: int | None, here: Place) -> int:
    """The number of ranks of the run. Ranks of torchrun get the same arguments, and must not start ranks again."""
    from alm.errors import ConfigError

    if nproc is not None and here.size > 1 and nproc != here.size:
        raise ConfigError(f"`--nproc {nproc}`, but torchrun has started {here.size} ranks", hint="leave out `--nproc`")
    return nproc or here.size


def _folder(resume: str, model: str | None, train: str | None, init: Path | None) -> Path:
    if resume not in ("auto", "never"):
        return Path(resume) if Path(resume).is_dir() else Path(resume).parent
    if init is not None:
        of = init.resolve()
        return Path("runs") / f"{(of if of.is_dir() else of.parent).name}-pretrain"
    if model is None and train is None:
        return Path("runs/pretrain")  # whatever model is chosen, so that the same command resumes it
    return Path("runs") / f"{Path(model or options.DEFAULT_MODEL).stem}-pretrain"


def _resume_point(resume: str) -> Path | Literal["auto", "never"]:
    from alm.training.run import run_folder

    if resume not in ("auto", "never") and run_folder.exists(Path(resume)):
        return "auto"  # of that run
    return resume if resume in ("auto", "never") else Path(resume)  # type: ignore[return-value] # narrowed by `in`


def _config(
    folder: Path,
    model: str | None,
    train: str | None,
    overrides: list[str],
    typed: dict[str, str],
    *,
    resume: Path | str,
    init: Path | None,
    has_budget: bool,
) -> RunConfig:
    """The requested configuration: the run's own if it is resumed and no files are named."""
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig
    from alm.training.run import run_folder

    if not run_folder.exists(folder) or resume == "never":
        return plan.config_of(model, train, init, overrides, typed=typed)
    own = folder / run_folder.CONFIG_NAME
    model_path, train_path = (own if name is None else presets.find(name) for name in (model, train))
    if train_path == own:
        requested = run_folder.read_metadata(folder).asked
        overrides = [*run_folder.requested_overrides(requested, has_budget=has_budget), *overrides]
    parts = [Part(model_path, MODEL_SECTIONS), Part(train_path, TRAIN_SECTIONS)]
    return load(RunConfig, parts, overrides=overrides, typed=typed)


def _own_data(folder: Path) -> Path | None:
    from alm.training.run import run_folder

    return Path(os.path.normpath(folder / run_folder.read_metadata(folder).data)) if run_folder.exists(folder) else None
