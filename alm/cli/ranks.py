"""`--nproc N`: the same command, N times at once, by torchrun in this process."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alm.available import usable_processors
from alm.errors import EXIT_AGAIN, AlmError, EchoedError

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

# torchrun hands these on to the ranks, which save and end; older versions of it know the first four alone.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"

_STARTED = "ALM_STARTED"  # an environment variable of the ranks

_CODES = {"SIGUSR1": EXIT_AGAIN}


def started(now: float) -> float:
    """When the command began, by `time.monotonic`, which all processes share: for a rank, when its starter did."""
    return float(os.environ.get(_STARTED, now))


def run(words: Sequence[str], *, ranks: int, started: float) -> None:
    """Run `alm` with `words` as so many ranks on this machine; returns when all are done.

    `started` is when the command began: its time limit counts from there.
    Signals go on to the ranks. Raises `EchoedError` with the exit code of the rank that ended first and not well.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(ranks)))
    os.environ[_STARTED] = repr(started)
    # The ranks say what is wrong; torchrun would say it again, at length.
    logging.disable(logging.ERROR)
    try:
        elastic_launch(_plan(ranks), sys.executable)("-u", "-m", "alm", *words)
    except ChildFailedError as error:
        raise _failure({rank: failure.exitcode for rank, failure in error.failures.items()}) from error
    except SignalException as stop:
        raise EchoedError("stopped", exit_code=_CODES.get(stop.sigval.name, 128 + stop.sigval)) from stop
    finally:
        logging.disable(logging.NOTSET)
        del os.environ[_STARTED]


def _plan(ranks: int) -> LaunchConfig:
    """What `torchrun --standalone` does with so many ranks."""
    from torch.distributed.launcher.api import LaunchConfig

    plan = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    if hasattr(plan, "signals_to_handle"):
        plan.signals_to_handle = _SIGNALS
    return plan


def _threads(ranks: int) -> int:
    return max(1, usable_processors() // ranks)


def _failure(codes: dict[int, int]) -> AlmError:
    """What the exit codes of the ranks that failed come to; below zero is a signal that ended one."""
    spoken = [code for code in codes.values() if code > 0]
    if spoken:
        return EchoedError("a rank ended", exit_code=max(spoken))
    rank, code = min(codes.items())
    name = signal.Signals(-code).name if -code in {*signal.Signals} else str(code)
    return AlmError(
        f"rank {rank} was ended by {name}, as when memory runs out",
        hint="run the same command again: it goes on from the newest checkpoint",
    )
