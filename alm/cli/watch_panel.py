"""The panel of `alm watch`: a bar, facts, two curves, the last sample and the verdict, at any size."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, ConsoleRenderable, Group, OverflowMethod, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from alm import shown
from alm.cli import event_lines, panel
from alm.cli.panel import flowed
from alm.cli.plot import plot
from alm.events import Sampled
from alm.report.history import SCORE
from alm.report.record import Record
from alm.report.series import Series

_RECENT = 10  # logged steps that the time left is estimated from
_LOWEST, _HIGHEST = 3, 10  # rows of a curve
_SIDE_BY_SIDE = 110  # least width in cells for both curves in a row
_BORDER = 4


def facts(record: Record) -> dict[str, str]:
    """The current facts of the run by name, formatted."""
    score = record.last(SCORE)
    return panel.facts(
        elapsed=record.seconds,
        eta=seconds_left(record),
        loss=record.smoothed_loss(),
        score=None if score is None else event_lines.score(score, record.margin()) + _change(record),
        lr=record.last("lr"),
        rate=record.last("tokens_per_second"),
        mfu=record.last("mfu"),
        memory=record.last("memory_bytes"),
        skipped=record.last("skipped_steps") or None,
    )


def _change(record: Record) -> str:
    scores = record.series(SCORE).known().values[-2:]
    return f" ({scores[1] - scores[0]:+.4f})" if len(scores) > 1 else ""


def seconds_left(record: Record) -> float | None:
    """Seconds for the remaining steps at their recent speed, without validation and saving."""
    recent = record.series("step_seconds")[-_RECENT:].known()
    if not recent or record.is_finished:
        return None
    return max(record.max_steps - record.step, 0) * float(recent.values.mean())


def last_sample(record: Record) -> str | None:
    """The newest text of the first prompt, on one line."""
    if not record.samples:
        return None
    newest = max(row["step"] for row in record.samples)
    row = next(row for row in record.samples if row["step"] == newest)
    return event_lines.line_for(Sampled(newest, ((row["prompt"], row["text"]),)))


class WatchPanel:
    """Draws a record."""

    def __init__(self, record: Record, name: str) -> None:
        self._record, self._name = record, name

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inside = max(options.max_width - _BORDER, 1)
        above: list[ConsoleRenderable] = [panel.progress_bar(self._record.step, self._record.max_steps)]
        above += [_line(text, options) for text in flowed(facts(self._record).values(), inside)]
        below = [
            _text(text, options)
            for text in (event_lines.one_line(self._record.verdict() or ""), last_sample(self._record))
            if text
        ]
        for text in below:
            text.truncate(2 * inside, overflow=_overflow(options))
        below.append(_text(f"{self._name}: {self._record.progress()}", options))
        taken = len(above) + sum(len(text.wrap(console, inside)) for text in below) + 2
        curves = list(self._curves(inside, console.height - 1 - taken, is_ascii=options.ascii_only))
        yield Panel(Group(*above, *curves, *below), title="watch", title_align="left")

    def _curves(self, width: int, height: int, *, is_ascii: bool) -> Iterator[ConsoleRenderable]:
        """Curves of bits per byte and loss, side by side or stacked, as far as `height` rows have room."""
        series = [
            ("bits/byte of held-out text", self._record.series(SCORE)),
            ("training loss, smoothed", self._record.smoothed),
        ]
        shown = [(title, values) for title, values in series if values.known_count > 1]
        beside = width >= _SIDE_BY_SIDE and len(shown) == 2
        if not beside and height < len(shown) * (_LOWEST + 2):
            shown = shown[:1]
        rows = min(_HIGHEST, height // (1 if beside else max(len(shown), 1)) - 2)
        if rows < _LOWEST:
            return
        each = (width - 2) // 2 if beside else width
        drawn = [self._curve(title, values, width=each, height=rows, is_ascii=is_ascii) for title, values in shown]
        if beside:
            pair = Table.grid(padding=(0, 2, 0, 0))
            pair.add_row(*drawn)
            yield pair
        else:
            yield from drawn

    def _curve(self, title: str, series: Series, *, width: int, height: int, is_ascii: bool) -> Text:
        last_step = max(self._record.step, 1)
        lines = plot(series, width=width, height=height, last_step=last_step, is_ascii=is_ascii)
        return Text("\n".join([title.center(width).rstrip(), *lines]), no_wrap=True, overflow="crop")


def _text(text: str, options: ConsoleOptions) -> Text:
    """`text` on one line, in characters that the terminal can show."""
    return Text(shown.line(text).encode(options.encoding, "replace").decode(options.encoding))


def _line(text: str, options: ConsoleOptions) -> Text:
    shown = _text(text, options)
    shown.no_wrap, shown.overflow = True, _overflow(options)
    return shown


def _overflow(options: ConsoleOptions) -> OverflowMethod:
    return "crop" if options.ascii_only else "ellipsis"
