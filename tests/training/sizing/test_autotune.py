"""`auto` of precision and compiling: the hardware answers where it can, elsewhere the model's own passes are timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import FakeTime, run_config, write_packed

from alm import device
from alm.device import Choice, Precision, choose
from alm.doctor import examine
from alm.events import Event, Noted
from alm.training.config import RunConfig
from alm.training.plan import plan
from alm.training.pretrain import pretrain
from alm.training.run import run_folder
from alm.training.sizing import autotune, memory, probe, suggest
from alm.training.sizing.autotune import (
    CompileTrial,
    choose_compile,
    choose_precision,
    faster_precision,
    micro_batch_shape,
)
from alm.training.sizing.probe import StepTimings

CPU = choose("cpu", precision="fp32")


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Precision, str]]:
    """`faster_precision` where passes take the given seconds in fp32 and bf16, round by round."""
    clock = FakeTime()
    monkeypatch.setattr(device, "time", clock)

    def chosen(*pairs: tuple[float, float]) -> tuple[Precision, str]:
        left = [seconds for pair in pairs for seconds in pair]

        def passes(precision: Precision) -> None:
            assert precision == ("fp32" if len(left) % 2 == 0 else "bf16")
            clock.now += left.pop(0)

        monkeypatch.setattr(autotune, "Passes", lambda *_: passes)
        return faster_precision(run_config(model__vocab_size=300), CPU.device, seq_len=16)

    return chosen


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
def test_the_faster_of_the_best_steps_is_kept(
    faster: Callable[..., tuple[Precision, str]], rounds: list[tuple[float, float]], found: tuple[str, str]
) -> None:
    """The first of each, which is made with empty caches, counts nothing."""
    chosen, why = faster(*rounds)
    assert chosen == found[0]
    assert found[1] in why


def test_long_steps_are_timed_once(faster: Callable[..., tuple[Precision, str]]) -> None:
    assert faster((3.0, 1.0), (2.0, 1.0))[0] == "bf16"  # a third round would find nothing


def test_where_bf16_does_not_run_it_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    def passes(precision: Precision) -> None:
        if precision == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")

    monkeypatch.setattr(autotune, "Passes", lambda *_: passes)
    found = faster_precision(run_config(model__vocab_size=300), CPU.device, seq_len=16)
    assert found == ("fp32", "bf16 does not run here")


def test_a_micro_batch_that_is_timed_is_small() -> None:
    config = run_config(model__n_layers=2, model__vocab_size=300, training__micro_batch_size=4)
    # 16 x 32 x 3 x 2 + (2 x 16 x 16 + 2 x 16 x 8) x 2 matrix entries in layers, 320 x 16 in the head, and attention.
    each = 3 * 2 * (4608 + 5120 + 2 * 16 * 2 * (64 + 1) / 2)
    assert micro_batch_shape(config, seq_len=64) == (4, 64)
    for flops, expected in ((2.5, (2, 64)), (0.5, (1, 64)), (0.9, (1, 64))):
        found = autotune._FLOPS
        try:
            autotune._FLOPS = flops * each * 64
            assert micro_batch_shape(config, seq_len=64) == expected
        finally:
            autotune._FLOPS = found
    large = run_config(model__d_model=2048, model__n_layers=60, model__vocab_size=300)
    assert micro_batch_shape(large, seq_len=4096) == (1, 64)


def test_passes_are_timed_and_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[dict[Precision, float]] = []

    def best_seconds(*arguments: Any, **keywords: Any) -> dict[Precision, float]:
        found.append(device.best_seconds(*arguments, **keywords))
        return found[0]

    monkeypatch.setattr(autotune, "best_seconds", best_seconds)
    before = torch.get_rng_state()
    faster_precision(run_config(model__vocab_size=300, model__dropout=0.5), CPU.device, seq_len=16)
    assert all(found[0][precision] > 0 for precision in ("fp32", "bf16"))
    assert torch.equal(before, torch.get_rng_state())


class Timed:
    """Stands for `faster_precision`: bf16 takes `share` of the time of fp32."""

    share = 0.5
    trials = 0

    def __call__(self, *_: Any, **__: Any) -> tuple[Precision, str]:
        self.trials += 1
        return device.by_speedup(1 / self.share, "a step of this model")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    """On a CPU whose flags leave it open."""
    found = Timed()
    monkeypatch.setattr(autotune, "faster_precision", found)
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: True)
    return found


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_not_timed(timed: Timed, wanted: str) -> None:
    assert choose_precision(run_config(training__precision=wanted), "cpu", seq_len=16).precision == wanted
    assert timed.trials == 0


def test_what_the_hardware_says_is_not_timed(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: False)
    assert choose_precision(run_config(training__precision="auto"), "cpu", seq_len=16).precision == "fp32"
    assert timed.trials == 0


@pytest.mark.slow
def test_what_was_found_is_told_recorded_and_taken_on_resume(timed: Timed, tmp_path: Path) -> None:
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
    timed: Timed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast a product of matrices is."""
    monkeypatch.setattr(device, "_bf16_speedup", lambda _: 1.0 if timed.share < 1 else 9.0)
    monkeypatch.setattr(probe, "SECONDS", 0.01)
    seen: list[str] = []
    monkeypatch.setattr(suggest.probe, "measure_steps", lambda _, choice, *__, **___: timings(seen, choice))
    data = write_packed(tmp_path / "data")[0]
    config = run_config(training__precision="auto", training__max_steps=2)
    for number, (timed.share, expected) in enumerate(((0.5, "bf16"), (2.0, "fp32"))):
        events: list[Event] = []
        assert plan(config, data=data, on_event=events.append).precision == expected
        assert any(isinstance(event, Noted) and f"precision is {expected}" in event.message for event in events)
        pretrain(config, data=data, out=tmp_path / f"run{number}")
        assert run_folder.read_config(tmp_path / f"run{number}").training.precision == expected
        seen.clear()
        suggest.suggest(1.0, data=data, device_name="cpu")
        assert set(seen) == {expected}
        assert examine.chosen("cpu").precision == expected
    suggest.suggest(1.0, data=data, device_name="cpu", precision="bf16")
    assert seen[-1] == "bf16"


def timings(seen: list[str], choice: device.Choice) -> StepTimings:
    seen.append(choice.precision)
    return StepTimings(0.1, 0.1, 0.0, 0.0)


def test_a_model_without_room_is_not_built_to_be_timed(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_bf16_speedup", lambda _: 9.0)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1000)
    config = run_config(training__precision="auto", model__vocab_size=300)
    assert choose_precision(config, "cpu", seq_len=16).precision == "bf16"
    assert timed.trials == 0


# ---- torch.compile


def test_what_is_said_is_done_and_a_cpu_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "_compile_trial", None)
    for wanted, expected in ((True, True), (False, False), ("auto", False)):
        found = choose_compile(
            run_config(model__vocab_size=50, training__compile=wanted), CPU, seq_len=8, on_event=lambda event: None
        )
        assert found is expected


@pytest.mark.parametrize(("plain", "compiled", "pays"), [(0.2, 0.1, True), (0.1, 0.2, False), (0.102, 0.1, False)])
def test_the_faster_is_kept_and_told(
    monkeypatch: pytest.MonkeyPatch, plain: float, compiled: float, pays: bool
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(autotune, "best_seconds", lambda *_, **__: {"plain": plain, "compiled": compiled})
    events: list[Event] = []
    elsewhere = CPU.__class__(torch.device("meta"), "fp32", "", "")
    config = run_config(model__vocab_size=50, training__compile="auto")
    assert choose_compile(config, elsewhere, seq_len=8, on_event=events.append) is pays
    assert [event.message for event in events if isinstance(event, Noted)] == [
        f"torch.compile is {'on' if pays else 'off'}: a micro-batch takes {compiled * 1e3:.1f} ms with it, "
        f"{plain * 1e3:.1f} without"
    ]


def test_where_it_does_not_work_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(model: torch.nn.Module) -> object:
        def forward(ids: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler found\nmore")

        return forward

    monkeypatch.setattr(torch, "compile", fails)
    found = autotune._compile_trial(run_config(model__vocab_size=50), CPU, 8)
    assert found == CompileTrial(error="no compiler found")
    assert (found.pays, found.share, str(found)) == (False, 1.0, "it does not work here (no compiler found)")


def test_a_micro_batch_that_does_not_fit_is_tried_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is cut as well, and compiling may pay then; what is not for want of memory is not tried again."""
    sizes: list[int] = []
    error = "CUDA out of memory"

    def timed(config: RunConfig, choice: Choice, shape: tuple[int, int]) -> CompileTrial:
        sizes.append(shape[0])
        if shape[0] > 2 or error != "CUDA out of memory":
            raise RuntimeError(error)
        return CompileTrial(0.2, 0.1)

    monkeypatch.setattr(autotune, "_time_both", timed)
    config = run_config(model__vocab_size=50, training__micro_batch_size=9)
    assert autotune._compile_trial(config, CPU, 8).pays
    assert sizes == [9, 4, 2]
    sizes.clear()
    error = "no compiler found"
    assert autotune._compile_trial(config, CPU, 8).error == error
    assert sizes == [9]


def test_what_is_left_of_a_micro_batch_is_the_better_of_both() -> None:
    assert CompileTrial(0.2, 0.05).share == 0.25
    assert CompileTrial(0.1, 0.2).share == 1.0
    assert CompileTrial(0.102, 0.1).share == 1.0  # not worth compiling at every start


def test_a_trial_draws_nothing_and_times_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(model: torch.nn.Module) -> object:
        def forward(ids: torch.Tensor) -> torch.Tensor:
            calls.append("compiled")
            hidden: torch.Tensor = model(ids)
            return hidden

        return forward

    monkeypatch.setattr(torch, "compile", counted)
    before = torch.get_rng_state()
    found = autotune._compile_trial(run_config(model__vocab_size=50, model__dropout=0.5), CPU, 8)
    assert torch.equal(before, torch.get_rng_state())
    assert len(calls) == 8
    assert str(found).startswith("a micro-batch takes ")
