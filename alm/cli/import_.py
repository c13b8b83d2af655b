"""`alm import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands

app = Commands()


@app.command("import", examples=("alm import my-model/", "alm import --from gguf model.gguf --out runs/my-model"))
def import_(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder with config.json and model.safetensors, or a GGUF file.")
    ],
    from_: Annotated[
        str, typer.Option("--from", metavar="KIND", help="huggingface: a folder; gguf: a file for llama.cpp.")
    ] = ("huggingface"),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the checkpoint.  [default: runs/NAME, with the name of PATH]"),
    ] = None,
    no_compare: Annotated[
        bool,
        typer.Option(
            "--no-compare",
            help="Skip the comparison, which loads the model with transformers, or with llama.cpp.",
            rich_help_panel=options.RARE,
        ),
    ] = False,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make a checkpoint from a model of another tool.

    Sample from it, or train it further with `alm pretrain --init`. Supported tokenizers: byte-level BPE with the split
    of qwen2, cl100k or gpt2, and alm's own.
    """
    from alm.export import importing as stage
    from alm.export.staging import line

    folder = out or Path("runs") / (path.resolve().stem if from_ == "gguf" else path.resolve().name)
    redo = shlex.join(["alm", "import", "--from", from_, str(path), "--out", str(folder)])
    if dry_run:
        found = stage.open_model(path, from_)
        stage.made_before(found, out=folder, force=force, redo=redo)
        values = {"path": str(path), "out": str(folder), "model": found.model.model_dump(mode="json")}
        ui.show_result(values, [f"{path}: a {found.architecture} that can be written to {folder}"], as_json=json)
        return
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        made = stage.import_model(
            path, kind=from_, out=folder, force=force, compare=not no_compare, redo=redo, on_event=on_event
        )
    head = f"{folder}: {made.parameters:,} parameters of a {made.architecture} in {made.dtype}"
    lines = [head, *(f"  {line(comparison)}" for comparison in made.comparisons or ())]
    ui.show_result({"out": str(folder)} | made.model_dump(mode="json"), lines, as_json=json)
    ui.next_step("alm", "sample", "--checkpoint", folder / "ckpt-last.pt", quiet=quiet, as_json=json)
