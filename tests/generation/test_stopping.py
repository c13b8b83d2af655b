from __future__ import annotations

import random

import pytest

from alm.generation.stopping import StopFilter


def filtered(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    stop = StopFilter(stops)
    shown = [stop.feed(piece) for piece in pieces]
    return "".join(shown) + stop.finish(), stop.is_stopped


def expected(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """The text after each piece is searched whole."""
    text = ""
    for piece in pieces:
        text += piece
        places = [text.index(stop) for stop in stops if stop in text]
        if places:
            return text[: min(places)], True
    return text, False


def test_every_cut_of_random_texts_equals_searching_the_whole() -> None:
    draw = random.Random(1)
    for _ in range(20_000):
        text = "".join(draw.choice("ab") for _ in range(draw.randrange(12)))
        pieces = []
        while text:
            cut = draw.randrange(1, 4)
            pieces.append(text[:cut])
            text = text[cut:]
        stops = ["".join(draw.choice("ab") for _ in range(draw.randrange(1, 5))) for _ in range(draw.randrange(3))]
        assert filtered(pieces, stops) == expected(pieces, stops), (pieces, stops)


@pytest.mark.parametrize("stop", ["Once", "\n\n", "aab", "🙂!"])
def test_the_beginning_of_a_stop_is_never_shown(stop: str) -> None:
    for end in range(1, len(stop)):
        assert StopFilter([stop]).feed("x" + stop[:end]) == "x"


def test_nothing_is_held_back_without_stops() -> None:
    assert StopFilter([]).feed("text") == "text"


def test_nothing_comes_after_a_stop() -> None:
    stop = StopFilter(["b"])
    assert [stop.feed(piece) for piece in ("ab", "c", "d")] == ["a", "", ""]
    assert stop.finish() == ""
