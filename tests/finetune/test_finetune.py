"""Fine-tuning: from chat files to a run that answers, with the stages and the loop of every run."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from builders import run_config, write_packed

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.config.load import Part, load
from alm.corpus.read import find, read_documents
from alm.errors import AlmError, ArtifactError, ConfigError, InputError, StoppedError
from alm.events import Event, Noted, Stepped
from alm.finetune import choose
from alm.finetune import finetune as stage
from alm.finetune.finetune import Places, Request, finetune
from alm.packing.shards import open_packed
from alm.tokenizers.chat_format import ChatFormat
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.monitoring.answers import Answer, Turns, held_out_questions, loops, rates
from alm.training.pretrain import pretrain
from alm.training.run import run_folder
from alm.training.sizing import probe
from alm.training.sizing.probe import StepTimings

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
STEPS = "training.max_steps=6"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny model, whose tokenizer has the tokens of ChatML."""
    folder = tmp_path_factory.mktemp("base")
    data, _ = write_packed(folder)
    config = run_config(training__max_steps=2, samples__prompts=[], model__max_position_embeddings=128)
    pretrain(config, data=data, out=folder / "run")
    return folder / "run"


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """Conversations that count."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What comes after {number}, {WORDS[number % 10]}?"},
                {"role": "assistant", "content": f"That is {number + 1}."},
            ]
        }
        for number in range(60)
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(0.02, 0.001, 0.001, 0.001))


def request_of(base: Path, chats: Path, out: Path, **changes: Any) -> Request:
    values = {"epochs": 2.0, "seq_len": 96, "changes": (STEPS, "samples.max_tokens=4"), "device_name": "cpu"}
    return Request(**{"model": base, "texts": (str(chats),), "out": out, **values, **changes})


def test_a_model_is_taught_on_answers_alone(base: Path, chats: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    out = tmp_path / "chat"
    made = finetune(request_of(base, chats, out), on_event=events.append)
    assert made.result is not None
    assert made.result.step == 6
    packed = open_packed(Places(out).packed)
    assert packed.metadata.conversations is not None
    assert set(packed.metadata.conversations.conversations) == {"train", "validation"}
    rows = metrics.read(out)
    judged = [row for row in rows if "stop_rate" in row]
    assert judged[-1]["step"] == 6
    assert judged[-1].keys() == {"step", "stop_rate", "loop_rate", "role_leak_rate"}
    assert (out / run_folder.CHAT_TEMPLATE_NAME).is_file()
    assert any(isinstance(event, Noted) and "conversations with" in event.message for event in events)
    prompts = {row["prompt"] for row in metrics.read(out, name=run_folder.SAMPLES_NAME)}
    assert all(prompt.startswith("What comes after ") and prompt.endswith("?") for prompt in prompts)
    assert load(RunConfig, [Part(out / run_folder.CONFIG_NAME)]).training.weight_average == 0.1


def test_text_of_the_base_is_learned_beside_the_answers(base: Path, chats: Path, tmp_path: Path) -> None:
    def mixture(out: Path) -> dict[str, float] | None:
        return load(RunConfig, [Part(out / run_folder.CONFIG_NAME)]).data.mixture

    def text(out: Path) -> int:
        train = open_packed(Places(out).packed).split("train")
        rows = train.rows(np.array(train.sources.get("replay", [])))
        return int((rows >= 0).sum())

    own, none, other = (tmp_path / name for name in ("own", "none", "other"))
    finetune(request_of(base, chats, own))
    assert mixture(own) == {"conversations": 0.8, "replay": 0.2}
    clean = [document.text for document in read_documents(find([base.parent / "clean"]))]
    assert sum(map(len, clean)) / 20 < text(own)  # in rows of ids
    replayed = open_packed(Places(own).packed).metadata.config["replay"]
    assert [Path(path).suffix for path in replayed] == [".txt"]  # the text alone, and nothing beside it
    finetune(request_of(base, chats, none, replay=()))
    assert (mixture(none), text(none)) == (None, 0)
    file = tmp_path / "known.txt"
    file.write_text(" ".join(clean)[:4000])
    finetune(request_of(base, chats, other, replay=(str(file),)))
    assert 0 < text(other) < text(own)
    with pytest.raises(ArtifactError, match="replay"):  # it goes on with the text that it began with
        finetune(request_of(base, chats, own, replay=(str(file),)))
    finetune(request_of(base, chats, own))


def test_text_of_the_base_that_is_gone_is_not_learned(base: Path, chats: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(base.parent, moved)
    checkpoint, text = moved / base.name / LAST_NAME, next((moved / "clean").rglob("*.txt"))
    assert stage.text_of(checkpoint) == (str(text),)
    kept = text.read_bytes()
    text.write_bytes(kept[:-1] + b"x")  # the same size
    assert stage.text_of(checkpoint) == ()
    text.write_bytes(kept)
    assert stage.text_of(checkpoint)
    text.unlink()
    assert stage.text_of(checkpoint) == ()


def test_conversations_are_seen_as_often_with_replay(base: Path, chats: Path, tmp_path: Path) -> None:
    request = request_of(base, chats, tmp_path / "chat")
    packed = stage.packed_conversations(request, base / LAST_NAME, Places(request.out))
    changes = choose.suggested(packed, choose.model_of(base / LAST_NAME), 10.0)
    values = dict(change.split("=", 1) for change in changes)
    names = ("max_steps", "micro_batch_size", "gradient_accumulation")
    rows = math.prod(int(values[f"training.{name}"]) for name in names)
    assert 0.8 * rows / len(packed.split("train").sources["conversations"]) == pytest.approx(10, rel=0.05)


def test_chats_called_replay_are_conversations(base: Path, chats: Path, tmp_path: Path) -> None:
    renamed = chats.rename(tmp_path / "replay.jsonl")
    out = tmp_path / "chat"
    finetune(request_of(base, renamed, out, replay=()))
    assert list(open_packed(Places(out).packed).split("train").sources) == ["conversations"]


def test_replay_of_packed_conversations_is_refused(base: Path, chats: Path, tmp_path: Path) -> None:
    request = request_of(base, chats, tmp_path / "one")
    packed = stage.packed_conversations(request, base / LAST_NAME, Places(request.out))
    with pytest.raises(ConfigError, match="is packed already"):
        finetune(request_of(base, packed.folder, tmp_path / "two", replay=()))


def test_text_that_is_gone_leaves_a_way_to_resume(base: Path, chats: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "known.txt", tmp_path / "chat"
    file.write_text("known words " * 400)
    finetune(request_of(base, chats, out, replay=(str(file),)))
    file.unlink()
    with pytest.raises(InputError) as found:
        finetune(request_of(base, chats, out))
    assert "alm pretrain --resume auto --out" in (found.value.hint or "")


@pytest.mark.parametrize("lora", [0, 2])
def test_interrupted_the_same_request_continues_to_the_same_bits(
    base: Path, chats: Path, tmp_path: Path, lora: int
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            raise KeyboardInterrupt

    whole, out = tmp_path / "whole", tmp_path / "chat"
    finetune(request_of(base, chats, whole, lora=lora))
    with pytest.raises((StoppedError, KeyboardInterrupt)):
        finetune(request_of(base, chats, out, lora=lora), on_event=stop)
    finetune(request_of(base, chats, out, lora=lora))
    one, other = (load_checkpoint(run / LAST_NAME) for run in (whole, out))
    assert all(torch.equal(weight, other.model[name]) for name, weight in one.model.items())
    assert one.trained is not None
    assert other.trained is not None
    assert all(torch.equal(weight, other.trained[name]) for name, weight in one.trained.items())
    for name in (metrics.NAME, run_folder.SAMPLES_NAME):
        rows = [metrics.without_clock(metrics.read(run, name=name)) for run in (whole, out)]
        assert rows[0] == rows[1]
    start = load_checkpoint(base / LAST_NAME).model["model.embed_tokens.weight"]
    assert torch.equal(one.model["model.embed_tokens.weight"], start) == bool(lora)


def test_text_is_refused_with_the_command_that_trains_on_it(base: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Once upon a time.\n" * 300, encoding="utf-8")
    with pytest.raises(AlmError) as caught:
        finetune(request_of(base, tmp_path / "a.txt", tmp_path / "chat"))
    assert "holds no conversations, and" in caught.value.message
    with pytest.raises(ArtifactError, match="does not exist"):
        finetune(request_of(tmp_path / "nothing", tmp_path / "a.txt", tmp_path / "chat"))
    data = Path(run_folder.read_metadata(base).data)
    with pytest.raises(ArtifactError, match="no conversations") as caught:
        finetune(request_of(base, base / data, tmp_path / "chat"))
    assert "alm pretrain --init" in (caught.value.hint or "")
    assert not (tmp_path / "chat").exists()


def test_packed_conversations_are_taken_as_they_are(base: Path, chats: Path, tmp_path: Path) -> None:
    finetune(request_of(base, chats, tmp_path / "one"))
    packed = Places(tmp_path / "one").packed
    made = finetune(request_of(base, packed, tmp_path / "two"))
    assert made.result is not None
    assert not Places(tmp_path / "two").packed.exists()
    weights = [load_checkpoint(tmp_path / name / LAST_NAME).model for name in ("one", "two")]
    assert all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())


def test_a_run_that_exists_says_what_it_continues(base: Path, chats: Path, tmp_path: Path) -> None:
    out = tmp_path / "chat"
    request = request_of(base, chats, out)
    finetune(request)
    assert stage.is_finetuned(out)
    assert not stage.is_finetuned(base)
    # The same without the base, its rows, or what is learned: as recorded.
    events: list[Event] = []
    finetune(replace(request, model=out, seq_len=None, budget=60.0), on_event=events.append)
    assert any("keeps its 6 steps" in event.message for event in events if isinstance(event, Noted))
    with pytest.raises(ConfigError, match="trains all weights"):
        finetune(replace(request, lora=4))
    changes: list[dict[str, Any]] = [{"seq_len": 64}, {"train_on": "all"}]
    for change in changes:
        with pytest.raises(ArtifactError) as caught:
            finetune(replace(request, **change))
        assert "--out" in (caught.value.hint or "")
        assert "--force" not in (caught.value.hint or "")


def test_a_failed_start_leaves_nothing_in_the_way(base: Path, chats: Path, tmp_path: Path) -> None:
    request = request_of(base, chats, tmp_path / "chat")
    with pytest.raises(ConfigError, match="longer than the model's context of 128"):
        finetune(replace(request, seq_len=500))
    with pytest.raises(ConfigError, match="no matrix of the model is named `foo`"):
        finetune(replace(request, lora=2, changes=(*request.changes, "lora.targets=[foo]")))
    assert finetune(replace(request, seq_len=64)).result is not None


def test_packed_data_of_other_settings_is_refused(base: Path, chats: Path, tmp_path: Path) -> None:
    finetune(request_of(base, chats, tmp_path / "one"))
    request = request_of(base, Places(tmp_path / "one").packed, tmp_path / "two", seq_len=None)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seq_len": 32}, "--seq-len 96"),
        ({"train_on": "all"}, "--train-on assistant"),
    ]
    for change, flag in changes:
        with pytest.raises(ConfigError, match=f"was packed with `{flag}`"):
            finetune(replace(request, **change))
    other = tmp_path / "other"
    shutil.copytree(base, other)
    Tokenizer.from_merges([(100, 101)]).save(other / run_folder.TOKENIZER_NAME)
    with pytest.raises(AlmError, match="another tokenizer"):
        finetune(replace(request, model=other))


@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_questions_end_where_an_answer_begins(base: Path, chats: Path, tmp_path: Path, train_on: Any) -> None:
    request = request_of(base, chats, tmp_path / "chat", train_on=train_on, replay=())
    packed = stage.packed_conversations(request, base / LAST_NAME, Places(request.out))
    tokenizer = Tokenizer.load(packed.tokenizer_path)
    assert packed.metadata.conversations is not None
    turns = Turns.of(ChatFormat.model_validate(packed.metadata.conversations.chat), tokenizer)
    stream = packed.split("train")
    found = list(held_out_questions(stream, tokenizer, turns.opening))
    assert len(found) == packed.metadata.conversations.conversations["train"]
    for prompt in found:
        assert tokenizer.decode(prompt.ids).endswith("<|im_start|>assistant\n")
        assert tokenizer.decode(prompt.ids).count("<|im_start|>") == 2
    if train_on == "assistant":
        by_mask = list(held_out_questions(stream, tokenizer, ()))
        assert {prompt.ids for prompt in by_mask} == {prompt.ids for prompt in found}


def test_a_row_of_rates_that_a_kill_lost_is_made_again(base: Path, chats: Path, tmp_path: Path) -> None:
    out = tmp_path / "chat"
    changes = ("training.max_steps=4", "samples.max_tokens=4", "samples.count=2")
    finetune(request_of(base, chats, out, changes=changes))
    path = out / metrics.NAME
    lost = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if "stop_rate" not in line]
    path.write_text("".join(lost), encoding="utf-8")
    longer = ["training.max_steps=16", "samples.count=3"]  # with samples at steps 1, 4 and 16
    config = load(RunConfig, [Part(out / run_folder.CONFIG_NAME)], overrides=longer)
    pretrain(config, data=Places(out).packed, out=out)
    assert [row["step"] for row in metrics.read(out) if "stop_rate" in row] == [4, 16]


def test_steps_and_batch_follow_from_the_conversations(base: Path, chats: Path, tmp_path: Path) -> None:
    request = request_of(base, chats, tmp_path / "chat")
    packed = stage.packed_conversations(request, base / LAST_NAME, Places(request.out))
    model = choose.model_of(base / LAST_NAME)
    few, many = (dict(change.split("=") for change in choose.suggested(packed, model, n)) for n in (1, 400))
    assert int(many["training.max_steps"]) > int(few["training.max_steps"])
    assert float(few["optim.lr"]) == 1e-3
    adapted = dict(change.split("=") for change in choose.suggested(packed, model, 2, lora=8))
    assert (adapted["lora.rank"], adapted["lora.alpha"]) == ("8", "16")


def test_nothing_is_written_by_a_plan(base: Path, chats: Path, tmp_path: Path) -> None:
    config, made = stage.planned(request_of(base, chats, tmp_path / "runs" / "chat"))
    assert config.training.max_steps == made.text.steps == 6
    assert made.time.seconds is not None
    assert made.initial_weights == str(base)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("mean", "context", "rows"), [(100, 2048, 256), (500, 2048, 512), (5000, 2048, 1024), (5000, 128, 128)]
)
def test_rows_hold_twice_the_mean_conversation(mean: int, context: int, rows: int) -> None:
    source = SimpleNamespace(bytes=SimpleNamespace(output=7 * mean), documents=SimpleNamespace(output=7))
    model = run_config(model__max_position_embeddings=context).model
    assert choose.row_length([source], model) == rows  # type: ignore[list-item]


def test_rates_say_what_is_wrong_with_answers(base: Path) -> None:
    tokenizer = Tokenizer.load(base / run_folder.TOKENIZER_NAME)
    start = tokenizer.special_id("<|im_start|>")
    answers = [
        Answer((65, 66, 67), has_ended=True),
        Answer((65, 66) * 20, has_ended=False),
        Answer((65, start, 67), has_ended=True),
        Answer(tuple(range(100, 140)), has_ended=False),
    ]
    assert rates(answers, tokenizer) == {"stop_rate": 0.5, "loop_rate": 0.25, "role_leak_rate": 0.25}
    assert not loops([9] * 23)
    assert loops([9] * 24)
