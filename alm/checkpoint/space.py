"""Checks that the disk has room for the checkpoints to come, before a step is spent."""

from __future__ import annotations

import shutil
from pathlib import Path

from alm.checkpoint.format import numbered
from alm.checkpoint.retain import Retention
from alm.errors import AlmError, quoted
from alm.events import Listener, Warned, ignore
from alm.formatting import size


def check_space(
    run: Path, retention: Retention, *, checkpoint_bytes: int, saves: int, permanent: int, on_event: Listener = ignore
) -> None:
    """Raise `AlmError` when the next checkpoints of `run` do not fit on the disk.

    The next is written before the oldest is removed, so one more than `retention` keeps must fit, or as many as there
    will be `saves`. `permanent` ones, which are never removed, only cause a warning: there is time to make room.
    """
    there = sum(not retention.is_permanent(path) for path in numbered(run))
    rolling = max(1, min(saves, retention.last + retention.best + 1 - there))
    free = shutil.disk_usage(run).free
    if free < rolling * checkpoint_bytes:
        raise AlmError(
            f"`{run}` has {size(free)} of free space, and the next {_count(rolling)} of {size(checkpoint_bytes)} "
            f"{'needs' if rolling == 1 else 'need'} {size(rolling * checkpoint_bytes)}",
            hint=f"make room (`df -h {quoted(run)}`), keep fewer with `--set training.keep_last=1`, or name another "
            "`--out`",
        )
    if free < (rolling + permanent) * checkpoint_bytes:
        rarer = 2 * (retention.every or 1)
        on_event(
            Warned(
                f"`{run}` has {size(free)} of free space; the {permanent:,} checkpoints that are kept permanently "
                f"will need {size(permanent * checkpoint_bytes)}",
                f"use `--set training.keep_every={rarer}` to keep fewer",
            )
        )


def _count(number: int) -> str:
    return "checkpoint" if number == 1 else f"{number} checkpoints"
