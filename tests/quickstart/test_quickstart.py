"""The quickstart, with a corpus and a model of a few seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from alm.config import presets
from alm.distributed import Place
from alm.errors import ConfigError, EchoedError, StoppedError
from alm.events import Event, Resumed, StageBegan, Stepped
from alm.quickstart import run as stage
from alm.quickstart.run import PROMPTS, Places, quickstart

CORPUS = "validation_fraction: 0.05\nsources: {tales: {kind: tales, documents: 120, seed: 1}}\n"
RUN = """
model: {d_model: 16, n_layers: 1, n_heads: 2, n_kv_heads: 1, ffn_hidden_size: 32, max_position_embeddings: 320}
training: {max_steps: 6, micro_batch_size: 2, gradient_accumulation: 1, checkpoint_interval: 2, threads: 1,
           precision: fp32}
logging: {log_interval: 1}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The presets made small; the folder to work in."""
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "tales.yaml").write_text(CORPUS)
    (folder / "quickstart.yaml").write_text(RUN)
    monkeypatch.setattr(presets, "folder", lambda: folder)
    monkeypatch.setattr(stage, "VOCAB_SIZE", 400)
    monkeypatch.setattr(stage, "SAMPLE_TOKENS", 10)
    return tmp_path


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
    ]
    assert finished.run.result is not None
    assert finished.run.result.step == 6
    assert finished.run.result.bits_per_byte is not None
    assert [text.startswith(prompt) for text, prompt in zip(finished.texts, PROMPTS, strict=True)] == [True] * 3
    assert all(len(text) > len(prompt) for text, prompt in zip(finished.texts, PROMPTS, strict=True))


def test_ranks_are_refused_by_the_main_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.distributed.place", lambda: Place(0, 4, 0, 4))
    with pytest.raises(ConfigError, match="a quickstart is one process, torchrun has started 4") as caught:
        quickstart(small / "q")
    assert "`alm quickstart` without torchrun" in str(caught.value.hint)
    assert "`alm pretrain --nproc 4`" in str(caught.value.hint)
    monkeypatch.setattr("alm.distributed.place", lambda: Place(3, 4, 3, 4))
    with pytest.raises(EchoedError) as echo:
        quickstart(small / "q")
    assert echo.value.exit_code == 0
    assert not (small / "q").exists()


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


def test_its_preset_is_what_its_commands_name() -> None:
    assert {stage.CORPUS_PRESET, stage.RUN_PRESET} <= set(presets.names())
    assert Places(Path("q")).checkpoint == Path("q/runs/tales/ckpt-last.pt")
