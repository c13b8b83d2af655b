"""`--nproc N`: runs the same command N times at once, with torchrun in this process."""

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

# A rank that was asked to stop finishes its micro-batch and saves. torchrun would kill it after 30 s, in the middle of
# a checkpoint of a large model on a slow disk.
_STOP_SECONDS = 600
# torchrun forwards these to the ranks, which save and stop; older versions know only the first four.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"

_STARTED = "ALM_STARTED"  # an environment variable of the ranks
_CODES = {"SIGUSR1": EXIT_AGAIN}


def started(now: float) -> float:
    """Return the start of the command, of `time.monotonic`, which all processes share; a rank has its launcher's."""
    return float(os.environ.get(_STARTED, now))


def run(words: Sequence[str], *, ranks: int, started: float) -> None:
    """Run `alm` with `words` on `ranks` processes of this machine; return when all have finished.

    `started` is the start time of the command, from which its time limit counts. Signals are forwarded to the ranks.
    Raises `EchoedError` with the largest exit code of the ranks that failed; `AlmError` if signals ended all of them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # The ranks share the processors: by default, each would start a thread for every one of them.
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(ranks)))
    os.environ[_STARTED] = repr(started)
    # The ranks report their errors; torchrun would repeat them at length.
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
    """Return the settings that start `ranks` processes, like those of `torchrun --standalone`."""
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
    if hasattr(plan, "shutdown_timeout"):
        plan.shutdown_timeout = _STOP_SECONDS
    return plan


def _threads(ranks: int) -> int:
    return max(1, usable_processors() // ranks)


def _failure(codes: dict[int, int]) -> AlmError:
    """Return the error for the exit codes of ranks that failed; a negative code is the signal that ended the rank."""
    reported = [code for code in codes.values() if code > 0]
    if reported:
        return EchoedError("a rank ended", exit_code=max(reported))
    rank, code = min(codes.items())
    name = signal.Signals(-code).name if -code in {*signal.Signals} else str(code)
    return AlmError(
        f"rank {rank} was ended by {name}, as happens when memory runs out",
        hint="run the same command again: it continues from the newest checkpoint",
    )
