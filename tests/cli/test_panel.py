"""The training panel as text at many widths, and the frames in which a terminal gets it."""

from __future__ import annotations

import io
import re

import pytest
from builders import FakeTime
from cases import for_each
from rich.cells import cell_len
from rich.console import Console

from alm.cli.panel import Curve, TrainingPanel, flowed, sparkline
from alm.cli.render import LiveListener
from alm.events import Judged, Noted, Sampled, Stepped, TrainingBegan, Validated

WIDTHS = (40, 60, 100)
FACTS = [
    "eta 1:10:00",
    "loss 5.0000",
    "bits/byte 1.9000 (-0.1000)",
    "lr 3.00e-04",
    "tok/s 12,345",
    "mfu 43.1%",
    "memory 1.2 GB",
    "data wait 0.2%",
    "at the end 1.300 [1.200, 1.400]",
    "200/2000",
    " 10%",
]


VERDICT = "behind the reference by 0.200: 2.700 bits/byte, not 2.350 to 2.650; compare `optim` with `[b]nano[/b]`"


def logged(step: int, loss: float = 5.0) -> Stepped:
    return Stepped(
        step,
        2000,
        3e-4,
        12345.0,
        loss=loss,
        seconds_left=4200.2,
        mfu=0.4312,
        memory_bytes=1_234_000_000,
        data_wait_share=0.0021,
    )


def panel() -> TrainingPanel:
    shown = TrainingPanel()
    for step in range(100, 201):
        shown.stepped(logged(step))
    shown.validated(Validated(150, 4.6, 2.0))
    shown.validated(Validated(200, 4.5, 1.9))
    shown.judged(Judged(150, 2000, "too early for a forecast"))
    shown.judged(Judged(200, 2000, VERDICT, 1.3, 1.2, 1.4))
    return shown


def drawn(shown: TrainingPanel, width: int, *, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, color_system=None, legacy_windows=False).print(shown)
    stream.seek(0)
    return stream.read().splitlines()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_fact_is_whole_and_every_line_as_wide_as_the_terminal(width: int) -> None:
    lines = drawn(panel(), width)
    assert {cell_len(line) for line in lines} == {width}
    assert {line[0] + line[-1] for line in lines} == {"╭╮", "││", "╰╯"}
    text = "\n".join(lines)
    for fact in FACTS:
        assert fact in text, fact
    assert "…" not in text
    words = " ".join(line.strip("│ ") for line in lines)
    assert VERDICT in words
    assert "too early" not in words
    assert re.search(r"elapsed 0:0\d", text)


def test_before_anything_was_logged_there_is_a_bar() -> None:
    shown = TrainingPanel()
    assert not shown.is_shown
    shown.stepped(Stepped(1, 400, 1e-5, 0.0))
    assert shown.is_shown
    text = "\n".join(drawn(shown, 60))
    assert "1/400" in text
    assert "lr 1.00e-05" in text
    assert "loss" not in text


def test_the_panel_is_there_before_the_first_step_and_knows_time_and_loss_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeTime()
    monkeypatch.setattr("alm.cli.panel.time", clock)
    shown = TrainingPanel()
    shown.began(TrainingBegan(100, 400))
    assert shown.is_shown
    text = "\n".join(drawn(shown, 60))
    assert "100/400" in text
    assert "lr " not in text
    clock.now += 0.5
    shown.stepped(Stepped(101, 400, 1e-5, 0.0, shown_loss=7.125))
    text = "\n".join(drawn(shown, 80))
    for fact in ("101/400", "step 500 ms", "eta 2:30", "loss 7.1250", "lr 1.00e-05"):
        assert fact in text
    for step in (102, 103):
        clock.now += 0.1
        shown.stepped(Stepped(step, 400, 1e-5, 0.0))
    assert "step 100 ms" in "\n".join(drawn(shown, 80))
    shown.stepped(logged(104))
    assert "eta 1:10:00" in "\n".join(drawn(shown, 80))


def test_where_a_terminal_has_no_blocks_there_are_others() -> None:
    shown = TrainingPanel()
    for step in range(1, 20):
        shown.stepped(logged(step, loss=float(20 - step)))
    lines = drawn(shown, 60, encoding="ascii")
    assert {cell_len(line) for line in lines} == {60}
    assert re.search(r"loss [#*+=~.-]+_", "\n".join(lines))


def test_facts_do_not_move_when_others_become_shorter() -> None:
    shown = TrainingPanel()
    for step in (0, 1):  # the second one has the time of a step
        shown.stepped(logged(step, loss=10.0))
    before = next(line for line in drawn(shown, 100) if "lr " in line).index("lr ")
    for step in range(2, 60):
        shown.stepped(logged(step, loss=1.0))
    assert next(line for line in drawn(shown, 100) if "lr " in line).index("lr ") == before


@for_each(
    "values, width, line",
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([99, 10, *range(9, -1, -1)], 12, "██▇▇▆▅▅▄▃▂▂▁"),  # full from the second greatest of twelve on
        ([3, 3, 3], 10, "▁▁▁"),
        ([9, 7, 5, 3, 1, 1], 3, "█▄▁"),
        ([1], 5, "▁"),
    ],
)
def test_a_curve_in_blocks(values: list[float], width: int, line: str) -> None:
    assert sparkline(values, width) == line


def test_a_long_curve_keeps_its_means_in_little_memory() -> None:
    curve = Curve(most=8)
    for value in range(1000):
        curve.add(float(value))
    values = curve.values
    assert len(values) <= 9
    width = values[1] - values[0]  # each the mean of so many neighbours
    assert values[:-1] == [width * number + (width - 1) / 2 for number in range(len(values) - 1)]
    assert width == 128.0


def test_lines_break_between_pieces() -> None:
    pieces = ["aaaa", "bb", "cccc", "dddddddd"]
    assert flowed(pieces, 9) == ["aaaa   bb", "cccc", "dddddddd"]
    assert flowed(pieces, 100) == ["aaaa   bb   cccc   dddddddd"]
    assert flowed(["日本日本", "b"], 9) == ["日本日本", "b"]


def terminal(width: int) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=True, width=width, height=30, highlight=False, markup=False), stream


def test_a_frame_is_shown_at_once_and_what_is_printed_stands_above_it() -> None:
    console, stream = terminal(60)
    with LiveListener(console) as listener:
        listener(logged(1))
        stream.seek(0)
        stream.truncate()
        listener(Noted("a [bold]note[/bold]"))
        frame = stream.getvalue()
    assert frame.startswith("\x1b[?2026h")
    assert frame.endswith("\r\x1b[?2026l")  # at the left, where the echo of Ctrl-C begins no other line
    assert frame.count("2026") == 2
    assert frame.index("a [bold]note[/bold]\n") < frame.index("╭─ pretrain")
    # The commands around a frame take no room: the first line is not cut.
    borders = [line for line in stream.getvalue().splitlines() if "╭─ pretrain" in line]
    assert borders
    assert all("╮" in line for line in borders)


def test_a_terminal_made_narrower_has_no_lines_left_behind() -> None:
    console, stream = terminal(100)
    with LiveListener(console) as listener:
        listener(logged(1))
        listener(Noted("first"))
        stream.seek(0)
        stream.truncate()
        console.width = 60
        listener(Noted("second"))
        frame = stream.getvalue()
    # A bar and two lines of facts within a border are 5 lines of 100, so 10 rows of 60: the cursor is in the last.
    assert frame.partition("second")[0].count("\x1b[1A") == 9


def test_a_sample_takes_one_line_at_any_width() -> None:
    for width in WIDTHS:
        console, stream = terminal(width)
        with LiveListener(console) as listener:
            listener(Sampled(3, (("Once\n\nupon", " a \x1b[2J[red]time[/red] " * 20), ("", "another"))))
        lines = [line for line in stream.getvalue().splitlines() if "sample" in line]
        text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", lines[0])
        assert text.strip().startswith("step 3  sample: Once upon")
        assert cell_len(text.strip()) <= width
        assert "\x1b[2J" not in stream.getvalue()
        assert "another" not in stream.getvalue()


@pytest.mark.parametrize(("no_color", "colours"), [("1", False), (None, True)])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, no_color: str | None, colours: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    console, stream = terminal(60)
    with LiveListener(console) as listener:
        listener(logged(700))
    assert bool(re.search(r"\x1b\[[0-9;]*(3[0-8]|9[0-7])[0-9;]*m", stream.getvalue())) == colours
