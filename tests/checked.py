"""What tests of `alm doctor` ask of a check."""

from __future__ import annotations

from alm.doctor.check import Check


def fails(check: Check, *words: str) -> None:
    """It failed, and says why and what to do."""
    assert check.outcome == "failed", check
    assert check.cause
    assert check.cure
    for word in words:
        assert word in f"{check.measured}\n{check.cause}\n{check.cure}", check


def notes(check: Check, *words: str) -> None:
    """It holds, and says what is worth knowing."""
    assert check.is_note, check
    for word in words:
        assert word in f"{check.cause}\n{check.cure}", check


def passes(check: Check) -> None:
    """It holds, and there is nothing to say."""
    assert (check.outcome, check.cause, check.cure) == ("ok", None, None), check
