"""`alm finetune`."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from alm.cli import options, plan, ranks, ui
from alm.cli.help import Commands
from alm.cli.pretrain import show_result
from alm.cli.runs import the_run

if TYPE_CHECKING:
    from alm.finetune.finetune import Prepared

app = Commands()


@app.command(
    examples=(
        "alm finetune --model runs/SmolLM2-135M --data chats.jsonl",
        "alm finetune --data my-chats/ --budget 15m --out runs/chat",
    )
)
def finetune(
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Files and folders with conversations, or a folder that `alm pack` made of them."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="A run, a checkpoint, a folder of Hugging Face or a GGUF file.  [default: the newest run]",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder.  [default: runs/NAME-chat, with the model's name]")
    ] = None,
    epochs: options.Epochs = None,
    lora: options.Lora = None,
    budget: options.Budget = None,
    replay: Annotated[
        list[str] | None,
        typer.Option(
            "--replay",
            metavar="TEXT",
            help="Clean text or .txt files to learn beside the conversations, so that the model keeps what it knows; "
            "none: no text.  [default: the text of the model's own run]",
        ),
    ] = None,
    train_on: Annotated[
        str | None,
        typer.Option(
            "--train-on",
            metavar="KIND",
            help="assistant: learn its turns and where they end; all: every turn.  [default: assistant]",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option(
            "--seq-len",
            min=8,
            help="Tokens of a row; longer conversations lose their first turns.  [default: 256 to 1024, by their "
            "length]",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    resume: Annotated[
        str, typer.Option("--resume", help="auto: resume the run in --out, if any; never: fail if there is one.")
    ] = "auto",
    device: options.Device = "auto",
    nproc: options.Nproc = 1,
    set_: options.Set = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Teach a model to answer, from conversations.

    It reads chat files as `alm corpus prepare` does, trains on the answers, and keeps the checkpoint that is best on
    conversations it has held out. Interrupted? The same command continues.
    """
    started = time.monotonic()  # before the imports, which take seconds
    seconds = options.seconds(budget, flag="--budget")
    _check_epochs(epochs)
    ui.begin(ui.MEASURING, quiet=quiet, as_json=json)
    from alm.finetune import finetune as stage

    _check_alone()
    base = _base(model, out, stage.is_finetuned, silent=quiet or json)
    folder = out or _folder(base, model, stage.is_finetuned)
    request = stage.Request(
        model=base,
        texts=_texts(data),
        out=folder,
        epochs=epochs,
        seq_len=seq_len,
        lora=lora,
        train_on=_train_on(train_on),
        replay=_replay(replay),
        budget=seconds,
        changes=tuple(set_ or ()),
        device_name=device,
        ranks=nproc,
        resume=_resume(resume),
        started=started,
    )
    listening = functools.partial(ui.listening, quiet=quiet, as_json=json, verbose=verbose)
    if dry_run:
        with listening() as on_event:
            config, made = stage.planned(request, on_event=on_event)
        plan.show_made(made, config, as_json=json)
        return
    if nproc == 1:
        with listening() as on_event:
            finished = stage.finetune(request, on_event=on_event)
        show_result(finished, folder, as_json=json, quiet=quiet)
    else:
        with listening() as on_event:
            ready = stage.prepared(request, on_event=on_event)
        flags = {"--json": json, "--quiet": quiet, "--verbose": verbose}
        # The ranks have a display of their own, and the first of them prints the result.
        _train_on_ranks(ready, [flag for flag, is_given in flags.items() if is_given])
        with listening() as on_event:
            stage.note_base_text(ready, on_event=on_event)
    if not (quiet or json):
        ui.echo_err(_same_run(folder, nproc))


def _train_on_ranks(ready: Prepared, flags: list[str]) -> None:
    """Run `alm pretrain` on the ranks of `ready`, with the configuration that was chosen."""
    from alm.config.yaml_files import write_yaml

    request, run = ready.request, ready.run
    of_model = [change for change in request.changes if options.key_of(change).startswith("model.")]
    with tempfile.TemporaryDirectory(prefix="alm-finetune-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(write_yaml(run.config.model_dump(mode="json")), encoding="utf-8")
        words = ["pretrain", "--train", str(config), "--data", str(ready.packed.folder), "--out", str(request.out)]
        words += [] if ready.init is None else ["--init", str(ready.init)]
        words += [*options.set_flags(of_model), "--device", request.device_name, "--resume", str(request.resume)]
        words += [] if run.finish_by is None else ["--budget", options.duration(run.finish_by - request.started)]
        ranks.run([*words, *flags], ranks=request.ranks, started=request.started)


def _check_alone() -> None:
    """Raise `ConfigError` under torchrun: each rank would prepare the text."""
    from alm import distributed
    from alm.errors import ConfigError, shell

    here = distributed.place()
    if here.size > 1:
        raise ConfigError(
            f"torchrun has started {here.size} ranks, and `alm finetune` prepares the text in one process",
            hint=f"run `{shell('alm', 'finetune', '--nproc', str(here.size))}`: it starts the ranks",
        )


def _same_run(folder: Path, nproc: int) -> str:
    """A line with the command that trains the run in `folder` again, in a folder beside it."""
    from alm.errors import shell
    from alm.finetune.finetune import recorded_base
    from alm.training.run.run_folder import CONFIG_NAME, free_name, read_metadata

    data = Path(os.path.normpath(folder / read_metadata(folder).data))
    start = ("--init", recorded_base(folder), "--train", folder / CONFIG_NAME)
    shared = () if nproc == 1 else ("--nproc", str(nproc))
    command = shell("alm", "pretrain", *start, "--data", data, "--out", free_name(folder), *shared)
    return f"The same run again, bit for bit: {command}"


def _base(model: Path | None, out: Path | None, is_finetuned: Callable[[Path], bool], *, silent: bool) -> Path:
    """The model to start from. Without one, a run in `out` says what it started from, else it is the newest run."""
    if model is None and out is not None and is_finetuned(out):
        return out
    return the_run(model, silent=silent)


def _folder(base: Path, model: Path | None, is_finetuned: Callable[[Path], bool]) -> Path:
    """The run's folder. The newest run continues if it is a fine-tuning and no model is named."""
    if model is None and is_finetuned(base):
        return base
    return Path("runs") / f"{_name(base)}-chat"


def _train_on(given: str | None) -> Literal["assistant", "all"] | None:
    if given is None:
        return None
    return "all" if _one_of(given, "--train-on", ("assistant", "all")) == "all" else "assistant"


def _replay(given: list[str] | None) -> tuple[str, ...] | None:
    from alm.errors import ConfigError

    if given is not None and len(given) > 1 and "none" in given:
        raise ConfigError("`--replay none` and other text cannot be combined", hint="leave out `--replay none`")
    return None if given is None else tuple(path for path in given if path != "none")


def _name(model: Path) -> str:
    found = model.resolve()
    return found.stem if found.suffix == ".gguf" else (found if found.is_dir() else found.parent).name


def _one_of(given: str, flag: str, known: tuple[str, ...]) -> str:
    from alm.config.base import did_you_mean
    from alm.errors import ConfigError

    if given not in known:
        raise ConfigError(
            f"`{flag} {given}` is not one of {', '.join(known)}{did_you_mean(given, known)}",
            hint=f"use `{flag} {known[0]}`",
        )
    return given


def _texts(given: list[str] | None) -> tuple[str, ...]:
    from alm.errors import ConfigError

    if not given:
        raise ConfigError("there are no conversations", hint="name a file or folder with them: `--data chats.jsonl`")
    return tuple(given)


def _check_epochs(given: float | None) -> None:
    from alm.errors import ConfigError

    if given is not None and not 0 < given <= 10_000:
        raise ConfigError(f"`--epochs {given:g}` is not a number of passes", hint="use `--epochs 2`, or `--epochs 0.5`")


def _resume(given: str) -> Literal["auto", "never"]:
    found = _one_of(given, "--resume", ("auto", "never"))
    return "never" if found == "never" else "auto"
