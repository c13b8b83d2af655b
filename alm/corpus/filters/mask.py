"""Kind `mask`: replaces e-mail addresses and public IP addresses with addresses that belong to no one.

FineWeb does so too (Penedo et al. 2024, appendix on personal information). RFC 2606 and RFC 5737 reserve the
replacements for documentation.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from alm.config import base
from alm.corpus.filters import Candidate, Drop

_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_NOBODY = "email@example.com"
_NOWHERE = "192.0.2.1"


class Config(base.Config):
    """The addresses to replace."""

    kind: Literal["mask"] = Field(default="mask", description="Replace e-mail and IP addresses.")
    emails: bool = Field(default=True, description="Replace e-mail addresses.")
    ip_addresses: bool = Field(default=True, description="Replace public IPv4 addresses.")


def build(config: Config) -> Callable[[Candidate], Candidate | Drop]:
    """Build the filter; it drops nothing."""

    def judge(candidate: Candidate) -> Candidate | Drop:
        text = candidate.text
        if config.emails and "@" in text:
            text = _EMAIL.sub(_NOBODY, text)
        if config.ip_addresses:
            text = _ADDRESS.sub(_masked, text)
        return candidate if text == candidate.text else Candidate(text)

    return judge


def _masked(match: re.Match[str]) -> str:
    try:
        address = ipaddress.IPv4Address(match[0])
    except ValueError:  # 999.1.1.1 is a version or a date
        return match[0]
    return _NOWHERE if address.is_global else match[0]
