"""Kind `mojibake`: repairs text that was decoded with the wrong encoding, with ftfy, an optional dependency."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop
from alm.corpus.normalize import normalize
from alm.errors import ConfigError

# The first two bytes of a UTF-8 character, decoded as Latin-1 or Windows-1252.
_SUSPICIOUS = re.compile(
    r"[\u00c2-\u00f4][\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    r"\u2013\u2014\u2018-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
)


class Config(base.Config):
    """Nothing to configure."""

    kind: Literal["mojibake"] = Field(
        default="mojibake", description="Repair text that was decoded with the wrong encoding (needs ftfy)."
    )


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter; it drops nothing. ftfy is slow, so only text that a cheap test finds suspicious reaches it."""
    try:
        from ftfy import fix_encoding
    except ImportError as error:
        raise ConfigError(
            "the filter `mojibake` needs the package ftfy", hint="run `pip install 'a-lm[mojibake]'`"
        ) from error

    def judge(candidate: Candidate) -> Candidate | Drop:
        if candidate.text.isascii() or not _SUSPICIOUS.search(candidate.text):
            return candidate
        repaired = normalize(fix_encoding(candidate.text)).text
        return candidate if repaired == candidate.text else Candidate(repaired)

    return judge
