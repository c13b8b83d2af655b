"""Shapes of models that are not the default, one of each kind and some together."""

from __future__ import annotations

from typing import Any

YARN: dict[str, Any] = {"method": "yarn", "factor": 4, "original_max_position_embeddings": 10}
EXTRAS: dict[str, Any] = {"x0_skip": True, "value_residual": True, "smear": True}
KINDS: list[dict[str, Any]] = [
    {"positions": "alibi"},
    {"positions": "alibi", "n_heads": 1, "n_kv_heads": 1},
    {"positions": {"kind": "rope", "scaling": YARN}},
    {"attention": {"kind": "grouped", "window": 5, "full_every": 2}},
    {"attention": {"kind": "grouped", "window": 3, "full_every": 0}, "positions": "alibi"},
    {"attention": {"kind": "grouped", "document_mask": True, "end_of_text_id": 33}},
    {
        "attention": {"kind": "grouped", "document_mask": True, "window": 4, "full_every": 2, "end_of_text_id": 33},
        **EXTRAS,
    },
    EXTRAS,
    {"feedforward": "relu2"},
    {"feedforward": {"kind": "dual", "small_hidden_size": 16, "capacity_factor": 2.0}},
]
