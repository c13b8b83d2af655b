"""Checks of a complete model: its first loss, gradients, overfitting one batch, and decoding with a cache.

B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alm.data.loader import MicroBatch
from alm.device import Choice, autocast
from alm.doctor.check import Check, judged, remedy
from alm.doctor.tolerance import distance, rounding
from alm.generation.engine import Rows
from alm.model.kv_cache import KVCache
from alm.model.transformer import Transformer
from alm.training.state import TrainState
from alm.training.step import train_step

FIRST_LOSS, GRADIENTS, OVERFIT = "first loss", "gradients", "overfit one batch"
FIRST_LOSS_NATS = 0.3
_OVERFIT_STEPS = 40
_OVERFIT_SHARE = 0.2
_NAMED = 3
_FP16_SCALE = 1024.0


def first_loss(model: Transformer, batch: MicroBatch, choice: Choice) -> Check:
    """Check that the loss of an untrained model is the logarithm of the vocabulary size."""
    with torch.no_grad(), autocast(choice.device, choice.precision):
        hidden = model(batch.inputs.to(choice.device))
        found = float(model.losses(hidden, batch.targets.to(choice.device), divisor=batch.target_count()).nats)
    wanted = math.log(model.config.known_vocab_size)
    return judged(
        FIRST_LOSS,
        holds=abs(found - wanted) <= FIRST_LOSS_NATS,
        measured=f"{found:.3f} nats, ln V is {wanted:.3f}",
        wanted=f"{wanted:.3f} ± {FIRST_LOSS_NATS} nats, the logarithm of the vocabulary size",
        cause="the initial weights, the forward pass or the loss are wrong on this device: an untrained model must "
        "guess evenly",
        cure=remedy(choice.device),
    )


def gradients(model: Transformer, batch: MicroBatch, choice: Choice) -> Check:
    """Check that every parameter gets a gradient that is finite and not zero."""
    model.train()
    with autocast(choice.device, choice.precision):
        hidden = model(batch.inputs.to(choice.device))
        # In fp16 small gradients would vanish, so the loss is scaled, as in a run.
        scale = _FP16_SCALE if choice.precision == "fp16" else 1.0
        loss = model.losses(hidden, batch.targets.to(choice.device), divisor=batch.target_count() / scale).total
        extra = model.auxiliary_loss()
    (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    without = [name for name, parameter in parameters.items() if not _is_fine(parameter.grad)]
    return judged(
        GRADIENTS,
        holds=not without,
        measured=f"{len(parameters) - len(without)} of {len(parameters)} parameters have one",
        wanted="one for every parameter, finite and not zero",
        cause=f"no finite gradient reaches {_list(without)}: the backward pass breaks off there",
        cure=remedy(choice.device),
    )


def _is_fine(gradient: torch.Tensor | None) -> bool:
    return gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any())


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:_NAMED]) + more


def overfitted(state: TrainState, batch: MicroBatch, choice: Choice) -> Check:
    """Check that steps on the same batch reduce its loss to a fraction."""
    losses = [step_loss(state, batch, choice) for _ in range(_OVERFIT_STEPS)]
    first, last = losses[0], losses[-1]
    return judged(
        OVERFIT,
        holds=last <= _OVERFIT_SHARE * first,
        measured=f"{first:.2f} to {last:.2f} nats in {_OVERFIT_STEPS} steps",
        wanted=f"below {_OVERFIT_SHARE * first:.2f} nats, a fifth of the first loss",
        cause="the optimizer does not follow the gradients on this device, or the gradients are wrong",
        cure=remedy(choice.device),
    )


def step_loss(state: TrainState, batch: MicroBatch, choice: Choice) -> float:
    """Train on `batch`; return its loss before the update."""
    result = train_step(
        state,
        [batch],
        targets=batch.target_count(),
        choice=choice,
        lr_factor=1.0,
        clip_norm=1.0,
        seed=0,
        should_stop=bool,
    )
    assert result is not None
    return float(result.loss)


CACHE = "cached decoding"
BACKEND = "decoding in rows"
_PREFILL = 37  # not aligned to a block of attention, nor half of the text


@torch.inference_mode()
def cache_agrees(
    model: Transformer, ids: Tensor, choice: Choice, *, name: str = CACHE, cache: KVCache | None = None
) -> Check:
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
def backend_agrees(model: Transformer, ids: Tensor, choice: Choice, rows: Rows) -> Check:
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
        BACKEND,
        holds=off <= bound,
        measured=f"off by {off:.1e} ({type(rows).__name__})",
        wanted=f"below {bound:.1e}, what rounding in fp32 makes of {model.config.n_layers} layers",
        cause="the scores that `alm sample` computes here token by token are not those of the trained model",
        cure=f"export ALM_KERNELS=never; {remedy(choice.device)}",
    )
