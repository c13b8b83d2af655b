"""Runs the trials: prepares the cases once, then forks for each run; a summary at the end."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from crash.faults import SHIM

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    """Read the command line, and exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python tests/crash", description=__doc__)
    parser.add_argument("--case", action="append", help="try this case alone; repeatable, may hold * and ?")
    parser.add_argument("--kind", action="append", help="kill, middle, eio, enospc or full; repeatable")
    parser.add_argument("--number", action="append", type=int, help="the change that the fault is at, from 1")
    parser.add_argument("--sample", type=int, help="try so many faults of each case, spread evenly, not all")
    parser.add_argument("--fast", action="store_true", help="the few cases of the ordinary test suite")
    parser.add_argument("--races", type=int, default=0, help="starters at one moment, so many times")
    parser.add_argument("--kills", type=int, default=0, help="random kills over the chain, so many")
    parser.add_argument("--fresh", type=int, default=0, help="the same, each command a new Python")
    parser.add_argument("--no-faults", action="store_true", help="races and kills alone")
    parser.add_argument("--native", metavar="SHIM", help="inject below Python, by this library")
    parser.add_argument("--seed", type=int, default=0, help="of kills and races")
    parser.add_argument("--jobs", type=int, default=1, help="drivers at once")
    parser.add_argument("--alm", type=Path, default=ROOT, help="the checkout to judge")
    parser.add_argument("--json", type=Path, help="write what was found to this file")
    parser.add_argument("--full", type=int, default=30, help="violations to print in full")
    parser.add_argument("--list", action="store_true", help="name the cases and their changes, try nothing")
    parser.add_argument("--keep", action="store_true", help="keep the last folder, and say where it is")
    given = parser.parse_args()
    if given.native and SHIM not in os.environ:  # a library is loaded when a program begins
        shim = str(Path(given.native).resolve())
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "LD_PRELOAD": shim, SHIM: shim})
    alone(given.alm)
    from crash.running import Running

    with _folder(keep=given.keep) as folder:
        sys.exit(Running(folder, given).all())


def alone(checkout: Path) -> None:
    """Make this process one that can be forked: no threads, no home, no network, and the code of `checkout`."""
    sys.path.insert(0, str(checkout.resolve()))
    home = tempfile.mkdtemp(prefix="alm-crash-home-")
    os.environ.update(
        OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", NUMBA_NUM_THREADS="1", NUMBA_THREADING_LAYER="workqueue",
        TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1", HF_HUB_OFFLINE="1", HOME=home, USERPROFILE=home,
        PYTHONPATH=str(checkout.resolve()),
    )  # fmt: skip
    cache = Path(tempfile.gettempdir()) / f"alm-crash-kernels-{os.getuid()}"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache))
    for name in ("ALM_DEBUG", "FORCE_COLOR", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)


class _folder:  # noqa: N801 - reads like a function
    """A folder in memory where there is one, gone afterwards."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep

    def __enter__(self) -> Path:
        fast = "/dev/shm"
        place = fast if os.path.isdir(fast) and os.access(fast, os.W_OK) else None
        self._path = Path(tempfile.mkdtemp(prefix="alm-crash-", dir=place))
        return self._path

    def __exit__(self, *_: object) -> None:
        if self._keep:
            print(f"kept: {self._path}")
        else:
            shutil.rmtree(self._path, ignore_errors=True)
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)
