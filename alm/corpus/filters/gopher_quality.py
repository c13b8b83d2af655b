"""Kind `gopher_quality`: the quality rules of Gopher (Rae et al. 2021, appendix A.1.1), as FineWeb applies them.

They suit web pages in English: novels exceed the limit on words, and other languages have other stop words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop, first_broken

_ELLIPSES = ("...", "…")


class Config(base.Config):
    """The thresholds."""

    kind: Literal["gopher_quality"] = Field(default="gopher_quality", description="Apply Gopher's quality rules.")
    min_words: int = Field(default=50, ge=0, le=base.MANY, description="Minimum words that are not symbols.")
    max_words: int = Field(default=100_000, ge=1, le=base.MANY, description="Maximum words that are not symbols.")
    min_mean_word_length: float = Field(
        default=3.0, ge=0, le=base.MANY, description="Minimum mean length of these words."
    )
    max_mean_word_length: float = Field(
        default=10.0, ge=0, le=base.MANY, description="Maximum mean length of these words."
    )
    max_symbol_ratio: float = Field(
        default=0.1, ge=0, le=base.MANY, description="Maximum hash signs, or ellipses, per word."
    )
    max_bullet_lines: float = Field(
        default=0.9, ge=0, le=1, description="Maximum share of lines that begin with a bullet."
    )
    max_ellipsis_lines: float = Field(
        default=0.3, ge=0, le=1, description="Maximum share of lines that end with an ellipsis."
    )
    min_alphabetic_words: float = Field(default=0.8, ge=0, le=1, description="Minimum share of words with a letter.")
    min_stop_words: int = Field(default=2, ge=0, le=base.MANY, description="Minimum number of different stop words.")
    stop_words: tuple[str, ...] = Field(
        default=("the", "be", "to", "of", "and", "that", "have", "with"), description="The stop words."
    )


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter."""
    return first_broken(lambda candidate: broken_rules(candidate, config))


def broken_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    """Yield the rules that the document breaks."""
    words = candidate.words
    plain = candidate.word_lengths[~candidate.is_symbol]
    if len(plain) < config.min_words:
        yield "gopher_quality_too_few_words"
    if len(plain) > config.max_words:
        yield "gopher_quality_too_many_words"
    mean = float(plain.mean()) if len(plain) else 0.0
    if mean < config.min_mean_word_length:
        yield "gopher_quality_short_words"
    if mean > config.max_mean_word_length:
        yield "gopher_quality_long_words"
    count = max(1, len(words))
    if candidate.text.count("#") / count > config.max_symbol_ratio:
        yield "gopher_quality_hashes"
    if sum(candidate.text.count(mark) for mark in _ELLIPSES) / count > config.max_symbol_ratio:
        yield "gopher_quality_ellipses"
    yield from _broken_line_rules(candidate, config)
    if float(np.count_nonzero(candidate.has_letter)) / count < config.min_alphabetic_words:
        yield "gopher_quality_few_letters"
    if len(set(config.stop_words) & candidate.vocabulary) < config.min_stop_words:
        yield "gopher_quality_few_stop_words"


def _broken_line_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    # A final newline does not begin another line.
    lines = candidate.lines[:-1] if candidate.lines[-1] == "" else candidate.lines
    count = max(1, len(lines))
    if sum(line.lstrip().startswith(("•", "-")) for line in lines) / count > config.max_bullet_lines:
        yield "gopher_quality_bullet_lines"
    if sum(line.rstrip().endswith(_ELLIPSES) for line in lines) / count > config.max_ellipsis_lines:
        yield "gopher_quality_ellipsis_lines"
