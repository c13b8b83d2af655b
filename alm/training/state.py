"""The state of training (weights, optimizer, step): creating it, and converting it to a checkpoint and back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alm import kinds
from alm.checkpoint.format import AVERAGE, Checkpoint, Values
from alm.device import Choice
from alm.distributed import World
from alm.errors import ArtifactError
from alm.model.init import initialize
from alm.model.layers import table_rows, with_rows
from alm.model.lora import add_adapters_, merged
from alm.model.transformer import Transformer
from alm.model.weights import is_adapter, mismatches
from alm.optim.saved import fitted
from alm.training.average import WeightAverage
from alm.training.config import RunConfig
from alm.training.parallel import Parallelism, full_state, local_part, parallelize, shard_like

# Scales of the loss in fp16: powers of two, so that scaling rounds nothing.
FIRST_SCALE = 2.0**16
LOWEST_SCALE = 1.0
GREATEST_SCALE = 2.0**24
GROWTH, BACKOFF = 2.0, 0.5
# An overflow costs a step: about one in this many, once the scale is as large as it can be.
GROWTH_INTERVAL = 1000
_INIT_HINT = "`alm pretrain --init CHECKPOINT --out RUN`"


class LossScaler:
    """Dynamic loss scaling: fp16 has no numbers below 6e-8, where many gradients are.

    The loss is multiplied by a scale, the gradients are divided by it. The scale falls when gradients overflow, in a
    step that is skipped, and rises after many steps without an overflow: Micikevicius et al. 2018, "Mixed Precision
    Training", arXiv:1710.03740, section 3.2. It and its number of good steps in a row are on the device, so that no
    step waits for it.

    It replaces `torch.amp.GradScaler`, which scales an existing loss (ours computes its gradients in the forward pass),
    checks only the gradients of its own rank, and has no floor to distinguish an overflow from a diverged model.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.tensor(FIRST_SCALE, device=device)
        self._good_steps = torch.tensor(0, device=device)

    def unscale_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / self.scale)

    def update(self, *, loss: Tensor, is_finite: Tensor) -> Tensor:
        """Choose the scale of the next step; return whether this step may be not finite because of its scale.

        That is so if the `loss` is finite, so that only gradients are not, and the scale can still fall. The tensors
        are replaced, not changed: a checkpoint may hold them.
        """
        overflowed = ~is_finite & torch.isfinite(loss) & (self.scale > LOWEST_SCALE)
        good_steps = torch.where(is_finite, self._good_steps + 1, 0)
        is_due = good_steps >= GROWTH_INTERVAL
        factor = torch.where(overflowed, BACKOFF, torch.where(is_due, GROWTH, 1.0))
        self.scale = (self.scale * factor).clamp(LOWEST_SCALE, GREATEST_SCALE)
        self._good_steps = torch.where(is_due, 0, good_steps)
        return overflowed

    def state(self) -> dict[str, float]:
        """Return the values for a checkpoint; reading them waits for the device."""
        return {"scale": float(self.scale), "good_steps": int(self._good_steps)}

    def restore_(self, state: dict[str, float]) -> None:
        """Continue from `state`."""
        self.scale = torch.full_like(self.scale, state["scale"])
        self._good_steps = torch.full_like(self._good_steps, int(state["good_steps"]))


@dataclass
class TrainState:
    """Weights, optimizer and counters of a run.

    `step` counts finished updates, including skipped ones. `is_consistent` is false during an update: the state that a
    failed update leaves must not be saved. `parallelism`: how the ranks train `model` together. `scaler`: in fp16.
    `average`: of the weights of `model`, where scores, samples and checkpoints are of an average.
    """

    model: Transformer
    optimizer: torch.optim.Optimizer
    parallelism: Parallelism
    scaler: LossScaler | None = None
    step: int = 0
    skipped_steps: int = 0
    skipped_in_row: int = 0
    is_consistent: bool = True
    average: WeightAverage | None = None

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give `model` its averaged weights in this context, if the run averages them."""
        if self.average is None:
            yield
            return
        self.is_consistent = False  # the weights of the run are elsewhere
        self.average.exchange()
        try:
            yield
        finally:
            self.average.exchange()
            self.is_consistent = True

    def is_finite(self) -> bool:
        """Whether every weight of this rank is finite: an update after a finite loss may still overflow."""
        return all(bool(torch.isfinite(local_part(parameter)).all()) for parameter in self.model.parameters())


def init_state(config: RunConfig, choice: Choice, world: World | None = None, *, seq_len: int = 1) -> TrainState:
    """Return a state at step 0, for one process without a `world`; ranks warm up with sequences of `seq_len`.

    The weights depend on the seed alone, not on the device or the ranks.
    """
    world = world or World(device=choice.device)
    model = Transformer(config.model)
    initialize(model, seed=config.training.seed)
    if config.lora.rank:
        adapters, seed = config.lora, config.training.seed
        add_adapters_(model, rank=adapters.rank, scale=adapters.scale, targets=adapters.targets, seed=seed)
    if config.training.parallel != "fsdp" or world.size == 1:
        model.to(choice.device)  # with fsdp each block moves when it is sharded: the device may not hold all of them
    parallelism = parallelize(model, config, world, forward=compiled(model, enabled=config.training.compile is True))
    optimizer = kinds.module_of(config.optim).build(config.optim, model)
    parallelism.warm_up(choice, shape=(config.training.micro_batch_size, seq_len))
    share = config.training.weight_average
    return TrainState(
        model,
        optimizer,
        parallelism,
        LossScaler(choice.device) if choice.precision == "fp16" else None,
        average=WeightAverage((each for each in model.parameters() if each.requires_grad), share=share)
        if share
        else None,
    )


def compiled(model: Transformer, *, enabled: bool) -> Callable[..., Tensor]:
    """Return the model's forward, through `torch.compile` if `enabled`."""
    return torch.compile(model) if enabled else model


def restore_(state: TrainState, checkpoint: Checkpoint, choice: Choice) -> None:
    """Load `checkpoint` into `state`; raise `ArtifactError` unless its weights, moments and random states fit.

    Dropout does not draw from the restored random state: its masks follow from the step. A model with adapters must
    have the weights that these were trained with.
    """
    _restore_weights(state, checkpoint)
    updates = checkpoint.step - checkpoint.skipped_steps
    saved = fitted(checkpoint.optimizer, state.optimizer, rows=table_rows(state.model), updates=updates)
    state.optimizer.load_state_dict(_shard_moments(saved, state.optimizer))
    state.step = checkpoint.step
    state.skipped_steps, state.skipped_in_row = checkpoint.skipped_steps, checkpoint.skipped_in_row
    if state.scaler is not None and checkpoint.loss_scaler is not None:
        state.scaler.restore_(checkpoint.loss_scaler)
    rank = state.parallelism.world.rank
    # A checkpoint of fewer ranks has fewer states. No result depends on them, so ranks may share one.
    if not checkpoint.rng:
        raise _mismatch("it has no random state", hint=f"start another run from its weights: {_INIT_HINT}")
    _restore_rng(checkpoint.rng[rank % len(checkpoint.rng)], choice.device)


def _restore_weights(state: TrainState, checkpoint: Checkpoint) -> None:
    """Load what a run continues with, and its average if it has one."""
    trained, names = checkpoint.trained or checkpoint.model, list(state.model.state_dict())
    adapters = [name for name in names if is_adapter(name)]
    if not adapters:
        load_weights_(state.model, checkpoint.model)
    elif missing := [name for name in adapters if name not in trained]:
        raise _mismatch(f"it has no adapter `{missing[0]}`")
    elif AVERAGE + adapters[0] in trained:
        state.model.load_state_dict({name: trained[AVERAGE + name] for name in adapters}, strict=False)
    elif adapters:
        state.model.load_state_dict({name: trained[name] for name in adapters}, strict=False)
    if state.average is not None:
        state.average.reset()
    if adapters:
        state.model.load_state_dict({name: trained[name] for name in adapters}, strict=False)
    elif checkpoint.trained is not None:
        load_weights_(state.model, checkpoint.trained)


def load_weights_(model: Transformer, weights: Mapping[str, Tensor]) -> None:
    """Load full `weights` into `model`, of which this rank may have a part; `ArtifactError` if they do not fit.

    Adapters of `model` stay as they are.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if not is_adapter(name)}
    shapes = [{name: tuple(tensor.shape) for name, tensor in tensors.items()} for tensors in (own, weights)]
    faults = mismatches(*shapes)
    if faults:
        raise _mismatch("\n  ".join(["its weights do not match the model:", *faults]))
    model.load_state_dict({name: shard_like(tensor, own[name]) for name, tensor in weights.items()}, strict=False)


def _mismatch(reason: str, *, hint: str = "resume an older one with `--resume`") -> ArtifactError:
    return ArtifactError(f"the checkpoint does not fit its run: {reason}", hint=hint)


def _shard_moments(saved: Values, optimizer: torch.optim.Optimizer) -> Values:
    """Return the optimizer state of a checkpoint, with each tensor sharded like its parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def shard(value: Any, parameter: Tensor) -> Any:  # Any: a state may hold plain values
        if isinstance(value, Tensor) and value.dim() == parameter.dim() == 2:
            value = with_rows(value, len(parameter))  # an embedding table has padding rows, a checkpoint has none
        return shard_like(value, parameter)

    state = {
        index: {name: shard(value, parameters[index]) for name, value in moments.items()}
        for index, moments in saved["state"].items()
    }
    return {**saved, "state": state}


def _without_padding(saved: Values, state: TrainState) -> Values:
    """Return a full optimizer state without the padding rows of embedding tables, like the saved weights."""
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    rows = table_rows(state.model)
    for index, moments in saved["state"].items():
        wanted = rows.get(id(parameters[index]))
        if wanted is not None:
            for name, value in moments.items():
                if isinstance(value, Tensor) and value.dim() == 2:
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
    model, trained = _model_and_trained(state, config, keep=world.is_main)
    return Checkpoint(
        step=state.step,
        samples_seen=state.step * config.training.sequences_per_step,
        model=model,
        trained=trained,
        optimizer=_without_padding(full_state(state.optimizer.state_dict(), keep=world.is_main), state),
        rng=world.gathered(_rng_state(world.device)),
        config=config.model_dump(mode="json"),
        environment=environment,
        tokenizer_sha256=tokenizer_sha256,
        data_sha256=data_sha256,
        skipped_steps=state.skipped_steps,
        skipped_in_row=state.skipped_in_row,
        loss_scaler=None if state.scaler is None else state.scaler.state(),
    )


def _model_and_trained(state: TrainState, config: RunConfig, *, keep: bool) -> tuple[Values, Values | None]:
    """Return the weights to use, and what the run continues with where these are an average or contain adapters."""
    now = shown = _weights(state, keep=keep)
    if state.average is not None:
        with state.averaged():
            # Copied, since the same tensors hold the weights again afterwards. Beside adapters, weights are frozen.
            shown = {
                name: weight if weight is None or (config.lora.rank and not is_adapter(name)) else weight.clone()
                for name, weight in _weights(state, keep=keep).items()
            }
    if not config.lora.rank:
        return shown, None if state.average is None else now
    trained = {name: weight for name, weight in now.items() if is_adapter(name)}
    if state.average is not None:
        trained |= {AVERAGE + name: shown[name] for name in trained}
    return merged(shown, scale=config.lora.scale), trained


def _weights(state: TrainState, *, keep: bool) -> Values:
    return _own_storage(full_state(dict(state.model.state_dict()), keep=keep))


def _own_storage(tensors: Values) -> Values:
    """Copy tensors that are views of larger ones: `torch.save` writes the complete storage behind a view."""
    return {
        name: tensor.clone() if tensor is not None and tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
        for name, tensor in tensors.items()
    }


def _rng_state(device: torch.device) -> Values:
    states: Values = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_rng(states: dict[str, Any], device: torch.device) -> None:  # Any: tensors
    try:
        torch.set_rng_state(states["cpu"].cpu())
        if device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"].cpu(), device)
    except (KeyError, RuntimeError) as error:
        raise _mismatch(f"its random state (`rng`) does not fit this PyTorch ({', '.join(states)})") from error
