"""The quickstart that ends in a chat."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from alm.config import presets
from alm.corpus.conversations import Message
from alm.corpus.sources.tales.judge import Case, cases
from alm.errors import ConfigError
from alm.events import Event, StageBegan
from alm.quickstart import chat as stage
from alm.quickstart import recipe as recipes
from alm.quickstart import run
from alm.quickstart.chat import PreparedChat, Score, prepared, quickstart_chat, scored
from alm.training.sizing import probe
from alm.training.sizing.probe import StepTimings

DIALOGUES = "validation_fraction: 0.1\nsources: {dialogues: {kind: tale_dialogues, documents: 60, seed: 1}}\n"
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
    (folder / "dialogues.yaml").write_text(DIALOGUES)
    (folder / "quickstart.yaml").write_text(RUN)
    monkeypatch.setattr(presets, "folder", lambda: folder)
    for module in (run, recipes, stage):
        monkeypatch.setattr(module, "VOCAB_SIZE", 400)
    monkeypatch.setattr(stage, "RECIPE", replace(stage.RECIPE, overrides=stage.RECIPE.overrides[1:]))
    monkeypatch.setattr(stage, "JUDGED", 3)
    monkeypatch.setattr(stage, "ANSWER_TOKENS", 8)
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(0.01, 0.001, 0.001, 0.001))
    return tmp_path


def small_job(small: Path) -> PreparedChat:
    return prepared(small / "qs", steps=4, seed=3, device_name="cpu")


def test_there_is_a_command_for_each_stage(small: Path) -> None:
    commands = [shlex.split(command)[1:] for command in small_job(small).commands()]
    assert len(commands) == stage.STAGES
    names = [" ".join(words[:2]) if words[0] in ("corpus", "tokenizer") else words[0] for words in commands]
    assert names == ["corpus prepare", "tokenizer train", "pack", "pretrain", "chat", "report"]


def test_the_time_is_that_of_training_and_more(small: Path) -> None:
    job = prepared(small / "qs", device_name="cpu")
    assert job.plan is not None
    assert job.seconds is not None
    assert job.seconds > (job.plan.time.seconds or 0) + stage.RECIPE.tales * recipes.TALE_SECONDS


def test_preparing_writes_nothing(small: Path) -> None:
    small_job(small)
    assert not (small / "qs").exists()


def test_a_quickstart_of_another_kind_is_left_alone(small: Path) -> None:
    job = run.prepared(small / "qs", device_name="cpu")
    job.places.out.mkdir(parents=True)
    job.start()
    with pytest.raises(ConfigError, match="without `--chat`") as found:
        prepared(small / "qs", device_name="cpu")
    assert "--chat --out" in (found.value.hint or "")
    assert prepared(small / "qs", is_fresh=True, device_name="cpu").places.out != job.places.out


def test_the_score_counts_answers_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    given = cases(10)
    right: dict[tuple[Message, ...], Case] = {case.messages: case for case in given}

    def answer(_: object, messages: Sequence[Message], *, seed: int, temperature: float) -> tuple[str, bool]:
        case = right[tuple(messages)]
        return (case.right or case.tale.text, True) if seed else ("", False)

    monkeypatch.setattr(stage, "answer", answer)
    found = scored(None, given)  # type: ignore[arg-type]
    assert found == Score(
        9, 10, {"tale": (5, 6), "question": (3, 3), "shorter": (1, 1)}, {"end": 1, "hero": 1, "trouble": 1}
    )


@pytest.mark.slow
def test_all_stages_and_again(small: Path) -> None:
    events: list[Event] = []
    finished = quickstart_chat(small_job(small), on_event=events.append)
    began = [event for event in events if isinstance(event, StageBegan)]
    assert len(began) == stage.STAGES
    assert [message.role for message in finished.talk] == ["user", "assistant"] * 3
    assert finished.score.count == 3
    assert finished.report.is_file()
    assert finished.run.result is not None

    again = quickstart_chat(small_job(small))
    assert (again.talk, again.score) == (finished.talk, finished.score)
