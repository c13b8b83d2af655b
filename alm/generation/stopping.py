"""Texts that end a generation: found as pieces arrive, and never printed, not even in part."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Filter that passes pieces of a text on until one of `stops` is in it.

    >>> stop = StopFilter(["end"])
    >>> [stop.feed(piece) for piece in ("the e", "nt", " en", "d of")], stop.is_stopped
    (['the ', 'ent', ' ', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.is_stopped = False

    def feed(self, piece: str) -> str:
        """Return the text that is safe to write: nothing that may be the beginning of a stop, nothing after a stop."""
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
        """Return the text that was held back and is not a stop."""
        rest, self._held = self._held, ""
        return rest

    def _beginning(self, text: str) -> int:
        """Count the last characters that a stop begins with."""
        most = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(most, len(text)), 0, -1):
            end = text[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
