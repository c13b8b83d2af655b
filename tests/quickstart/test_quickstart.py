"""The quickstart, with a corpus and a model of a few seconds."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import FakeTime

from alm.artifacts import RunMetadata
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.distributed import Place
from alm.errors import AlmError, ConfigError, EchoedError, StoppedError
from alm.events import Event, Listener, Resumed, Sampled, StageBegan, Stepped, Warned, ignore
from alm.files import exclusive
from alm.quickstart import recipe as recipes
from alm.quickstart import run as stage
from alm.quickstart.run import PROMPTS, Finished, Places, Prepared, prepared
from alm.training.sizing import probe
from alm.training.sizing.probe import StepTimings

CORPUS = "validation_fraction: 0.05\nsources: {tales: {kind: tales, documents: 120, seed: 1}}\n"
RUN = """
model: {d_model: 16, n_layers: 1, n_heads: 2, n_kv_heads: 1, ffn_hidden_size: 32, max_position_embeddings: 512}
training: {max_steps: 6, micro_batch_size: 2, gradient_accumulation: 1, checkpoint_interval: 2, threads: 1,
           precision: fp32}
samples: {prompts: [Once], count: 2, max_tokens: 4}
logging: {log_interval: 1}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The presets made small; the folder to work in."""
    folder = tmp_path / "presets"
    folder.mkdir()
    for path in presets.folder().glob("*.yaml"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tales.yaml").write_text(CORPUS)
    (folder / "quickstart.yaml").write_text(RUN)
    monkeypatch.setattr(presets, "folder", lambda: folder)
    for module in (stage, recipes):
        monkeypatch.setattr(module, "VOCAB_SIZE", 400)
        monkeypatch.setattr(module, "SAMPLE_TOKENS", 10)
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(0.01, 0.001, 0.001, 0.001))
    return tmp_path


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """What a quickstart reads the time from: it stands still."""
    clock = FakeTime()
    monkeypatch.setattr(stage, "time", clock)
    return clock


def quickstart(out: Path, *, on_event: Listener = ignore, seed: int | None = None) -> Finished:
    return stage.quickstart(prepared(out, seed=seed), on_event=on_event)


def test_it_goes_through_every_stage_and_ends_in_text(small: Path) -> None:
    events: list[Event] = []
    finished = quickstart(small / "q", on_event=events.append)
    commands = [event.command.split()[:3] for event in events if isinstance(event, StageBegan)]
    assert commands == [
        ["alm", "corpus", "prepare"],
        ["alm", "tokenizer", "train"],
        ["alm", "pack", "--tokenizer"],
        ["alm", "pretrain", "--model"],
        ["alm", "sample", "--checkpoint"],
        ["alm", "report", str(small / "q/runs/tales")],
    ]
    assert [event.step for event in events if isinstance(event, Sampled)] == [1, 6]
    assert finished.report == small / "q/report.html"
    assert "tales" in finished.report.read_text()
    assert finished.run.result is not None
    assert finished.run.result.step == 6
    assert finished.run.result.bits_per_byte is not None
    assert [text.startswith(prompt) for text, prompt in zip(finished.texts, PROMPTS, strict=True)] == [True] * 3
    assert all(len(text) > len(prompt) for text, prompt in zip(finished.texts, PROMPTS, strict=True))


def test_the_commands_name_the_device_that_was_asked_for(small: Path) -> None:
    def with_device(device: str) -> list[str]:
        return [
            command for command in prepared(small / "q", device_name=device).commands() if "--device cpu" in command
        ]

    assert [command.split()[1] for command in with_device("cpu")] == ["pretrain", "sample"]
    assert with_device("auto") == []


def test_ranks_are_refused_by_the_main_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.distributed.place", lambda: Place(0, 4, 0, 4))
    with pytest.raises(ConfigError, match="a quickstart runs in one process, but torchrun has started 4") as caught:
        prepared(small / "q")
    assert "`alm quickstart` without torchrun" in str(caught.value.hint)
    assert "`alm pretrain --nproc 4`" in str(caught.value.hint)
    monkeypatch.setattr("alm.distributed.place", lambda: Place(3, 4, 3, 4))
    with pytest.raises(EchoedError) as echo:
        prepared(small / "q")
    assert echo.value.exit_code == 0
    assert not (small / "q").exists()


@pytest.mark.slow
def test_interrupted_it_goes_on_where_it_stopped(small: Path) -> None:
    import signal

    def interrupt(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(StoppedError):
        quickstart(small / "cut", on_event=interrupt)
    events: list[Event] = []
    again = quickstart(small / "cut", on_event=events.append)
    assert any(isinstance(event, Resumed) and event.step == 3 for event in events)
    whole = quickstart(small / "whole")
    assert again.texts == whole.texts
    assert again.run.result is not None
    assert whole.run.result is not None
    assert again.run.result.bits_per_byte == whole.run.result.bits_per_byte


def test_another_seed_wants_another_folder(small: Path) -> None:
    quickstart(small / "q")
    with pytest.raises(ConfigError, match="training.seed") as caught:
        quickstart(small / "q", seed=5)
    assert caught.value.hint == f"run `alm quickstart --out {small / 'q-2'}`"


def test_the_commands_that_are_told_are_those_that_run(small: Path) -> None:
    job = prepared(small / "q", steps=4, seed=9)
    events: list[Event] = []
    stage.quickstart(job, on_event=events.append)
    assert list(job.commands()) == [event.command for event in events if isinstance(event, StageBegan)]
    told = shlex.split(list(job.commands())[3])
    assert told[-4:] == ["--set", "training.max_steps=4", "--set", "training.seed=9"]


def test_a_plan_is_made_before_and_writes_nothing(small: Path) -> None:
    job = prepared(small / "q", steps=4)
    assert job.plan is not None
    assert (job.plan.text.steps, job.plan.text.tokens_per_step) == (4, 2 * recipes.SEQ_LEN)
    assert job.seconds is not None
    assert job.plan.time.seconds is not None
    assert job.seconds > job.plan.time.seconds
    assert not (small / "q").exists()


def test_where_a_run_goes_on_nothing_is_measured(small: Path) -> None:
    quickstart(small / "q")
    again = prepared(small / "q")
    assert again.plan is None
    assert again.seconds is None


@pytest.mark.slow
def test_a_fresh_one_lies_beside_and_leaves_the_other(small: Path) -> None:
    quickstart(small / "q")
    before = {path: path.stat().st_mtime_ns for path in (small / "q").rglob("*")}
    job = prepared(small / "q", is_fresh=True)
    assert job.places.out == small / "q-2"
    stage.quickstart(job)
    assert {path: path.stat().st_mtime_ns for path in (small / "q").rglob("*")} == before
    assert prepared(small / "none", is_fresh=True).places.out == small / "none"


# A time for all of it


def test_training_ends_before_what_comes_after_it(small: Path) -> None:
    job = prepared(small / "q", budget=90.0, started=1000.0)
    assert job.recipe.budget == 90
    assert job.recipe.end > recipes.END_SECONDS
    assert job.finish_by == 1090.0 - job.recipe.end
    assert job.seconds == 90
    assert job.plan is not None
    assert job.plan.text.steps == job.recipe.steps


def budget_of(commands: Iterable[str]) -> float:
    """Of the command for training."""
    *_, flag, left = list(commands)[3].split()
    assert flag == "--budget"
    return float(left.removesuffix("s"))


def test_the_commands_give_training_the_time_that_it_will_have(small: Path, clock: FakeTime) -> None:
    """Before anything is done the other steps still have theirs to come."""
    recipe = recipes.Recipe(tales=20_000, budget=90.0, end=4.0)
    job = Prepared(Places(small / "q"), recipe, None, finish_by=clock.now + 60.0)
    assert budget_of(job.commands()) == 90 - 16 - 6 - 4  # tales at 0.8 ms, the beginning, the end
    assert budget_of(job.commands(is_underway=True)) == 60
    late = replace(job, finish_by=clock.now - 5.0)
    assert budget_of(late.commands(is_underway=True)) == 0.2 * 90
    short = replace(job, recipe=replace(recipe, budget=20.0))
    assert budget_of(short.commands()) == 0.2 * 20


@pytest.mark.slow
def test_only_another_folder_is_hinted_at_where_it_mends(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> RunMetadata:
        raise ConfigError("no CUDA device is available", hint="run `alm device`")

    with monkeypatch.context() as patch:
        patch.setattr(stage, "pretrain", refused)
        with pytest.raises(ConfigError) as caught:
            quickstart(small / "q")
    assert caught.value.hint == "run `alm device`"


@pytest.mark.slow
def test_a_machine_that_becomes_too_slow_ends_late_but_ends(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "LEAST_SHARE", 0.0)
    monkeypatch.setattr(stage, "FEWEST_STEPS", 3)
    events: list[Event] = []
    job = prepared(small / "late", budget=1.0, started=stage.time.monotonic() - 500)
    found = stage.quickstart(job, on_event=events.append)
    assert found.run.result is not None
    assert found.run.result.step == 3
    assert any(isinstance(event, Warned) and "too slow for the budget" in event.message for event in events)


def test_what_a_budget_chose_stays_when_it_goes_on(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepared(small / "q", budget=90.0)
    recipes.write(job.recipe, job.places.recipe)
    monkeypatch.setattr(recipes, "for_budget", None)
    assert prepared(small / "q", budget=90.0).recipe == prepared(small / "q").recipe == job.recipe


def test_tales_of_a_budget_are_told(small: Path) -> None:
    job = prepared(small / "q")
    job = replace(job, recipe=replace(job.recipe, tales=150))
    stage.quickstart(job)
    assert sum(path.read_text().count("\n") for path in job.places.clean.glob("tales-*.jsonl")) == 150


@pytest.mark.slow
def test_a_time_that_is_over_before_training_leaves_a_part_for_it(
    small: Path, clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    until: list[float] = []
    train = stage.pretrain

    def noted(*args: Any, finish_by: float, **named: Any) -> RunMetadata:
        until.append(finish_by - clock.now)
        return train(*args, **named)

    monkeypatch.setattr(stage, "pretrain", noted)
    stage.quickstart(prepared(small / "q", budget=90.0, started=clock.now - 500))
    assert until == [pytest.approx(recipes.LEAST_SHARE * 90)]


@pytest.mark.parametrize("first", [None, 90.0])
def test_another_budget_wants_another_folder(small: Path, first: float | None) -> None:
    recipes.write(recipes.Recipe(budget=first), Places(small / "q").recipe)
    with pytest.raises(ConfigError, match="was started (without a budget|for 90 seconds)") as caught:
        prepared(small / "q", budget=50.0)
    assert "--fresh" in str(caught.value.hint)


def test_a_budget_and_steps_exclude_each_other(small: Path) -> None:
    with pytest.raises(ConfigError, match="which `--steps` sets too"):
        prepared(small / "q", steps=3, budget=60.0)


def test_its_preset_is_what_its_commands_name() -> None:
    assert {stage.CORPUS_PRESET, stage.RUN_PRESET} <= set(presets.names())
    corpus = load(CorpusConfig, [Part(presets.find(stage.CORPUS_PRESET))])
    assert corpus.sources["tales"].model_dump()["documents"] == recipes.TALES
    assert Places(Path("q")).checkpoint == Path("q/runs/tales/ckpt-last.pt")


def test_only_one_process_works_on_a_quickstart(small: Path) -> None:
    job = prepared(small / "q")
    with (
        exclusive(small / "q" / stage.LOCK_NAME, what="it"),
        pytest.raises(AlmError, match="being worked on") as caught,
    ):
        stage.quickstart(job)
    assert caught.value.hint
    assert not (small / "q").exists()


def test_a_quickstart_that_another_process_began_meanwhile_is_refused(small: Path) -> None:
    job = prepared(small / "q")
    recipes.write(replace(job.recipe, tales=job.recipe.tales + 1), job.places.recipe)
    with pytest.raises(ConfigError, match="another quickstart"):
        stage.quickstart(job)
    assert not job.places.clean.exists()
