"""Training: it learns, it resumes bit for bit, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from builders import ROUNDING, SMOOTH, run_config, write_packed

from alm import artifacts
from alm.artifacts import RunMetadata
from alm.checkpoint.format import LAST_NAME, numbered
from alm.checkpoint.load import load_checkpoint, verify
from alm.errors import AlmError, ArtifactError, ConfigError, StoppedError
from alm.events import CheckpointSaved, Event, Noted, Resumed, Stepped, TrainingBegan, Validated, Warned
from alm.training import loop
from alm.training.config import RunConfig
from alm.training.monitoring import metrics, samples
from alm.training.pretrain import pretrain
from alm.training.validate import Score

STEPS = 12


class StopAfter:
    """A listener that sends this process a signal once `step` is done."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped) and event.step == self.step:
            signal.raise_signal(self.number)


def bits(run: Path, name: str = LAST_NAME) -> str:
    """A hash of all that decides what comes next: weights and optimizer."""
    found = load_checkpoint(run / name)
    digest = hashlib.sha256()
    weights = [*found.model.values(), *(found.trained or {}).values()]
    for tensor in [*weights, *(t for s in found.optimizer["state"].values() for t in s.values())]:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def rows(run: Path) -> list[dict[str, Any]]:
    """The metrics but for what a clock decides, and the samples."""
    return metrics.without_clock(metrics.read(run)) + metrics.read(run, name=samples.NAME)


def test_the_first_loss_is_ln_v_and_training_lowers_it(uninterrupted: Path, data: Path, tmp_path: Path) -> None:
    config = run_config(training__max_steps=60, logging__log_interval=1, scheduler__warmup_steps=2)
    pretrain(config, data=data, out=tmp_path / "run")
    losses = [row["loss"] for row in metrics.read(tmp_path / "run") if "loss" in row]
    assert losses[0] == pytest.approx(torch.tensor(300.0).log().item(), abs=0.3)
    assert sum(losses[-5:]) / 5 < losses[0] - 1.0
    scores = [row["bits_per_byte"] for row in metrics.read(tmp_path / "run") if "bits_per_byte" in row]
    assert scores[-1] < scores[0]


def test_the_run_folder_is_as_the_format_says(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    steps = {f"ckpt-step{step:06d}.{ending}" for step in (4, 8, 12) for ending in ("pt", "json")}
    assert names == steps | {LAST_NAME, "config.yaml", "run.json", "tokenizer.json", "metrics.jsonl", "samples.jsonl"}
    found = load_checkpoint(uninterrupted / LAST_NAME)
    assert (found.step, found.samples_seen) == (STEPS, STEPS * 4)
    assert "model.layers.0.self_attn.q_proj.weight" in found.model
    assert RunConfig.model_validate(found.config).training.max_steps == STEPS
    metadata = artifacts.read(uninterrupted / "run.json", RunMetadata, hint="")
    assert metadata.result is not None
    assert metadata.result.training_tokens == STEPS * 4 * 16
    assert artifacts.damaged(uninterrupted, metadata.payload()) == []


def test_the_same_run_writes_the_same_checkpoints(uninterrupted: Path, data: Path, tmp_path: Path) -> None:
    """Byte for byte, whatever the process has drawn before."""
    torch.seed()
    pretrain(run_config(), data=data, out=tmp_path / "run")
    for name in ("ckpt-step000004.pt", LAST_NAME):
        assert (tmp_path / "run" / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_nothing_that_the_machine_decides_is_left_auto_in_the_run(uninterrupted: Path) -> None:
    config = load_checkpoint(uninterrupted / LAST_NAME).config
    assert config["model"]["vocab_size"] == 300
    follows_the_length = {"keep_best", "stop_when_worse"}
    assert {key for key, value in config["training"].items() if value == "auto"} == follows_the_length


@pytest.mark.sampled(2)
@pytest.mark.parametrize("stop", [1, 3, 4, 11])
def test_a_run_stopped_and_resumed_is_the_uninterrupted_one(
    data: Path, uninterrupted: Path, tmp_path: Path, stop: int
) -> None:
    out = tmp_path / "run"
    with pytest.raises(StoppedError, match=f"interrupted at step {stop}") as caught:
        pretrain(run_config(), data=data, out=out, on_event=StopAfter(stop))
    assert caught.value.exit_code == 130
    assert f"alm pretrain --resume {out / LAST_NAME}" in str(caught.value.hint)
    assert verify(out / f"ckpt-step{stop:06d}-interrupt.pt").step == verify(out / LAST_NAME).step == stop
    events: list[Event] = []
    pretrain(run_config(), data=data, out=out, on_event=events.append)
    assert Resumed(out, stop, STEPS) in events
    assert bits(out) == bits(uninterrupted)
    assert rows(out) == rows(uninterrupted)


def test_dropout_and_a_step_cut_short_resume_bit_for_bit(data: Path, tmp_path: Path) -> None:
    config = run_config(model__dropout=0.3, training__gradient_accumulation=3)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    pretrain(config, data=data, out=whole)
    seen = 0
    real = torch.Tensor.backward

    def interrupting(self: torch.Tensor, *arguments: object, **keywords: object) -> None:
        nonlocal seen
        seen += 1
        real(self, *arguments, **keywords)
        if seen == 16:  # the first of three micro-batches of step 6
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", interrupting)
        with pytest.raises(StoppedError, match="terminated at step 5") as caught:
            pretrain(config, data=data, out=cut)
    assert caught.value.exit_code == 143
    assert seen == 16
    torch.manual_seed(99)
    pretrain(config, data=data, out=cut)
    assert bits(cut) == bits(whole)


def test_signal_handlers_are_put_back(data: Path, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(StoppedError):
        pretrain(run_config(), data=data, out=tmp_path / "run", on_event=StopAfter(2))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_outside_the_main_thread_works(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    thread = threading.Thread(target=lambda: pretrain(run_config(), data=data, out=tmp_path / "run"))
    thread.start()
    thread.join()
    assert bits(tmp_path / "run") == bits(uninterrupted)


KILLS, MOST_STEPS = 6, 6  # too few steps to come to the end, and enough that the first checkpoint is there


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_killed_at_random_moments_the_run_ends_in_the_same_bits(data: Path, tmp_path: Path) -> None:
    """Each kill is in a step, or in what comes after it, as while a checkpoint is written."""
    changes = {"training__max_steps": 40, "training__checkpoint_interval": 2}
    config = run_config(**changes)
    pretrain(config, data=data, out=tmp_path / "whole")
    draw = random.Random(1)
    for _ in range(KILLS):
        steps, seconds = draw.randrange(2, MOST_STEPS + 1), draw.uniform(0.0, 0.03)
        forked.kill_run(data, tmp_path / "run", changes, steps=steps, seconds=seconds)
    events: list[Event] = []
    pretrain(config, data=data, out=tmp_path / "run", on_event=events.append)
    assert any(isinstance(event, Resumed) for event in events)
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_muon_and_wsd_survive_a_kill(data: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    changes = {"optim__kind": "muon", "scheduler__kind": "wsd", "model__tie_embeddings": False}
    pretrain(run_config(**changes), data=data, out=whole)
    forked.kill_run(data, out, changes, steps=7, seconds=None)
    events: list[Event] = []
    pretrain(run_config(**changes), data=data, out=out, on_event=events.append)
    assert Resumed(out, 4, STEPS) in events
    assert bits(out) == bits(whole)
    assert rows(out) == rows(whole)
    rates = [row["lr"] for row in rows(out) if "lr" in row]
    assert max(rates) == 0.01
    assert rates[-1] < 0.005


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "changes",
    [
        {"optim__kind": "muon", "optim__orthogonalization": "newton_schulz", "optim__scale": "rms"},
        {"scheduler__kind": "linear", "optim__scalar_lr": 0.1},
        {"scheduler__kind": "wsd", "scheduler__decay": "sqrt"},
        {"training__weight_average": 0.2},
    ],
    ids=["muon", "linear", "wsd", "average"],
)
def test_every_optimizer_and_schedule_resumes_bit_for_bit(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    pretrain(run_config(**changes), data=data, out=whole)
    with pytest.raises(StoppedError):
        pretrain(run_config(**changes), data=data, out=out, on_event=StopAfter(7))
    pretrain(run_config(**changes), data=data, out=out)
    assert bits(out) == bits(whole)
    assert rows(out) == rows(whole)


def test_another_optimizer_or_schedule_is_refused_on_resume(data: Path, uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match="optim.kind +adamw -> muon"):
        pretrain(run_config(optim__kind="muon"), data=data, out=uninterrupted)
    with pytest.raises(ConfigError, match="scheduler.kind +cosine -> wsd"):
        pretrain(run_config(scheduler__kind="wsd"), data=data, out=uninterrupted)


def test_a_finished_run_is_up_to_date(data: Path, uninterrupted: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    events: list[Event] = []
    pretrain(run_config(), data=data, out=uninterrupted, on_event=events.append)
    assert [event.message for event in events if isinstance(event, Noted)] == [
        f"`{uninterrupted}` is up to date: finished at step 12"
    ]
    assert {path.name: path.stat().st_mtime_ns for path in uninterrupted.iterdir()} == before


def copied(run: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(run, to))


def test_an_older_checkpoint_sets_the_later_ones_aside(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = copied(uninterrupted, tmp_path / "run")
    pretrain(run_config(), data=data, out=out, resume=out / "ckpt-step000004.pt")
    assert bits(out) == bits(uninterrupted)
    assert rows(out) == rows(uninterrupted)
    aside = out / "set-aside-1"
    assert [path.name for path in numbered(aside)] == ["ckpt-step000012.pt", "ckpt-step000008.pt"]
    assert [json.loads(line)["step"] > 4 for line in (aside / "metrics.jsonl").read_text().splitlines()] == [True] * 6


def test_a_damaged_newest_checkpoint_falls_back_loudly(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out, events = copied(uninterrupted, tmp_path / "run"), list[Event]()
    (out / "ckpt-step000012.pt").write_bytes(b"")
    pretrain(run_config(), data=data, out=out, on_event=events.append)
    assert any(isinstance(event, Warned) and "falling back" in event.message for event in events)
    assert Resumed(out, 8, STEPS) in events
    assert bits(out) == bits(uninterrupted)


def test_a_run_can_be_made_longer(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out, events = copied(uninterrupted, tmp_path / "run"), list[Event]()
    made = pretrain(run_config(training__max_steps=16), data=data, out=out, on_event=events.append)
    assert made.result is not None
    assert made.result.step == load_checkpoint(out / LAST_NAME).step == 16
    assert any(isinstance(event, Warned) and "training.max_steps was 12" in event.message for event in events)


def test_another_configuration_is_refused_with_what_differs(data: Path, uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.d_model  16 -> 32\n  training.seed  1337 -> 7") as caught:
        pretrain(run_config(model__d_model=32, training__seed=7), data=data, out=uninterrupted)
    assert "--out" in str(caught.value.hint)


def test_other_data_is_refused(uninterrupted: Path, tmp_path: Path) -> None:
    other = write_packed(tmp_path, seed=5)[0]
    with pytest.raises(ArtifactError, match="was started on other data"):
        pretrain(run_config(), data=other, out=uninterrupted)


def test_never_refuses_a_folder_with_a_run(data: Path, uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run") as caught:
        pretrain(run_config(), data=data, out=uninterrupted, resume="never")
    assert caught.value.hint == f"name another folder: `--out {uninterrupted}-2`"


def test_a_checkpoint_of_no_run_is_refused(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run to resume"):
        pretrain(run_config(), data=data, out=tmp_path / "new", resume=uninterrupted / LAST_NAME)


def test_a_checkpoint_of_another_run_is_refused(data: Path, uninterrupted: Path, tmp_path: Path) -> None:
    out = copied(uninterrupted, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ConfigError, match="is not a checkpoint of the run"):
        pretrain(run_config(), data=data, out=out, resume=uninterrupted / "ckpt-step000004.pt")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.slow
def test_a_resume_may_cut_a_step_into_other_micro_batches(data: Path, tmp_path: Path) -> None:
    whole, events = tmp_path / "whole", list[Event]()
    pretrain(run_config(**SMOOTH), data=data, out=whole)
    out = copied(whole, tmp_path / "run")
    smaller = run_config(training__micro_batch_size=1, training__gradient_accumulation=4, **SMOOTH)
    pretrain(smaller, data=data, out=out, resume=out / "ckpt-step000008.pt", on_event=events.append)
    assert any(isinstance(event, Warned) and "different micro-batches" in event.message for event in events)
    expected = load_checkpoint(whole / LAST_NAME).model
    for name, tensor in load_checkpoint(out / LAST_NAME).model.items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=ROUNDING), name
    other = run_config(training__micro_batch_size=4, **SMOOTH)
    with pytest.raises(ConfigError, match="training.micro_batch_size"):
        pretrain(other, data=data, out=out)


@pytest.mark.parametrize("text", ["CUDA out of memory", "[enforce fail] DefaultCPUAllocator: not enough memory"])
def test_a_full_memory_names_what_makes_it_fit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Smaller micro-batches are tried before: tests/training/run/test_fit.py."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("alm.training.step._backward", fail)
    with pytest.raises(AlmError, match="the memory of cpu is full.*micro-batches of 1 sequences") as caught:
        pretrain(run_config(), data=data, out=tmp_path / "run")
    assert "--model 10m" in str(caught.value.hint)


def test_a_run_within_its_warm_up_is_told(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    pretrain(run_config(scheduler__warmup_steps=50), data=data, out=tmp_path / "run", on_event=events.append)
    assert any(isinstance(event, Warned) and "within its warm-up" in event.message for event in events)


def test_sequences_longer_than_the_model_are_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not fit `model.max_position_embeddings` 8"):
        pretrain(run_config(model__max_position_embeddings=8), data=data, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="`model.vocab_size` 100 is less than the 300"):
        pretrain(run_config(model__vocab_size=100), data=data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_is_never_saved(data: Path, tmp_path: Path) -> None:
    # Each step multiplies the weights by about -10,000.
    diverging = {"optim__lr": 100.0, "optim__weight_decay": 100.0}
    config = run_config(**diverging, training__checkpoint_interval=1, scheduler__warmup_steps=0)
    with pytest.raises(AlmError, match="no longer finite") as caught:
        pretrain(config, data=data, out=tmp_path / "run")
    assert "optim.lr" in str(caught.value.hint)
    for path in numbered(tmp_path / "run"):
        assert all(bool(t.isfinite().all()) for t in load_checkpoint(path).model.values()), path


def test_a_score_that_is_not_finite_ends_nothing_and_is_in_no_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, events = tmp_path / "run", list[Event]()
    score = Score(float("nan"), float("nan"), float("nan"))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", lambda *_, **__: score)
        config = run_config(training__max_steps=8, training__keep_best=True)
        made = pretrain(config, data=data, out=run, on_event=events.append)
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    assert made.result is not None
    assert (made.result.step, made.result.bits_per_byte) == (8, None)
    assert not (run / "ckpt-best.pt").exists()
    assert [event.step for event in events if isinstance(event, Validated)] == [4, 8]
    assert pretrain(config, data=data, out=run).result == made.result  # finished, and stays so


def test_what_a_run_tells(data: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    pretrain(run_config(), data=data, out=tmp_path / "run", on_event=events.append)
    assert [event.step for event in events if isinstance(event, Stepped)] == list(range(1, 13))
    assert [event.step for event in events if isinstance(event, Stepped) and event.loss is not None] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]
    # The first step has a loss to show, which is in no row of the metrics.
    first = next(event for event in events if isinstance(event, Stepped))
    assert (first.step, first.loss) == (1, None)
    assert first.shown_loss is not None
    assert events.index(TrainingBegan(0, 12)) < events.index(first)
    assert [row["step"] for row in metrics.read(tmp_path / "run") if "loss" in row] == [2, 4, 6, 8, 10, 12]
    assert [event.step for event in events if isinstance(event, Validated)] == [4, 8, 12]
    assert [event.step for event in events if isinstance(event, CheckpointSaved)] == [4, 8, 12]


@pytest.mark.slow
def test_micro_batches_are_a_matter_of_memory_only(data: Path, tmp_path: Path) -> None:
    """Rounding alone may differ when a step of 4 sequences is cut in 1, 2 or 4."""
    found = []
    for micro in (1, 2, 4):
        config = run_config(training__micro_batch_size=micro, training__gradient_accumulation=4 // micro, **SMOOTH)
        pretrain(config, data=data, out=tmp_path / str(micro))
        found.append([row["loss"] for row in metrics.read(tmp_path / str(micro)) if "loss" in row])
    assert found[1] == pytest.approx(found[0], rel=ROUNDING)
    assert found[2] == pytest.approx(found[0], rel=ROUNDING)


def test_a_folder_that_is_a_file_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("here first")
    with pytest.raises(AlmError, match="cannot write"):
        pretrain(run_config(), data=data, out=tmp_path / "run")
