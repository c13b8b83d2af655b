"""`alm quickstart`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui

app = typer.Typer(rich_markup_mode=None)


@app.command(epilog="Interrupted? The same command goes on where it stopped.")
def quickstart(
    out: options.Out = Path("alm-quickstart"),
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimizer steps of the whole run.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Decides the initial weights and the order of sequences.", show_default=False),
    ] = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Run the whole pipeline on built-in tales, offline, in about two minutes."""
    from alm.quickstart.run import PROMPTS, Places
    from alm.quickstart.run import quickstart as run

    started = time.perf_counter()
    with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event:
        finished = run(out, steps=steps, seed=seed, device_name=device, on_event=on_event)
    seconds = time.perf_counter() - started
    result = finished.run.result
    assert result is not None
    values = {
        "out": str(out),
        "seconds": round(seconds, 1),
        "parameters": finished.run.parameters,
        "steps": result.step,
        "bits_per_byte": result.bits_per_byte,
        "bits_per_byte_margin": result.bits_per_byte_margin,
        "samples": [{"prompt": p, "text": t} for p, t in zip(PROMPTS, finished.texts, strict=True)],
    }
    score = ""
    if result.bits_per_byte is not None:
        score = f", {ui.score(result.bits_per_byte, result.bits_per_byte_margin)} on held-out tales"
    done = f"Done in {ui.duration(seconds)}: {finished.run.parameters:,} parameters, {result.step} steps{score}."
    texts = [line for text in finished.texts for line in ("", text.strip())]
    ui.show_result(values, [*texts, "", done], as_json=json)
    if not (quiet or json):
        for line in _next(Places(out).checkpoint):
            ui.talk(line)


def _next(checkpoint: Path) -> list[str]:
    return [
        "",
        "Try next:",
        f'  alm sample --checkpoint {checkpoint} --prompt "The little fox" --max-tokens 200 --temperature 0.5',
        f"  alm info {checkpoint.parent}",
        "  alm corpus prepare my-texts/       with text of your own: then",
        "  alm tokenizer train && alm pack && alm pretrain && alm sample",
    ]
