"""The optimizer behind kind `muon`: orthogonalized momentum for matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, overload

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

from alm.optim.groups import Group
from alm.optim.optimizers._orthogonal import Method, orthogonalize, polynomials

Scale = Literal["spectral", "rms"]

# The usual root mean square of AdamW's updates: Liu et al. 2025, arXiv:2502.16982, section 2.2.
_ADAMW_RMS = 0.2
# Numbers in one batched product. More would leave a CPU's cache and run slower; a GPU needs many to be busy.
_STACK_NUMBERS = {"cpu": 1 << 21}
_STACK_NUMBERS_ELSEWHERE = 1 << 25


def matrix_group(group: Group, *, momentum: float, method: Method, steps: int, scale: Scale) -> Group:
    """Mark `group`, whose parameters are matrices, for orthogonalization in `steps` steps of `method`."""
    return {**group, "momentum": momentum, "orthogonalization": method, "steps": steps, "scale": scale}


def adamw_group(group: Group, *, betas: tuple[float, float], eps: float, fused: bool) -> Group:
    """Mark `group` for AdamW."""
    return {**group, "betas": betas, "eps": eps, "fused": fused}


def shape_scale(rows: int, columns: int, scale: Scale) -> float:
    """Return the factor of an orthogonal update of a (rows, columns) matrix.

    `spectral` is Jordan's sqrt(max(1, rows / columns)), with which outputs change equally for any shape. `rms` gives
    the update the root mean square of AdamW's updates, so that AdamW's rate and decay suit it.
    """
    if scale == "spectral":
        return math.sqrt(max(1.0, rows / columns))
    return _ADAMW_RMS * math.sqrt(max(rows, columns))


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) and AdamW in one object, by group: see `matrix_group` and `adamw_group`.

    A matrix follows the orthogonalized Nesterov momentum of its gradient, after decoupled weight decay. Nothing is read
    back from the device. If `found_inf`, a number on the device that is set as for PyTorch's fused optimizers, is not
    0, weights and state stay the same to the bit. If ranks hold parts of the matrices, each rank gathers the momenta,
    does all of the work and keeps its part. The update is the same, at the cost of one exchange of the matrices' size.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__(groups, {})
        for group in self.param_groups:
            if _is_orthogonal(group) and any(parameter.dim() != 2 for parameter in group["params"]):
                raise ValueError("only matrices can be orthogonalized")

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether `step` checks `found_inf`. The name is that of PyTorch's own optimizers, which `GradScaler` reads."""
        return not any(isinstance(parameter, DTensor) for group in self.param_groups for parameter in group["params"])

    def _stays(self) -> Tensor | None:
        """Whether to skip this step, as a tensor on the device; None if the caller decides."""
        found: Tensor | None = getattr(self, "found_inf", None)
        return None if found is None else found != 0

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            found = [parameter for parameter in group["params"] if parameter.grad is not None]
            if _is_orthogonal(group):
                self._follow_orthogonal(found, group)
            elif found:
                self._follow_adamw(found, group)
        return loss

    def _follow_orthogonal(self, found: list[Tensor], group: Group) -> None:
        steps = polynomials(group["orthogonalization"], group["steps"])
        for stack in _stacks(found):
            wide = torch.stack([_wide(_whole(self._momentum(parameter, group["momentum"]))) for parameter in stack])
            updates = orthogonalize(wide, steps, dtype=_dtype(wide.device))
            for parameter, update in zip(stack, updates, strict=True):
                _move(parameter, update, group, stays=self._stays())

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the mean of gradients in the state, and return the Nesterov momentum."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None, "was looked for"
        gradient, stays = parameter.grad, self._stays()
        if stays is not None:  # moving the mean towards itself leaves it unchanged
            gradient = torch.where(stays, state["momentum"], gradient)
        mean: Tensor = state["momentum"].lerp_(gradient, 1.0 - momentum)
        return gradient.lerp(mean, momentum)

    def _follow_adamw(self, found: list[Tensor], group: Group) -> None:
        states = [self._adamw_state(parameter, fused=group["fused"]) for parameter in found]
        adamw(
            found,
            [parameter.grad for parameter in found if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _adamw_state(self, parameter: Tensor, *, fused: bool) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu")
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state


def _is_orthogonal(group: Group) -> bool:
    return "orthogonalization" in group


def _stacks(matrices: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield lists of matrices of one shape, up to transposition, each small enough for one batched product."""
    by_shape: dict[tuple[int, ...], list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
    for same_shape in by_shape.values():
        per_stack = max(
            1, _STACK_NUMBERS.get(same_shape[0].device.type, _STACK_NUMBERS_ELSEWHERE) // same_shape[0].numel()
        )
        for start in range(0, len(same_shape), per_stack):
            yield same_shape[start : start + per_stack]


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def _dtype(device: torch.device) -> torch.dtype:
    """Return bf16 for GPUs that multiply it, which is exact enough for the steps. CPUs may only emulate it."""
    has_bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.bfloat16 if has_bf16 else torch.float32


def _move(parameter: Tensor, update: Tensor, group: Group, *, stays: Tensor | None) -> None:
    rows, columns = parameter.shape
    lr: float = group["lr"]
    # A copy, because undoing the two operations below would not restore the bits.
    before = None if stays is None else parameter.clone()
    parameter.mul_(1.0 - lr * group["weight_decay"])
    turned = update.mT if rows > columns else update
    parameter.add_(_part(turned, parameter), alpha=-lr * shape_scale(rows, columns, group["scale"]))
    if before is not None and stays is not None:
        parameter.copy_(torch.where(stays, before, parameter))


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _part(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's part of `tensor`, which all ranks hold, if `like` is sharded."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.contiguous(), like.device_mesh, like.placements, src_data_rank=None)
