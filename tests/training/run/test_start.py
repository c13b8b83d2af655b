"""Warnings before a run starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from builders import run_config, write_packed

from alm.events import Event, Warned
from alm.packing.shards import open_packed
from alm.training.run.start import warn_of_repeats


def test_text_that_is_learned_by_heart_is_warned_of_once(tmp_path: Path) -> None:
    packed = open_packed(write_packed(tmp_path)[0])
    short, long, longer = (
        run_config(training__max_steps=steps, optim__weight_decay=0.1) for steps in (2, 20_000, 30_000)
    )
    strong = run_config(training__max_steps=20_000, optim__weight_decay=3.0)

    def warned(config: Any, **given: Any) -> list[Warned]:
        events: list[Event] = []
        job: Any = SimpleNamespace(config=config, packed=packed, on_event=events.append)
        warn_of_repeats(job, **given)
        return [event for event in events if isinstance(event, Warned)]

    (event,) = warned(long)
    assert "learned by heart" in event.message
    assert "--set optim.weight_decay=1.5 --set model.dropout=0.4" in str(event.hint)
    assert warned(short) == warned(strong) == []
    assert len(warned(long, before=short)) == 1
    assert warned(longer, before=long) == []  # a budget that lengthens the run has warned before
