"""Which parameters are decayed, and at which rate each learns."""

from __future__ import annotations

from typing import Any

from torch import nn

PEAK_LR = "peak_lr"
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")


def parameter_groups(
    model: nn.Module, *, lr: float, embedding_lr: float, weight_decay: float
) -> list[dict[str, Any]]:  # Any: torch's own type
    """Three groups of the trainable parameters: matrices, embeddings (the head among them) and gains.

    Weight decay acts on matrices, and on embeddings only while they learn at the matrices' rate: a table
    that learns fast is written anew by its tokens and would be worn away by decay between them.
    Each group keeps its peak rate under `PEAK_LR`, which a schedule scales.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    tables = [parameter for name, parameter in named if name.endswith(_EMBEDDINGS)]
    matrices = [p for name, p in named if p.dim() >= 2 and not name.endswith(_EMBEDDINGS)]
    gains = [parameter for _, parameter in named if parameter.dim() < 2]
    table_decay = weight_decay if embedding_lr == lr else 0.0
    return [
        {"params": matrices, "lr": lr, PEAK_LR: lr, "weight_decay": weight_decay},
        {"params": tables, "lr": embedding_lr, PEAK_LR: embedding_lr, "weight_decay": table_decay},
        {"params": gains, "lr": lr, PEAK_LR: lr, "weight_decay": 0.0},
    ]
