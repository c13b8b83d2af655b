from __future__ import annotations

import pytest
import torch
from builders import run_config

from alm.device import Choice, choose
from alm.events import Event, Noted
from alm.training.config import RunConfig
from alm.training.sizing import compiling
from alm.training.sizing.compiling import Trial, settled

CPU = choose("cpu", precision="fp32")


def test_what_is_said_is_done_and_a_cpu_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_trial", None)
    for wanted, expected in ((True, True), (False, False), ("auto", False)):
        found = settled(
            run_config(model__vocab_size=50, training__compile=wanted), CPU, seq_len=8, on_event=lambda event: None
        )
        assert found is expected


@pytest.mark.parametrize(("plain", "compiled", "pays"), [(0.2, 0.1, True), (0.1, 0.2, False), (0.102, 0.1, False)])
def test_the_faster_is_kept_and_told(
    monkeypatch: pytest.MonkeyPatch, plain: float, compiled: float, pays: bool
) -> None:
    seconds = iter([plain, compiled])
    monkeypatch.setattr(torch, "compile", lambda model: model)
    monkeypatch.setattr(compiling, "_seconds", lambda *_: next(seconds))
    events: list[Event] = []
    elsewhere = CPU.__class__(torch.device("meta"), "fp32", "", "")
    config = run_config(model__vocab_size=50, training__compile="auto")
    assert settled(config, elsewhere, seq_len=8, on_event=events.append) is pays
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
    found = compiling._trial(run_config(model__vocab_size=50), CPU, 8)
    assert found == Trial(trouble="no compiler found")
    assert (found.pays, found.share, str(found)) == (False, 1.0, "it does not work here (no compiler found)")


def test_a_micro_batch_that_does_not_fit_is_tried_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is cut as well, and compiling may pay then; what is not for want of memory is not tried again."""
    sizes: list[int] = []
    error = "CUDA out of memory"

    def timed(config: RunConfig, choice: Choice, shape: tuple[int, int]) -> Trial:
        sizes.append(shape[0])
        if shape[0] > 2 or error != "CUDA out of memory":
            raise RuntimeError(error)
        return Trial(0.2, 0.1)

    monkeypatch.setattr(compiling, "_timed", timed)
    config = run_config(model__vocab_size=50, training__micro_batch_size=9)
    assert compiling._trial(config, CPU, 8).pays
    assert sizes == [9, 4, 2]
    sizes.clear()
    error = "no compiler found"
    assert compiling._trial(config, CPU, 8).trouble == error
    assert sizes == [9]


def test_what_is_left_of_a_micro_batch_is_the_better_of_both() -> None:
    assert Trial(0.2, 0.05).share == 0.25
    assert Trial(0.1, 0.2).share == 1.0
    assert Trial(0.102, 0.1).share == 1.0  # not worth compiling at every start


def test_a_trial_draws_nothing_and_times_both(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(model: torch.nn.Module) -> object:
        def forward(ids: torch.Tensor) -> torch.Tensor:
            calls.append("compiled")
            hidden: torch.Tensor = model(ids)
            return hidden

        return forward

    monkeypatch.setattr(torch, "compile", counted)
    before = torch.get_rng_state()
    found = compiling._trial(run_config(model__vocab_size=50, model__dropout=0.5), CPU, 8)
    assert torch.equal(before, torch.get_rng_state())
    assert len(calls) == 8
    assert str(found).startswith("a micro-batch takes ")
