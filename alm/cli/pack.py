"""`alm pack`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from alm.cli import options, ui

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Example:  alm pack --tokenizer artifacts/tokenizer.json --in data/clean --out data/packed")
def pack(
    in_: Annotated[list[str] | None, typer.Option("--in", help="Clean text: a folder, files, globs.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="MORE", help="More of --in, as a shell expands it.", show_default=False),
    ] = None,
    tokenizer: Annotated[Path, typer.Option("--tokenizer", help="The tokenizer's file.")] = Path(
        "artifacts/tokenizer.json"
    ),
    out: options.Out = Path("data/packed"),
    seq_len: Annotated[int, typer.Option("--seq-len", help="Tokens that a sequence predicts.")] = 512,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Sequences in a full shard.")] = 2048,
    val_fraction: Annotated[
        float,
        typer.Option(
            "--val-fraction",
            help="Share of the documents held out, for text that `alm corpus prepare` has not split.",
        ),
    ] = 0.01,
    dtype: Annotated[str, typer.Option("--dtype", help="Width of a token id on disk.")] = "uint32",
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    dry_run: options.DryRun = False,
) -> None:
    """Turn clean text into shards of token ids, every token counted."""
    from alm.config.load import load
    from alm.packing.config import PackConfig

    inputs = [*(in_ or []), *(more or [])] or ["data/clean"]
    base = {
        "seq_len": seq_len,
        "sequences_per_shard": shard_size,
        "validation_fraction": val_fraction,
        "dtype": dtype,
    }
    config = load(PackConfig, [], base=base)
    if dry_run:
        _show_plan(inputs, tokenizer, as_json=json)
        return
    from alm.packing.pack import pack as run

    flags = ["--out", str(out), "--seq-len", str(seq_len), "--shard-size", str(shard_size), "--dtype", dtype]
    redo = shlex.join(["alm", "pack", "--tokenizer", str(tokenizer), *flags, "--in", *inputs])
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        made = run(config, tokenizer=tokenizer, clean=inputs, out=out, force=force, redo=redo, on_event=on_event)
    ui.show_result(made.model_dump(mode="json"), _lines(made, out), as_json=json)
    ui.next_step("alm", "pretrain", "--data", out, quiet=quiet, as_json=json)


def _show_plan(inputs: list[str], tokenizer: Path, *, as_json: bool) -> None:
    from alm.corpus.read import find
    from alm.tokenizers.file import Tokenizer

    vocab_size = Tokenizer.load(tokenizer).vocab_size
    files = [(str(file.path), ui.size(file.path.stat().st_size)) for file in find(inputs)]
    lines = [f"{tokenizer}: {vocab_size:,} tokens", *ui.table(files)]
    ui.show_result({"inputs": dict(files), "vocab_size": vocab_size}, lines, as_json=as_json)


def _lines(made: Any, out: Path) -> list[str]:  # Any: PackMetadata, whose module is not loaded for --help
    return [
        f"{out}: {made.input_tokens:,} tokens = {made.total_tokens:,} stored + {made.tail_tokens:,} tail",
        *(
            f"  {split}: {made.sequences(split):,} sequences of {made.seq_len}, {made.tokens(split):,} tokens"
            for split in ("train", "validation")
        ),
    ]
