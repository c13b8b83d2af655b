"""The trajectory of a fine-tuning beside TRL's `SFTTrainer`: the same conversations in the same batches, step by step.

TRL gets the messages, and the exported model with its template for training. It renders, masks, collates and trains
with `transformers`; only the order of the conversations is that of alm.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import VOCAB_SIZE, WORDS, run_config, write_packed
from safetensors.torch import load_file
from torch.nn.utils.rnn import pad_sequence

from alm.corpus.from_paths import corpus_of_paths
from alm.corpus.pipeline.prepare import prepare
from alm.data.loader import NO_TARGET, MicroBatch, read_step, target_count
from alm.device import choose
from alm.export.run import export
from alm.export.targets import huggingface
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import PADDED, TokenStream, open_packed
from alm.training.batches import plan_batches
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain
from alm.training.state import init_state, load_weights_
from alm.training.step import train_step

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

STEPS = 50
ONE, SOME = 64, 128  # tokens of a row, which holds one conversation, or several
SPLITS = [(8, 1), (1, 8)]  # rows of a micro-batch, and micro-batches of a step
RATE = 1e-3  # what `alm finetune` chooses for a model so small
# Sums in another order differ by 2^-24 of their size. Over the steps that grows with the rate: to 2e-7 of loss and norm
# at this rate, and to 7e-5 of a norm at thirty times this rate; in fp64, where it starts at 2^-53, to 5e-13.
ROUNDING = 1e-5
FAST, FP64_ROUNDING = 3e-2, 1e-10

Trajectory = list[tuple[float, float]]
"""Loss and norm of the gradients, of each step."""


def conversations() -> list[Any]:
    """Messages of one or two turns. The longest has fewer tokens than any two together."""
    draw = random.Random(1)
    found = []
    for turns, words in [(1, 4), (2, 1)] * 24:
        roles = ("user", "assistant") * turns
        found.append([{"role": role, "content": " ".join(draw.choices(WORDS, k=words))} for role in roles])
    return found


def config_of(micro: int, times: int, *, rate: float = RATE, steps: int = STEPS) -> RunConfig:
    """A run at a constant rate."""
    return run_config(
        model__vocab_size=VOCAB_SIZE,
        model__max_position_embeddings=SOME,
        training__max_steps=steps,
        training__micro_batch_size=micro,
        training__gradient_accumulation=times,
        optim__lr=rate,
        scheduler__warmup_steps=0,
        scheduler__final_fraction=1.0,
        logging__log_interval=1,
        samples__prompts=[],
    )


@dataclass(frozen=True)
class Start:
    """What both programs begin with: a folder of all files, the weights, and what TRL learns of each conversation, by
    the ids that it makes of the messages.
    """

    folder: Path
    weights: dict[str, torch.Tensor]
    labels: dict[tuple[int, ...], list[int]]

    def stream(self, seq_len: int) -> TokenStream:
        return open_packed(self.folder / str(seq_len)).split("train")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """A tiny model, also as files for `transformers`, and conversations, packed into rows of both lengths."""
    folder = tmp_path_factory.mktemp("trl")
    data, _ = write_packed(folder)
    pretrain(config_of(8, 1, steps=2), data=data, out=folder / "base")
    export(huggingface.Config(), checkpoint=folder / "base", out=folder / "exported", compare=False)
    chats = folder / "chats.jsonl"
    chats.write_text("\n".join(json.dumps({"messages": talk}) for talk in conversations()), encoding="utf-8")
    prepare(corpus_of_paths([str(chats)], overrides=["validation_fraction=0"]), out=folder / "talks")
    for seq_len in (ONE, SOME):
        config = PackConfig(seq_len=seq_len, documents="conversations")
        pack(config, tokenizer=folder / "base" / "tokenizer.json", clean=[folder / "talks"], out=folder / str(seq_len))
    found = Start(folder, load_file(folder / "exported" / huggingface.WEIGHTS_NAME), {})
    template = folder / "exported" / "additional_chat_templates" / "training.jinja"
    rows = [{"messages": talk} for talk in conversations()]
    trainer = trainer_of(found, rows, assistant_only_loss=True, chat_template_path=str(template))
    found.labels.update((tuple(row["input_ids"]), row["labels"]) for row in trainer.train_dataset)
    return found


@pytest.fixture
def fp64(monkeypatch: pytest.MonkeyPatch, start: Start) -> Iterator[None]:
    """What both programs compute in fp32, they compute in fp64."""
    single = torch.float32
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "float", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(single)


def ours(start: Start, seq_len: int, config: RunConfig, *, unpack: bool = False) -> Trajectory:
    """The steps of alm, with each conversation in a row of its own if told to `unpack`."""
    choice, stream = choose("cpu", precision="fp32"), start.stream(seq_len)
    state, plan = init_state(config, choice), plan_batches(config, stream)
    state.model.to(torch.float32)
    load_weights_(state.model, start.weights)
    found = []
    for step in range(STEPS):
        batches = read_step(stream, plan, step)
        result = train_step(
            state,
            [unpacked(batch) for batch in batches] if unpack else batches,
            targets=target_count(stream, plan, step),
            choice=choice,
            lr_factor=1.0,
            clip_norm=config.training.gradient_clip_norm,
            seed=1,
            should_stop=bool,
        )
        assert result is not None
        found.append((float(result.loss), float(result.gradient_norm)))
    return found


def unpacked(batch: MicroBatch) -> MicroBatch:
    """The same conversations, each in a row."""
    assert batch.documents is not None
    rows = [
        (ids[documents == number], targets[documents == number])
        for ids, targets, documents in zip(batch.inputs, batch.targets, batch.documents, strict=True)
        for number in documents.unique()
    ]
    assert len(rows) > len(batch.inputs)
    inputs, targets = zip(*rows, strict=True)
    padded = pad_sequence(list(targets), batch_first=True, padding_value=NO_TARGET)
    return MicroBatch(pad_sequence(list(inputs), batch_first=True), padded, is_padded=True)


def theirs(start: Start, seq_len: int, config: RunConfig) -> Trajectory:
    """The steps of TRL."""
    training, rows = config.training, []
    for talks in order_of(start.stream(seq_len), config):
        assert (len(talks) > 1) == (seq_len == SOME)
        row: dict[str, Any] = {"input_ids": [id_ for ids in talks for id_ in ids]}
        row["labels"] = [label for ids in talks for label in start.labels[ids]]
        rows.append(row | {"seq_lengths": [len(ids) for ids in talks]} if seq_len == SOME else row)
    trainer = trainer_of(
        start,
        rows,
        per_device_train_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        max_grad_norm=training.gradient_clip_norm,
        learning_rate=config.optim.model_dump()["lr"],
        padding_free=seq_len == SOME,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer.train()
    return [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "grad_norm" in row]


def order_of(stream: TokenStream, config: RunConfig) -> Iterator[list[tuple[int, ...]]]:
    """Yield the conversations of each row that a run reads, as ids."""
    plan = plan_batches(config, stream)
    for step in range(STEPS):
        rows = plan.rows(step)
        for ids, mask, documents in zip(stream.rows(rows), stream.mask(rows), stream.documents(rows), strict=True):
            said = zip(ids[mask != PADDED].tolist(), documents[mask != PADDED].tolist(), strict=True)
            yield [tuple(id_ for id_, _ in each) for _, each in itertools.groupby(said, lambda pair: pair[1])]


def trainer_of(start: Start, rows: list[dict[str, Any]], **settings: Any) -> Any:
    """TRL's trainer of the model, which takes the rows in order."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    class Trainer(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    exported = start.folder / "exported"
    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(exported)).to(torch.float32)
    assert not network.load_state_dict(start.weights, strict=False).unexpected_keys
    arguments = SFTConfig(
        output_dir=str(start.folder / "trl"),
        max_steps=STEPS,
        max_length=None,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        weight_decay=0.1,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    tokenizer = AutoTokenizer.from_pretrained(exported)
    return Trainer(network, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def assert_same(one: Trajectory, other: Trajectory, *, tolerance: float) -> None:
    pairs = torch.tensor(one, dtype=torch.double), torch.tensor(other, dtype=torch.double)
    assert pairs[0].shape == (STEPS, 2)
    torch.testing.assert_close(*pairs, rtol=tolerance, atol=0)


@pytest.mark.parametrize("seq_len", [ONE, SOME])
@pytest.mark.parametrize("split", SPLITS)
def test_losses_and_norms_are_those_of_trl(start: Start, seq_len: int, split: tuple[int, int]) -> None:
    config = config_of(*split)
    assert_same(ours(start, seq_len, config), theirs(start, seq_len, config), tolerance=ROUNDING)


@pytest.mark.usefixtures("fp64")
def test_in_fp64_they_are_those_of_trl_also_where_rounding_grows(start: Start) -> None:
    config = config_of(1, 8, rate=FAST)
    assert_same(ours(start, SOME, config), theirs(start, SOME, config), tolerance=FP64_ROUNDING)


def test_packed_conversations_are_learned_like_those_with_a_row_each(start: Start) -> None:
    config = config_of(8, 1)
    packed, alone = (ours(start, SOME, config, unpack=unpack) for unpack in (False, True))
    assert_same(packed, alone, tolerance=ROUNDING)


def test_a_run_does_these_steps(start: Start, tmp_path: Path) -> None:
    config = config_of(8, 1)
    pretrain(config, data=start.folder / str(SOME), out=tmp_path / "run", init=start.folder / "base")
    rows = [row for row in metrics.read(tmp_path / "run") if "gradient_norm" in row]
    assert [(row["loss"], row["gradient_norm"]) for row in rows] == ours(start, SOME, config)
