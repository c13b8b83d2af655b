"""Kind `c4`: the rules of C4 (Raffel et al. 2020, section 2.2), as FineWeb applies them: lines may end without a
full stop. Some rules remove lines, others drop documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop

_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_LONG_WORD = re.compile(r"\S{1001}")
_SENTENCE_END = re.compile(r"[.!?。！？]+[\"'”’)\]]*(?=\s|$)")
_POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


class Config(base.Config):
    """The rules to apply, and their thresholds."""

    kind: Literal["c4"] = Field(default="c4", description="Apply the rules of C4.")
    min_words_per_line: int = Field(default=3, ge=0, le=base.MANY, description="Remove lines with fewer words.")
    min_sentences: int = Field(default=5, ge=0, le=base.MANY, description="Drop documents with fewer sentences.")
    drop_braces: bool = Field(default=True, description="Drop documents with a curly bracket.")
    drop_lorem_ipsum: bool = Field(default=True, description="Drop documents with `lorem ipsum`.")
    drop_javascript_lines: bool = Field(default=True, description="Remove lines that mention JavaScript.")
    drop_policy_lines: bool = Field(default=True, description="Remove lines about policies and cookies.")
    remove_citations: bool = Field(default=True, description="Remove marks such as [1] and [edit].")


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter."""

    def judge(candidate: Candidate) -> Candidate | Drop:
        reason = next(_broken_text_rules(candidate, config), None)
        if reason is not None:
            return Drop(reason)
        text = cleaned(candidate.text, config)
        if sentences(text) < config.min_sentences:
            return Drop("c4_too_few_sentences")
        return candidate if text == candidate.text else Candidate(text)

    return judge


def broken_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    """Yield the rules about entire documents that the document breaks."""
    yield from _broken_text_rules(candidate, config)
    if sentences(cleaned(candidate.text, config)) < config.min_sentences:
        yield "c4_too_few_sentences"


def _broken_text_rules(candidate: Candidate, config: Config) -> Iterator[str]:
    # A bracket is harmless in a line that is removed for another reason.
    if config.drop_braces and "{" in candidate.text and "{" in cleaned(candidate.text, config):
        yield "c4_curly_bracket"
    if config.drop_lorem_ipsum and "lorem ipsum" in candidate.text.lower():
        yield "c4_lorem_ipsum"


def cleaned(text: str, config: Config) -> str:
    """Return the lines that stay."""
    if config.remove_citations and "[" in text:
        text = _CITATION.sub("", text)
    return "\n".join(line for line in map(str.strip, text.split("\n")) if _stays(line, config))


def _stays(line: str, config: Config) -> bool:
    if len(line.split(None, config.min_words_per_line)) < config.min_words_per_line:
        return False
    if len(line) > 1000 and _LONG_WORD.search(line):
        return False
    lowered = line.lower()
    if config.drop_javascript_lines and "javascript" in lowered:
        return False
    return not (config.drop_policy_lines and any(phrase in lowered for phrase in _POLICY))


def sentences(text: str) -> int:
    """Estimate the number of sentences."""
    if not text:
        return 0
    # The text after the last sentence end of a line counts as a sentence too.
    return sum(sum(map(bool, map(str.strip, _SENTENCE_END.split(line)))) for line in text.split("\n"))
