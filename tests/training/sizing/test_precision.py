"""Precision `auto`: settled by the hardware where it says so, elsewhere by the model's own steps, once for a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config, write_packed

from alm import device
from alm.device import Precision
from alm.doctor import examine
from alm.events import Event, Noted
from alm.training.plan import plan
from alm.training.pretrain import pretrain
from alm.training.run import run_folder
from alm.training.sizing import memory, precision, probe, proposing
from alm.training.sizing.precision import Trial, settled, shape, tried
from alm.training.sizing.probe import Rates


def timings(*pairs: tuple[float, float]) -> Callable[[Precision], float]:
    """Seconds of fp32 and bf16, round by round."""
    left = [seconds for pair in pairs for seconds in pair]

    def seconds(wanted: Precision) -> float:
        assert wanted == ("fp32" if len(left) % 2 == 0 else "bf16")
        return left.pop(0)

    return seconds


@pytest.mark.parametrize(
    ("rounds", "found"),
    [
        (
            [(0.9, 0.1), (0.2, 0.1), (0.2, 0.1), (0.2, 0.1)],
            ("bf16", "measured: a step of this model is 2.0 times as fast"),
        ),
        (
            [(0.1, 0.9), (0.2, 0.15), (0.2, 0.1), (0.21, 0.14)],
            ("bf16", "measured: a step of this model is 2.0 times as fast"),
        ),
        (
            [(0.1, 0.9), (0.11, 0.1), (0.11, 0.1), (0.11, 0.1)],
            ("fp32", "a step of this model is only 1.10 times as fast"),
        ),
        ([(0.2, 0.2), (0.1, 0.4), (0.1, 0.3), (0.1, 0.2)], ("fp32", "a step of this model is only 0.50 times as fast")),
    ],
    ids=["faster", "noisy", "hardly", "slower"],
)
def test_the_faster_of_the_best_steps_is_kept(rounds: list[tuple[float, float]], found: tuple[str, str]) -> None:
    """The first of each, which is made with empty caches, counts nothing."""
    chosen, why = tried(timings(*rounds))
    assert chosen == found[0]
    assert found[1] in why


def test_long_steps_are_timed_once() -> None:
    assert tried(timings((3.0, 1.0), (2.0, 1.0)))[0] == "bf16"  # a third round would find nothing


def test_where_bf16_does_not_run_it_is_fp32() -> None:
    def seconds(wanted: Precision) -> float:
        if wanted == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return 0.1

    assert tried(seconds) == ("fp32", "bf16 does not run here")


def test_a_micro_batch_that_is_timed_is_small() -> None:
    config = run_config(model__vocab_size=300, training__micro_batch_size=4)
    # 16 x 32 x 3 x 2 + (2 x 16 x 16 + 2 x 16 x 8) x 2 matrix entries in layers, 320 x 16 in the head, and attention.
    each = 3 * 2 * (4608 + 5120 + 2 * 16 * 2 * (64 + 1) / 2)
    assert shape(config, seq_len=64) == (4, 64)
    for flops, expected in ((2.5, (2, 64)), (0.5, (1, 64)), (0.9, (1, 64))):
        found = precision._FLOPS
        try:
            precision._FLOPS = flops * each * 64
            assert shape(config, seq_len=64) == expected
        finally:
            precision._FLOPS = found
    large = run_config(model__d_model=2048, model__n_layers=60, model__vocab_size=300)
    assert shape(large, seq_len=4096) == (1, 64)


def test_a_trial_draws_nothing_and_takes_time() -> None:
    trial = Trial(run_config(model__vocab_size=300, model__dropout=0.5), torch.device("cpu"), seq_len=16)
    before = torch.get_rng_state()
    assert all(trial(name) > 0 for name in ("fp32", "bf16"))
    assert torch.equal(before, torch.get_rng_state())


class Timed:
    """Stands for `Trial`: bf16 takes `share` of the time of fp32."""

    share = 0.5
    trials = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        type(self).trials += 1

    def __call__(self, wanted: Precision) -> float:
        return 0.1 if wanted == "fp32" else 0.1 * type(self).share


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> type[Timed]:
    """On a CPU whose flags leave it open."""
    kind = type("Kind", (Timed,), {})
    monkeypatch.setattr(precision, "Trial", kind)
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: True)
    return kind


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_not_timed(timed: type[Timed], wanted: str) -> None:
    assert settled(run_config(training__precision=wanted), "cpu", seq_len=16).precision == wanted
    assert timed.trials == 0


def test_what_the_hardware_says_is_not_timed(timed: type[Timed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: False)
    assert settled(run_config(training__precision="auto"), "cpu", seq_len=16).precision == "fp32"
    assert timed.trials == 0


def test_what_was_found_is_told_recorded_and_taken_on_resume(timed: type[Timed], tmp_path: Path) -> None:
    data, out, events = write_packed(tmp_path / "data")[0], tmp_path / "run", list[Event]()
    config = run_config(training__precision="auto", training__max_steps=4)
    pretrain(config, data=data, out=out, on_event=events.append)
    assert Noted("precision is bf16: measured: a step of this model is 2.0 times as fast in bf16") in events
    assert run_folder.read_config(out).training.precision == "bf16"
    timed.share = 2.0
    longer = run_config(training__precision="auto", training__max_steps=6)
    pretrain(longer, data=data, out=out)
    assert run_folder.read_config(out).training.precision == "bf16"
    assert timed.trials == 1
    pretrain(config, data=data, out=tmp_path / "other")
    assert run_folder.read_config(tmp_path / "other").training.precision == "fp32"


def test_what_is_planned_and_proposed_is_what_the_run_chooses(
    timed: type[Timed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast a product of matrices is."""
    monkeypatch.setattr(device, "_bf16_speedup", lambda _: 1.0 if timed.share < 1 else 9.0)
    monkeypatch.setattr(probe, "SECONDS", 0.01)
    seen: list[str] = []
    monkeypatch.setattr(proposing.probe, "measure_steps", lambda _, choice, *__, **___: rates(seen, choice))
    data = write_packed(tmp_path / "data")[0]
    config = run_config(training__precision="auto", training__max_steps=2)
    for number, (timed.share, expected) in enumerate(((0.5, "bf16"), (2.0, "fp32"))):
        events: list[Event] = []
        assert plan(config, data=data, on_event=events.append).precision == expected
        assert any(isinstance(event, Noted) and f"precision is {expected}" in event.message for event in events)
        pretrain(config, data=data, out=tmp_path / f"run{number}")
        assert run_folder.read_config(tmp_path / f"run{number}").training.precision == expected
        seen.clear()
        proposing.proposed(1.0, data=data, device_name="cpu")
        assert set(seen) == {expected}
        assert examine.chosen("cpu").precision == expected
    proposing.proposed(1.0, data=data, device_name="cpu", precision="bf16")
    assert seen[-1] == "bf16"


def rates(seen: list[str], choice: device.Choice) -> Rates:
    seen.append(choice.precision)
    return Rates(0.1, 0.1, 0.0, 0.0)


def test_a_model_without_room_is_not_built_to_be_timed(timed: type[Timed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_bf16_speedup", lambda _: 9.0)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1000)
    config = run_config(training__precision="auto", model__vocab_size=300)
    assert settled(config, "cpu", seq_len=16).precision == "bf16"
    assert timed.trials == 0
