"""Ways in which ranks compute one gradient: each with a full model (DDP), with a part of it (FSDP2), or in a fixed
order of additions that does not depend on their number.

B batch, T tokens. Micro-batches are numbered over all ranks; each rank has a block of consecutive ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from alm import device as devices
from alm.device import Choice
from alm.distributed import World
from alm.model.transformer import Transformer
from alm.training.config import RunConfig

_WARM_UP_PASSES = 2


class Objective(nn.Module):
    """The model and its loss in one forward: DDP would not reduce the gradient of a weight that is used outside it."""

    def __init__(self, model: Transformer, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._hidden = (forward,)  # in a tuple: the compiled model is a module, and would be registered twice

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        divisor: float | Tensor = 1.0,
        z_weight: float = 0.0,
        keys: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return `Losses.total` and `.nats` of (B, T) inputs and targets, and the layers' auxiliary loss per token.

        `keys` (B,) decide what dropout drops, `documents` (B, T) which tokens see each other (`Transformer.forward`).
        """
        hidden = self._hidden[0](inputs, keys=keys, documents=documents)
        found = self.model.losses(hidden, targets, divisor=divisor, z_weight=z_weight)
        return found.total, found.nats, self.model.auxiliary_loss()

    def token_losses(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Return losses (B, T) in nats, without gradients, from the uncompiled model."""
        return self.model.token_losses(self.model(inputs, documents=documents), targets)


class Parallelism:
    """A single process, whose gradients accumulate in place; the base class of the other ways.

    `has_full_model` says whether this rank has all weights and moments.
    """

    has_full_model = True

    def __init__(self, objective: Objective, world: World) -> None:
        self.objective = objective
        self.world = world
        self.loss: Callable[..., tuple[Tensor, Tensor, Tensor | None]] = objective

    @property
    def scale(self) -> float:
        """Factor on the loss, which undoes that gradients are averaged over ranks: their sum is wanted."""
        return 1.0

    def start_step(self) -> None:
        """Drop gradients that an abandoned step has left."""
        for parameter in self.objective.parameters():
            parameter.grad = None

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[object]:
        """Return the context for forward and backward of one micro-batch of a step."""
        return contextlib.nullcontext()

    def token_losses(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """Return losses (B, T) in nats, without gradients."""
        return self.objective.token_losses(inputs, targets, documents)

    def finish_step(self, losses: Sequence[Tensor]) -> Tensor:
        """Complete every `.grad` to that of the step over all ranks; return the sum of the losses of all ranks."""
        return self.world.sum_(torch.stack(list(losses)).sum())

    def warm_up(self, choice: Choice, *, shape: tuple[int, int]) -> None:
        """Do whatever makes the first real step like all others; weights and random state stay unchanged."""


class Replicated(Parallelism):
    """The full model on each rank; gradients are reduced during the backward pass of the last micro-batch.

    DDP: Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704, sections 3.2 and 4.2.
    """

    def __init__(self, objective: Objective, world: World) -> None:
        super().__init__(objective, world)
        is_cuda = world.device.type == "cuda"
        # Every rank computes the same buffers, but DDP by default broadcasts them before each forward.
        tables = [name for name, _ in objective.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, tables)  # type: ignore[no-untyped-call]
        self.ddp = DistributedDataParallel(
            objective,
            device_ids=[world.device.index] if is_cuda else None,
            gradient_as_bucket_view=True,
        )
        self.loss = self.ddp

    @property
    def scale(self) -> float:
        return float(self.world.size)

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[object]:
        return contextlib.nullcontext() if is_last else cast(AbstractContextManager[object], self.ddp.no_sync())

    def warm_up(self, choice: Choice, *, shape: tuple[int, int]) -> None:
        # After its first backward pass DDP rebuilds its gradient buckets and then adds in another order. Without these
        # passes a resumed run differs in its bits from an uninterrupted one at three ranks and more (ADR 11).
        ids = torch.zeros(shape, dtype=torch.int64, device=choice.device)
        with torch.random.fork_rng([choice.device] if choice.device.type == "cuda" else []):
            for _ in range(_WARM_UP_PASSES):
                with devices.autocast(choice.device, choice.precision):
                    loss, _, auxiliary = self.loss(ids, ids)
                (loss if auxiliary is None else loss + auxiliary).backward()  # type: ignore[no-untyped-call]
        self.start_step()


class Sharded(Parallelism):
    """A part of every matrix on each rank; blocks are gathered while they are used.

    FSDP2: Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277, section 3. Gradients are reduced and sharded after each
    micro-batch: a model that needs this mode leaves no memory for full gradients.
    """

    has_full_model = False

    def __init__(self, objective: Objective, world: World) -> None:
        super().__init__(objective, world)
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in objective.model.model.layers:
            fully_shard(block, mesh=mesh)
        self._root = fully_shard(objective, mesh=mesh)
        register_fsdp_forward_method(objective, "token_losses")

    @property
    def scale(self) -> float:
        return float(self.world.size)

    def token_losses(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        losses = super().token_losses(inputs, targets, documents)
        # A backward pass would do this. Without it the root stays gathered, and the gradients of its parts stay set.
        self._root.reshard()
        return losses


class DeterministicReduce(Parallelism):
    """Gradients of all micro-batches added in pairs, pairs of pairs and so on: the same tree, and so the same bits, at
    any number of ranks.

    Floating-point sums depend on their order, which an all-reduce does not fix (ADR 11). The price is a copy of the
    gradients for each level of the tree within a rank, and for each level above it an exchange of all gradients between
    two ranks that no computation hides.
    """

    def __init__(self, objective: Objective, world: World) -> None:
        super().__init__(objective, world)
        self._parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        self._counter = TreeSum()

    def start_step(self) -> None:
        super().start_step()
        self._counter.clear()

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        for parameter in self._parameters:
            parameter.grad = None
        yield
        self._counter.add(torch.cat([_gradient(parameter).flatten() for parameter in self._parameters]))

    def finish_step(self, losses: Sequence[Tensor]) -> Tensor:
        loss = TreeSum(losses).take()  # the loss goes through the same tree, and travels with the gradients
        total = torch.cat([self._counter.take(), loss.view(1).to(self._parameters[0].dtype)])
        distance = 1
        while distance < self.world.size:
            # Both partners get the same bits: a + b equals b + a exactly; only regrouping changes a sum.
            total += self.world.exchanged(total, partner=self.world.rank ^ distance)
            distance *= 2
        sizes = [parameter.numel() for parameter in self._parameters]
        for parameter, values in zip(self._parameters, torch.split(total[:-1], sizes), strict=True):
            parameter.grad = values.view_as(parameter)
        return total[-1]


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class TreeSum:
    """Sums tensors as the leaves of a binary tree, like a binary counter that carries: 2^k of them take the memory of
    k + 1.

    >>> float(TreeSum([torch.tensor(n) for n in (1.0, 2.0, 3.0, 4.0)]).take())  # (1 + 2) + (3 + 4)
    10.0
    """

    def __init__(self, leaves: Iterable[Tensor] = ()) -> None:
        self._sums: list[tuple[int, Tensor]] = []  # number of leaves and their sum; each has fewer than the one before
        for leaf in leaves:
            self.add(leaf)

    def add(self, values: Tensor) -> None:
        """Add a leaf."""
        leaves = 1
        while self._sums and self._sums[-1][0] == leaves:
            values = self._sums.pop()[1] + values
            leaves *= 2
        self._sums.append((leaves, values))

    def take(self) -> Tensor:
        """Return the sum of a complete tree and empty the counter."""
        ((_, total),) = self._sums
        self.clear()
        return total

    def clear(self) -> None:
        """Empty the counter."""
        self._sums.clear()


def parallelize(model: Transformer, config: RunConfig, world: World, *, forward: Callable[..., Tensor]) -> Parallelism:
    """Return the way in which `world` trains `model`. Build the optimizer after this: FSDP replaces parameters."""
    training = config.training
    objective = Objective(model, forward)
    if training.reproducible:
        return DeterministicReduce(objective, world)
    if world.size == 1:
        return Parallelism(objective, world)
    return Sharded(objective, world) if training.parallel == "fsdp" else Replicated(objective, world)


def clip_(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale gradients so that their norm over all parameters and ranks is at most `largest`; return the norm before."""
    kept = list(parameters)
    norm = full_tensor(nn.utils.get_total_norm([p.grad for p in kept if p.grad is not None]))
    nn.utils.clip_grads_with_norm_(kept, largest, norm)
    return norm


def full_tensor(tensor: Tensor) -> Tensor:
    """Return `tensor` in one piece; this is a collective if ranks have parts of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return this rank's part of `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_state(values: Any, *, keep: bool) -> Any:  # Any: a tree of dictionaries, lists, tensors and plain values
    """Return a state dictionary with full tensors. If ranks have parts, these are new tensors on the CPU with `keep`;
    without it they are dropped one by one, so that only one rank needs the memory.
    """
    if isinstance(values, DTensor):
        full = values.full_tensor()
        return full.cpu() if keep else None
    if isinstance(values, dict):
        return {key: full_state(value, keep=keep) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(full_state(value, keep=keep) for value in values)
    return values


def shard_like(tensor: Any, like: Tensor) -> Any:  # Any: a state may hold plain values
    """Return this rank's part of a full `tensor` with the shape of `like`, sharded like it; anything else unchanged."""
    if not isinstance(like, DTensor) or not isinstance(tensor, Tensor) or tensor.shape != like.shape:
        return tensor
    # No rank sends its values: every rank has read the full tensor itself.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
