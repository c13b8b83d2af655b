"""The live display on a terminal: a bar for each task, and the panel of a training run."""

from __future__ import annotations

import time

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from alm.cli.ui import Smoothed, line_for, units_line
from alm.events import Event, Progressed, StageBegan, Stepped, UnitsProgressed, Validated, Warned

_REFRESHES_PER_SECOND = 8


class LiveListener:
    """Draws events; a context manager that owns the terminal's last lines while it lasts."""

    def __init__(self, console: Console | None = None) -> None:
        # Text of users is never markup, and numbers are not coloured.
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._tasks = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._ids: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._training = _TrainingPanel(self._console)
        self._live = Live(
            self._view(), console=self._console, refresh_per_second=_REFRESHES_PER_SECOND, redirect_stdout=False
        )

    def __enter__(self) -> LiveListener:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(self._view(), refresh=True)
        self._live.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progressed):
            self._progressed(event)
        elif isinstance(event, UnitsProgressed):
            self._units_progressed(event)
        elif isinstance(event, Stepped):
            self._finish_tasks()
            self._training.stepped(event)
        else:
            if isinstance(event, Validated):
                self._training.validated(event)
            style = "yellow" if isinstance(event, Warned) else None
            if isinstance(event, StageBegan):
                self._finish_tasks()
            # A command is printed as one line, however narrow the terminal, so that it can be copied.
            self._console.print(Text(line_for(event), style=style or ""), soft_wrap=True)
        self._live.update(self._view())

    def _progressed(self, event: Progressed) -> None:
        if event.task not in self._ids:
            self._finish_tasks()
            self._ids[event.task] = self._tasks.add_task(event.task, total=event.total, count="")
        of = f" of {event.total:,}" if event.total else ""
        count = f"{event.done:,}{of} {event.unit}"
        self._tasks.update(self._ids[event.task], completed=event.done, total=event.total, count=count)

    def _units_progressed(self, event: UnitsProgressed) -> None:
        if event.task not in self._ids:
            self._finish_tasks()
            self._ids[event.task] = self._tasks.add_task(event.task, total=event.total, count="")
            self._began[event.task] = time.monotonic()
        count = units_line(event, time.monotonic() - self._began[event.task])
        self._tasks.update(self._ids[event.task], completed=event.done, total=event.total, count=count)

    def _finish_tasks(self) -> None:
        """A task is over when the next one begins; its total was often unknown until then."""
        for task in self._tasks.tasks:
            if not task.finished:
                self._tasks.update(task.id, total=task.completed)
                self._tasks.stop_task(task.id)

    def _view(self) -> RenderableType:
        shown: list[RenderableType] = [self._tasks] if self._ids else []
        if self._training.is_shown:
            shown.append(self._training.view())
        return Group(*shown)


class _TrainingPanel:
    """Bar and percent, elapsed and remaining time; smoothed loss, rate, tokens per second, bits per byte."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.percentage:>3.0f}%", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.completed}/{task.total}", markup=False),
            TimeElapsedColumn(),
            TextColumn("eta", markup=False),
            TimeRemainingColumn(),
            console=console,
            expand=True,
        )
        self._task: TaskID | None = None
        self._loss = Smoothed()
        self._rate = Smoothed()
        self._facts: dict[str, str] = {}

    @property
    def is_shown(self) -> bool:
        return self._task is not None

    def stepped(self, event: Stepped) -> None:
        if self._task is None:
            # Begun at the step before: a resumed run's speed is that of the steps it makes itself.
            self._task = self._bar.add_task("", total=event.max_steps, completed=event.step - 1)
        self._bar.update(self._task, completed=event.step)
        self._facts["lr"] = f"{event.lr:.2e}"
        if event.loss is not None:
            self._facts["loss"] = f"{self._loss.add(event.loss):.4f}"
            self._facts["tok/s"] = f"{self._rate.add(event.tokens_per_second):,.0f}"

    def validated(self, event: Validated) -> None:
        self._facts["bits/byte"] = f"{event.bits_per_byte:.4f}"

    def view(self) -> RenderableType:
        order = ("loss", "bits/byte", "lr", "tok/s")
        # Columns, so that a narrow terminal breaks the line between facts and not within one.
        facts = Columns([Text(f"{name} {self._facts[name]}") for name in order if name in self._facts], padding=(0, 3))
        return Panel(Group(self._bar, facts), title="pretrain", title_align="left")
