"""How long the rest of a run takes: by hand."""

from __future__ import annotations

import pytest
from builders import run_config

from alm.training.monitoring.throughput import LapTime
from alm.training.sizing.eta import TimeLeft

CONFIG = run_config(
    training__max_steps=100, training__checkpoint_interval=100, validation__interval=40, samples__prompts=[]
)


def lap(step_seconds: float, steps: int = 10) -> LapTime:
    return LapTime(step_seconds * steps, steps, waited=0.0)


def test_the_time_left_is_steps_at_their_recent_speed_and_pauses_as_they_last_were() -> None:
    pace = TimeLeft()
    assert pace.eta(CONFIG, 10) is None
    pace.stepped(lap(2.0))
    assert pace.eta(CONFIG, 10) == pytest.approx(90 * 2.0)
    pace.paused("validation")(9.0)
    pace.paused("validation")(5.0)
    assert pace.eta(CONFIG, 10) == pytest.approx(90 * 2.0 + 3 * 5.0)  # after steps 40, 80 and 100
    pace.paused("saving")(7.0)
    assert pace.eta(CONFIG, 90) == pytest.approx(10 * 2.0 + 5.0 + 7.0)
    for _ in range(40):
        pace.stepped(lap(1.0))
    assert pace.eta(CONFIG, 90) == pytest.approx(10 * 1.0 + 5.0 + 7.0, rel=1e-4)
    assert pace.eta(CONFIG, 100) == 0.0


def test_pauses_that_have_not_come_yet_take_what_was_measured() -> None:
    pace = TimeLeft({"validation": 4.0, "saving": 1.0, "samples": 3.0})
    assert pace.left(CONFIG, 50, step_seconds=0.5) == pytest.approx(50 * 0.5 + 2 * 4.0 + 1.0)
    pace.paused("validation")(6.0)
    assert pace.left(CONFIG, 50, step_seconds=0.5) == pytest.approx(50 * 0.5 + 2 * 6.0 + 1.0)
    with_samples = run_config(training__max_steps=100, training__checkpoint_interval=100, validation__interval=100,
                              samples__count=3)  # fmt: skip
    # Samples after steps 1, 10 and 100.
    assert pace.left(with_samples, 9, step_seconds=0.0) == pytest.approx(6.0 + 1.0 + 2 * 3.0)


def test_a_steady_speed_is_half_of_what_was_seen_since_the_last_look() -> None:
    pace = TimeLeft()
    assert pace.steady() is None
    pace.stepped(lap(50.0))  # the first lap: something was compiled
    assert pace.steady() is None
    pace.stepped(lap(1.0, steps=30))
    pace.stepped(lap(3.0, steps=10))
    assert pace.steady() == pytest.approx(1.5)
    assert pace.steady() == pytest.approx(1.5)  # nothing new
    pace.stepped(lap(2.5))
    assert pace.steady() == pytest.approx(2.0)
