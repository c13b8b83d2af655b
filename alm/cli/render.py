"""The live display on a terminal: a bar for each task, and the panel of a training run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import rich.console
from rich.console import ConsoleOptions, ConsoleRenderable, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import ControlType, Segment
from rich.text import Text

from alm import shown
from alm.cli import screen
from alm.cli.console import Console
from alm.cli.event_lines import line_for, units_line
from alm.cli.panel import TrainingPanel
from alm.events import (
    Event,
    Judged,
    Progressed,
    Sampled,
    StageBegan,
    Stepped,
    TrainingBegan,
    UnitsProgressed,
    Validated,
    Warned,
)

_REFRESHES_PER_SECOND = 2  # a frame takes milliseconds of what may be the only core
# The terminal shows everything between the two at once (DEC mode 2026); terminals without that mode ignore them. The
# cursor ends at the left: after a line as wide as the terminal, the ^C that it echoes would begin another line, and the
# next frame would leave the first one of this frame behind.
_FRAME_BEGINS, _FRAME_ENDS = "\x1b[?2026h", "\r\x1b[?2026l"


class LiveListener:
    """Draws events; a context manager that owns the terminal's last lines while it is open."""

    def __init__(self, console: rich.console.Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._tasks = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._ids: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._training = TrainingPanel()
        self._live = _SteadyLive(_Measured(self._shown), self._console)
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> LiveListener:
        self._ending.enter_context(self._live)
        # Rich now prints what others write to stderr above the display, and would read commands in it as styles.
        self._ending.enter_context(screen.guarding())
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progressed):
            self._progressed(event)
        elif isinstance(event, UnitsProgressed):
            self._units_progressed(event)
        elif isinstance(event, TrainingBegan):
            self._finish_tasks()
            self._training.began(event)
        elif isinstance(event, Stepped):
            self._finish_tasks()
            self._training.stepped(event)
        else:
            if isinstance(event, Validated):
                self._training.validated(event)
            if isinstance(event, Judged):
                self._training.judged(event)
            if isinstance(event, StageBegan):
                self._finish_tasks()
            self._print(event)

    def _print(self, event: Event) -> None:
        """Print a line above the display."""
        text = Text(line_for(event), style="yellow" if isinstance(event, Warned) else "")
        if isinstance(event, Sampled):
            self._console.print(text, no_wrap=True, overflow="ellipsis")
        else:
            # Never broken, even on a narrow terminal, so that a command can be copied.
            self._console.print(text, soft_wrap=True)

    def _progressed(self, event: Progressed) -> None:
        if event.task not in self._ids:
            self._finish_tasks()
            self._ids[event.task] = self._tasks.add_task(shown.line(event.task), total=event.total, count="")
        of = f" of {event.total:,}" if event.total else ""
        count = f"{event.done:,}{of} {shown.line(event.unit)}"
        self._tasks.update(self._ids[event.task], completed=event.done, total=event.total, count=count)

    def _units_progressed(self, event: UnitsProgressed) -> None:
        if event.task not in self._ids:
            self._finish_tasks()
            self._ids[event.task] = self._tasks.add_task(shown.line(event.task), total=event.total, count="")
            self._began[event.task] = time.monotonic()
        count = units_line(event, time.monotonic() - self._began[event.task])
        self._tasks.update(self._ids[event.task], completed=event.done, total=event.total, count=count)

    def _finish_tasks(self) -> None:
        """Mark all tasks as finished: a task ends when the next one begins, and often has no total until then."""
        for task in self._tasks.tasks:
            if not task.finished:
                self._tasks.update(task.id, total=task.completed)
                self._tasks.stop_task(task.id)

    def _shown(self) -> Iterator[RenderableType]:
        if self._ids:
            yield self._tasks
        if self._training.is_shown:
            yield self._training


class _Measured:
    """The display at the moment of drawing, with the widths of its lines the last time."""

    def __init__(self, shown: Callable[[], Iterator[RenderableType]]) -> None:
        self._shown = shown
        self.widths: list[int] = []

    def __rich_console__(self, console: rich.console.Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(Group(*self._shown()), options, pad=False)
        self.widths = [sum(segment.cell_length for segment in line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()


class _SteadyLive(Live):
    """A live display that neither flickers nor leaves lines behind when the terminal becomes narrower."""

    def __init__(self, shown: _Measured, console: rich.console.Console) -> None:
        super().__init__(shown, console=console, refresh_per_second=_REFRESHES_PER_SECOND, redirect_stdout=False)
        self._measured = shown

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """The printed lines and the display below them, as one frame."""
        if not self.console.is_interactive:
            return super().process_renderables(renderables)
        erased = self._erase_wrapped()
        frame = super().process_renderables(renderables)
        return [_Command(_FRAME_BEGINS), erased, *frame, _Command(_FRAME_ENDS)]

    def _erase_wrapped(self) -> Control:
        """Erase the extra rows of the last frame, whose lines wrap since the terminal was made narrower.

        Rich erases one row for each line it drew: the rest would stay above the display for good.
        """
        width = max(self.console.width, 1)
        extra = sum((wide - 1) // width for wide in self._measured.widths if wide > width)
        row: list[ControlType | tuple[ControlType, int]] = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
        return Control(ControlType.CARRIAGE_RETURN, *row * extra) if extra else Control()


class _Command:
    """Bytes for the terminal itself."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __rich_console__(self, console: rich.console.Console, options: ConsoleOptions) -> RenderResult:
        # A control segment has no width. Which control it is matters only on legacy Windows, where it is harmless.
        yield Segment(self._command, None, [(ControlType.CARRIAGE_RETURN,)])
