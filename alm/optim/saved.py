"""Checks the optimizer state of a checkpoint against the optimizer that continues from it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alm.errors import ArtifactError

Saved = dict[str, Any]  # Any: torch's form of an optimizer's state

_MOST_RATE = 1e6
_STEP = "step"
_ADAMW, _MUON = frozenset({_STEP, "exp_avg", "exp_avg_sq"}), frozenset({"momentum"})


def fitted(saved: Saved, optimizer: torch.optim.Optimizer, *, rows: Mapping[int, int], updates: int) -> Saved:
    """Complete `saved` so that it can be loaded into `optimizer`, whose groups and parameters it must match.

    `rows` is the number of rows that a table has in a checkpoint, by the `id` of its parameter. There must be moments
    after the first of `updates`. Numbers of the groups, such as rates, come from `saved`; other settings come from
    `optimizer`. Raises `ArtifactError` if a moment is missing or does not fit its parameter.
    """
    groups, state = saved.get("param_groups"), saved.get("state")
    own = optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or not isinstance(state, dict):
        raise _refused("does not hold the state of an optimizer")
    if len(groups) != len(own) or not all(isinstance(group, dict) for group in groups):
        raise _refused(f"has {len(groups)} groups of parameters, but the run's optimizer has {len(own)}")
    fitting = [_group(mine, theirs, number) for number, (mine, theirs) in enumerate(zip(own, groups, strict=True))]
    parameters = {
        index: (parameter, _MUON if "orthogonalization" in group else _ADAMW)
        for mine, group in zip(own, optimizer.param_groups, strict=True)
        for index, parameter in zip(mine["params"], group["params"], strict=True)
    }
    if (state or updates) and state.keys() != parameters.keys():
        other = sorted(map(str, state.keys() ^ parameters.keys()))
        raise _refused(f"has moments for {len(state)} of {len(parameters)} parameters (`{other[0][:60]}`)")
    for index, moments in state.items():
        parameter, names = parameters[index]
        _check_moments(f"optimizer.state.{index}", moments, parameter, names, rows.get(id(parameter)))
    return {"param_groups": fitting, "state": state}


def _group(own: Saved, given: Saved, number: int) -> Saved:
    place = f"optimizer.param_groups.{number}"
    if given.get("params") != own["params"]:
        raise _refused(f"has `{place}.params` {reprlib.repr(given.get('params'))}, not {reprlib.repr(own['params'])}")
    taken = dict(own)
    for key, value in own.items():
        new = given.get(key, value)
        if isinstance(value, float):
            taken[key] = _number(f"{place}.{key}", new)
        elif isinstance(value, tuple) and all(isinstance(each, float) for each in value):
            if not isinstance(new, tuple | list) or len(new) != len(value):
                raise _refused(f"has `{place}.{key}` {reprlib.repr(new)}, not {len(value)} numbers")
            taken[key] = tuple(_number(f"{place}.{key}", each, most=1.0) for each in new)
    return taken


def _number(place: str, value: object, *, most: float = _MOST_RATE) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < most:  # type: ignore[operator] # it is a number then
        raise _refused(f"has `{place}` {reprlib.repr(value)}, not a number from 0 to {most}")
    return float(value)  # type: ignore[arg-type] # as above


def _check_moments(place: str, moments: object, parameter: Tensor, names: frozenset[str], rows: int | None) -> None:
    if not isinstance(moments, dict) or moments.keys() != names:
        found = reprlib.repr(list(moments)) if isinstance(moments, dict) else reprlib.repr(moments)
        raise _refused(f"has {found} in `{place}`, not {', '.join(sorted(names))}")
    shape = tuple(parameter.shape)
    shapes = [shape] if rows is None else [shape, (rows, *shape[1:])]
    for name, value in moments.items():
        expected = [()] if name == _STEP else shapes
        if not isinstance(value, Tensor) or tuple(value.shape) not in expected or not value.is_floating_point():
            raise _refused(f"has {_shown(value)} in `{place}.{name}`, not numbers of shape {list(expected[0])}")
    if _STEP in names and not 0 <= float(moments[_STEP]) < math.inf:
        raise _refused(f"has {float(moments[_STEP])} in `{place}.{_STEP}`, not a number of steps")


def _shown(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else reprlib.repr(value)


def _refused(reason: str) -> ArtifactError:
    return ArtifactError(
        f"the checkpoint does not fit its run: it {reason}",
        hint="resume an older checkpoint with `--resume`, or start another run with `--out`",
    )
