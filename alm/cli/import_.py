"""`alm import`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alm.cli import options, ui
from alm.cli.help import Commands

if TYPE_CHECKING:
    from alm.model.config import ModelConfig

app = Commands()


@app.command(
    "import",
    examples=("alm import HuggingFaceTB/SmolLM2-135M", "alm import --from gguf model.gguf --out runs/my-model"),
)
def import_(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder with config.json and model.safetensors, a model of the hub as namespace/name or "
            "namespace/name@revision, or a GGUF file.",
        ),
    ],
    from_: Annotated[
        str,
        typer.Option("--from", metavar="KIND", help="huggingface: a folder or the hub; gguf: a file for llama.cpp."),
    ] = "huggingface",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the checkpoint.  [default: runs/NAME, with the name of MODEL]"),
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

    Sample from it, or train it further with `alm pretrain --init`. Families: Llama, Mistral, Qwen2, Qwen3, SmolLM3.
    Tokenizers: byte-level BPE as of GPT-2, SmolLM, Qwen or Llama 3, SentencePiece BPE as of Llama 2, and alm's own.
    """
    from alm.export import from_hub
    from alm.export import importing as stage
    from alm.export.staging import line

    hub_model = from_hub.named(model) if from_ == "huggingface" else None
    path = Path(hub_model.folder if hub_model else model)
    folder = out or Path("runs") / (path.resolve().stem if from_ == "gguf" else path.resolve().name)
    redo = shlex.join(["alm", "import", "--from", from_, model, "--out", str(folder)])
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        if dry_run and hub_model:
            architecture, config, commit = from_hub.look(hub_model, out=folder, on_event=on_event)
            _show_plan(model, folder, architecture, config, as_json=json, repository=commit.model_dump(mode="json"))
            return
        if dry_run:
            found = stage.open_model(path, from_)
            stage.made_before(found, out=folder, force=force, redo=redo)
            _show_plan(model, folder, found.architecture, found.model, as_json=json)
            return
        compare = not no_compare
        if hub_model:
            made = from_hub.import_from_hub(hub_model, out=folder, force=force, compare=compare, on_event=on_event)
        else:
            made = stage.import_model(
                path, kind=from_, out=folder, force=force, compare=compare, redo=redo, on_event=on_event
            )
    head = f"{folder}: {made.parameters:,} parameters of a {made.architecture} in {made.dtype}"
    lines = [head, *(f"  {line(comparison)}" for comparison in made.comparisons or ())]
    ui.show_result({"out": str(folder)} | made.model_dump(mode="json"), lines, as_json=json)
    words = ("sample", "--checkpoint", folder / "ckpt-last.pt") if made.chat is None else ("chat", folder)
    ui.next_step("alm", *words, quiet=quiet, as_json=json)


def _show_plan(
    given: str, folder: Path, architecture: str, config: ModelConfig, *, as_json: bool, **more: dict[str, Any]
) -> None:  # Any: JSON
    values = {"path": given, "out": str(folder), "model": config.model_dump(mode="json"), **more}
    ui.show_result(values, [f"{given}: a {architecture} that can be written to {folder}"], as_json=as_json)
