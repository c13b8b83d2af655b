"""A run that asks to be started again has done something: a job that is queued again for nothing never ends."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint, verify
from alm.cli.options import seconds
from alm.errors import EXIT_AGAIN, EXIT_FAILURE, StoppedError
from alm.events import Event, Stepped
from alm.training import step
from alm.training.pretrain import pretrain

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR1")
FEW: dict[str, Any] = {"training__max_steps": 4, "scheduler__warmup_steps": 1, "samples__prompts": []}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("alm.training.stop.time.monotonic", lambda: self.now)

    def on_step(self, number: int, *, to: float) -> Callable[[Event], None]:
        def listener(event: Event) -> None:
            if isinstance(event, Stepped) and event.step == number:
                self.now = to

        return listener


def weights(run: Path) -> list[torch.Tensor]:
    return list(load_checkpoint(run / LAST_NAME).model.values())


def left(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.glob("ckpt-*"))}


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    pretrain(run_config(**FEW), data=data, out=out)
    return out


@pytest.mark.parametrize("begun", [0, 2])
def test_a_limit_that_is_over_before_the_first_step_does_not_ask_for_another_start(
    begun: int, data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, out, config = Clock(monkeypatch), tmp_path / "run", run_config(**FEW)
    if begun:
        with pytest.raises(StoppedError, match="at step 2; saved") as caught:
            pretrain(config, data=data, out=out, deadline=1010.0, on_event=clock.on_step(2, to=1010.0))
        assert caught.value.exit_code == EXIT_AGAIN
    before = left(out)
    clock.now = 2000.0
    with pytest.raises(StoppedError, match=r"before the first step: .* 41 s ago") as caught:
        pretrain(config, data=data, out=out, started=1959.0, deadline=1969.0)
    assert caught.value.exit_code == EXIT_FAILURE
    limit = re.search(r"`--time-limit (\w+)`", str(caught.value.hint))
    assert limit is not None
    assert seconds(limit[1], flag="--time-limit") == 82
    assert left(out) == before  # nothing new, nothing gone
    pretrain(config, data=data, out=out, started=1959.0, deadline=3000.0)
    assert all(map(torch.equal, weights(out), weights(whole)))


def test_a_limit_within_the_first_step_is_one_before_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, real = Clock(monkeypatch), step._backward

    def slow(*arguments: Any, **keywords: Any) -> torch.Tensor:
        clock.now += 100.0
        return real(*arguments, **keywords)

    monkeypatch.setattr(step, "_backward", slow)
    with pytest.raises(StoppedError, match="before the first step") as caught:
        pretrain(run_config(**FEW), data=data, out=tmp_path / "run", deadline=1050.0)
    assert caught.value.exit_code == EXIT_FAILURE
    assert "--time-limit 4m" in str(caught.value.hint)  # twice the 100 s of one of its two micro-batches


def test_a_step_is_enough_to_ask_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    out = tmp_path / "run"
    with pytest.raises(StoppedError, match="at step 1; saved") as caught:
        pretrain(run_config(**FEW), data=data, out=out, deadline=1010.0, on_event=clock.on_step(1, to=1010.0))
    assert caught.value.exit_code == EXIT_AGAIN
    assert verify(out / LAST_NAME).step == 1


def test_a_finished_run_is_up_to_date_whatever_the_limit(
    data: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch).now = 2000.0
    made = pretrain(run_config(**FEW), data=data, out=whole, deadline=1000.0)
    assert made.result is not None
    assert made.result.step == 4


@pytest.mark.slow
@posix
def test_a_job_that_is_asked_for_its_machine_at_once_each_time_ends_after_all(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGUSR1 in the first micro-batch of each start; as a scheduler, it is started again while it says 75."""
    out, real, first = tmp_path / "run", step._backward, [True]

    def asked(*arguments: Any, **keywords: Any) -> torch.Tensor:
        if first[0]:
            first[0] = False
            signal.raise_signal(signal.SIGUSR1)
        return real(*arguments, **keywords)

    monkeypatch.setattr(step, "_backward", asked)
    for done in (1, 2, 3, 4):  # the last one is stopped within its validation
        first[0] = True
        with pytest.raises(StoppedError, match=f"stopped by SIGUSR1 at step {done}; saved") as caught:
            pretrain(run_config(**FEW), data=data, out=out)
        assert caught.value.exit_code == EXIT_AGAIN
        assert verify(out / LAST_NAME).step == done
    made = pretrain(run_config(**FEW), data=data, out=out)
    assert made.result is not None
    assert all(map(torch.equal, weights(out), weights(whole)))


@posix
def test_other_signals_are_heeded_before_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = step._backward

    def asked(*arguments: Any, **keywords: Any) -> torch.Tensor:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **keywords)

    monkeypatch.setattr(step, "_backward", asked)
    with pytest.raises(StoppedError, match="terminated at step 0; saved") as caught:
        pretrain(run_config(**FEW), data=data, out=tmp_path / "run")
    assert caught.value.exit_code == 143
