"""Pieces of text with visible borders: alternating colours on a terminal, separated by `|` elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from alm import shown
from alm.cli import ui

_BACKGROUNDS = ("on color(25)", "on color(58)", "on color(90)", "on color(23)", "on color(94)")
_FOREGROUND = "bright_white"
_VISIBLE = {"\n": "⏎\n", "\t": "→", "\r": "␍", "\u00a0": "⍽", "\u200b": "∅"}


def show_pieces(pieces: Sequence[bytes]) -> None:
    """Print `pieces`, the bytes of consecutive tokens, on stdout."""
    texts = visible(pieces)
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        ui.write("|".join(texts))
        return
    from rich.text import Text

    from alm.cli.console import Console

    text = Text()
    for number, piece in enumerate(texts):
        text.append(piece, style=f"{_FOREGROUND} {_BACKGROUNDS[number % len(_BACKGROUNDS)]}")
    Console().print(text, soft_wrap=True)


def visible(pieces: Iterable[bytes]) -> list[str]:
    """The visible form of each piece; bytes that are not a complete character become <0xNN>."""
    found = []
    for piece in pieces:
        try:
            text = "".join(_visible(character) for character in piece.decode("utf-8"))
        except UnicodeDecodeError:
            text = "".join(f"<0x{byte:02X}>" for byte in piece)
        found.append(text)
    return found


def _visible(character: str) -> str:
    """The character, or a symbol or its number if it would control the terminal or be invisible."""
    if character in _VISIBLE:
        return _VISIBLE[character]
    if shown.line(character) == character:
        return character
    return f"<0x{ord(character):02X}>" if ord(character) < 0xA0 else f"<U+{ord(character):04X}>"
