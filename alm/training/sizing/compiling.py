"""Decides by measuring whether `torch.compile` pays: it depends on the model, the GPU and PyTorch's version."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alm import shown
from alm.device import Choice, autocast, is_out_of_memory, wait_for
from alm.events import Listener, Noted
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.training.config import RunConfig
from alm.training.sizing.probe import release_memory

_WARM_UP, _STEPS = 3, 5
# A smaller gain is not worth the time that compiling takes at every start.
MIN_SPEEDUP = 1.05

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trial:
    """Seconds of a micro-batch, forward and backward, with and without compiling; None if compiling did not work."""

    plain: float | None = None
    compiled: float | None = None
    trouble: str = ""

    @property
    def pays(self) -> bool:
        """Whether the gain is worth the time that compiling takes."""
        return self.plain is not None and self.compiled is not None and self.plain / self.compiled >= MIN_SPEEDUP

    @property
    def share(self) -> float:
        """Time of a micro-batch with the better choice, as a share of the time without compiling."""
        return self.compiled / self.plain if self.pays and self.plain and self.compiled else 1.0

    def __str__(self) -> str:
        if self.plain is None or self.compiled is None:
            return f"it does not work here ({self.trouble})"
        return f"a micro-batch takes {self.compiled * 1e3:.1f} ms with it, {self.plain * 1e3:.1f} without"


def settled(config: RunConfig, choice: Choice, *, seq_len: int, on_event: Listener) -> bool:
    """Return `training.compile` as true or false; `auto` is measured, except on a CPU, where it is off."""
    if config.training.compile != "auto":
        return config.training.compile
    trial = tried(config, choice, seq_len=seq_len, on_event=on_event)
    return trial is not None and trial.pays


def tried(config: RunConfig, choice: Choice, *, seq_len: int, on_event: Listener) -> Trial | None:
    """Time micro-batches of the run both ways; None unless `training.compile` is `auto` on an accelerator."""
    if config.training.compile != "auto" or choice.device.type == "cpu":
        return None
    trial = _trial(config, choice, seq_len)
    on_event(Noted(f"torch.compile is {'on' if trial.pays else 'off'}: {trial}"))
    return trial


def _trial(config: RunConfig, choice: Choice, seq_len: int) -> Trial:
    """Run the trial, with fewer sequences while memory is full: a run then shrinks its micro-batches as well."""
    devices = [choice.device] if choice.device.type == "cuda" else []
    size = config.training.micro_batch_size
    while True:
        try:
            with torch.random.fork_rng(devices):  # dropout draws
                found = _timed(config, choice, (size, seq_len))
        except RuntimeError as error:  # no compiler, too little memory, or an operation that it does not support
            found = Trial(trouble=shown.reason(error)[:200])
            is_full = is_out_of_memory(error)
        else:
            is_full = False
        release_memory(choice.device)  # outside `except`: the traceback refers to the model
        if not is_full or size == 1:
            return found
        size //= 2


def _timed(config: RunConfig, choice: Choice, shape: tuple[int, int]) -> Trial:
    model = Transformer(config.model)
    initialize(model, seed=config.training.seed)
    model.to(choice.device).train()
    generator = torch.Generator().manual_seed(config.training.seed)
    ids = torch.randint(config.model.known_vocab_size, shape, generator=generator).to(choice.device)
    return Trial(_seconds(model, model, ids, choice), _seconds(torch.compile(model), model, ids, choice))


def _seconds(forward: Forward, model: Transformer, ids: Tensor, choice: Choice) -> float:
    """Return the seconds of a forward and backward pass, after warming up."""
    for number in range(_WARM_UP + _STEPS):
        if number == _WARM_UP:
            wait_for(choice.device)
            started = time.perf_counter()
        with autocast(choice.device, choice.precision):
            loss = model.losses(forward(ids), ids, divisor=float(ids.numel())).total
        loss.backward()  # type: ignore[no-untyped-call]
    wait_for(choice.device)
    return (time.perf_counter() - started) / _STEPS
