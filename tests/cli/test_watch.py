"""`alm watch`: curves in cells, a panel at any size, and a run that grows while it is looked at."""

from __future__ import annotations

import io
import json
import math
import random
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import logged_row, sample_row, scored_row, write_run
from rich.cells import cell_len
from rich.console import Console

from alm.artifacts import RunMetadata, RunResult
from alm.artifacts import read as read_metadata
from alm.artifacts import write as write_metadata
from alm.cli import watch
from alm.cli.plot import plot
from alm.cli.watch_panel import WatchPanel, facts, seconds_left
from alm.report.record import Watched, read
from alm.report.series import Series


def rows(steps: int = 8) -> list[dict[str, Any]]:
    return [logged_row(step, 6.0 - step / 10) for step in range(1, steps + 1)]


def finish(run: Path, step: int) -> None:
    metadata = read_metadata(run / "run.json", RunMetadata, hint="")
    result = RunResult(step=step, training_tokens=1, validation_loss=None, bits_per_byte=None, seconds=1.0)
    write_metadata(run / "run.json", metadata.model_copy(update={"result": result}))


def append(run: Path, *added: dict[str, Any]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in added)


def test_a_curve_in_cells() -> None:
    # Two rows of four dots each; the line goes from the first to the last of twenty columns of dots.
    lines = plot(Series.of([(0, 0.0), (10, 1.0)]), width=18, height=2, last_step=10)
    assert [line[:8] for line in lines] == ["      1 ", "      0 ", " " * 8]
    assert lines[2][8:] == "0  step 10"
    dots = {
        (2 * (column - 8) + x, 4 * row + y)
        for row, line in enumerate(lines[:2])
        for column, character in enumerate(line)
        if character >= "\u2800"
        for x, y, bit in [(0, 0, 1), (0, 1, 2), (0, 2, 4), (1, 0, 8), (1, 1, 16), (1, 2, 32), (0, 3, 64), (1, 3, 128)]
        if (ord(character) - 0x2800) & bit
    }
    assert {x for x, _ in dots} == set(range(20))
    assert all(y == pytest.approx(7 - x * 7 / 19, abs=1.01) for x, y in dots)
    assert {(0, 7), (19, 0)} <= dots


def test_a_curve_in_stars_with_a_gap() -> None:
    lines = plot(Series.of([(0, 1.0), (2, 1.0), (4, None), (9, 3.0)]), width=18, height=3, last_step=9, is_ascii=True)
    assert [line.rstrip() for line in lines] == ["      3          *", "", "      1 ***", "        0   step 9"]


def test_a_curve_of_nothing_or_of_one_value() -> None:
    assert plot(Series.of([]), width=40, height=5, last_step=1) == []
    assert plot(Series.of([(1, None)]), width=40, height=5, last_step=1) == []
    assert plot(Series.of([(1, 2.0)]), width=10, height=5, last_step=1) == []
    assert sum(c > "\u2800" for line in plot(Series.of([(1, 2.0)]), width=40, height=5, last_step=1) for c in line) == 1


def places(lines: list[str]) -> set[tuple[int, int]]:
    """Columns and rows of the stars in a picture."""
    stars = [line[8:] for line in lines[:-1]]
    return {(column, row) for row, line in enumerate(stars) for column, star in enumerate(line) if star == "*"}


def point_by_point(points: list[tuple[int, float]], *, width: int, height: int, last_step: int) -> set[tuple[int, int]]:
    """What a line from each value to the next leaves, drawn dot by dot."""
    values = [value for _, value in points]
    low, high, fold = min(values), max(values), max(value for step, value in points if step >= last_step / 10)
    if high - fold <= fold - low:
        shares = [(value - low) / (high - low) for value in values]
    else:  # a quarter of the height for the first fall
        shares = [
            0.75 * (v - low) / (fold - low) if v <= fold else 0.75 + 0.25 * (v - fold) / (high - fold) for v in values
        ]
    at = [
        (step / last_step * (width - 1), (1 - share) * (height - 1))
        for (step, _), share in zip(points, shares, strict=True)
    ]
    found = set()
    for (x0, y0), (x1, y1) in pairwise(at):
        dots = round(max(abs(x1 - x0), abs(y1 - y0))) + 1
        shares = [number / dots for number in range(dots + 1)]
        found |= {(round(x0 + share * (x1 - x0)), round(y0 + share * (y1 - y0))) for share in shares}
    return {(x, y) for x, y in found if 0 <= x < width and 0 <= y < height}


@pytest.mark.parametrize("count", [3, 50, 5000])
def test_a_long_curve_is_the_picture_of_all_its_points(count: int) -> None:
    draw = random.Random(count)
    points = [(step, 2 + 3 * math.exp(-5 * step / count) + draw.gauss(0, 0.3)) for step in range(1, count + 1)]
    lines = plot(Series.of(points), width=68, height=20, last_step=count, is_ascii=True)
    assert places(lines) == point_by_point(points, width=60, height=20, last_step=count)


def test_a_curve_of_numbers_at_the_end_of_what_there_is() -> None:
    points = [(1, 1e308), (2, -1e308), (3, None), (4, 0.0), (5, 1e308), (2**52, 5e-324)]
    for last_step in (1, 5, 2**52):
        assert len(plot(Series.of(points), width=40, height=5, last_step=last_step)) == 6


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(("width", "height"), [(40, 24), (40, 12), (60, 24), (60, 10), (100, 40), (130, 30)])
def test_the_panel_fits_the_terminal(tmp_path: Path, width: int, height: int, encoding: str) -> None:
    given = [*rows(), scored_row(4, 2.5), scored_row(8, 2.25) | {"verdict": "still falling " * 5}]
    text = "a \x1b[2J[red]text[/red] " * 20
    run = write_run(tmp_path / "a rather long name of a run", given, texts=[sample_row(8, "Once", text)])
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, height=height, color_system=None, legacy_windows=False)
    console.print(WatchPanel(read(run), str(run)))
    stream.seek(0)
    lines = stream.read().splitlines()
    assert {cell_len(line) for line in lines} == {width}
    assert "\x1b" not in "".join(lines)
    shown = " ".join(" ".join(line[1:-1].split()) for line in lines)
    for fact in ("66%", "8/12", "loss 5.4000", "0.050 bits/byte (-0.2500)", "tok/s 2,000", "eta 0:02"):
        assert fact in shown, fact
    if width >= 60 and height >= 24:
        assert len(lines) < height
        assert "bits/byte of held-out text" in shown
        assert "training loss, smoothed" in shown or height == 24
        assert "still falling" in shown
        assert "[red]text[/red]" in shown


def test_facts_of_a_run_with_little_to_tell(tmp_path: Path) -> None:
    assert facts(read(write_run(tmp_path / "empty", []))) == {"elapsed": "elapsed 0:00"}
    told = facts(read(write_run(tmp_path / "one", [logged_row(2, None, skipped_steps=3)])))
    assert "loss" not in told
    assert told["skipped"] == "skipped 3"


def test_the_time_left_follows_the_recent_steps(tmp_path: Path) -> None:
    given = [logged_row(step, 5.0, step_seconds=100.0 if step < 3 else 2.0) for step in range(1, 13)]
    run = write_run(tmp_path / "run", given, training__max_steps=20)
    assert seconds_left(read(run)) == pytest.approx(8 * 2.0)
    finish(run, 20)
    assert seconds_left(read(run)) is None


def test_a_run_is_followed_until_it_is_finished(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows(2))
    steps = iter(
        [
            lambda: None,
            lambda: append(run, logged_row(3, 5.0), scored_row(3, 2.0)),
            lambda: (run / "metrics.jsonl").write_text('{"step": 1, "lr": 0.5}\n'),  # resumed from before
            lambda: append(run, logged_row(12, 4.0)),
            lambda: finish(run, 12),
        ]
    )
    seen: list[list[str]] = [[]]

    def pause() -> None:
        next(steps)()
        seen.append([])

    watch.follow(Watched(run), pause, lambda line: seen[-1].append(line))
    assert [len(lines) for lines in seen] == [2, 0, 2, 0, 1, 1]
    assert seen[2] == ["step 3/12  loss 5.0000  lr 3.00e-04  2,000 tok/s  mfu 25%", "step 3  2.000 ± 0.050 bits/byte"]
    assert seen[-1] == ["finished at step 12"]


def test_piped_it_prints_a_line_for_each_row(tmp_path: Path, run: Any) -> None:
    folder = write_run(tmp_path / "run", [*rows(2), scored_row(2, 2.0)], finished=True)
    code, out, err = run("watch", str(folder))
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == ["1/12", "2/12", "2", "at"]


def test_once_and_json_say_how_it_stands(tmp_path: Path, run: Any) -> None:
    folder = write_run(tmp_path / "run", [*rows(), scored_row(8, 2.0)], texts=[sample_row(8, "Once", " upon")])
    code, out, _ = run("watch", str(folder), "--once")
    assert code == 0
    assert out.splitlines()[0] == "not finished: at step 8 of 12"
    assert "step 8  sample: Once upon" in out
    values = json.loads(run("watch", str(folder), "--json")[1])
    assert (values["step"], values["max_steps"], values["bits_per_byte"], values["finished"]) == (8, 12, 2.0, False)


def test_what_is_no_run_is_told(tmp_path: Path, run: Any) -> None:
    code, out, err = run("watch", str(tmp_path))
    assert (code, out) == (1, "")
    assert "does not contain a run" in err


def test_ctrl_c_ends_the_watching_alone(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    code, out, err = run("watch", str(write_run(tmp_path / "run", rows())))
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 8


def test_on_a_terminal_it_draws_and_leaves_the_last_state(
    tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", rows())
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=60, height=24, highlight=False, markup=False)
    monkeypatch.setattr("alm.cli.console.Console", lambda: console)
    monkeypatch.setattr("time.sleep", lambda _: (append(folder, logged_row(12, 4.0)), finish(folder, 12)))
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(SystemExit) as ended:
        watch_main(str(folder))
    assert not ended.value.code
    drawn, _, left = stream.getvalue().rpartition("\x1b[?1049l")  # back from the screen of its own
    assert "8/12" in drawn
    assert "12/12" in drawn
    assert "finished at step 12" in left
    assert "8/12" not in left.replace("12/12", "")


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def watch_main(*arguments: str) -> None:
    from alm.cli.main import main

    main(["watch", *arguments])


def test_a_run_without_its_configuration_is_followed_all_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", rows(2))
    (run / "config.yaml").unlink()
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        watch.follow(Watched(run), interrupted, seen.append)
    assert [line.split()[1] for line in seen] == ["1/12", "2/12"]


def interrupted() -> None:
    raise KeyboardInterrupt
