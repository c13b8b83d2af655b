"""Kind `gopher_repetition`: the repetition rules of Gopher (Rae et al. 2021, table A1), as FineWeb applies them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop, first_broken
from alm.corpus.ngrams import most_frequent, repeated, repeated_characters

_PARAGRAPH_END = re.compile(r"\n{2,}")
_LINE_END = re.compile(r"\n+")


Words = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, le=base.MANY)]


class Config(base.Config):
    """The thresholds: shares of lines, of paragraphs, and of characters of the text."""

    kind: Literal["gopher_repetition"] = Field(
        default="gopher_repetition", description="Apply Gopher's repetition rules."
    )
    max_repeated_lines: float = Field(default=0.30, ge=0, le=base.MANY, description="Maximum share of repeated lines.")
    max_repeated_paragraphs: float = Field(
        default=0.30, ge=0, le=base.MANY, description="Maximum share of repeated paragraphs."
    )
    max_repeated_line_characters: float = Field(
        default=0.20, ge=0, le=base.MANY, description="Maximum share of characters in repeated lines."
    )
    max_repeated_paragraph_characters: float = Field(
        default=0.20, ge=0, le=base.MANY, description="Maximum share of characters in repeated paragraphs."
    )
    max_top_characters: dict[Words, Share] = Field(
        default={2: 0.20, 3: 0.18, 4: 0.16},
        description="By n, the maximum share of characters in the most frequent n-gram.",
    )
    max_repeated_characters: dict[Words, Share] = Field(
        default={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="By n, the maximum share of characters in repeated n-grams.",
    )


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter."""
    return first_broken(lambda candidate: broken_rules(candidate, config))


def broken_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    """Yield the rules that the document breaks."""
    size = max(1, len(candidate.text))
    paragraphs = _PARAGRAPH_END.split(candidate.text.strip())
    number, characters = _repetitions(paragraphs)
    if number / len(paragraphs) > config.max_repeated_paragraphs:
        yield "gopher_repetition_paragraphs"
    if characters / size > config.max_repeated_paragraph_characters:
        yield "gopher_repetition_paragraph_characters"
    lines = _LINE_END.split(candidate.text)
    number, characters = _repetitions(lines)
    if number / len(lines) > config.max_repeated_lines:
        yield "gopher_repetition_lines"
    if characters / size > config.max_repeated_line_characters:
        yield "gopher_repetition_line_characters"
    yield from _broken_ngram_rules(candidate, config, size)


def _repetitions(pieces: Sequence[str]) -> tuple[int, int]:
    """Return the number of pieces that repeat an earlier one, and their characters."""
    if len(set(pieces)) == len(pieces):
        return 0, 0
    seen: set[str] = set()
    number = characters = 0
    for piece in pieces:
        if piece in seen:
            number += 1
            characters += len(piece)
        else:
            seen.add(piece)
    return number, characters


def _broken_ngram_rules(candidate: Candidate, config: Config, size: int) -> Iterator[str]:
    lengths = {**config.max_top_characters, **config.max_repeated_characters}
    if not lengths:
        return
    ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(candidate.word_lengths)])
    for found in repeated(candidate.words, range(2, max(lengths) + 1)):
        n = found.n
        if n in config.max_top_characters and len(candidate.words) >= n:
            # If no n-gram is repeated, all are equally frequent: use the first.
            position, number = most_frequent(found) if len(found.positions) else (0, 1)
            characters = (int(ends[position + n] - ends[position]) + n - 1) * number
            if characters / size > config.max_top_characters[n]:
                yield f"gopher_repetition_top_{n}_gram"
        most = config.max_repeated_characters.get(n)
        if most is not None and repeated_characters(found, ends) / size > most:
            yield f"gopher_repetition_{n}_grams"
