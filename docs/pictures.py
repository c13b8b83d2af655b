"""Makes the pictures of README.md from a real run: its terminal as an animated SVG, its report page as a PNG.

    python docs/pictures.py record run.cast       # runs `alm quickstart` on a terminal of 100 x 30, and records it
    python docs/pictures.py panel run.cast        # docs/pictures/panel.svg
    python docs/pictures.py report report.html    # docs/pictures/report.png; needs Chromium

A recording is an asciicast (version 2): a header, then lines of `[seconds, "o", text]`.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from xml.sax.saxutils import escape

PICTURES = Path(__file__).resolve().parent / "pictures"
COMMAND = ("alm", "quickstart", "--device", "cpu")
COLUMNS, ROWS = 100, 30
# Pixels of a character cell, and of the frame around the terminal.
CELL_WIDTH, CELL_HEIGHT, MARGIN = 8, 17, 12
FRAMES, FRAME_SECONDS, LAST_FRAME_SECONDS = 48, 0.3, 4.0
BACKGROUND, FOREGROUND = "#161b22", "#d0d7de"
COLOURS = ("#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#d0d7de")
REPORT_WIDTH, REPORT_HEIGHT = 980, 1090


class Piece(NamedTuple):
    """Neighbouring characters of one colour in a row of the terminal."""

    column: int
    text: str
    colour: str
    is_bold: bool


Row = tuple[Piece, ...]
Frame = tuple[Row, ...]


def main(arguments: Sequence[str]) -> None:
    """Make the picture that the first argument names, from the file that the second one names."""
    what, path = arguments
    {"record": record, "panel": draw_panel, "report": draw_report}[what](Path(path))


def record(cast: Path) -> None:
    """Run `COMMAND` on a pseudo-terminal and write what it shows to `cast`, with the time of each piece."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLORTERM="truecolor", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(COMMAND[0], COMMAND)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began, rest = time.monotonic(), b""
    with cast.open("w", encoding="utf-8") as file:
        file.write(json.dumps({"version": 2, "width": COLUMNS, "height": ROWS}) + "\n")
        while read := _read(terminal):
            # A character of several bytes may be cut: its beginning waits for the rest.
            whole = (rest + read).decode("utf-8", errors="ignore")
            rest = (rest + read)[len(whole.encode()) :]
            file.write(json.dumps([round(time.monotonic() - began, 3), "o", whole]) + "\n")
    os.waitpid(process, 0)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # what Linux answers when the process has ended
        return b""


def draw_panel(cast: Path) -> None:
    """Write the animation of a recording."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "panel.svg").write_text(animation(frames(cast)), encoding="utf-8", newline="\n")


def frames(cast: Path) -> list[Frame]:
    """`FRAMES` states of the terminal at equal distances in time, from the first training panel to the end."""
    states = list(_states(cast))
    begins = next(number for number, (_, rows) in enumerate(states) if any("─ pretrain ─" in row for row in rows))
    first, last = states[begins][0], states[-1][0]
    found = []
    for number in range(FRAMES):
        moment = first + (last - first) * number / (FRAMES - 1)
        rows = [rows for seconds, rows in states[begins:] if seconds <= moment][-1]
        found.append(tuple(tuple(_pieces(row)) for row in rows))
    return found


def _states(cast: Path) -> Iterator[tuple[float, list[str]]]:
    """The rows of the terminal after each frame of the live display, with their colours as escapes.

    Rich brackets each frame with DEC mode 2026: what is printed above the display, then the display.
    """
    log: list[str] = []
    display: list[str] = []
    rest = ""
    for seconds, _, text in map(json.loads, cast.read_text("utf-8").splitlines()[1:]):
        *complete, rest = (rest + text).split("\x1b[?2026l")
        for frame in complete:
            before, _, shown = frame.rpartition("\x1b[?2026h")
            log += _rows(before)
            rows = _rows(shown)
            live = next((number for number, row in enumerate(rows) if re.search("[━╭]", row)), len(rows))
            log, display = [*log, *rows[:live]][-ROWS:], rows[live:]
            yield seconds, [*log, *display][-ROWS:]
    yield seconds, [*log, *display, *_rows(rest.partition("\x1b[?2026h")[0])][-ROWS:]


def _rows(text: str) -> list[str]:
    """The rows that `text` fills, wrapped at the width of the terminal; commands that move the cursor are left out."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-HJKSThl]", "", text).replace("\r", "")
    lines = [line for line in text.split("\n") if line.strip()]
    # Only plain lines are longer than the terminal is wide.
    return [line[at : at + COLUMNS] if at else _cut(line) for line in lines for at in range(0, _width(line), COLUMNS)]


def _width(line: str) -> int:
    return len(re.sub(r"\x1b\[[0-9;]*m", "", line))


def _cut(line: str) -> str:
    return line[:COLUMNS] if _width(line) > COLUMNS else line


def _pieces(row: str) -> Iterator[Piece]:
    """The pieces of a row that show something."""
    column, colour, is_bold = 0, FOREGROUND, False
    for codes, text in re.findall(r"(?:\x1b\[([0-9;]*)m)?([^\x1b]*)", row):
        if codes.startswith("38;2;"):
            colour = "#" + "".join(f"{int(value):02x}" for value in codes.split(";")[2:5])
        elif codes.startswith("38;5;"):  # one of 24 greys, which is all that Rich takes of the 256 colours here
            level = 8 + 10 * (int(codes.split(";")[2]) - 232)
            colour = f"#{level:02x}{level:02x}{level:02x}"
        elif codes:
            numbers = [int(code or 0) for code in codes.split(";")]
            is_bold = 1 in numbers
            colour = next((COLOURS[number % 10] for number in numbers if 30 <= number <= 37), FOREGROUND)
        if text.strip():
            start = len(text) - len(text.lstrip())
            yield Piece(column + start, text.strip(), colour, is_bold)
        column += len(text)


def animation(shown: Sequence[Frame]) -> str:
    """An SVG that shows the frames in turn, for ever; only the last one where a reader prefers no motion."""
    width, height = COLUMNS * CELL_WIDTH + 2 * MARGIN, ROWS * CELL_HEIGHT + 2 * MARGIN
    rows = {row: f"r{number}" for number, row in enumerate(dict.fromkeys(r for frame in shown for r in frame if r))}
    seconds = FRAME_SECONDS * (len(shown) - 1) + LAST_FRAME_SECONDS
    steps = "".join(
        f"{100 * FRAME_SECONDS * number / seconds:.3f}%{{transform:translateX(-{number * width}px)}}"
        for number in range(len(shown))
    )
    last = f"translateX(-{(len(shown) - 1) * width}px)"
    strip = "".join(
        f'<g transform="translate({number * width + MARGIN} {MARGIN})">'
        + "".join(f'<use href="#{rows[row]}" y="{place * CELL_HEIGHT}"/>' for place, row in enumerate(frame) if row)
        + "</g>\n"
        for number, frame in enumerate(shown)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">\n'
        "<title>A terminal while `alm quickstart` trains a model; time is shortened</title>\n"
        "<style>text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
        f".film{{animation:play {seconds:.1f}s step-end infinite}}@keyframes play{{{steps}}}"
        f"@media(prefers-reduced-motion:reduce){{.film{{animation:none;transform:{last}}}}}</style>\n"
        f"<defs>\n{''.join(_defined(row, name) for row, name in rows.items())}</defs>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>\n'
        f'<svg width="{width}" height="{height}"><g class="film">\n{strip}</g></svg>\n</svg>\n'
    )


def _defined(row: Row, name: str) -> str:
    spans = "".join(
        f'<tspan x="{piece.column * CELL_WIDTH}" textLength="{len(piece.text) * CELL_WIDTH}"'
        + (f' fill="{piece.colour}"' if piece.colour != FOREGROUND else "")
        + (' font-weight="bold"' if piece.is_bold else "")
        + f">{escape(piece.text)}</tspan>"
        for piece in row
    )
    return f'<text id="{name}" y="{CELL_HEIGHT - 4}" fill="{FOREGROUND}" xml:space="preserve">{spans}</text>\n'


def draw_report(page: Path) -> None:
    """Write the top of a report page as a browser shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    PICTURES.mkdir(exist_ok=True)
    with TemporaryDirectory() as profile:
        window = f"--window-size={REPORT_WIDTH},{REPORT_HEIGHT}"
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={profile}", window)
        picture = f"--screenshot={PICTURES / 'report.png'}"
        subprocess.run([browser, *options, picture, page.resolve().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(sys.argv[1:])
