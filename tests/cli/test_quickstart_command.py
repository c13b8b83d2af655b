"""What `alm quickstart` says at its end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alm.artifacts import RunResult
from alm.quickstart.run import Places


@pytest.mark.parametrize(
    ("score", "margin", "said"),
    [
        (0.44934, 0.0217, "12 steps, 0.449 ± 0.022 bits/byte on held-out text."),
        (0.44934, None, "12 steps, 0.4493 bits/byte on held-out text."),
        (None, None, "12 steps."),
    ],
)
def test_the_score_has_its_margin(
    run: Any, monkeypatch: pytest.MonkeyPatch, score: float | None, margin: float | None, said: str
) -> None:
    result = RunResult(
        step=12,
        training_tokens=9,
        validation_loss=score,
        bits_per_byte=score,
        bits_per_byte_margin=margin,
        seconds=1.0,
    )
    finished = SimpleNamespace(
        run=SimpleNamespace(parameters=1000, result=result),
        held_out="12 documents",
        prompts=("a", "b", "c"),
        texts=("a", "b", "c"),
        report="r.html",
    )
    job = SimpleNamespace(plan=None, places=Places(Path("q")))
    monkeypatch.setattr("alm.quickstart.run.prepared", lambda *_, **__: job)
    monkeypatch.setattr("alm.quickstart.run.quickstart", lambda *_, **__: finished)
    code, out, _ = run("quickstart")
    assert code == 0
    assert any(line.startswith("Done in") and line.endswith(said) for line in out.splitlines())
    assert out.splitlines()[-1] == "Report: r.html"
    assert json.loads(run("quickstart", "--json")[1])["bits_per_byte_margin"] == margin
