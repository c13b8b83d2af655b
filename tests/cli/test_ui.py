"""What is drawn: plain lines without a terminal, a panel on one, at any width."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from cases import for_each
from rich.console import Console

from alm.cli import ui
from alm.cli.event_lines import Smoothed
from alm.cli.render import LiveListener
from alm.errors import AlmError
from alm.events import (
    CheckpointSaved,
    Event,
    Judged,
    Noted,
    Progressed,
    Resumed,
    Sampled,
    StageBegan,
    Stepped,
    TrainingBegan,
    Validated,
    Warned,
)

EVENTS: list[Event] = [
    StageBegan(1, 5, "alm corpus prepare --src tales"),
    Noted("a [bold]note[/bold]"),
    Warned("careful", "do this"),
    Progressed("counting", 500, None, "documents"),
    Progressed("merges", 10, 20, "merges"),
    Resumed(Path("runs/a"), 3, 40),
    *(
        Stepped(step, 40, 1e-3, 1000.0, loss=5.0, seconds_left=40 - step, mfu=0.421, memory_bytes=10**9)
        if step % 2
        else Stepped(step, 40, 1e-3, 0.0)
        for step in range(4, 41)
    ),
    Sampled(40, (("Once\n", "upon \x1b[31ma [bold]time[/bold]"), ("", "x"))),
    Validated(40, 4.5, 1.25),
    Validated(40, 4.5, 1.25, margin=0.0214),
    Judged(40, 100, "too early for a forecast"),
    Judged(40, 100, "still falling", 0.012, 0.0, 0.169),
    Judged(40, 100, "on track: 1.25 bits/byte", 1.1, 1.05, 1.1502),
    CheckpointSaved(40, Path("runs/a/ckpt-step000040.pt")),
]


def test_plain_lines_say_everything_once(capsys: pytest.CaptureFixture[str]) -> None:
    listener = ui.PlainListener()
    for event in EVENTS:
        listener(event)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[:4] == [
        "[1/5] alm corpus prepare --src tales",
        "a [bold]note[/bold]",
        "Warning: careful (hint: do this)",
        "resuming `runs/a` at step 3 of 40 (`--resume never` starts another run)",
    ]
    assert lines[-7:] == [
        r"step 40  sample: Once upon \x1b[31ma [bold]time[/bold]",
        "step 40  validation loss 4.5000  1.2500 bits/byte",
        "step 40  validation loss 4.5000  1.250 ± 0.021 bits/byte",
        "step 40  too early for a forecast",
        "step 40  still falling; forecast below 0.169 at step 100",
        "step 40  on track: 1.25 bits/byte; forecast 1.100 [1.050, 1.150] at step 100",
        "Checkpoint saved at step 40",
    ]
    steps = [line for line in lines if line.startswith("step ") and "lr" in line]
    assert len(steps) == 18
    assert steps[-1] == "step 39/40  loss 5.0000  lr 1.00e-03  1,000 tok/s  mfu 42%  eta 0:01"


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_the_panel_fits_every_width(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, height=40, highlight=False, markup=False)
    with LiveListener(console) as listener:
        for event in EVENTS:
            listener(event)
    shown = Console(file=io.StringIO(), width=width)
    text = stream.getvalue()
    assert "a [bold]note[/bold]" in text
    assert "Checkpoint saved at step 40" in text
    assert "loss 5.0000" in text
    assert "bits/byte" in text
    assert "40/40" in text
    assert shown.width == width


def test_smoothing_starts_at_the_first_value_and_follows() -> None:
    smoothed = Smoothed()
    assert smoothed.add(5.0) == pytest.approx(5.0)
    assert 4.0 < smoothed.add(4.0) < 5.0
    for _ in range(200):
        last = smoothed.add(1.0)
    assert last == pytest.approx(1.0)


@for_each("seconds, text", [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (86399, "23:59:59")])
def test_durations(seconds: float, text: str) -> None:
    assert ui.duration(seconds) == text


@for_each(
    "number, text", [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (3_200_000_000, "3.2 GB"), (5e12, "5.0 TB")]
)
def test_sizes(number: float, text: str) -> None:
    assert ui.size(number) == text


def test_which_listener_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def kind(**flags: bool) -> str:
        with ui.listening(**flags) as listener:
            return getattr(listener, "__name__", type(listener).__name__)

    assert kind() == "PlainListener"
    assert kind(quiet=True) == kind(as_json=True) == "warnings_only"
    monkeypatch.setattr(ui, "is_terminal", lambda: True)
    assert kind() == "LiveListener"
    assert kind(live=False) == "PlainListener"


def test_text_that_a_terminal_cannot_show_is_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stderr", stream)
    ui.show_error(AlmError("`日本.txt` is wrong", hint="mend it"))
    stream.seek(0)
    assert stream.read() == "Error: `??.txt` is wrong\n\nHint: mend it\n"


def test_what_a_command_begins_is_one_line_and_not_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    ui.begin("reading a\nb", quiet=False, as_json=False)
    ui.begin("reading", quiet=True, as_json=False)
    ui.begin("reading", quiet=False, as_json=True)
    assert capsys.readouterr().err == "reading a\\nb ...\n"


def test_the_first_step_of_a_start_has_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    listener = ui.PlainListener()
    listener(TrainingBegan(10, 400))
    for step in (11, 12):
        listener(Stepped(step, 400, 1e-3, 0.0, shown_loss=5.25))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("step 11/400  loss 5.2500  lr 1.00e-03  eta ")
    listener(TrainingBegan(12, 400))
    listener(Stepped(20, 400, 1e-3, 1000.0, loss=5.0))
    listener(Stepped(21, 400, 1e-3, 0.0, shown_loss=5.25))
    assert len(capsys.readouterr().err.splitlines()) == 1
