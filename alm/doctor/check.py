"""Result of one check: measured and wanted values, and for a failure its cause and cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from alm import device, shown
from alm.errors import AlmError

Outcome = Literal["ok", "failed", "skipped"]

REPORT = "report it with what `alm doctor --json` and `alm device` print"
# Errors that broken devices, drivers and installations raise: PyTorch's own errors and those of compilers are
# RuntimeErrors, an incomplete library gives the others. Anything else is a bug of ours, and crashes.
BROKEN = (
    RuntimeError,
    OSError,
    MemoryError,
    ImportError,
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AlmError,
)
# Words in PyTorch's errors, each with its fix.
_SIGNS = (
    ("no kernel image is available", "install a PyTorch that is built for this GPU: https://pytorch.org/get-started"),
    ("not currently implemented for the mps", "run `export PYTORCH_ENABLE_MPS_FALLBACK=1`, and this again"),
    ("not implemented for", "install a newer PyTorch: `pip install --upgrade torch`"),
    ("driver", "update the driver of the device"),
    ("compiler", "install a C compiler, or add `--set training.compile=false` to `alm pretrain`"),
)


@dataclass(frozen=True)
class Check:
    """Result of one check. `cause` and `cure` are set if it failed, or passed with a note."""

    name: str
    outcome: Outcome
    measured: str
    wanted: str = ""
    cause: str | None = None
    cure: str | None = None

    @property
    def is_note(self) -> bool:
        """Whether the check passed with a note."""
        return self.outcome == "ok" and self.cause is not None


def judged(name: str, *, holds: bool, measured: str, wanted: str, cause: str, cure: str) -> Check:
    """Return a check that passed, or failed for `cause`."""
    if holds:
        return Check(name, "ok", measured, wanted)
    return Check(name, "failed", measured, wanted, cause, cure)


def graded(name: str, *, holds: bool, is_good: bool, measured: str, wanted: str, cause: str, cure: str) -> Check:
    """Return a check as `judged` does; one that passes without being good has `cause` and `cure` as a note."""
    if is_good:
        return Check(name, "ok", measured, wanted)
    return Check(name, "ok" if holds else "failed", measured, wanted, cause, cure)


def skipped(name: str, why: str) -> Check:
    """Return a check that could not run: it did not pass."""
    return Check(name, "skipped", why)


Examined = Callable[[], Check]


def remedy(device: torch.device) -> str:
    """Return what to do if a device computes wrong results."""
    if device.type == "cpu":
        return f"install PyTorch again, `pip install --force-reinstall torch`; if that does not help, {REPORT}"
    return f"add `--device cpu` to `alm pretrain` and `alm sample`, and {REPORT}"


def guarded(name: str, check: Examined, on: torch.device) -> Check:
    """Run `check`; an error makes it fail, so that the other checks can continue."""
    try:
        return check()
    except BROKEN as error:
        return crashed(name, error, on)


def crashed(name: str, error: Exception, on: torch.device) -> Check:
    """Return the failure of a check that ended in `error`."""
    said = shown.reason(error)[:200] if str(error).strip() else "it says nothing"
    cure = error.hint if isinstance(error, AlmError) else None
    return Check(
        name,
        "failed",
        measured="it ended in an error",
        wanted="an answer",
        cause=said if isinstance(error, AlmError) else f"{type(error).__name__}: {said}",
        cure=cure or _cure(error, on),
    )


def _cure(error: Exception, on: torch.device) -> str:
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or device.is_out_of_memory(error):
        return "end other programs that use the device's memory, and run this again"
    if isinstance(error, OSError) and error.filename:
        return f"check `{error.filename}`, or use another folder with `--out`"
    if isinstance(error, ImportError):
        return "install it again: `pip install --force-reinstall a-lm`"
    found = next((cure for sign, cure in _SIGNS if sign in str(error).lower()), None)
    return found or remedy(on)
