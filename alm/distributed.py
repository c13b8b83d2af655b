"""Ranks, the processes that train one model together: how they connect, communicate, and end.

`torchrun` starts them and gives each its place in environment variables; a process without these is alone. An error
that ends a run is reported once, by the first rank that raises it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from alm import device
from alm.errors import EXIT_FAILURE, AlmError, ConfigError, EchoedError, StoppedError

# Timeout of the ranks that wait while one works alone, for example to hash a checkpoint.
PATIENCE = timedelta(minutes=10)
MAIN = 0
_PARENT_SECONDS = 1.0  # interval of checks that torchrun still runs
_FAILURES = "failures"  # a key of the store that all ranks share
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Words in torch's errors about a lost peer.
_LOST = ("gloo", "NCCL", "ProcessGroup", "Connection", "Socket", "Broken pipe")

_joins = itertools.count()  # a process may join again, but names in the shared store can be used only once

T = TypeVar("T")


class LostRankError(AlmError):
    """Another rank has ended, or has not answered for `PATIENCE`."""

    def __init__(self) -> None:
        super().__init__(
            "another rank of this run has ended, or no longer answers",
            hint="check the messages above, and whether memory ran out, then start the same command again: "
            "it continues from the newest checkpoint",
        )


@dataclass(frozen=True)
class Place:
    """Rank `rank` of `size`, and `local_rank` of `local_size` on this machine; ranks are counted from 0."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files and reports for the run."""
        return self.rank == MAIN


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place that `torchrun` gave this process. Raises `ConfigError` if some of the variables are missing.

    >>> place({})
    Place(rank=0, size=1, local_rank=0, local_size=1)
    """
    size = _number(environment, "WORLD_SIZE", 1)
    if size == 1:
        return Place()
    missing = [name for name in _NEEDED if name not in environment]
    if missing:
        raise ConfigError(
            f"`WORLD_SIZE` is {size}, but `{missing[0]}` is not set: the ranks could not connect",
            hint="start them with `alm pretrain --nproc N`, or with torchrun; or run `unset WORLD_SIZE`",
        )
    return Place(
        rank=_number(environment, "RANK", 0),
        size=size,
        local_rank=_number(environment, "LOCAL_RANK", 0),
        local_size=_number(environment, "LOCAL_WORLD_SIZE", size),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    given = environment.get(name, str(default))
    if not given.isdecimal():
        raise ConfigError(f"the environment variable `{name}` is `{given}`, a number is needed", hint=f"unset {name}")
    return int(given)


@dataclass(frozen=True)
class World(Place):
    """Communication of the ranks. Every rank has to make the same calls in the same order.

    A world of one rank, the default, returns at once. Each method raises `LostRankError` when another rank is gone.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum_(self, values: Tensor) -> Tensor:
        """Sum `values` over the ranks, in place and on every rank, by one collective."""
        if self.size > 1:
            with _answered():
                dist.all_reduce(values)
        return values

    def greatest(self, number: int) -> int:
        """Return the greatest `number` of any rank."""
        if self.size == 1:
            return number
        value = torch.tensor(number)  # on the CPU, so as not to wait for an accelerator
        with _answered():
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value)

    def exchanged(self, values: Tensor, *, partner: int) -> Tensor:
        """Exchange `values` with rank `partner`, and return its values: same shape, type and kind of device."""
        received = torch.empty_like(values)
        transfers = [dist.P2POp(dist.isend, values, partner), dist.P2POp(dist.irecv, received, partner)]
        with _answered():
            for transfer in dist.batch_isend_irecv(transfers):
                transfer.wait()
        return received

    def gathered(self, value: T) -> list[T]:
        """Return the `value` of each rank, in order, on every rank."""
        found: list[Any] = [value] * self.size  # Any: torch's own type
        if self.size > 1:
            with _answered():
                dist.all_gather_object(found, value)
        return found

    def from_main(self, make: Callable[[], T]) -> T:
        """Call `make` on the main rank alone, and return its result on every rank.

        If it raises an `AlmError`, every rank ends, and the main rank reports the error.
        """
        if self.size == 1:
            return make()
        made: list[Any] = [None]
        failure: AlmError | None = None
        if self.is_main:
            try:
                made = [(make(),)]
            except AlmError as error:
                failure = error
        with _answered():
            dist.broadcast_object_list(made, src=MAIN)
        if failure is not None:
            raise _SharedError(failure)
        if made[0] is None:
            raise EchoedError("the main rank ends", exit_code=0)
        value: T = made[0][0]
        return value

    def wait(self) -> None:
        """Wait until every rank has reached this call."""
        self.greatest(0)


class _SharedError(Exception):
    """Carrier of an error that all ranks know of, out of the world."""

    def __init__(self, error: AlmError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostRankError from error


@contextlib.contextmanager
def joined(device_name: str = "auto") -> Iterator[World]:
    """Join the world of this process, with a device for each rank, until the context is left.

    An error that leaves the context gets the rank's number; if another rank reports it, it becomes an `EchoedError`.
    """
    here = place()
    if here.size == 1:
        yield World(device=device.choose(device_name, precision="fp32").device)
        return
    with _ended_with_parent():
        yield from _met(here, device_name)


def _met(here: Place, device_name: str) -> Iterator[World]:
    shared, _, _ = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(f"alm/{next(_joins)}", shared)
    with _Reporting(here, store):
        world = World(**vars(here), device=_device_of(here, device_name))
        _begin(world, store)
        yield world
        world.wait()
    dist.destroy_process_group()  # not after an error: closed connections would end the others before the report


class _Reporting:
    """Context that lets a single rank report an error that ends it.

    Connections stay open: the other ranks must not notice the end before this rank has reported the error.
    """

    def __init__(self, here: Place, store: Store) -> None:
        self._here = here
        self._store = store

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            raised = _raised_on_one_rank(error, self._here, self._store)
            if raised is not error:
                raise raised from error


@contextlib.contextmanager
def _ended_with_parent() -> Iterator[None]:
    """Terminate this process if torchrun, its parent, is killed inside this context: nothing else would."""
    parent, left = os.getppid(), threading.Event()

    def watch() -> None:
        while not left.wait(_PARENT_SECONDS):
            if os.getppid() != parent:  # never on Windows, where the parent's number does not change
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="alm-parent", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _device_of(here: Place, name: str) -> torch.device:
    if ":" in name:
        raise ConfigError(f"`--device {name}` is one device, but each rank needs its own", hint="use `--device cuda`")
    chosen = device.choose(name, precision="fp32").device
    if chosen.type == "mps":
        raise ConfigError("Apple's Metal is one device, but each rank needs its own", hint="use `--device cpu`")
    if chosen.type == "cpu":
        return chosen
    there = torch.cuda.device_count()
    if here.local_rank >= there:
        raise ConfigError(
            f"{here.local_size} ranks on this machine need as many GPUs, but it has {there}",
            hint=f"use `--nproc {there}`, or `--device cpu`",
        )
    return torch.device("cuda", here.local_rank)


def _begin(world: World, store: Store) -> None:
    is_cuda = world.device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(world.device)
    with _answered():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if is_cuda else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=PATIENCE,
            device_id=world.device if is_cuda else None,
        )


def _raised_on_one_rank(error: Exception, here: Place, store: Store) -> Exception:
    """Return `error` if this rank is the one to report it, else the error that ends a silent rank."""
    if threading.current_thread() is threading.main_thread():
        # torchrun terminates the other ranks after the first failure: the report must come first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if isinstance(error, _SharedError):
        return error.error
    if isinstance(error, EchoedError):
        return error
    if isinstance(error, StoppedError):  # all ranks stop together
        return error if here.is_main else EchoedError(error.message, exit_code=0)
    if isinstance(error, RuntimeError) and is_lost(error):
        error = LostRankError()
    if not _is_first(store):
        return EchoedError(str(error), exit_code=EXIT_FAILURE)
    if isinstance(error, AlmError):
        error.message = f"rank {here.rank} of {here.size}: {error.message}"
    else:
        error.add_note(f"on rank {here.rank} of {here.size}")
    return error


def is_lost(error: RuntimeError) -> bool:
    """Whether `error`, raised by a backward pass that sums gradients, says that another rank is gone."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST)


def _is_first(store: Store) -> bool:
    """Whether no other rank has failed before; True if the store itself is gone."""
    try:
        return int(store.add(_FAILURES, 1)) == 1
    except RuntimeError:
        return True
