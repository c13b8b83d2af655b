"""`alm quantize`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.cli.runs import the_checkpoint

app = Commands()


@app.command(
    examples=(
        "alm quantize --to int8",
        "alm quantize runs/SmolLM2-135M-Instruct --to int8 --text my-texts/book.txt",
    )
)
def quantize(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run, imported model or checkpoint.  [default: the newest run]"),
    ] = None,
    to: Annotated[
        str,
        typer.Option("--to", metavar="TYPE", help="int8: a quarter of the bytes, hardly a loss; int4: a seventh."),
    ] = "int8",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the result.  [default: RUN-TYPE]")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text",
            help="Text to calibrate int4 and to measure the cost on. Repeatable.  [default: the text of the run]",
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables",
            metavar="TYPE",
            help="Type of the embedding and the output matrix in an int4 model.  [default: int8, or int4 where that "
            "costs hardly more]",
            rich_help_panel=options.RARE,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=0,
            help="Number of sampled texts of both models whose words are compared.",
            rich_help_panel=options.RARE,
        ),
    ] = 200,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace output made with other settings, and keep a model that is much worse."),
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make a model small and fast: round its weights.

    All commands that use a model take the result. What rounding costs is measured, shown and kept beside it.
    """
    from alm.export import quantizing as stage
    from alm.export.source import load_source

    kind = stage.type_named(to, flag="--to")
    tables_kind = None if tables is None else stage.type_named(tables, flag="--tables")
    path = the_checkpoint(model, silent=quiet or json)
    folder = out or stage.default_out(path, to)
    words = ["alm", "quantize", path.parent if model is None else model, "--to", to, "--out", folder]
    words += [word for given in text or [] for word in ("--text", given)]
    words += [] if tables is None else ["--tables", tables]
    words += [] if samples == stage.SAMPLES else ["--samples", samples]
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        if dry_run:
            stage.check(load_source(path, on_event=on_event), folder, to=kind, tables=tables_kind, text=text or [])
            values = {"checkpoint": str(path), "to": to, "out": str(folder)}
            ui.show_result(values, [f"{path} can be rounded to {to} in {folder}"], as_json=json)
            return
        made = stage.quantize(
            path,
            to=kind,
            out=folder,
            tables=tables_kind,
            text=text or [],
            samples=samples,
            force=force,
            redo=shlex.join(map(str, words)),
            on_event=on_event,
        )
    head, *rest = stage.lines(made)
    ui.show_result({"out": str(folder)} | made.model_dump(mode="json"), [f"{folder}: {head}", *rest], as_json=json)
    is_chat = (folder / "chat_template.jinja").is_file()
    ui.next_step(
        "alm", *(("chat", folder) if is_chat else ("sample", "--checkpoint", folder)), quiet=quiet, as_json=json
    )
