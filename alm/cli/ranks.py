"""`--nproc N`: the same command, N times at once, by torchrun in this process."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence

from alm.errors import EXIT_AGAIN, AlmError, EchoedError

# torchrun hands these on to the ranks, which save and end; older versions of it know the first four alone.
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"

_CODES = {"SIGUSR1": EXIT_AGAIN}


def run(words: Sequence[str], *, ranks: int) -> None:
    """Run `alm` with `words` as so many ranks on this machine; returns when all are done.

    Signals go on to the ranks. Raises `EchoedError` with the exit code of the rank that ended first and not well.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(ranks)))
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", _SIGNALS)
    # The ranks say what is wrong; torchrun would say it again, at length.
    logging.disable(logging.ERROR)
    try:
        main(["--standalone", "--nproc-per-node", str(ranks), "-m", "alm", *words])
    except ChildFailedError as error:
        raise _failure({rank: failure.exitcode for rank, failure in error.failures.items()}) from error
    except SignalException as stop:
        raise EchoedError("stopped", exit_code=_CODES.get(stop.sigval.name, 128 + stop.sigval)) from stop
    finally:
        logging.disable(logging.NOTSET)


def _threads(ranks: int) -> int:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (usable or 1) // ranks)


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
