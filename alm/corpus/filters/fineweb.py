"""Kind `fineweb`: the rules that FineWeb adds to those of C4 and Gopher (Penedo et al. 2024, section 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop, first_broken

_SENTENCE_ENDS = tuple(".!?。！？؟।॥።")


class Config(base.Config):
    """The thresholds."""

    kind: Literal["fineweb"] = Field(default="fineweb", description="Apply FineWeb's own rules.")
    min_punctuated_lines: float = Field(
        default=0.12, ge=0, le=1, description="Minimum share of lines that end with punctuation."
    )
    short_line_characters: int = Field(
        default=30, ge=0, le=base.MANY, description="Maximum characters of a short line."
    )
    max_short_lines: float = Field(default=0.67, ge=0, le=1, description="Maximum share of short lines.")
    max_repeated_line_characters: float = Field(
        default=0.01, ge=0, le=1, description="Maximum share of characters in repeated lines."
    )
    max_newlines_per_word: float = Field(default=0.3, ge=0, le=base.MANY, description="Maximum newlines per word.")


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter."""
    return first_broken(lambda candidate: broken_rules(candidate, config))


def broken_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    """Yield the rules that the document breaks."""
    lines = [line for line in candidate.lines if line and not line.isspace()]
    if not lines:
        yield "fineweb_no_lines"
        return
    if sum(line.endswith(_SENTENCE_ENDS) for line in lines) / len(lines) < config.min_punctuated_lines:
        yield "fineweb_few_punctuated_lines"
    if sum(len(line) <= config.short_line_characters for line in lines) / len(lines) > config.max_short_lines:
        yield "fineweb_short_lines"
    if _repeated_characters(lines) / _without_newlines(candidate) > config.max_repeated_line_characters:
        yield "fineweb_repeated_lines"
    if candidate.text.count("\n") / max(1, len(candidate.words)) > config.max_newlines_per_word:
        yield "fineweb_list"


def _without_newlines(candidate: Candidate) -> int:
    return max(1, len(candidate.text) - candidate.text.count("\n"))


def _repeated_characters(lines: list[str]) -> int:
    return sum(map(len, lines)) - sum(map(len, set(lines)))
