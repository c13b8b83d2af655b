"""Whether `torch.compile` pays, found out on the device: it depends on the model, the GPU and PyTorch's version."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from alm.device import Choice, autocast, wait_for
from alm.events import Listener, Noted
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.training.config import RunConfig

_WARM_UP, _STEPS = 3, 5
# What a compiled model gains must be worth the time that compiling takes at every start.
MIN_SPEEDUP = 1.05

Forward = Callable[[Tensor], Tensor]


def settled(config: RunConfig, choice: Choice, *, seq_len: int, on_event: Listener) -> bool:
    """`training.compile` as true or false; `auto` is tried where it may pay, which a CPU is not."""
    wanted = config.training.compile
    if wanted != "auto":
        return wanted
    if choice.device.type == "cpu":
        return False
    pays, why = tried(config, choice, seq_len=seq_len)
    on_event(Noted(f"torch.compile is {'on' if pays else 'off'}: {why}"))
    return pays


def tried(config: RunConfig, choice: Choice, *, seq_len: int) -> tuple[bool, str]:
    """Whether the model, in micro-batches as in the run, is faster compiled than not; and a few words on it."""
    model = Transformer(config.model)
    initialize(model, seed=config.training.seed)
    model.to(choice.device).train()
    generator = torch.Generator().manual_seed(config.training.seed)
    shape = (config.training.micro_batch_size, seq_len)
    ids = torch.randint(config.model.known_vocab_size, shape, generator=generator).to(choice.device)
    devices = [choice.device] if choice.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # dropout draws
        try:
            plain = _seconds(model, model, ids, choice)
            compiled = _seconds(torch.compile(model), model, ids, choice)
        except RuntimeError as error:  # a compiler is missing, or memory, or an operation is not known to it
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return False, f"it does not work here ({reason[:200]})"
    model.zero_grad(set_to_none=True)
    return (
        plain / compiled >= MIN_SPEEDUP,
        f"a micro-batch takes {compiled * 1e3:.1f} ms with it, {plain * 1e3:.1f} without",
    )


def _seconds(forward: Forward, model: Transformer, ids: Tensor, choice: Choice) -> float:
    """Of a forward and backward pass, when all is warm."""
    for number in range(_WARM_UP + _STEPS):
        if number == _WARM_UP:
            wait_for(choice.device)
            started = time.perf_counter()
        with autocast(choice.device, choice.precision):
            loss = model.losses(forward(ids), ids, divisor=float(ids.numel())).total
        loss.backward()  # type: ignore[no-untyped-call]
    wait_for(choice.device)
    return (time.perf_counter() - started) / _STEPS
