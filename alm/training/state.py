"""The state of training (weights, optimizer, step): creating it, and converting it to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from alm import kinds
from alm.checkpoint.format import Checkpoint, Values
from alm.device import Choice
from alm.distributed import World
from alm.errors import ArtifactError
from alm.model.init import initialize
from alm.model.linear import table_rows, with_rows
from alm.model.transformer import Transformer
from alm.model.weights import mismatches
from alm.optim.saved import fitted
from alm.training.config import RunConfig
from alm.training.parallel import Parallelism, gathered, local, parted, share
from alm.training.scaling import LossScaler

_INIT_HINT = "`alm pretrain --init CHECKPOINT --out RUN`"


@dataclass
class TrainState:
    """Weights, optimizer and counters of a run.

    `step` counts finished updates, including skipped ones. `is_whole` is false during an update: the state that a
    failed update leaves must not be saved. `parallelism`: how the ranks train `model` together. `scaler`: in fp16.
    """

    model: Transformer
    optimizer: torch.optim.Optimizer
    parallelism: Parallelism
    scaler: LossScaler | None = None
    step: int = 0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    is_whole: bool = True

    def is_finite(self) -> bool:
        """Whether every weight of this rank is finite: an update after a finite loss may still overflow."""
        return all(bool(torch.isfinite(local(parameter)).all()) for parameter in self.model.parameters())


def fresh(config: RunConfig, choice: Choice, world: World | None = None, *, seq_len: int = 1) -> TrainState:
    """Return a state at step 0, for one process without a `world`; ranks warm up with sequences of `seq_len`.

    The weights depend on the seed alone, not on the device or the ranks.
    """
    world = world or World(device=choice.device)
    model = Transformer(config.model)
    initialize(model, seed=config.training.seed)
    if config.training.parallel != "fsdp" or world.size == 1:
        model.to(choice.device)  # with fsdp each block moves when it is sharded: the device may not hold all of them
    parallelism = share(model, config, world, forward=compiled(model, enabled=config.training.compile is True))
    optimizer = kinds.module_of(config.optim).build(config.optim, model)
    parallelism.warm_up(choice, shape=(config.training.micro_batch_size, seq_len))
    return TrainState(model, optimizer, parallelism, LossScaler(choice.device) if choice.precision == "fp16" else None)


def compiled(model: Transformer, *, enabled: bool) -> Callable[..., torch.Tensor]:
    """Return the model's forward, through `torch.compile` if `enabled`."""
    return torch.compile(model) if enabled else model


def restore_(state: TrainState, checkpoint: Checkpoint, choice: Choice) -> None:
    """Load `checkpoint` into `state`; raise `ArtifactError` unless its weights, moments and random states fit.

    Dropout does not draw from the restored random state: its masks follow from the step.
    """
    put_weights_(state.model, checkpoint.model)
    updates = checkpoint.step - checkpoint.skipped_steps
    saved = fitted(checkpoint.optimizer, state.optimizer, rows=table_rows(state.model), updates=updates)
    state.optimizer.load_state_dict(_parted_moments(saved, state.optimizer))
    state.step = checkpoint.step
    state.skipped_steps, state.skipped_in_row = checkpoint.skipped_steps, checkpoint.skipped_in_row
    if state.scaler is not None and checkpoint.loss_scaler is not None:
        state.scaler.restore_(checkpoint.loss_scaler)
    rank = state.parallelism.world.rank
    # A checkpoint of fewer ranks has fewer states. No result depends on them, so ranks may share one.
    if not checkpoint.rng:
        raise _unfit("it has no random state", hint=f"start another run from its weights: {_INIT_HINT}")
    _restore_random(checkpoint.rng[rank % len(checkpoint.rng)], choice.device)


def put_weights_(model: Transformer, weights: Mapping[str, torch.Tensor]) -> None:
    """Load full `weights` into `model`, of which this rank may have a part; `ArtifactError` if they do not fit."""
    own = dict(model.state_dict())
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, weights)]
    faults = mismatches(*shapes)
    if faults:
        raise _unfit("\n  ".join(["its weights do not match the model:", *faults]))
    model.load_state_dict({name: parted(tensor, own[name]) for name, tensor in weights.items()})


def _unfit(reason: str, *, hint: str = "resume an older one with `--resume`") -> ArtifactError:
    return ArtifactError(f"the checkpoint does not fit its run: {reason}", hint=hint)


def _parted_moments(saved: Values, optimizer: torch.optim.Optimizer) -> Values:
    """Return the optimizer state of a checkpoint, with each tensor sharded like its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {name: parted(_as_long(value, parameters[index]), parameters[index]) for name, value in moments.items()}
        for index, moments in saved["state"].items()
    }
    return {**saved, "state": state}


def _as_long(value: Any, parameter: torch.Tensor) -> Any:  # Any: a state may hold plain values
    """Return the moments of an embedding table, with zeros for its padding rows."""
    is_moment = isinstance(value, torch.Tensor) and value.dim() == parameter.dim() == 2
    return with_rows(value, len(parameter)) if is_moment else value


def _without_padding(saved: Values, state: TrainState) -> Values:
    """Return a full optimizer state without the padding rows of embedding tables, like the saved weights."""
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    rows = table_rows(state.model)
    for index, moments in saved["state"].items():
        wanted = rows.get(id(parameters[index]))
        if wanted is not None:
            for name, value in moments.items():
                if isinstance(value, torch.Tensor) and value.dim() == 2:
                    moments[name] = with_rows(value, wanted)
    return saved


def snapshot(
    state: TrainState,
    config: RunConfig,
    *,
    environment: dict[str, str],
    tokenizer_sha256: str,
    data_sha256: str,
    alone: bool = False,
) -> Checkpoint:
    """Return `state` as a checkpoint, complete on the main rank. All ranks call it together, or one `alone` after an
    error.

    It shares the tensors: copy or write it before the next step.
    """
    world = World(device=state.parallelism.world.device) if alone else state.parallelism.world
    return Checkpoint(
        step=state.step,
        samples_seen=state.step * config.training.sequences_per_step,
        model=_whole_memory(gathered(dict(state.model.state_dict()), keep=world.is_main)),
        optimizer=_without_padding(gathered(state.optimizer.state_dict(), keep=world.is_main), state),
        rng=world.gathered(_random(world.device)),
        config=config.model_dump(mode="json"),
        environment=environment,
        tokenizer_sha256=tokenizer_sha256,
        data_sha256=data_sha256,
        skipped_steps=state.skipped_steps,
        skipped_in_row=state.skipped_in_row,
        loss_scaler=None if state.scaler is None else state.scaler.state(),
    )


def _whole_memory(tensors: Values) -> Values:
    """Copy tensors that are views of larger ones: `torch.save` writes the complete storage behind a view."""
    return {
        name: tensor.clone() if tensor is not None and tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
        for name, tensor in tensors.items()
    }


def _random(device: torch.device) -> Values:
    states: Values = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random(states: dict[str, Any], device: torch.device) -> None:  # Any: tensors
    try:
        torch.set_rng_state(states["cpu"].cpu())
        if device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    except (KeyError, RuntimeError) as error:
        raise _unfit(f"its random state (`rng`) does not fit this PyTorch ({', '.join(states)})") from error
