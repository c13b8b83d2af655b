"""`alm report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.cli.runs import the_run

if TYPE_CHECKING:
    from alm.report.record import Record

app = Commands()


@app.command(examples=("alm report", "alm report runs/first runs/second --out compared.html"))
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Folders of one or more runs.  [default: the newest run]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="File of the page.  [default: RUN/report.html; report.html for several runs]"),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write a page about a run, or about several.

    Several are shown side by side. The page has curves, samples over time, configuration, lineage and machine.
    """
    from alm.report.history import SCORE
    from alm.report.report import report as stage

    made = stage(runs or [the_run(None, silent=json)], out=out, force=force)
    values = {
        "out": str(made.out),
        "runs": [
            {
                "run": str(record.folder),
                "name": name,
                "step": record.step,
                "finished": record.is_finished,
                "bits_per_byte": record.used_score()[0],
                "bits_per_byte_margin": record.used_score()[1],
                "best_step": record.best_step,
                "last_bits_per_byte": record.last(SCORE),
            }
            for name, record in made.runs
        ],
    }
    lines = [f"{name}: {record.progress()}{_score(record)}" for name, record in made.runs]
    ui.show_result(values, [*lines, f"wrote {made.out}"], as_json=json)


def _score(record: Record) -> str:
    score, margin = record.used_score()
    return "" if score is None else f", {ui.score(score, margin)} on held-out text{record.beside_best()}"
