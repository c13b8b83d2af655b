"""A run that can only get worse stops by itself, at the same step however often it was killed."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config
from tiny import TABLE

from alm.artifacts import RunMetadata
from alm.checkpoint.choose import choose
from alm.checkpoint.format import BEST_NAME, LAST_NAME
from alm.checkpoint.load import load_checkpoint, verify
from alm.cli.event_lines import result_score
from alm.cli.inspect import inspect
from alm.errors import StoppedError
from alm.events import Event, Noted, Resumed, Stepped
from alm.export import card
from alm.export.source import load_source
from alm.export.targets import safetensors
from alm.generation.load import load_model
from alm.packing.shards import open_packed
from alm.report.record import read as read_record
from alm.report.report import report
from alm.training import loop
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.monitoring.forecast import Curve
from alm.training.monitoring.verdict import can_only_get_worse
from alm.training.pretrain import pretrain
from alm.training.run import run_folder
from alm.training.run.initial import initial_weights, model_values
from alm.training.validate import Score

# The best is step 4. The last three of 2.3, 2.4 and 2.5 are far above it, so that a run stops at step 10.
SCORES = {2: 3.0, 4: 2.0, 6: 2.3, 8: 2.4}
BEST, STOP, STEPS = 4, 10, 20
Train = Callable[..., RunMetadata]


def config(**changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "training__max_steps": STEPS,
        "training__keep_best": True,
        "training__stop_when_worse": True,
        "training__keep_last": 1,
        "validation__interval": 2,
        "logging__log_interval": 1,
        "samples__prompts": [],
    }
    return run_config(**settings | changes)


@pytest.fixture
def train(data: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train a run whose scores are functions of the step. `stop` interrupts it after that step, once."""
    now = [0]

    def score(*_: object, should_stop: Callable[[], bool], **__: object) -> Score | None:
        bits = SCORES.get(now[0], 2.0 + 0.05 * now[0])
        return None if should_stop() else Score(bits, bits, None)

    monkeypatch.setattr(loop, "validate", score)

    def run(out: Path, *, stop: int | None = None, said: list[str] | None = None, **changes: Any) -> RunMetadata:
        def listen(event: Event) -> None:
            if isinstance(event, Stepped | Resumed):
                now[0] = event.step
            if isinstance(event, Noted) and said is not None:
                said.append(event.message)
            if isinstance(event, Stepped) and event.step == stop:
                signal.raise_signal(signal.SIGINT)

        return pretrain(config(**changes), data=data, out=out, on_event=listen)

    return run


def state(run: Path) -> tuple[object, ...]:
    """All that must be equal in equal runs: rows, weights, names of files, and the result but for its time."""
    result = json.loads((run / run_folder.METADATA_NAME).read_text())["result"] | {"seconds": 0}
    weights = {name: load_checkpoint(run / name).model for name in (LAST_NAME, BEST_NAME)}
    values = {name: {key: tensor.tolist() for key, tensor in found.items()} for name, found in weights.items()}
    files = sorted(path.name for path in run.glob("ckpt-*") if "-interrupt" not in path.name)
    return metrics.without_clock(metrics.read(run)), values, files, result


def test_it_stops_and_says_why_and_keeps_the_best(train: Train, tmp_path: Path) -> None:
    said: list[str] = []
    result = train(tmp_path / "run", said=said).result
    assert result is not None
    reason = "held-out text rose from 2.000 bits/byte at step 4 to 2.500, and can only get worse"
    assert (result.step, result.bits_per_byte, result.stopped) == (STOP, 2.5, reason)
    assert result.best is not None
    assert (result.best.step, result.best.bits_per_byte) == (BEST, 2.0)
    words = f"stopped at step 10 of 20: {reason} (`--set training.stop_when_worse=false` trains on)"
    assert said[-1] == words
    assert verify(tmp_path / "run" / LAST_NAME).step == STOP
    chosen = choose(tmp_path / "run")
    assert chosen is not None
    assert chosen.used.step == BEST

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    assert train(tmp_path / "run", said=said).result == result
    assert said[-1] == f"`{tmp_path / 'run'}` is up to date: {words}"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_a_run_that_was_interrupted_stops_at_the_same_step_with_the_same_files(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "whole")
    for stop in (3, 8, 9, 10):
        run = tmp_path / str(stop)
        with pytest.raises(StoppedError, match=f"interrupted at step {stop}"):
            train(run, stop=stop)
        train(run)
        assert state(run) == state(tmp_path / "whole"), stop


def test_a_kill_just_before_the_result_is_written_changes_nothing(train: Train, tmp_path: Path) -> None:
    made, path = train(tmp_path / "run"), tmp_path / "run" / run_folder.METADATA_NAME
    values = json.loads(path.read_text())
    before = state(tmp_path / "run")
    del values["checksum"]
    path.write_text(json.dumps(values | {"result": None}))
    assert train(tmp_path / "run").result == made.result
    assert state(tmp_path / "run") == before


def test_the_decision_is_a_function_of_the_rows_up_to_it(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "run", training__stop_when_worse=False)
    rows = metrics.read(tmp_path / "run")
    live, decided = Curve(), {}
    for count, row in enumerate(rows, 1):
        live.add(row)
        again = can_only_get_worse(Curve(rows[:count]), row["step"])
        assert can_only_get_worse(live, row["step"]) == again
        decided[row["step"]] = again is not None
    assert [step for step, stops in decided.items() if stops] == list(range(STOP, STEPS + 1, 2))


def test_forbidding_the_stop_trains_on_as_if_it_had_never_stopped(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "never", training__stop_when_worse=False)
    train(tmp_path / "run")
    result = train(tmp_path / "run", training__stop_when_worse=False).result
    assert result is not None
    assert (result.step, result.stopped) == (STEPS, None)
    assert state(tmp_path / "run") == state(tmp_path / "never")


def test_asking_for_more_steps_gives_it_three_more_scores(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "run")
    with pytest.raises(StoppedError):
        train(tmp_path / "run", training__max_steps=30, stop=13)
    shutil.copytree(tmp_path / "run", tmp_path / "killed")
    for name in ("run", "killed"):
        result = train(tmp_path / name, training__max_steps=30).result
        assert result is not None
        assert (result.step, result.stopped is None) == (16, False)
        said: list[str] = []
        train(tmp_path / name, training__max_steps=30, said=said)
        assert "up to date: stopped at step 16 of 30" in said[-1]
    assert state(tmp_path / "run") == state(tmp_path / "killed")


def test_fewer_steps_do_not_start_it_again(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "run")
    result = train(tmp_path / "run", training__max_steps=15).result
    assert result is not None
    assert result.step == STOP


def test_a_run_that_sees_its_text_once_goes_on(train: Train, tmp_path: Path) -> None:
    made = train(tmp_path / "run", training__max_steps=12, training__keep_best="auto", training__stop_when_worse="auto")
    assert made.result is not None
    assert (made.result.step, made.result.best, made.result.stopped) == (12, None, None)


def test_all_that_reads_a_run_reads_its_best_and_names_the_last_one(train: Train, data: Path, tmp_path: Path) -> None:
    run, events = tmp_path / "run", list[Event]()
    made = train(run)
    assert made.result is not None
    noted = Noted("best of the run: step 4, 2.000 bits/byte; the last, step 10, has 2.500")
    source = load_source(run, on_event=events.append)
    assert (source.path, source.step) == (run / BEST_NAME, BEST)
    assert load_source(run / LAST_NAME).step == STOP, "a file that is named is that file"
    best = load_checkpoint(run / BEST_NAME).model
    assert torch.equal(load_model(run, on_event=events.append).model.state_dict()[TABLE], best[TABLE])
    assert events == [noted, noted]
    packed = open_packed(data)
    start = initial_weights(run, tmp_path / "next", packed, config().model.with_vocab_size(300))
    assert start is not None
    assert start.sha256 == verify(run / BEST_NAME).sha256
    assert model_values(run) == model_values(run / BEST_NAME)
    page = card.text(safetensors.Config(), source, None, name="x")
    assert "2.0000; the run ended with 2.5000 at step 10" in page
    said = "2.0000 bits/byte at its best step, 4, which is used; 2.5000 bits/byte at the last"
    assert result_score(made.result) == said
    assert {("held-out text", said), ("stopped", str(made.result.stopped))} <= set(inspect(run).rows)
    assert ("used", f"{BEST_NAME}: {noted.message}") in inspect(run).rows
    record = read_record(run)
    assert (record.is_finished, record.best_step, record.used_score()) == (True, BEST, (2.0, None))
    text = report([run]).out.read_text()
    assert "The run is finished at step 10 of 20, as it could only get worse. It needs 2.0000 bits" in text
    assert " at step 4, the best, which is used; 2.5000 at the last step." in text
    path = run / run_folder.CONFIG_NAME
    path.write_text(path.read_text().replace("stop_when_worse: true", "stop_when_worse: false"))
    assert not read_record(run).is_finished, "it has been asked to train on"


def test_the_result_of_a_run_that_ends_at_its_best_reads_in_an_older_alm(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "run", training__max_steps=4)
    result = json.loads((tmp_path / "run" / run_folder.METADATA_NAME).read_text())["result"]
    assert sorted(result) == [
        "bits_per_byte",
        "bits_per_byte_margin",
        "seconds",
        "step",
        "training_tokens",
        "validation_loss",
    ]
