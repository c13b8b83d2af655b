"""`alm watch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui

if TYPE_CHECKING:
    from rich.console import Console

    from alm.report.record import Record, Watched

app = typer.Typer(rich_markup_mode=None)
_SECONDS = 1.0  # between two looks


@app.command(epilog="Example:  alm watch runs/first")
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    once: Annotated[bool, typer.Option("--once", help="Show the run as it is now, and end.")] = False,
    json: options.Json = False,
) -> None:
    """Draw a run while another process trains it, from its files alone; Ctrl-C ends only the watching."""
    import os
    import sys
    from contextlib import suppress
    from functools import partial
    from time import sleep

    from alm.report.record import Watched

    watched = Watched(run)
    if json:
        ui.show_result(_values(watched.look()), [], as_json=True)
        return
    is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    with suppress(KeyboardInterrupt):
        if once:
            _show(watched.look(), str(run), is_live=is_live)
        elif is_live:
            _draw(watched, partial(sleep, _SECONDS))
        else:
            for record, rows in changes(watched, partial(sleep, _SECONDS)):
                for line in lines(record, rows):
                    ui.write(line)


def changes(watched: Watched, pause: Callable[[], None]) -> Iterator[tuple[Record, int]]:
    """The run whenever there is more of it, with how many of its rows were there before, until it is finished."""
    known = -1
    while True:
        record = watched.look()
        if known < 0 or len(record.rows) != known or record.is_finished:
            yield record, min(max(known, 0), len(record.rows))
            known = len(record.rows)
        if record.is_finished:
            return
        pause()


def lines(record: Record, first: int) -> Iterator[str]:
    """A plain line for each row from `first` on, and where the run stands when it is finished."""
    from alm.report import words
    from alm.report.record import SCORE, number

    for row in record.rows[first:]:
        if number(row.get(SCORE)) is not None:
            yield f"step {row['step']}  {ui.score(row[SCORE], number(row.get('bits_per_byte_margin')))}"
        elif "lr" in row:
            yield _logged(row, record.max_steps)
    if record.is_finished or not record.rows:
        yield words.state(record)


def _logged(row: dict[str, object], max_steps: int) -> str:
    from alm.report.record import number

    forms = {"loss": "loss {:.4f}", "lr": "lr {:.2e}", "tokens_per_second": "{:,.0f} tok/s", "mfu": "mfu {:.0%}"}
    told = [form.format(value) for key, form in forms.items() if (value := number(row.get(key))) is not None]
    return "  ".join([f"step {row['step']}/{max_steps}", *told])


def _show(record: Record, name: str, *, is_live: bool) -> None:
    """The state of a run: the panel on a terminal, else a line for each fact."""
    from alm.cli.watch_panel import WatchPanel, facts, last_sample
    from alm.report import words

    if is_live:
        _console().print(WatchPanel(record, name))
        return
    told = [*facts(record).values(), ui.one_line(record.verdict() or ""), last_sample(record)]
    for line in [words.state(record), *(text for text in told if text)]:
        ui.write(line)


def _draw(watched: Watched, pause: Callable[[], None]) -> None:
    """The panel on a screen of its own until the run is finished; how it stood is left on the terminal."""
    from rich.live import Live

    from alm.cli.watch_panel import WatchPanel

    name, console = str(watched.folder), _console()
    panel = WatchPanel(watched.look(), name)
    try:
        with Live(panel, console=console, screen=True, auto_refresh=False) as live:
            while True:
                record = watched.look()
                panel = WatchPanel(record, name)
                live.update(panel, refresh=True)
                if record.is_finished:
                    return
                pause()
    finally:
        console.print(panel)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def _values(record: Record) -> dict[str, object]:
    """The state of a run as JSON."""
    from alm.cli.watch_panel import seconds_left
    from alm.report.record import SCORE

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
