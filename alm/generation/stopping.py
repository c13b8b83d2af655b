"""Texts that end a generation: found as pieces come, and never begun to be written."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes pieces of a text on until one of `stops` is in it.

    >>> stop = StopFilter(["end"])
    >>> [stop.feed(piece) for piece in ("the e", "nt", " en", "d of")], stop.is_stopped
    (['the ', 'ent', ' ', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.is_stopped = False

    def feed(self, piece: str) -> str:
        """What of the text so far can be written: nothing that a stop may begin with, and nothing after one."""
        if self.is_stopped:
            return ""
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.is_stopped, self._held = True, ""
            return text[: min(found)]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and turned out to be text."""
        rest, self._held = self._held, ""
        return rest

    def _beginning(self, text: str) -> int:
        """How many of the last characters a stop begins with."""
        most = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(most, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
