"""Chooses by measuring what depends on model, device and PyTorch's version: the precision, and `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from alm import device as devices
from alm import shown
from alm.device import Choice, Precision, autocast, best_seconds, is_out_of_memory, unchanged_random_state
from alm.events import Listener, Noted, ignore
from alm.model.count import count
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.training.config import RunConfig
from alm.training.sizing.memory import MemoryLimit
from alm.training.sizing.probe import release_memory

# A micro-batch that is timed in each precision has about this many FLOPs, a few tenths of a second on a core with bf16,
_FLOPS = 2e10
# but at least this many tokens, so that a matrix product does not become one with a vector.
_FEWEST_TOKENS = 64
_ROUNDS, _MOST_SECONDS = 3, 2.0
_COMPILE_WARM_UP, _COMPILE_CALLS = 3, 5
# A smaller gain is not worth the time that compiling takes at every start.
MIN_SPEEDUP = 1.05


def choose_precision(config: RunConfig, device_name: str, *, seq_len: int, on_event: Listener = ignore) -> Choice:
    """Return the device of that name with `training.precision`; `auto` is measured if no hardware flag answers it.

    The gain of bf16 depends on the shape of the model as much as on the device, so the run's own model is timed. One
    that does not fit there, even with one sequence, is not built: a matrix product is timed in its place.
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
            faster_precision(config, choice.device, seq_len=seq_len)
            if has_room
            else devices.fastest_precision(choice.device)
        )
        on_event(Noted(f"precision is {found[0]}: {found[1]}"))
    return Choice(choice.device, found[0], choice.device_reason, found[1])


def with_precision(config: RunConfig, choice: Choice) -> RunConfig:
    """Return `config` with the chosen precision, so that it is not measured again."""
    training = config.training.model_copy(update={"precision": choice.precision})
    return config.model_copy(update={"training": training})


def faster_precision(config: RunConfig, device: torch.device, *, seq_len: int) -> tuple[Precision, str]:
    """Return the precision in which passes of the run's model are faster, and the reason."""
    passes = Passes(config, device, micro_batch_shape(config, seq_len=seq_len))
    both: tuple[Precision, ...] = ("fp32", "bf16")
    try:
        with unchanged_random_state(device):  # dropout draws random numbers
            seconds = best_seconds(
                {precision: partial(passes, precision) for precision in both},
                device,
                rounds=_ROUNDS,
                most_seconds=_MOST_SECONDS,
            )
    except (RuntimeError, TypeError):  # older Metal refuses the type
        return devices.by_speedup(None, "")
    return devices.by_speedup(seconds["fp32"] / seconds["bf16"], "a step of this model")


class Passes:
    """The new model of a run and random tokens; calling it runs a forward and backward pass."""

    def __init__(self, config: RunConfig, device: torch.device, shape: tuple[int, int]) -> None:
        self.model = Transformer(config.model)
        initialize(self.model, seed=config.training.seed)
        self.model.to(device).train()
        draw = torch.Generator().manual_seed(config.training.seed)
        self._ids = torch.randint(config.model.known_vocab_size, shape, generator=draw).to(device)
        self._device = device

    def __call__(self, precision: Precision, forward: Callable[[Tensor], Tensor] | None = None) -> None:
        """Run the passes in `precision`, the first with `forward`, by default the model itself."""
        with autocast(self._device, precision):
            hidden = (forward or self.model)(self._ids)
            loss = self.model.losses(hidden, self._ids, divisor=float(self._ids.numel())).total
        loss.backward()  # type: ignore[no-untyped-call]


def micro_batch_shape(config: RunConfig, *, seq_len: int) -> tuple[int, int]:
    """Return the sequences and tokens of a micro-batch that is small enough to be timed in each precision."""
    each = count(config.model).training_flops_per_token(seq_len)
    room = max(_FEWEST_TOKENS, int(_FLOPS / each))
    return max(1, min(config.training.micro_batch_size, room // seq_len)), min(seq_len, room)


@dataclass(frozen=True)
class CompileTrial:
    """Seconds of a micro-batch, forward and backward, with and without compiling; None if compiling did not work."""

    plain: float | None = None
    compiled: float | None = None
    error: str = ""

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
            return f"it does not work here ({self.error})"
        return f"a micro-batch takes {self.compiled * 1e3:.1f} ms with it, {self.plain * 1e3:.1f} without"


def choose_compile(config: RunConfig, choice: Choice, *, seq_len: int, on_event: Listener) -> bool:
    """Return `training.compile` as true or false; `auto` is measured, except on a CPU, where it is off."""
    if config.training.compile != "auto":
        return config.training.compile
    trial = try_compile(config, choice, seq_len=seq_len, on_event=on_event)
    return trial is not None and trial.pays


def try_compile(config: RunConfig, choice: Choice, *, seq_len: int, on_event: Listener) -> CompileTrial | None:
    """Time micro-batches of the run both ways; None unless `training.compile` is `auto` on an accelerator."""
    if config.training.compile != "auto" or choice.device.type == "cpu":
        return None
    trial = _compile_trial(config, choice, seq_len)
    on_event(Noted(f"torch.compile is {'on' if trial.pays else 'off'}: {trial}"))
    return trial


def _compile_trial(config: RunConfig, choice: Choice, seq_len: int) -> CompileTrial:
    """Time both ways, with fewer sequences while memory is full: a run then shrinks its micro-batches as well."""
    size = config.training.micro_batch_size
    while True:
        try:
            with unchanged_random_state(choice.device):  # dropout draws random numbers
                trial = _time_both(config, choice, (size, seq_len))
        except RuntimeError as error:  # no compiler, too little memory, or an operation that it does not support
            trial = CompileTrial(error=shown.reason(error)[:200])
            is_full = is_out_of_memory(error)
        else:
            is_full = False
        release_memory(choice.device)  # outside `except`: the traceback refers to the model
        if not is_full or size == 1:
            return trial
        size //= 2


def _time_both(config: RunConfig, choice: Choice, shape: tuple[int, int]) -> CompileTrial:
    passes = Passes(config, choice.device, shape)
    forwards: dict[str, Callable[[Tensor], Tensor]] = {"plain": passes.model, "compiled": torch.compile(passes.model)}
    seconds = best_seconds(
        {name: partial(passes, choice.precision, forward) for name, forward in forwards.items()},
        choice.device,
        rounds=1,  # of several calls, which the device can run without a pause, as in a step
        warm_up=_COMPILE_WARM_UP,
        calls=_COMPILE_CALLS,
    )
    return CompileTrial(seconds["plain"], seconds["compiled"])
