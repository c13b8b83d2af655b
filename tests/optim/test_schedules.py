"""Schedules: values by hand, and laws that all of them keep."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from builders import run_config
from cases import for_each
from pydantic import ValidationError

from alm import kinds
from alm.config.base import Config
from alm.optim.schedules import agree, common, cosine, linear, warmup_steps, wsd
from alm.training.config import RunConfig

KINDS = kinds.names("alm.optim.schedules")
STEPS = 200
SHAPES = [(kind, {}) for kind in KINDS] + [("wsd", {"decay": "sqrt"}), ("wsd", {"decay_fraction": 0.05})]


def factors(kind: str, *, max_steps: int = STEPS, count: int | None = None, **values: Any) -> list[float]:
    module = kinds.load("alm.optim.schedules", kind)
    config = module.Config(**values)
    module.check(config, max_steps=max_steps)
    return [module.factor(config, step, max_steps=max_steps) for step in range(count or max_steps)]


def scheduled(kind: str, **values: Any) -> RunConfig:
    """A run of 12 steps with this schedule."""
    return run_config(**{f"scheduler__{name}": value for name, value in {"kind": kind, **values}.items()})


@pytest.mark.parametrize(("kind", "values"), SHAPES)
@for_each("warmup", [0, 1, 50])
@for_each("final", [0.0, 0.1, 1.0])
def test_every_schedule_rises_to_the_peak_and_then_never_rises(
    kind: str, values: dict[str, Any], warmup: int, final: float
) -> None:
    found = factors(kind, warmup_steps=warmup, final_fraction=final, **values)
    assert min(found) > 0  # the first update moves, and so does the last
    assert max(found) == found[warmup] == 1.0
    assert found[: warmup + 1] == sorted(found[: warmup + 1])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)


@for_each("kind, values", SHAPES)
@for_each("final", [0.0, 0.3])
def test_every_schedule_ends_at_the_final_fraction_and_stays(kind: str, values: dict[str, Any], final: float) -> None:
    found = factors(kind, count=STEPS + 50, warmup_steps=10, final_fraction=final, **values)
    assert found[STEPS:] == [pytest.approx(final, abs=1e-12)] * 50
    assert found[STEPS - 1] > final
    same = factors(kind, max_steps=10 * STEPS, count=STEPS + 50, total_steps=STEPS, warmup_steps=10,
                   final_fraction=final, **values)  # fmt: skip
    assert same == found


@pytest.mark.parametrize("kind", KINDS)
def test_no_schedule_jumps(kind: str) -> None:
    """Ten times as many steps, a tenth of the largest move between two of them."""
    moves = []
    for scale in (1, 10):
        found = factors(kind, max_steps=STEPS * scale, count=STEPS * scale + 2, warmup_steps=20 * scale)
        moves.append(max(abs(a - b) for a, b in itertools.pairwise(found)))
    assert moves[1] == pytest.approx(moves[0] / 10, rel=0.02)


def test_linear_by_hand() -> None:
    found = factors("linear", max_steps=12, count=14, warmup_steps=4, final_fraction=0.2)
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[5:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_warm_up_left_to_alm_is_a_twentieth_of_the_steps_up_to_the_end(kind: str) -> None:
    for max_steps in range(1, 60):  # fits in any run
        factors(kind, max_steps=max_steps)
    assert factors(kind, max_steps=100)[:6] == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0]
    assert factors(kind, max_steps=400, total_steps=40)[:3] == [0.5, 1.0, 1.0]


def test_wsd_by_hand() -> None:
    line = factors("wsd", max_steps=10, count=12, warmup_steps=2, decay_fraction=0.4, final_fraction=0.0)
    assert line[:7] == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert line[7:] == pytest.approx([0.75, 0.5, 0.25, 0.0, 0.0])
    root = factors("wsd", max_steps=10, count=12, warmup_steps=2, decay_fraction=0.4, final_fraction=0.1, decay="sqrt")
    assert root[:7] == line[:7]
    assert root[7:] == pytest.approx(
        [0.55, 0.1 + 0.9 * (1 - math.sqrt(0.5)), 0.1 + 0.9 * (1 - math.sqrt(0.75)), 0.1, 0.1]
    )


def test_wsd_that_decays_all_the_way_is_linear() -> None:
    assert factors("wsd", decay_fraction=1.0, warmup_steps=0) == factors("linear", warmup_steps=0)


def test_the_stable_part_does_not_depend_on_the_length() -> None:
    """What WSD is for: a run can be made longer from where its decay began."""
    short, long = (factors("wsd", max_steps=n, warmup_steps=20, decay_fraction=0.25) for n in (100, 400))
    assert long[:75] == short[:75]


@for_each("kind, values", SHAPES)
@for_each("fixed", [
    {"warmup_steps": 5}, {"warmup_steps": "auto"}, {"warmup_steps": 3, "total_steps": 20}, {"final_fraction": 1.0},
])  # fmt: skip
def test_two_lengths_agree_as_far_as_their_lists_of_factors_do(
    kind: str, values: dict[str, Any], fixed: dict[str, Any]
) -> None:
    config = kinds.load("alm.optim.schedules", kind).Config(**values, **fixed)
    for one, other in itertools.combinations((20, 21, 45), 2):
        lists = [factors(kind, max_steps=steps, **values, **fixed) for steps in (one, other)]
        shorter = min(one, other)
        assert common((config, one), (config, other)) == max(
            updates for updates in range(shorter + 1) if lists[0][:updates] == lists[1][:updates]
        )
        for updates in range(shorter + 1):
            found = agree((config, one), (config, other), updates=updates)
            assert found == (lists[0][:updates] == lists[1][:updates]), (one, other, updates)


@for_each("kind, values, expected", [
    ("wsd", {"decay_fraction": 0.4}, 61),  # the first update of the decay is at the peak
    ("wsd", {"decay_fraction": 1.0, "warmup_steps": 0}, 1),
    ("cosine", {}, 11),
    ("linear", {}, 11),
    ("linear", {"final_fraction": 1.0}, 100),
    ("cosine", {"warmup_steps": "auto"}, 0),  # the warm-up depends on the length
])  # fmt: skip
def test_the_length_is_open_until_the_decay(kind: str, values: dict[str, Any], expected: int) -> None:
    config = kinds.load("alm.optim.schedules", kind).Config(**{"warmup_steps": 10, **values})
    assert common((config, 100), (config, 200)) == common((config, 200), (config, 100)) == expected


@for_each("kind, values, fault", [
    ("cosine", {"warmup_steps": 11, "total_steps": 10}, "a warm-up of 11 steps does not fit in `total_steps` 10"),
    ("linear", {"warmup_steps": 11, "total_steps": 10}, "lower `scheduler.warmup_steps`"),
    ("wsd", {"warmup_steps": 7, "total_steps": 10}, "a warm-up of 7 steps and a decay of 4 do not fit in 10"),
    ("wsd", {"warmup_steps": 9}, "a warm-up of 9 steps and a decay of 5 do not fit in 12: lower"),
    ("wsd", {"warmup_steps": 2, "decay_fraction": 1.0}, "`scheduler.warmup_steps` or `scheduler.decay_fraction`"),
])  # fmt: skip
def test_phases_that_do_not_fit_are_refused(kind: str, values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        scheduled(kind, **values)
    (found,) = caught.value.errors()
    assert fault in found["msg"]
    assert found["loc"] == ("scheduler",)


def test_phases_that_just_fit_are_accepted() -> None:
    for values in ({"warmup_steps": 6, "total_steps": 10}, {"warmup_steps": 7}):
        assert isinstance(scheduled("wsd", **values).scheduler, wsd.Config)
    assert isinstance(scheduled("linear", warmup_steps=50).scheduler, linear.Config)
    assert isinstance(scheduled("cosine", warmup_steps=50).scheduler, cosine.Config)


@for_each("values", [
    {"decay_fraction": 0.0}, {"decay_fraction": 1.1}, {"decay": "cubic"}, {"total_steps": 0}, {"final_fraction": -0.1},
])  # fmt: skip
def test_values_out_of_bounds_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        wsd.Config(**values)


def test_a_schedule_of_ones_own_needs_no_other_field_than_its_warm_up() -> None:
    class Constant(Config):
        warmup_steps: int | str = "auto"

    assert warmup_steps(Constant(), max_steps=200) == 10
    assert warmup_steps(Constant(warmup_steps=3), max_steps=200) == 3
    assert warmup_steps(Config(), max_steps=200) == 0
