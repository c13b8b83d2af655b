"""Checks of single layers: attention against a plain implementation in this module, and rotary positions.

B batch, T new tokens, S tokens seen so far (T of them new), H query heads, K key/value heads, E head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alm.device import DTYPES, Choice
from alm.doctor.check import Check, judged, remedy
from alm.doctor.tolerance import UNIT, distance, rounding_of
from alm.model.attention import MaskSpec, kernel_for
from alm.model.positions import Positions, alibi_slopes

Attend = Callable[[Tensor, Tensor, Tensor, MaskSpec], Tensor]

_WIDTH = 32
_WINDOW, _DOCUMENT = 40, 56
# Scores, their scale, softmax, mixing; the backward pass computes the scores again and four more products.
_FORWARD_OPERATIONS, _BACKWARD_OPERATIONS = 4, 12
_KERNELS = {"blocks": "in blocks", "flex": "FlexAttention", "causal": "PyTorch's kernel", "mask": "PyTorch's, masked"}


@dataclass(frozen=True)
class Case:
    """Shapes and rules that have their own implementation on some device."""

    name: str
    heads: int
    kv_heads: int
    new_tokens: int
    tokens: int
    is_restricted: bool = False  # a window, documents, slopes

    @property
    def is_training(self) -> bool:
        """Whether gradients are compared too."""
        return self.new_tokens == self.tokens


CASES = (
    Case("attention, shared keys", 4, 1, 96, 96),
    Case("attention, own keys", 2, 2, 96, 96),
    Case("attention, rules", 4, 2, 128, 128, is_restricted=True),
    Case("attention, one token", 4, 1, 1, 96),
    Case("attention, some tokens", 4, 2, 7, 96),
)


def attention_agrees(attend: Attend, case: Case, choice: Choice) -> Check:
    """Compare `attend` on random tokens, and its gradients, with `reference` in fp64 on the CPU."""
    inputs = [x.to(choice.device, DTYPES[choice.precision]) for x in _drawn(case)]
    rules = _rules(case, choice.device)
    found = _results(attend, inputs, rules, case)
    exact = [x.cpu().double() for x in inputs]
    wanted = _results(reference, exact, _rules(case, torch.device("cpu")), case)
    taken = _KERNELS[kernel_for(inputs[0], inputs[1], rules)]
    names = ("result", "queries' gradient", "keys' gradient", "values' gradient")
    distances = {name: distance(*pair) for name, *pair in zip(names, found, wanted, strict=False)}
    bounds = {name: attention_bound(case, choice, is_gradient=name != names[0]) for name in distances}
    worst = max(distances, key=lambda name: distances[name] / bounds[name])
    return judged(
        case.name,
        holds=distances[worst] <= bounds[worst],
        measured=f"{taken}: {worst} off by {distances[worst]:.1e}",
        wanted=f"below {bounds[worst]:.1e}, what rounding in {choice.precision} makes of softmax and sums",
        cause=f"attention ({taken}) of {_shape(case)} is wrong on this device, or in this PyTorch",
        cure=remedy(choice.device),
    )


def reference(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
    """Compute softmax(q k^T / sqrt(E) - slope x distance) v over the visible tokens, with all scores in memory."""
    B, H, T, E = q.shape  # noqa: N806 - of the legend
    S, group = k.shape[2], H // k.shape[1]  # noqa: N806
    keys, values = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = q @ keys.transpose(2, 3) / math.sqrt(E)  # (B, H, T, S)
    distances = torch.arange(S - T, S)[:, None] - torch.arange(S)  # (T, S)
    hidden = (distances < 0).expand(B, 1, T, S)
    if rules.window is not None:
        hidden = hidden | (distances >= rules.window)
    if rules.documents is not None:
        hidden = hidden | (rules.documents[:, None, -T:, None] != rules.documents[:, None, None, :])
    if rules.slopes is not None:
        scores = scores - rules.slopes[:, None, None] * distances
    return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ values


def attention_bound(case: Case, choice: Choice, *, is_gradient: bool) -> float:
    """Return the largest distance that rounding alone can cause."""
    operations = _BACKWARD_OPERATIONS if is_gradient else _FORWARD_OPERATIONS
    return rounding_of(operations, choice.precision, terms=max(case.tokens, _WIDTH))


def _drawn(case: Case) -> list[Tensor]:
    """Draw queries, keys, values, and a gradient of the result."""
    draw = torch.Generator().manual_seed(case.tokens)
    heads = ((case.heads, case.new_tokens), (case.kv_heads, case.tokens), (case.kv_heads, case.tokens))
    shapes = [*heads, (case.heads, case.new_tokens)]
    return [torch.randn(2, heads, tokens, _WIDTH, generator=draw) for heads, tokens in shapes]


def _rules(case: Case, device: torch.device) -> MaskSpec:
    if not case.is_restricted:
        return MaskSpec()
    documents = (torch.arange(case.tokens) // _DOCUMENT).int().expand(2, -1).contiguous()
    slopes = torch.tensor(alibi_slopes(case.heads), dtype=torch.float32)
    return MaskSpec(slopes.to(device), _WINDOW, documents.to(device))


def _results(attend: Attend, inputs: list[Tensor], rules: MaskSpec, case: Case) -> list[Tensor]:
    """Run `attend`; in a training case also compute the gradients of queries, keys and values."""
    q, k, v, gradient = (x.detach() for x in inputs)
    if not case.is_training:
        with torch.no_grad():
            return [attend(q, k, v, rules)]
    for x in (q, k, v):
        x.requires_grad_()
    made = attend(q, k, v, rules)
    made.backward(gradient)  # type: ignore[no-untyped-call]
    return [made, *(x.grad for x in (q, k, v) if x.grad is not None)]


def _shape(case: Case) -> str:
    rules = "windows, documents and slopes, " if case.is_restricted else ""
    return f"{rules}{case.heads} query and {case.kv_heads} key heads, {case.new_tokens} of {case.tokens} tokens"


NORMS, DISTANCES = "RoPE keeps lengths", "RoPE counts distances"
_ROTATION_CONFIDENCE = 4.0


def keeps_lengths(positions: Positions, *, tokens: int, width: int, device: torch.device) -> Check:
    """Check that a vector has the same length before and after its rotation, at every position."""
    vectors = _vector(width, seed=1).repeat(1, tokens, 1, 1).to(device)
    turned = positions(0, tokens).rotate(vectors)
    before, after = (x.cpu().double().norm(dim=-1) for x in (vectors, turned))
    found = float(((after - before).abs() / before).max())
    bound = _ROTATION_CONFIDENCE * 4 * UNIT["fp32"]
    return judged(
        NORMS,
        holds=found <= bound,
        measured=f"off by {found:.1e} of the length at most",
        wanted=f"below {bound:.1e}: two products and a sum, and the table's own rounding",
        cause="queries and keys are not rotated but stretched",
        cure=remedy(device),
    )


def counts_distances(positions: Positions, *, tokens: int, width: int, device: torch.device) -> Check:
    """Check that the score of two tokens depends on their distance, and on nothing else about their positions."""
    query, key = (_vector(width, seed=seed).repeat(1, tokens, 1, 1).to(device) for seed in (1, 2))
    placement = positions(0, tokens)
    q, k = (placement.rotate(x)[0, :, 0].cpu().double() for x in (query, key))
    scores = q @ k.T / (q[0].norm() * k[0].norm())  # (T, T), cosines
    diagonals = [scores.diagonal(-distance) for distance in range(tokens // 2)]
    drift = max(float(diagonal.max() - diagonal.min()) for diagonal in diagonals)
    means = torch.stack([diagonal.mean() for diagonal in diagonals])
    bound = rotation_bound(tokens)
    is_flat = float(means.max() - means.min()) <= bound
    return judged(
        DISTANCES,
        holds=drift <= bound and not is_flat,
        measured="scores do not depend on distance" if is_flat else f"scores of one distance differ by {drift:.1e}",
        wanted=f"below {bound:.1e}, an angle's rounding at position {tokens:,}, and other scores at other distances",
        cause="tokens are not rotated at all: the model cannot know their order"
        if is_flat
        else "tokens are not rotated in proportion to their position",
        cure=remedy(device),
    )


def rotation_bound(tokens: int) -> float:
    """Return how far cosines may drift: an angle of `tokens` radians is rounded by that many units, in two vectors."""
    return _ROTATION_CONFIDENCE * tokens * UNIT["fp32"]


def _vector(width: int, *, seed: int) -> Tensor:
    return torch.randn(1, 1, 1, width, generator=torch.Generator().manual_seed(seed))
