"""Texts that share a row are computed as if each were alone in it, wherever the model sees documents end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import run_config

from alm.model.init import initialize
from alm.model.transformer import Transformer


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__positions": "alibi"},
        {"model__attention": {"kind": "grouped", "window": 5}},
        {"model__attention": {"kind": "grouped", "document_mask": True}},
        {"model__smear": True, "model__value_residual": True, "model__x0_skip": True},
    ],
    ids=["plain", "alibi", "window", "document mask", "extras"],
)
def test_packed_is_unpacked(changes: dict[str, Any]) -> None:
    model = Transformer(run_config(model__vocab_size=50, model__n_layers=2, **changes).model)
    initialize(model, seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    lengths, ids = (7, 1, 13, 3), torch.randint(4, 40, (2, 24), generator=torch.Generator().manual_seed(3))
    numbers = torch.repeat_interleave(torch.arange(4, dtype=torch.int32), torch.tensor(lengths)).expand(2, -1)
    packed = model(ids, documents=numbers)
    parts = [model(part) for part in ids.split(lengths, dim=1)]
    torch.testing.assert_close(packed, torch.cat(parts, dim=1), rtol=0, atol=2e-5)


def test_documents_are_of_complete_rows() -> None:
    model = Transformer(run_config(model__vocab_size=50).model)
    ids = torch.ones(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="no cache and no padding"):
        model(ids, model.new_cache(), documents=ids.int())
