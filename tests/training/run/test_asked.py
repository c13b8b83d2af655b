"""The same command goes on with what a budget or a full memory decided; another one changes what resuming allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config
from cases import for_each

from alm.config.load import load
from alm.errors import ConfigError, StoppedError
from alm.events import Event, Noted, Stepped, Warned, ignore
from alm.optim import schedules
from alm.training import step
from alm.training.config import RunConfig
from alm.training.pretrain import pretrain
from alm.training.run import fit, run_folder, time_budget
from alm.training.run.run_folder import reconcile, replaced, requested_by, requested_overrides
from alm.training.sizing import oom_cache, probe
from alm.training.sizing.probe import StepTimings


def config(**changes: Any) -> RunConfig:
    return run_config(
        **{
            "training__micro_batch_size": 4, "training__gradient_accumulation": 1, "training__max_steps": 100,
            "training__checkpoint_interval": 50, "scheduler__warmup_steps": 10, "validation__interval": 50, **changes,
        }
    )  # fmt: skip


CHOSEN = {"training__max_steps": 20, "scheduler__warmup_steps": 2, "validation__interval": 10}
CUT = {"training__micro_batch_size": 2, "training__gradient_accumulation": 2}


def test_only_what_was_decided_otherwise_is_noted() -> None:
    assert replaced(requested_by(config()), config()) == {}
    assert replaced(requested_by(config()), config(**CUT, validation__interval=10)) == {
        "training.micro_batch_size": 4,
        "training.gradient_accumulation": 1,
        "validation.interval": 50,
    }


@for_each(
    "changes, expected",
    [
        ({}, {}),  # the same command
        ({"training__max_steps": 70}, {}),  # a budget's steps are not asked for
        ({"validation__interval": 10}, {}),
        ({"validation__interval": 5}, {"validation__interval": 5}),
        ({"scheduler__warmup_steps": 3}, {"scheduler__warmup_steps": 3}),
        ({"training__checkpoint_interval": 7}, {"training__checkpoint_interval": 7}),
    ],
)
def test_a_budget_that_comes_again_keeps_what_it_chose(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    own = config(**CHOSEN)
    asked = replaced(requested_by(config()), own)
    found, _ = reconcile(config(optim__lr=0.5, **changes), own, asked, has_budget=True)
    assert found == config(optim__lr=0.5, **{**CHOSEN, **expected})


def test_without_a_budget_steps_are_asked_for() -> None:
    own = config(**CHOSEN)
    asked = replaced(requested_by(config()), own)
    longer = config(**{**CHOSEN, "training__max_steps": 100})
    assert reconcile(longer, own, asked, has_budget=False)[0] == longer


@for_each("has_budget", [True, False])
@for_each("wanted, expected", [((4, 1), (2, 2)), ((2, 2), (2, 2)), ((1, 4), (1, 4)), ((4, 2), (4, 2))])
def test_micro_batches_stay_as_they_were_cut(
    wanted: tuple[int, int], expected: tuple[int, int], has_budget: bool
) -> None:
    """Both numbers together: a step of another size is no repetition, and is refused later on."""
    own = config(**CUT)
    asked = replaced(requested_by(config()), own)
    sizes = dict(zip(CUT, wanted, strict=True))
    found = reconcile(config(**sizes), own, asked, has_budget=has_budget)[0].training
    assert (found.micro_batch_size, found.gradient_accumulation) == expected


def test_what_is_asked_for_outlives_changes_of_something_else() -> None:
    own = config(**CHOSEN, **CUT)
    asked = replaced(requested_by(config()), own)
    found, later = reconcile(own, own, asked, has_budget=False)
    assert (found, replaced(later, own)) == (own, asked)
    changed = config(**{**CHOSEN, **CUT, "validation__interval": 5})
    found, later = reconcile(changed, own, asked, has_budget=False)
    assert found == changed
    assert replaced(later, changed) == {key: value for key, value in asked.items() if key != "validation.interval"}


def test_a_command_without_files_means_what_was_asked_for() -> None:
    own = config(**CHOSEN, **CUT, training__keep_every=4)
    asked = replaced(requested_by(config()), own)
    base = own.model_dump(mode="json")
    assert load(RunConfig, [], base=base, overrides=requested_overrides(asked, has_budget=True)) == config()
    assert load(RunConfig, [], base=base, overrides=requested_overrides(asked, has_budget=False)) == config(
        **CHOSEN, training__keep_every=4
    )


# In runs


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose memory holds two sequences, and forgets that it did not hold more."""
    real = step._backward

    def backward(state: Any, batch: Any, **keywords: Any) -> Any:
        if len(batch.inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(state, batch, **keywords)

    monkeypatch.setattr(step, "_backward", backward)
    monkeypatch.setattr(oom_cache, "remember", lambda *_, **__: None)


def stopping(at: int, events: list[Event]) -> Any:
    def listener(event: Event) -> None:
        events.append(event)
        if isinstance(event, Stepped) and event.step == at:
            import signal

            signal.raise_signal(signal.SIGINT)

    return listener


def begun(data: Path, out: Path, wanted: RunConfig, *, at: int = 6, **arguments: Any) -> None:
    with pytest.raises(StoppedError):
        pretrain(wanted, data=data, out=out, on_event=stopping(at, []), **arguments)


def said(events: list[Event], kind: type[Noted | Warned] = Noted) -> list[str]:
    return [event.message for event in events if isinstance(event, kind)]


@pytest.mark.slow
@pytest.mark.usefixtures("full")
def test_a_resume_with_the_same_flags_never_tries_what_did_not_fit(data: Path, tmp_path: Path) -> None:
    wanted, out, events = config(training__max_steps=12, scheduler__warmup_steps=3), tmp_path / "run", list[Event]()
    pretrain(wanted, data=data, out=tmp_path / "through")
    begun(data, out, wanted)
    pretrain(wanted, data=data, out=out, on_event=events.append)
    assert said(events) == [
        "micro-batches stay at 2 sequences, as 4 did not fit: the result is bit for bit that of an unstopped run"
    ]
    assert said(events, Warned) == []
    through, resumed = (
        torch.load(folder / "ckpt-last.pt", weights_only=True)["model"] for folder in (tmp_path / "through", out)
    )
    assert all(torch.equal(through[name], resumed[name]) for name in through)
    assert run_folder.read_metadata(out).asked == {"training.micro_batch_size": 4, "training.gradient_accumulation": 1}


@pytest.mark.usefixtures("full")
def test_a_run_that_is_cut_after_it_began_notes_what_was_asked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a process of its own: the note is on the disk before the next step."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(step, "_backward", _real_backward)
        begun(data, out, config(), at=4)
    assert run_folder.read_metadata(out).asked == {}
    begun(data, out, config(), at=7)
    assert run_folder.read_metadata(out).asked == {"training.micro_batch_size": 4, "training.gradient_accumulation": 1}


_real_backward = step._backward


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on which a step takes a second, and a clock at 1,000. Nobody looks again."""
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(0.9, 0.1, 0.0, 0.0))

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return 1000.0

    monkeypatch.setattr(fit, "time", Clock)
    monkeypatch.setattr(time_budget, "check_steps", lambda config: frozenset())


@pytest.mark.usefixtures("steady")
def test_a_setting_that_is_new_is_honoured_or_refused_beside_a_budget(data: Path, tmp_path: Path) -> None:
    out, finish_by = tmp_path / "run", 1022.0
    begun(data, out, config(), finish_by=finish_by)
    own = run_folder.read_config(out)
    assert (own.training.max_steps, own.validation.interval) == (20, 10)
    pretrain(config(validation__interval=5), data=data, out=out, finish_by=finish_by)
    assert run_folder.read_config(out) == own.model_copy(
        update={"validation": own.validation.model_copy(update={"interval": 5})}
    )
    with pytest.raises(ConfigError, match="started with another configuration\n  scheduler.warmup_steps  2 -> 4"):
        pretrain(config(scheduler__warmup_steps=4), data=data, out=out, finish_by=finish_by)


@pytest.mark.usefixtures("steady")
def test_settings_that_do_not_go_together_with_what_was_chosen_are_told(data: Path, tmp_path: Path) -> None:
    wanted = config(scheduler__kind="wsd", scheduler__warmup_steps=20)
    begun(data, tmp_path / "run", wanted, finish_by=1022.0)
    other = config(scheduler__kind="wsd", scheduler__warmup_steps=0, scheduler__decay_fraction=1.0)
    with pytest.raises(ConfigError, match="started with another configuration") as caught:
        pretrain(other, data=data, out=tmp_path / "run", finish_by=1022.0)
    assert "scheduler.decay_fraction  0.4 -> 1.0" in caught.value.message
    longer = config(scheduler__kind="wsd", scheduler__warmup_steps=15)
    with pytest.raises(ConfigError, match="do not go together.*\n.*a decay of") as caught:
        pretrain(longer, data=data, out=tmp_path / "run", finish_by=1022.0)
    assert "leave out" in str(caught.value.hint)


CONSTANT = """
from typing import Literal
from alm.config.base import Config as Base


class Config(Base):
    kind: Literal["constant"] = "constant"
    warmup_steps: int = 0


def check(config, *, max_steps):
    pass


def factor(config, step, *, max_steps):
    return 1.0
"""


def test_a_schedule_of_ones_own_resumes_with_another_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has none of the other fields of the schedules that come with alm."""
    (tmp_path / "constant.py").write_text(CONSTANT)
    places = [*schedules.__path__, str(tmp_path)]
    monkeypatch.setattr(schedules, "__path__", places)
    monkeypatch.setattr(schedules.__spec__, "submodule_search_locations", places)
    own = config(scheduler__kind="constant")
    monkeypatch.setattr(run_folder, "read_config", lambda _: own)
    wanted = config(scheduler__kind="constant", training__max_steps=200)
    assert run_folder.resumed_config(tmp_path, wanted, on_event=ignore) == wanted
