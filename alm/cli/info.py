"""`alm info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.cli.runs import the_run

app = Commands()


@app.command(examples=("alm info", "alm info data/packed"))
def info(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            help="A clean corpus, a tokenizer, packed data, a run, a checkpoint or an export.  [default: the newest "
            "run]",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show what a file or folder of alm is, and check it.

    It says what an artifact was made from, and checks its hashes.
    """
    path = the_run(path, silent=json)
    from alm.cli.inspect import inspect  # PyTorch takes seconds
    from alm.errors import ArtifactError

    found = inspect(path)
    ui.show_result(found.values(), [f"{found.what}  {path}", *(f"  {x}" for x in ui.table(found.rows))], as_json=json)
    if found.faults:
        raise ArtifactError(f"`{path}` is damaged or incomplete:\n  " + "\n  ".join(found.faults), hint=found.fix)
