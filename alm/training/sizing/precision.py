"""Chooses the precision of a run; without a hardware flag that answers it, the run's own model is timed in each.

The gain of bf16 depends on the shape of the model as much as on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from alm import device as devices
from alm.device import Choice, Precision, autocast
from alm.events import Listener, Noted, ignore
from alm.model.count import count
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.training.config import RunConfig
from alm.training.sizing.memory import MemoryLimit

# A timed micro-batch has about this many FLOPs, a few tenths of a second on a core with bf16,
_FLOPS = 2e10
# but at least this many tokens, so that a matrix product does not become one with a vector.
_FEWEST_TOKENS = 64
_ROUNDS = 3
_LONGEST_SECONDS = 2.0

Seconds = Callable[[Precision], float]


def settled(config: RunConfig, device_name: str, *, seq_len: int, on_event: Listener = ignore) -> Choice:
    """Return the device of that name with `training.precision`; `auto` is measured if necessary.

    A model that does not fit there, even with one sequence, is not timed: a matrix product is timed in its place.
    """
    wanted = config.training.precision
    choice = devices.choose(device_name, precision="fp32" if wanted == "auto" else wanted)
    if wanted != "auto":
        return choice
    found = devices.known_precision(choice.device)
    if found is None:
        if config.training.threads != "auto":
            devices.set_threads(config.training.threads)
        has_room = MemoryLimit(config, seq_len, choice).largest() != 0
        found = (
            tried(Trial(config, choice.device, seq_len=seq_len))
            if has_room
            else devices.fastest_precision(choice.device)
        )
        on_event(Noted(f"precision is {found[0]}: {found[1]}"))
    return Choice(choice.device, found[0], choice.device_reason, found[1])


def with_precision(config: RunConfig, choice: Choice) -> RunConfig:
    """Return `config` with the chosen precision, so that it is not measured again."""
    training = config.training.model_copy(update={"precision": choice.precision})
    return config.model_copy(update={"training": training})


def tried(seconds: Seconds) -> tuple[Precision, str]:
    """Return the faster precision by `seconds`, and the reason: the best of a few rounds of each, taken in turn."""
    best: dict[Precision, float] = {"fp32": float("inf"), "bf16": float("inf")}
    spent = 0.0
    try:
        for number in range(1 + _ROUNDS):
            found = {precision: seconds(precision) for precision in best}
            spent += sum(found.values())
            if number:  # the first round warms up caches
                best = {precision: min(best[precision], found[precision]) for precision in best}
            if number and spent > _LONGEST_SECONDS:
                break
    except (RuntimeError, TypeError):  # older Metal refuses the type
        return devices.by_speedup(None, "")
    return devices.by_speedup(best["fp32"] / best["bf16"], "a step of this model")


class Trial:
    """The model of a run with random tokens; calling it returns the seconds of a forward and backward pass."""

    def __init__(self, config: RunConfig, device: torch.device, *, seq_len: int) -> None:
        self._device, self._seed = device, config.training.seed
        self._model = Transformer(config.model)
        initialize(self._model, seed=self._seed)
        self._model.to(device).train()
        rows, tokens = shape(config, seq_len=seq_len)
        draw = torch.Generator().manual_seed(self._seed)
        self._ids = torch.randint(config.model.known_vocab_size, (rows, tokens), generator=draw).to(device)

    def __call__(self, precision: Precision) -> float:
        with torch.random.fork_rng([]):  # dropout draws random numbers; on a GPU nothing is timed
            started = time.perf_counter()
            with autocast(self._device, precision):
                hidden = self._model(self._ids)
                loss = self._model.losses(hidden, self._ids, divisor=float(self._ids.numel())).total
            loss.backward()  # type: ignore[no-untyped-call]
            loss.item()  # waits for the device
            return time.perf_counter() - started


def shape(config: RunConfig, *, seq_len: int) -> tuple[int, int]:
    """Return the sequences and tokens of a micro-batch that is small enough to be timed."""
    each = count(config.model).training_flops_per_token(seq_len)
    room = max(_FEWEST_TOKENS, int(_FLOPS / each))
    return max(1, min(config.training.micro_batch_size, room // seq_len)), min(seq_len, room)
