"""Rich's console for untrusted text: no markup, no terminal commands, only characters that the terminal can encode."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from alm import shown
from alm.cli import screen


class Console(rich.console.Console):
    """Writes to stdout, to stderr with `stderr`, or to `file`.

    Escapes are added after layout: text that must fit a width goes through `alm.shown` first.
    """

    def __init__(self, *, stderr: bool = False, file: TextIO | None = None, **options: int | bool | None) -> None:
        stream = file or (sys.stderr if stderr else sys.stdout)
        fixed = {"highlight": False, "markup": False, "emoji": False}  # `highlight` would colour numbers
        super().__init__(file=screen.unguarded(stream), **fixed, **options)  # type: ignore[arg-type] # sizes and flags

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, with escaped segment text; Rich's own terminal commands are in `control`."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else shown.text(segment.text)
            yield segment if text == segment.text else segment._replace(text=text)
