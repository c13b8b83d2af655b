"""`alm runs`, and the newest run for commands that get no path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm import formatting, shown
from alm.cli import options, ui
from alm.cli.help import Commands

if TYPE_CHECKING:
    from alm.report.runs import Listed

app = Commands()
_AGES = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))


@app.command(examples=("alm runs", "alm runs alm-quickstart/runs --json"))
def runs(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="A folder of runs.  [default: runs and alm-*/runs]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """List runs: model, text, steps, best score, age."""
    from alm.report.runs import listed

    found = listed(folder)
    ui.show_result({"runs": [_values(run) for run in found]}, _lines(found), as_json=json)
    if not found:
        ui.next_step("alm", "quickstart", quiet=False, as_json=json)


def the_run(given: Path | None, *, silent: bool) -> Path:
    """The run that a command is about: the one that is `given`, or else the newest, which is named on stderr."""
    from alm.report.runs import newest_run

    return given or _named(newest_run(), silent=silent)


def the_checkpoint(given: Path | None, *, silent: bool) -> Path:
    """The checkpoint that a command reads: the one that is `given`, or that of a run: the newest one, which is named.

    If a run keeps its best checkpoint, that is read, and a line says so.
    """
    from alm.checkpoint.choose import checkpoint_at
    from alm.cli.event_lines import line_for
    from alm.report.runs import newest_checkpoint

    if given is None:
        given = _named(newest_checkpoint().parent, silent=silent)
    return checkpoint_at(given, on_event=lambda event: None if silent else ui.echo_err(line_for(event)))


def _named(run: Path, *, silent: bool) -> Path:
    if not silent:
        ui.echo_err(f"using the newest run, `{shown.line(str(run))}` (`alm runs` lists all)")
    return run


def _values(run: Listed) -> dict[str, object]:
    return {**vars(run), "run": str(run.run), "age_seconds": round(run.age_seconds)}


def _lines(found: Sequence[Listed]) -> list[str]:
    if not found:
        return ["no runs yet"]
    head = ("run", "parameters", "layers x width", "text", "steps", "best bits/byte", "age", "state")
    return ui.columns([head, *map(_row, found)])


def _row(run: Listed) -> tuple[str, ...]:
    return (
        str(run.run),
        "" if run.parameters is None else ui.count_of(run.parameters),
        run.model or "",
        ", ".join(run.text),
        "" if run.step is None else f"{run.step:,} of {run.max_steps:,}",
        formatting.score(run.bits_per_byte),
        age(run.age_seconds),
        run.state,
    )


def age(seconds: float) -> str:
    """A time since something in its largest unit."""
    return next((f"{seconds / size:.0f} {unit}" for unit, size in _AGES if seconds >= 2 * size), f"{seconds:.0f} s")
