"""Events as lines of text, for every display: plain lines, the live display, and the panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alm import formatting, shown
from alm.events import (
    CheckpointSaved,
    Event,
    Judged,
    Noted,
    Resumed,
    Sampled,
    StageBegan,
    UnitsProgressed,
    Validated,
    Warned,
)
from alm.formatting import duration as duration
from alm.formatting import size as size

if TYPE_CHECKING:
    from alm.artifacts import RunResult

_SMOOTHING = 0.9
_LINE_CHARACTERS = 160


def line_for(event: Event) -> str:
    """The line to print for an event that happens once."""
    match event:
        case Noted(message):
            return shown.message(message)
        case Warned(message, hint):
            return f"Warning: {shown.message(message)}" + (f" (hint: {shown.line(hint)})" if hint else "")
        case StageBegan(number, total, command):
            return f"[{number}/{total}] {shown.line(command)}"
        case Resumed(run, step, max_steps):
            return (
                f"resuming `{shown.line(str(run))}` at step {step} of {max_steps} (`--resume never` starts another run)"
            )
        case CheckpointSaved(step):
            return f"Checkpoint saved at step {step}"
        case Validated(step, loss, bits_per_byte, margin):
            return f"step {step}  validation loss {loss:.4f}  {score(bits_per_byte, margin)}"
        case Judged(step, max_steps, verdict):
            ahead = f"; forecast {found} at step {max_steps}" if (found := forecast(event)) else ""
            return f"step {step}  {shown.line(verdict)}{ahead}"
        case Sampled(step, ((prompt, text), *_)):
            return f"step {step}  sample: {one_line(prompt + text)}"
    raise AssertionError(event)


def units_line(event: UnitsProgressed, seconds: float) -> str:
    """The progress of a task over units: documents, speed, share kept, time left."""
    kept = f"  kept {event.bytes_kept / event.bytes:.0%}" if event.bytes else ""
    done, read = event.done - event.done_before, event.bytes - event.bytes_before  # now, in `seconds`
    speed = f"  {size(read / seconds)}/s" if seconds > 0 and read else ""
    left = f"  eta {duration(seconds / done * (event.total - event.done))}" if done else ""
    return f"{event.done:,} of {event.total:,} units  {event.documents:,} documents{speed}{kept}{left}"


def score(bits_per_byte: float, margin: float | None) -> str:
    """`1.943 ± 0.021 bits/byte`, with two digits of the margin, or four places without one."""
    return f"{formatting.score(bits_per_byte, margin)} bits/byte"


def result_score(result: RunResult, *, of: str = "") -> str:
    """The score `of` a text of the checkpoint to use of a finished run, and of the last one if that is another."""
    if result.bits_per_byte is None:
        return ""
    last = score(result.bits_per_byte, result.bits_per_byte_margin)
    if result.best is None:
        return f"{last}{of}"
    best = score(result.best.bits_per_byte, result.best.bits_per_byte_margin)
    return f"{best}{of} at its best step, {result.best.step:,}, which is used; {last} at the last"


def forecast(event: Judged) -> str:
    """The forecast as `formatting.forecast` formats it; empty if there is none."""
    if event.forecast is None or event.low is None or event.high is None:
        return ""
    return formatting.forecast(event.forecast, event.low, event.high)


def one_line(text: str) -> str:
    """`text` on one line, escaped and cut to a maximum length."""
    found = shown.line(" ".join(text.split()))
    return found if len(found) <= _LINE_CHARACTERS else found[: _LINE_CHARACTERS - 1] + "…"


class Smoothed:
    """An exponential moving average without a bias of its first values towards zero."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._weight = 0.0

    def add(self, value: float) -> float:
        """The average after `value`."""
        self._sum = _SMOOTHING * self._sum + (1 - _SMOOTHING) * value
        self._weight = _SMOOTHING * self._weight + (1 - _SMOOTHING)
        return self._sum / self._weight  # corrects the bias, as Adam does (Kingma & Ba 2015)
