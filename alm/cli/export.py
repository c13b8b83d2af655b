"""`alm export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.cli.runs import the_checkpoint

if TYPE_CHECKING:
    from alm.export.config import TargetConfig

app = Commands()


To = Annotated[str, typer.Option("--to", metavar="KIND", help="huggingface, gguf, safetensors, peft or gguf_lora.")]
Checkpoint = Annotated[
    Path | None, typer.Option("--checkpoint", help="Checkpoint or run to export.  [default: the newest run]")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Data type of the weights: fp32, fp16 or bf16; f32, f16, q8_0, q5_1, q4_0 or q4_k for gguf.  "
        "[default: 32-bit floats; for gguf that of a quantized model]",
    ),
]
NoCompare = Annotated[
    bool,
    typer.Option(
        "--no-compare",
        help="Skip the comparison, which loads the files with the other tool.",
        rich_help_panel=options.RARE,
    ),
]


@app.command(
    examples=(
        "alm export --to gguf",
        "alm export --checkpoint runs/first --to huggingface --out exports/first",
    )
)
def export(
    to: To = "huggingface",
    checkpoint: Checkpoint = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder of the export.  [default: exports/RUN-KIND, with -DTYPE if --dtype is given]"
        ),
    ] = None,
    dtype: Dtype = None,
    no_compare: NoCompare = False,
    set_: options.Set = None,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Write a model as files of another tool.

    That tool then loads the files, where it is installed, and its outputs are compared with those of alm.
    """
    from alm.export import run as stage
    from alm.export.source import load_source

    config = load_config(to, dtype, set_ or [])
    path = the_checkpoint(checkpoint, silent=quiet or json)
    folder = out or Path("exports") / "-".join([path.resolve().parent.name, to, *([dtype] if dtype else [])])
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        if dry_run:
            stage.check(config, load_source(path, on_event=on_event), folder)
            values = {"checkpoint": str(path), "to": to, "out": str(folder), "config": config.model_dump(mode="json")}
            ui.show_result(values, [f"{path} can be written to {folder}"], as_json=json)
            return
        made = stage.export(
            config,
            checkpoint=path,
            out=folder,
            force=force,
            compare=not no_compare,
            redo=command("export", checkpoint=path, to=to, out=folder, dtype=dtype, overrides=set_ or []),
            on_event=on_event,
        )
    ui.show_result({"out": str(folder)} | made.model_dump(mode="json"), _lines(made, folder), as_json=json)


def load_config(to: str, dtype: str | None, overrides: list[str]) -> TargetConfig:
    """Load the target's configuration from the flags; `ConfigError` for an unknown kind."""
    from alm import kinds
    from alm.config.base import did_you_mean
    from alm.config.load import load
    from alm.errors import ConfigError

    known = kinds.names("alm.export.targets")
    if to not in known:
        raise ConfigError(f"unknown export kind `{to}`{did_you_mean(to, known)} (there are: {', '.join(known)})")
    schema: type[TargetConfig] = kinds.load("alm.export.targets", to).Config
    base = {"kind": to} | ({} if dtype is None else {"dtype": dtype})
    return load(schema, [], base=base, overrides=overrides)


def command(*words: str, checkpoint: Path, to: str, out: Path | None, dtype: str | None, overrides: list[str]) -> str:
    """The command line `alm` with `words`, and the flags of an export."""
    flags = ["--checkpoint", str(checkpoint), "--to", to, *(["--out", str(out)] if out else [])]
    return shlex.join(["alm", *words, *flags, *(["--dtype", dtype] if dtype else []), *options.set_flags(overrides)])


def _lines(made: Any, out: Path) -> list[str]:  # Any: ExportMetadata, whose module is not loaded for --help
    from alm.export.staging import line

    size = sum(file.bytes for file in made.files)
    head = f"{out}: {made.parameters:,} parameters of step {made.step:,} in {ui.size(size)}"
    return [head, *(f"  {line(comparison)}" for comparison in made.comparisons or ())]
