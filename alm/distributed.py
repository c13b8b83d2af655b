"""The processes that train one model together, its ranks: how they meet, what they say to each other, how they end.

`torchrun` starts them and tells each its place by environment variables; a process without these is alone. One rank
speaks for all: whatever ends a run is told once, by the first rank that knows.
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

# What one rank does alone while the others wait, hashing a checkpoint for example, has to be done in this time.
PATIENCE = timedelta(minutes=10)
MAIN = 0
_PARENT_SECONDS = 1.0  # how often it is looked for
_FAILURES = "failures"  # a key of the store that all ranks share
_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# In what torch says when a peer is gone.
_LOST = ("gloo", "NCCL", "ProcessGroup", "Connection", "Socket", "Broken pipe")

_joins = itertools.count()  # a process may join again: names of the shared store are used once

T = TypeVar("T")


class LostRankError(AlmError):
    """Another rank has ended, or has not answered for `PATIENCE`."""

    def __init__(self) -> None:
        super().__init__(
            "another rank of this run has ended, or no longer answers",
            hint="see what is said above, or whether memory ran out, and start the same command again: "
            "it goes on from the newest checkpoint",
        )


@dataclass(frozen=True)
class Place:
    """Rank `rank` of `size`, and `local_rank` of `local_size` on this machine; all are counted from 0."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files and speaks for the run."""
        return self.rank == MAIN


def place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that `torchrun` gave this process. Raises `ConfigError` where it told only half of it.

    >>> place({})
    Place(rank=0, size=1, local_rank=0, local_size=1)
    """
    size = _number(environment, "WORLD_SIZE", 1)
    if size == 1:
        return Place()
    missing = [name for name in _NEEDED if name not in environment]
    if missing:
        raise ConfigError(
            f"`WORLD_SIZE` is {size}, but `{missing[0]}` is not set: ranks could not meet",
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
    """What the ranks say to each other. Every rank has to make the same calls in the same order.

    A world of one rank, the default, answers at once. Each method raises `LostRankError` when another rank is gone.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def sum_(self, values: Tensor) -> Tensor:
        """`values` added up over the ranks, in place and on every rank, by one collective."""
        if self.size > 1:
            with _answered():
                dist.all_reduce(values)
        return values

    def greatest(self, number: int) -> int:
        """The greatest `number` of any rank."""
        if self.size == 1:
            return number
        value = torch.tensor(number)  # on the CPU: no accelerator is waited for
        with _answered():
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return int(value)

    def exchanged(self, values: Tensor, *, partner: int) -> Tensor:
        """What rank `partner` has, which is given `values` in turn: same shape, type and kind of device."""
        received = torch.empty_like(values)
        transfers = [dist.P2POp(dist.isend, values, partner), dist.P2POp(dist.irecv, received, partner)]
        with _answered():
            for transfer in dist.batch_isend_irecv(transfers):
                transfer.wait()
        return received

    def gathered(self, value: T) -> list[T]:
        """The `value` of each rank, in order, on every rank."""
        found: list[Any] = [value] * self.size  # Any: torch's own type
        if self.size > 1:
            with _answered():
                dist.all_gather_object(found, value)
        return found

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` returns on the main rank, which alone calls it.

        When it raises an `AlmError`, every rank ends; the main rank is the one that tells.
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
        """Go on when every rank has come here."""
        self.greatest(0)


class _SharedError(Exception):
    """Carries an error that all ranks know of out of the world."""

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
    """The world of this process, with a device for each rank, until the context is left.

    An error that leaves it is given the rank's number; where another rank tells it, it becomes an `EchoedError`.
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
    with _Telling(here, store):
        world = World(**vars(here), device=_device_of(here, device_name))
        _begin(world, store)
        yield world
        world.wait()
    dist.destroy_process_group()


class _Telling:
    """Makes of an error that ends its block one that is told by a single rank.

    Connections stay open: the others are to notice only when this rank has said what happened.
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
            told = _told_once(error, self._here, self._store)
            if told is not error:
                raise told from error


@contextlib.contextmanager
def _ended_with_parent() -> Iterator[None]:
    """While this context lasts: terminate this process when torchrun, its parent, was killed, for nobody else would."""
    parent, left = os.getppid(), threading.Event()

    def watch() -> None:
        while not left.wait(_PARENT_SECONDS):
            if os.getppid() != parent:  # never so on Windows, where a process keeps the number
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="alm-parent", daemon=True).start()
    try:
        yield
    finally:
        left.set()


def _device_of(here: Place, name: str) -> torch.device:
    if ":" in name:
        raise ConfigError(f"`--device {name}` is one device, each rank needs its own", hint="use `--device cuda`")
    chosen = device.choose(name, precision="fp32").device
    if chosen.type == "mps":
        raise ConfigError("Apple's Metal is one device, each rank needs its own", hint="use `--device cpu`")
    if chosen.type == "cpu":
        return chosen
    there = torch.cuda.device_count()
    if here.local_rank >= there:
        raise ConfigError(
            f"{here.local_size} ranks on this machine need as many GPUs, there are {there}",
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


def _told_once(error: Exception, here: Place, store: Store) -> Exception:
    """`error` where this rank is the one that tells, and what ends a silent rank elsewhere."""
    if threading.current_thread() is threading.main_thread():
        # torchrun ends the ranks that are left: what there is to say comes first.
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
    """Whether `error`, out of a backward pass that adds up gradients, says that another rank is gone."""
    return isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST)


def _is_first(store: Store) -> bool:
    """Whether no other rank has failed before; also where the store itself is gone."""
    try:
        return int(store.add(_FAILURES, 1)) == 1
    except RuntimeError:
        return True
