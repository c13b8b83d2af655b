"""How the ranks of a run make one gradient: each with the whole model (DDP), with a part of it (FSDP2), or in a fixed
order that does not depend on their number.

B batch, T tokens. Micro-batches are numbered over all ranks; a rank has a block of them that follow each other.
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
    """The model with its loss in one forward: the gradient of a weight that is used outside would not be added up."""

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
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """`Losses` of (B, T) inputs and targets, and what layers add to the mean loss of a token.

        `keys` (B,) decide what dropout drops.
        """
        hidden = self._hidden[0](inputs, keys=keys)
        found = self.model.losses(hidden, targets, divisor=divisor, z_weight=z_weight)
        return found.total, found.nats, self.model.auxiliary_loss()

    def token_losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (B, T) in nats, without gradients, by the model as it is uncompiled."""
        return self.model.token_losses(self.model(inputs), targets)


class Sharing:
    """One process: gradients of the micro-batches add up where they are. The base of the other ways.

    `is_whole_here` says whether this rank has all weights and moments.
    """

    is_whole_here = True

    def __init__(self, objective: Objective, world: World) -> None:
        self.objective = objective
        self.world = world
        self.loss: Callable[..., tuple[Tensor, Tensor, Tensor | None]] = objective

    @property
    def scale(self) -> float:
        """What losses are multiplied by because gradients are averaged over ranks where their sum is wanted."""
        return 1.0

    def begin(self) -> None:
        """Forget what a step that was given up has left."""
        for parameter in self.objective.parameters():
            parameter.grad = None

    def micro_batch(self, *, is_last: bool) -> AbstractContextManager[object]:
        """The context for forward and backward of one micro-batch of a step."""
        return contextlib.nullcontext()

    def token_losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Losses (B, T) in nats, without gradients."""
        return self.objective.token_losses(inputs, targets)

    def finish(self, losses: Sequence[Tensor]) -> Tensor:
        """Make every `.grad` that of the whole step; the sum of the losses of all ranks."""
        return self.world.sum_(torch.stack(list(losses)).sum())

    def warm_up(self, choice: Choice, *, shape: tuple[int, int]) -> None:
        """Do whatever makes the first real step like all others; weights and random state stay as they are."""


class Replicated(Sharing):
    """The whole model on each rank; gradients are added up during the backward pass of the last micro-batch.

    DDP: Li et al. 2020, "PyTorch Distributed", arXiv:2006.15704, sections 3.2 and 4.2.
    """

    def __init__(self, objective: Objective, world: World) -> None:
        super().__init__(objective, world)
        is_cuda = world.device.type == "cuda"
        # Tables that every rank has made alike: by itself DDP sends them around before each forward.
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
        # After its first backward pass DDP sorts gradients into buckets anew, and so adds in another order: a resumed
        # run would differ from one that went through at three ranks and more.
        ids = torch.zeros(shape, dtype=torch.int64, device=choice.device)
        with torch.random.fork_rng([choice.device] if choice.device.type == "cuda" else []):
            for _ in range(_WARM_UP_PASSES):
                with devices.autocast(choice.device, choice.precision):
                    loss, _, auxiliary = self.loss(ids, ids)
                (loss if auxiliary is None else loss + auxiliary).backward()  # type: ignore[no-untyped-call]
        self.begin()


class Sharded(Sharing):
    """A part of every matrix on each rank; blocks are put together while they are used.

    FSDP2: Zhao et al. 2023, "PyTorch FSDP", arXiv:2304.11277, section 3. Gradients are cut up after each micro-batch:
    who needs this mode has no memory for all of them.
    """

    is_whole_here = False

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

    def token_losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        losses = super().token_losses(inputs, targets)
        # A backward pass would do this. Otherwise what is left whole hides the parts, whose old gradients would stay.
        self._root.reshard()
        return losses


class FixedTree(Sharing):
    """The gradients of all micro-batches added up in pairs, pairs of pairs and so on: the same tree for any number of
    ranks, and so the same bits.

    Costs a copy of the gradients for each level of the tree that lies on one rank, and for each level above it an
    exchange of all gradients between two ranks, which no computation hides.
    """

    def __init__(self, objective: Objective, world: World) -> None:
        super().__init__(objective, world)
        self._parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        self._counter = TreeCounter()

    def begin(self) -> None:
        super().begin()
        self._counter.clear()

    @contextlib.contextmanager
    def micro_batch(self, *, is_last: bool) -> Iterator[None]:
        for parameter in self._parameters:
            parameter.grad = None
        yield
        self._counter.add(torch.cat([_gradient(parameter).flatten() for parameter in self._parameters]))

    def finish(self, losses: Sequence[Tensor]) -> Tensor:
        loss = TreeCounter(losses).take()
        total = torch.cat([self._counter.take(), loss.view(1).to(self._parameters[0].dtype)])
        distance = 1
        while distance < self.world.size:
            total += self.world.exchanged(total, partner=self.world.rank ^ distance)  # a + b is b + a, bit for bit
            distance *= 2
        sizes = [parameter.numel() for parameter in self._parameters]
        for parameter, values in zip(self._parameters, torch.split(total[:-1], sizes), strict=True):
            parameter.grad = values.view_as(parameter)
        return total[-1]


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class TreeCounter:
    """Adds up tensors as the leaves of a binary tree, like a counter in base 2 that carries: 2^k of them take the
    memory of k + 1.

    >>> float(TreeCounter([torch.tensor(n) for n in (1.0, 2.0, 3.0, 4.0)]).take())  # (1 + 2) + (3 + 4)
    10.0
    """

    def __init__(self, leaves: Iterable[Tensor] = ()) -> None:
        self._sums: list[tuple[int, Tensor]] = []  # leaves in it, and their sum; each has fewer than the one before
        for leaf in leaves:
            self.add(leaf)

    def add(self, values: Tensor) -> None:
        """One more leaf."""
        leaves = 1
        while self._sums and self._sums[-1][0] == leaves:
            values = self._sums.pop()[1] + values
            leaves *= 2
        self._sums.append((leaves, values))

    def take(self) -> Tensor:
        """The sum of a whole tree; the counter is empty again."""
        ((_, total),) = self._sums
        self.clear()
        return total

    def clear(self) -> None:
        """Forget what was added."""
        self._sums.clear()


def share(model: Transformer, config: RunConfig, world: World, *, forward: Callable[..., Tensor]) -> Sharing:
    """How `world` trains `model`. The optimizer is built after this, of the parameters as they then are."""
    training = config.training
    objective = Objective(model, forward)
    if training.reproducible:
        return FixedTree(objective, world)
    if world.size == 1:
        return Sharing(objective, world)
    return Sharded(objective, world) if training.parallel == "fsdp" else Replicated(objective, world)


def clip_(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradients so that the norm of all together, over all ranks, is at most `largest`; the norm before."""
    kept = list(parameters)
    norm = whole(nn.utils.get_total_norm([p.grad for p in kept if p.grad is not None]))
    nn.utils.clip_grads_with_norm_(kept, largest, norm)
    return norm


def whole(tensor: Tensor) -> Tensor:
    """`tensor` as one piece: a collective where ranks have parts of it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this rank has of `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(values: Any, *, keep: bool) -> Any:  # Any: a tree of dictionaries, lists, tensors and plain values
    """A state dictionary with whole tensors. Where ranks have parts these are new ones, on the CPU, if `keep`;
    without it they are forgotten, one after the other, so that no rank but one needs the memory.
    """
    if isinstance(values, DTensor):
        full = values.full_tensor()
        return full.cpu() if keep else None
    if isinstance(values, dict):
        return {key: gathered(value, keep=keep) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(gathered(value, keep=keep) for value in values)
    return values


def parted(tensor: Any, like: Tensor) -> Any:  # Any: a state may hold plain values
    """This rank's part of a whole `tensor` of the shape of `like`, cut as that is; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(tensor, Tensor) or tensor.shape != like.shape:
        return tensor
    # No rank is the source: every one has read the whole.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
