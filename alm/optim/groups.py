"""Which parameters are decayed, and at which rate each learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import nn

PEAK_LR = "peak_lr"
# Where PyTorch has a fused AdamW.
FUSED_DEVICES = ("cpu", "cuda", "mps")
_HEAD = "lm_head.weight"
_EMBEDDING = "embed_tokens.weight"
_WEIGHT = ".weight"

Group = dict[str, Any]  # Any: torch's own type


class Moments(NamedTuple):
    """Numbers that an optimizer keeps for each entry of a block's matrix, and for each of all other parameters."""

    matrix: int
    other: int


@dataclass(frozen=True)
class Roles:
    """The trainable parameters of a model by what they do, each once."""

    matrices: list[nn.Parameter]
    embeddings: list[nn.Parameter]
    head: list[nn.Parameter]
    gains: list[nn.Parameter]
    scalars: list[nn.Parameter]


def roles(model: nn.Module) -> Roles:
    """The roles of the parameters of `model`, by name and shape.

    Gains are the weights of norms; scalars are other vectors and single numbers, such as the weight of a connection.
    A head tied to the embeddings is one of these.
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
    """A parameter group that keeps its peak rate under `PEAK_LR`, which a schedule scales."""
    return {"params": parameters, "lr": lr, PEAK_LR: lr, "weight_decay": weight_decay}


def parameter_groups(
    model: nn.Module, *, lr: float, embedding_lr: float, weight_decay: float, scalar_lr: float | None = None
) -> list[Group]:
    """The groups of the trainable parameters: matrices, embeddings (the head among them), gains, and scalars if any.

    Weight decay acts on matrices, and on embeddings only while they learn at the matrices' rate: a table
    that learns fast is written anew by its tokens and would be worn away by decay between them.
    Scalars learn at `scalar_lr`; absent is `lr`.
    """
    found = roles(model)
    table_decay = weight_decay if embedding_lr == lr else 0.0
    groups = [
        group(found.matrices, lr, weight_decay=weight_decay),
        group(found.embeddings + found.head, embedding_lr, weight_decay=table_decay),
        group(found.gains, lr),
    ]
    return [*groups, group(found.scalars, lr if scalar_lr is None else scalar_lr)] if found.scalars else groups
