"""Parameter groups: the learning rate and weight decay of each parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

PEAK_LR = "peak_lr"
# Devices with a fused AdamW in PyTorch.
FUSED_DEVICES = ("cpu", "cuda", "mps")
_HEAD = "lm_head.weight"
_EMBEDDING = "embed_tokens.weight"
_WEIGHT = ".weight"

Group = dict[str, Any]  # Any: torch's own type


class Moments(NamedTuple):
    """Numbers that an optimizer keeps per entry of a block's matrix, and per entry of any other parameter."""

    matrix: int
    other: int


@dataclass(frozen=True)
class Roles:
    """Trainable parameters of a model by role, each once."""

    matrices: list[nn.Parameter]
    embeddings: list[nn.Parameter]
    head: list[nn.Parameter]
    gains: list[nn.Parameter]
    scalars: list[nn.Parameter]


def roles(model: nn.Module) -> Roles:
    """Return the parameters of `model` by role, which follows from name and shape.

    Gains are the weights of norms. Scalars are other vectors and single numbers: biases, the weight of a connection.
    A head tied to the embeddings counts as embeddings.
    """
    found = Roles([], [], [], [], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            _role(found, name, parameter).append(parameter)
    return found


def _role(found: Roles, name: str, parameter: nn.Parameter) -> list[nn.Parameter]:
    if name.endswith(_EMBEDDING):
        return found.embeddings
    if name.endswith(_HEAD):
        return found.head
    if parameter.dim() >= 2:
        return found.matrices
    return found.gains if name.endswith(_WEIGHT) else found.scalars


def group(parameters: list[nn.Parameter], lr: float, *, weight_decay: float = 0.0) -> Group:
    """Return a parameter group that keeps its peak rate under `PEAK_LR`, for a schedule to scale."""
    return {"params": parameters, "lr": lr, PEAK_LR: lr, "weight_decay": weight_decay}


def parameter_groups(
    model: nn.Module, *, lr: float, embedding_lr: float, weight_decay: float, scalar_lr: float | None = None
) -> list[Group]:
    """Return the groups of the trainable parameters: matrices, embeddings with the head, gains, and scalars if any.

    Weight decay acts on matrices, and on embeddings only if they learn at the matrices' rate. The rows of a table that
    learns fast are rewritten whenever their tokens occur, and decay would shrink them in between.
    Scalars learn at `scalar_lr`; absent: `lr`.
    """
    found = roles(model)
    table_decay = weight_decay if embedding_lr == lr else 0.0
    groups = [
        group(found.matrices, lr, weight_decay=weight_decay),
        group(found.embeddings + found.head, embedding_lr, weight_decay=table_decay),
        group(found.gains, lr),
    ]
    return [*groups, group(found.scalars, lr if scalar_lr is None else scalar_lr)] if found.scalars else groups
