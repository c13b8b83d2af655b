"""Checks that decoding with a cache gives the scores of one forward pass. B batch, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alm.device import Choice, autocast
from alm.doctor.check import Check, judged, remedy
from alm.doctor.tolerance import distance, rounding
from alm.generation.engine import Rows
from alm.model.kv_cache import KVCache
from alm.model.transformer import Transformer

NAME = "cached decoding"
ROWS = "decoding in rows"
_PREFILL = 37  # not aligned to a block of attention, nor half of the text

NewCache = Callable[[int, int], KVCache]


@torch.inference_mode()
def agrees(model: Transformer, ids: Tensor, choice: Choice, *, name: str = NAME, cache: KVCache | None = None) -> Check:
    """Compare logits of `ids` (B, T), prefilled and then token by token, with those of one forward pass.

    `cache` is a new cache of the model by default.
    """
    ids = ids.to(choice.device)
    with autocast(choice.device, choice.precision):
        whole = model.logits(model(ids))
        cache = model.new_cache(batch_size=len(ids), max_tokens=ids.shape[1]) if cache is None else cache
        parts = [ids[:, :_PREFILL], *ids[:, _PREFILL:].tensor_split(ids.shape[1] - _PREFILL, dim=1)]
        pieces = torch.cat([model.logits(model(part, cache)) for part in parts], dim=1)
    found, bound = distance(pieces, whole), rounding(model.config, choice.precision)
    return judged(
        name,
        holds=found <= bound,
        measured=f"off by {found:.1e} in {choice.precision}",
        wanted=f"below {bound:.1e}, what rounding in {choice.precision} makes of {model.config.n_layers} layers",
        cause="tokens generated one by one do not see what they saw in training: the cache, or attention of few "
        "tokens to many, is wrong on this device",
        cure=remedy(choice.device),
    )


@torch.inference_mode()
def rows_agree(model: Transformer, ids: Tensor, choice: Choice, rows: Rows) -> Check:
    """Compare the rows of `alm sample` on this device, for `ids` (B, T) at different places, with one forward pass."""
    whole = model.logits(model(ids.to(choice.device))).cpu()  # (B, T, V)
    starts = [_PREFILL - row for row in range(len(ids))]
    found = [rows.prefill(row, ids[row, :start].tolist()) for row, start in enumerate(starts)]
    wanted = [whole[row, start - 1] for row, start in enumerate(starts)]
    for step in range(ids.shape[1] - _PREFILL):
        places = [start + step for start in starts]
        found += rows.step(range(len(ids)), [int(ids[row, place]) for row, place in enumerate(places)])
        wanted += [whole[row, place] for row, place in enumerate(places)]
    off, bound = distance(torch.stack(found), torch.stack(wanted)), rounding(model.config, "fp32")
    return judged(
        ROWS,
        holds=off <= bound,
        measured=f"off by {off:.1e} ({type(rows).__name__})",
        wanted=f"below {bound:.1e}, what rounding in fp32 makes of {model.config.n_layers} layers",
        cause="the scores that `alm sample` computes here token by token are not those of the trained model",
        cure=f"export ALM_KERNELS=never; {remedy(choice.device)}",
    )
