"""`alm info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui

app = typer.Typer(rich_markup_mode=None)


@app.command()
def info(
    path: Annotated[
        Path, typer.Argument(help="A clean corpus, a tokenizer, packed data, a run, a checkpoint or an export.")
    ],
    json: options.Json = False,
) -> None:
    """Show what an artifact is and what it was made from, and check its hashes."""
    from alm.cli.inspect import inspect
    from alm.errors import ArtifactError

    found = inspect(path)
    ui.show_result(found.values(), [f"{found.what}  {path}", *(f"  {x}" for x in ui.table(found.rows))], as_json=json)
    if found.faults:
        raise ArtifactError(f"`{path}` is damaged or incomplete:\n  " + "\n  ".join(found.faults), hint=found.fix)
