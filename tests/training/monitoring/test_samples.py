"""Samples: when, of what, the same every time, and without a trace in the run."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config, write_packed
from cases import for_each

from alm.corpus.split import TRAIN, VALIDATION
from alm.errors import ConfigError, StoppedError
from alm.events import Event, Sampled, Warned
from alm.generation.config import SamplingConfig
from alm.generation.load import load_model
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.packing.shards import PackedData, open_packed
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics, samples
from alm.training.monitoring.answers import Prompt
from alm.training.monitoring.samples import Sampler, held_out_prompts, sample_steps
from alm.training.pretrain import pretrain


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackedData:
    return open_packed(write_packed(tmp_path_factory.mktemp("data"))[0])


def run(packed: PackedData, out: Path, **changes: Any) -> list[Event]:
    events: list[Event] = []
    pretrain(run_config(**{"samples__prompts": "auto", **changes}), data=packed.folder, out=out, on_event=events.append)
    return events


def rows(out: Path) -> list[dict[str, Any]]:
    return metrics.read(out, name=samples.NAME)


def checkpoint(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(out / "ckpt-last.pt", weights_only=True)
    return found


@for_each(
    "max_steps, count, steps",
    [
        (1000, 4, (1, 10, 100, 1000)),
        (64, 7, (1, 2, 4, 8, 16, 32, 64)),
        (5, 10, (1, 2, 3, 4, 5)),
        (7, 1, (7,)),
        (1, 10, (1,)),
    ],
)
def test_samples_are_due_at_steps_further_and_further_apart(max_steps: int, count: int, steps: tuple[int, ...]) -> None:
    assert sample_steps(max_steps, count) == steps


def test_every_schedule_is_within_the_run_and_ends_with_it() -> None:
    for max_steps in range(1, 300, 7):
        for count in range(1, 30):
            steps = sample_steps(max_steps, count)
            assert steps[-1] == max_steps
            assert steps[0] >= 1
            assert len(set(steps)) == len(steps) <= count
            assert list(steps) == sorted(steps)


def test_the_prompts_are_beginnings_of_held_out_documents(packed: PackedData) -> None:
    tokenizer = Tokenizer.load(packed.tokenizer_path)

    def documents(split: str) -> list[str]:
        stream = packed.split(split)
        ids = stream.tokens(0, sum(shard.tokens for shard in stream.shards)).tolist()
        texts, start = [], 0
        for at, token_id in enumerate(ids):
            if token_id == tokenizer.end_of_text_id:
                texts.append(tokenizer.decode(ids[start:at]))
                start = at + 1
        return [*texts, tokenizer.decode(ids[start:])]  # the last one is cut where the stream ends

    held_out, trained_on = documents(VALIDATION), documents(TRAIN)
    for tokens in (9, 40):  # some documents have fewer than 40
        prompts = list(held_out_prompts(packed.split(VALIDATION), tokenizer, tokens=tokens))
        assert len(prompts) > 3
        assert prompts == list(held_out_prompts(packed.split(VALIDATION), tokenizer, tokens=tokens))
        for prompt in prompts:
            assert prompt
            assert "\ufffd" not in prompt
            assert any(text.startswith(prompt) and text != prompt for text in held_out)
        assert not all(any(text.startswith(prompt) for text in trained_on) for prompt in prompts)
    assert len(prompts) < len(held_out)


def test_what_is_written_is_what_alm_sample_makes_of_the_checkpoint(packed: PackedData, tmp_path: Path) -> None:
    events = run(packed, tmp_path / "run", training__checkpoint_interval=1, training__keep_last=12)
    found = rows(tmp_path / "run")
    assert [row["step"] for row in found] == [step for step in (1, 2, 5, 12) for _ in range(4)]
    assert [row["prompt"] for row in found[:4]] == [row["prompt"] for row in found[4:8]]
    assert found[0]["prompt"] == ""
    assert len({row["seed"] for row in found}) == len(found)
    for row in found:
        model = load_model(tmp_path / "run" / f"ckpt-step{row['step']:06d}.pt")
        sampling = SamplingConfig.model_validate({k: v for k, v in row.items() if k not in ("step", "prompt", "text")})
        assert model.complete(row["prompt"], sampling) == row["text"]
    told = [event for event in events if isinstance(event, Sampled)]
    assert [event.step for event in told] == [1, 2, 5, 12]
    assert told[-1].texts == tuple((row["prompt"], row["text"]) for row in found[-4:])


def test_a_run_is_the_same_with_samples_and_without(packed: PackedData, tmp_path: Path) -> None:
    torch.manual_seed(5)
    events = run(packed, tmp_path / "without", model__dropout=0.2, samples__prompts=[])
    torch.manual_seed(5)
    run(packed, tmp_path / "with", model__dropout=0.2, samples__count=100)
    one, other = checkpoint(tmp_path / "without"), checkpoint(tmp_path / "with")
    assert all(torch.equal(tensor, other["model"][name]) for name, tensor in one["model"].items())
    assert torch.equal(one["rng"][0]["cpu"], other["rng"][0]["cpu"])
    assert not (tmp_path / "without" / samples.NAME).exists()
    assert not any(isinstance(event, Sampled) for event in events)
    assert len(rows(tmp_path / "with")) == 12 * 4


def test_prompts_of_ones_own(packed: PackedData, tmp_path: Path) -> None:
    run(packed, tmp_path / "run", samples__prompts=["the fox", ""], samples__temperature=0, samples__max_tokens=3)
    found = rows(tmp_path / "run")
    assert [row["prompt"] for row in found] == ["the fox", ""] * 4
    assert {(row["temperature"], row["top_k"], row["max_tokens"]) for row in found} == {(0, 40, 3)}


def test_a_prompt_without_room_for_an_answer_is_told(packed: PackedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`samples.prompts\[1\]`: the prompt has \d+ tokens") as caught:
        run(packed, tmp_path / "run", samples__prompts=["a", "the fox sees the hen " * 20])
    assert caught.value.hint == "shorten the prompt to at most 63 tokens"


def test_the_samples_may_change_when_a_run_goes_on(packed: PackedData, tmp_path: Path) -> None:
    run(packed, tmp_path / "run", samples__prompts=["the"])
    run(packed, tmp_path / "run", samples__prompts=["a"], samples__count=2, training__max_steps=14)
    assert [row["prompt"] for row in rows(tmp_path / "run") if row["step"] > 12] == ["a"]


@pytest.mark.slow
def test_a_stop_while_samples_are_made_leaves_them_for_the_resumed_run(
    packed: PackedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(packed, tmp_path / "whole")
    calls = 0

    class Stopping(samples.Engine):
        def run(self) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:  # at step 2
                signal.raise_signal(signal.SIGINT)
            return super().run()

    monkeypatch.setattr(samples, "Engine", Stopping)
    with pytest.raises(StoppedError, match="interrupted at step 2"):
        run(packed, tmp_path / "cut")
    assert {row["step"] for row in rows(tmp_path / "cut")} == {1}
    run(packed, tmp_path / "cut")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


@pytest.mark.slow
def test_a_row_that_a_kill_cut_off_is_made_again(packed: PackedData, tmp_path: Path) -> None:
    run(packed, tmp_path / "run")
    before = rows(tmp_path / "run")
    with (tmp_path / "run" / samples.NAME).open("ab") as file:
        file.write(b'{"step": 13, "prom')
    pretrain(
        run_config(samples__prompts="auto"),
        data=packed.folder,
        out=tmp_path / "run",
        resume=tmp_path / "run" / "ckpt-step000004.pt",
    )
    assert rows(tmp_path / "run") == before
    aside = metrics.read(tmp_path / "run" / "set-aside-1", name=samples.NAME)
    assert aside == [row for row in before if row["step"] > 4]


def test_weights_that_are_not_finite_have_no_samples_and_say_so(packed: PackedData, tmp_path: Path) -> None:
    config = run_config(model__vocab_size=packed.metadata.vocab_size)
    model, events = Transformer(config.model), list[Event]()
    initialize(model, seed=1)
    model.train()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    sampler = _sampler(model, packed, config, tmp_path, events)
    sampler.sample(1)
    assert [event for event in events if isinstance(event, Warned) and "no samples at step 1" in event.message]
    assert not (tmp_path / samples.NAME).exists()
    assert model.training


def _sampler(model: Transformer, packed: PackedData, config: RunConfig, out: Path, events: list[Event]) -> Sampler:
    return Sampler(
        model,
        Tokenizer.load(packed.tokenizer_path),
        config,
        held_out=packed.split(VALIDATION),
        run=out,
        should_stop=lambda: False,
        on_event=events.append,
    )


def test_without_held_out_text_there_is_the_empty_prompt(packed: PackedData, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(packed.tokenizer_path)
    config = run_config(model__vocab_size=packed.metadata.vocab_size, samples__prompts="auto")
    assert samples.prompts(config, tokenizer, packed.split("nothing")) == (Prompt((), ""),)
