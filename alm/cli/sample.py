"""`alm sample`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog='Example:  alm sample --prompt "Once upon a time" --max-tokens 100')
def sample(
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Checkpoint to sample from.  [default: the newest runs/*/ckpt-last.pt]",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer", help="The tokenizer's file.  [default: the one beside the checkpoint]", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt", help="Text to continue; `-` reads stdin; nothing begins a new document.", show_default=False
        ),
    ] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="The most tokens to generate.")] = 50,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            help="Divides the scores before sampling: below 1 is safer, above 1 is wilder, 0 is greedy.",
        ),
    ] = 0.8,
    top_k: Annotated[
        int,
        typer.Option("--top-k", help="Only this many of the likeliest tokens can be chosen; 0 is greedy."),
    ] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random choices.")] = 1337,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Generate text from a checkpoint, printed as it comes."""
    from alm.config.load import load
    from alm.generation.load import load_model, newest_checkpoint
    from alm.generation.sampling import SamplingConfig

    base = {"max_tokens": max_tokens, "temperature": temperature, "top_k": top_k, "seed": seed}
    sampling = load(SamplingConfig, [], base=base)
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose, live=False) as on_event:
        path = checkpoint or newest_checkpoint(Path("runs"))
        loaded = load_model(path, tokenizer=tokenizer, device_name=device, on_event=on_event)
        text = sys.stdin.buffer.read().decode("utf-8", "replace") if prompt == "-" else prompt
        generation = loaded.generate(text, sampling, on_event=on_event)
        written, seconds = _write(text, generation.text(), silent=json)
    rate = len(generation.ids) / max(seconds, 1e-9)
    values = {"checkpoint": str(path), "prompt": text, "text": written, "ids": generation.ids}
    ui.show_result(values | {"tokens_per_second": round(rate, 1)}, [""], as_json=json)
    if not (quiet or json):
        ui.talk(f"{len(generation.ids)} tokens, {rate:,.0f} tok/s, seed {seed}")


def _write(prompt: str, pieces: Iterator[str], *, silent: bool) -> tuple[str, float]:
    """Print the prompt and what follows it as it comes; the text, and the seconds it took."""
    started = time.perf_counter()
    text = []
    if not silent:
        ui.write(prompt, end="")
    for piece in pieces:
        text.append(piece)
        if not silent:
            ui.write(piece, end="")
    return "".join(text), time.perf_counter() - started
