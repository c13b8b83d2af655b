"""The panel of a training run: a progress bar, a few numbers and the loss curve, at any width."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alm import shown
from alm.cli.event_lines import Smoothed, duration, forecast, size
from alm.events import Judged, Stepped, TrainingBegan, Validated

_GAP = "   "
_RECENT = 20  # steps that the time of a step is taken from
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.-~=+*#"
# The loss falls so far at first that the rest would look flat: values above this quantile get the full height.
_FULL_FROM = 0.9


class TrainingPanel:
    """Draws the latest events. Nothing is computed until it is drawn."""

    def __init__(self) -> None:
        self._step: TrainingBegan | Stepped | None = None
        self._logged: Stepped | None = None
        self._began = self._logged_at = time.monotonic()
        self._loss, self._rate = Smoothed(), Smoothed()
        self._smoothed: float | None = None
        self._tokens_per_second: float | None = None
        self._scores: list[float] = []
        self._judged: Judged | None = None
        self._curve = Curve()
        self._widths: dict[str, int] = {}
        self._ends: deque[float] = deque(maxlen=_RECENT)  # of the last steps, of `time.monotonic`

    @property
    def is_shown(self) -> bool:
        return self._step is not None

    def began(self, event: TrainingBegan) -> None:
        now = time.monotonic()
        if self._step is None:  # not where a budget changes the length of the run
            self._began = now
        self._ends.append(now)
        self._step = event

    def stepped(self, event: Stepped) -> None:
        now = time.monotonic()
        if self._step is None:
            self._began = now
        self._step = event
        self._ends.append(now)
        loss = event.shown_loss if event.loss is None else event.loss
        if loss is not None:
            self._smoothed = self._loss.add(loss)
            self._curve.add(loss)
        if event.loss is not None:
            self._logged, self._logged_at = event, now
            self._tokens_per_second = self._rate.add(event.tokens_per_second)

    def validated(self, event: Validated) -> None:
        self._scores = [*self._scores[-1:], event.bits_per_byte]

    def judged(self, event: Judged) -> None:
        self._judged = event

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        assert self._step is not None
        inside = options.max_width - 4  # the border and its padding
        lines: list[ConsoleRenderable] = [
            progress_bar(self._step.step, self._step.max_steps),
            *self._fact_lines(inside),
        ]
        if len(self._curve.values) > 1:
            levels = _ASCII_LEVELS if options.ascii_only else _LEVELS
            lines.append(Text(f"loss {sparkline(self._curve.values, inside - 5, levels)}", no_wrap=True))
        if self._judged is not None:
            lines.append(Text(shown.line(self._judged.verdict)))
        yield Panel(Group(*lines), title="pretrain", title_align="left")

    def _fact_lines(self, width: int) -> list[Text]:
        """The facts in as few lines as fit `width`, broken between facts and never within one."""
        lines = []
        for name, fact in self._facts().items():
            # Padded to the greatest width so far, so that the facts after it do not jump.
            self._widths[name] = max(self._widths.get(name, 0), cell_len(fact))
            lines.append(fact.ljust(self._widths[name]))
        return [Text(line.rstrip(), no_wrap=True, overflow="ellipsis") for line in flowed(lines, width)]

    def _facts(self) -> dict[str, str]:
        now, logged = time.monotonic(), self._logged
        change = f" ({self._scores[1] - self._scores[0]:+.4f})" if len(self._scores) > 1 else ""
        return facts(
            elapsed=now - self._began,
            eta=self._seconds_left(now),
            step=self._step_seconds(),
            loss=self._smoothed,
            score=f"bits/byte {self._scores[-1]:.4f}{change}" if self._scores else None,
            forecast=None if self._judged is None else forecast(self._judged),
            lr=self._step.lr if isinstance(self._step, Stepped) else None,
            rate=self._tokens_per_second,
            mfu=None if logged is None else logged.mfu,
            memory=None if logged is None else logged.memory_bytes,
            wait=None if logged is None else logged.data_wait_share,
        )

    def _seconds_left(self, now: float) -> float | None:
        """The time left as last reported; before that, of the remaining steps alone."""
        if self._logged is not None and self._logged.seconds_left is not None:
            return max(self._logged.seconds_left - (now - self._logged_at), 0)
        each = self._step_seconds()
        return None if each is None or self._step is None else each * (self._step.max_steps - self._step.step)

    def _step_seconds(self) -> float | None:
        """The median time from one step to the next, which leaves out what is rare between them."""
        ends = [*self._ends]  # the display draws in a thread of its own
        return statistics.median(after - before for before, after in pairwise(ends)) if len(ends) > 1 else None


_FORMS: dict[str, Callable[[Any], str]] = {
    "elapsed": lambda seconds: f"elapsed {duration(seconds)}",
    "eta": lambda seconds: f"eta {duration(seconds)}",
    "step": lambda seconds: f"step {seconds:.1f} s" if seconds >= 10 else f"step {1000 * seconds:,.0f} ms",
    "loss": "loss {:.4f}".format,
    "score": str,
    "forecast": "at the end {}".format,
    "lr": "lr {:.2e}".format,
    "rate": "tok/s {:,.0f}".format,
    "mfu": "mfu {:.1%}".format,
    "memory": lambda size_: f"memory {size(size_)}",
    "wait": "data wait {:.1%}".format,
    "skipped": "skipped {:.0f}".format,
}


def facts(**values: float | str | None) -> dict[str, str]:
    """The facts of a run that are known, as text, in the order in which every panel shows them."""
    return {name: form(values[name]) for name, form in _FORMS.items() if values.get(name, "") not in (None, "")}


def progress_bar(step: int, max_steps: int) -> Table:
    """A bar between the percentage and the steps."""
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True)
    row.add_row(f"{100 * step // max_steps:>3}%", ProgressBar(total=max_steps, completed=step), f"{step}/{max_steps}")
    return row


class Curve:
    """A series of any length in bounded memory: neighbours are averaged when there are too many."""

    def __init__(self, *, most: int = 512) -> None:
        self._most = most
        self._means: list[float] = []
        self._each = 1
        self._open: list[float] = []

    @property
    def values(self) -> list[float]:
        """Means of equally many neighbours each; the last one may have fewer."""
        return [*self._means, *([sum(self._open) / len(self._open)] if self._open else [])]

    def add(self, value: float) -> None:
        self._open.append(value)
        if len(self._open) == self._each:
            self._means.append(sum(self._open) / self._each)
            self._open = []
        if len(self._means) == self._most:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._each *= 2  # later means cover as many values as the merged ones


def sparkline(values: Sequence[float], width: int, levels: str = _LEVELS) -> str:
    """Draw `values` as at most `width` characters of `levels`, each for the mean of its part."""
    count = max(1, min(width, len(values)))
    edges = [len(values) * number // count for number in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), sorted(means)[math.ceil(_FULL_FROM * (count - 1))]
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[min(round((mean - low) * scale), len(levels) - 1)] for mean in means)


def flowed(pieces: Iterable[str], width: int) -> list[str]:
    """Join `pieces` with gaps into lines of at most `width` cells; a wider piece has its own line."""
    lines: list[str] = []
    for piece in pieces:
        if lines and cell_len(lines[-1]) + len(_GAP) + cell_len(piece.rstrip()) <= width:
            lines[-1] += _GAP + piece
        else:
            lines.append(piece)
    return lines
