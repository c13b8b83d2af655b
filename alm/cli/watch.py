"""`alm watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.cli.runs import the_run

if TYPE_CHECKING:
    from alm.report.record import Record, Watched
    from alm.training.monitoring.metrics import Row

app = Commands()
_SECONDS = 1.0  # between two reads


@app.command(examples=("alm watch", "alm watch runs/first --once"))
def watch(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run's folder.  [default: the newest run]")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Show the current state of the run, and exit.")] = False,
    json: options.Json = False,
) -> None:
    """Show a run while another process trains it.

    Only its files are read. Ctrl-C ends the watching, not the run.
    """
    import os
    import sys
    from contextlib import suppress
    from functools import partial
    from time import sleep

    from alm.report.record import Watched

    watched = Watched(the_run(run, silent=json))
    if json:
        ui.show_result(_values(watched.look()), [], as_json=True)
        return
    is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    with suppress(KeyboardInterrupt):
        if once:
            _show(watched.look(), str(watched.folder), is_live=is_live)
        elif is_live:
            _draw(watched, partial(sleep, _SECONDS))
        else:
            follow(watched, partial(sleep, _SECONDS), ui.write)


def follow(watched: Watched, pause: Callable[[], None], write: Callable[[str], None]) -> None:
    """Write a line for each new row, and the state of the run when it is finished."""

    def on_rows(rows: Sequence[Row]) -> None:
        for line in lines(rows, watched.max_steps):
            write(line)

    record = None
    while True:
        before, record = record, watched.look(on_rows)
        # Without any rows, the state is the only sign that the run has changed.
        if record.is_finished or (record is not before and not watched.rows):
            write(record.progress())
        if record.is_finished:
            return
        pause()


def lines(rows: Iterable[Row], max_steps: int) -> Iterator[str]:
    """A plain line for each row with a score or a logged step."""
    from alm.report.history import SCORE, number

    for row in rows:
        if number(row.get(SCORE)) is not None:
            yield f"step {row['step']}  {ui.score(row[SCORE], number(row.get('bits_per_byte_margin')))}"
        elif "lr" in row:
            yield _logged(row, max_steps)


def _logged(row: dict[str, object], max_steps: int) -> str:
    from alm.report.history import number

    forms = {"loss": "loss {:.4f}", "lr": "lr {:.2e}", "tokens_per_second": "{:,.0f} tok/s", "mfu": "mfu {:.0%}"}
    facts = [form.format(value) for key, form in forms.items() if (value := number(row.get(key))) is not None]
    return "  ".join([f"step {row['step']}/{max_steps}", *facts])


def _show(record: Record, name: str, *, is_live: bool) -> None:
    """Print the state of a run: the panel on a terminal, else a line for each fact."""
    from alm.cli.console import Console
    from alm.cli.event_lines import one_line
    from alm.cli.watch_panel import WatchPanel, facts, last_sample

    if is_live:
        Console().print(WatchPanel(record, name))
        return
    texts = [*facts(record).values(), one_line(record.verdict() or ""), last_sample(record)]
    for line in [record.progress(), *(text for text in texts if text)]:
        ui.write(line)


def _draw(watched: Watched, pause: Callable[[], None]) -> None:
    """Draw the panel on an alternate screen until the run is finished; the last one stays on the terminal."""
    from rich.live import Live

    from alm.cli import screen
    from alm.cli.console import Console
    from alm.cli.watch_panel import WatchPanel

    name, console = str(watched.folder), Console()
    panel = WatchPanel(watched.look(), name)
    try:
        with Live(panel, console=console, screen=True, auto_refresh=False) as live, screen.guarding():
            while True:
                record = watched.look()
                panel = WatchPanel(record, name)
                live.update(panel, refresh=True)
                if record.is_finished:
                    return
                pause()
    finally:
        console.print(panel)


def _values(record: Record) -> dict[str, object]:
    """The state of a run as JSON."""
    from alm.cli.watch_panel import seconds_left
    from alm.report.history import SCORE

    keys = ("lr", "tokens_per_second", "mfu", "memory_bytes", "data_wait_share")
    return {
        "run": str(record.folder),
        "step": record.step,
        "max_steps": record.max_steps,
        "finished": record.is_finished,
        "trained_by": record.trainer(),
        "seconds": record.seconds,
        "seconds_left": seconds_left(record),
        "loss": record.smoothed_loss(),
        "bits_per_byte": record.last(SCORE),
        "bits_per_byte_margin": record.margin(),
        "verdict": record.verdict(),
        **{key: record.last(key) for key in keys},
    }
