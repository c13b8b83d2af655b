"""`alm quickstart --chat`: a model that writes tales on request and answers questions about them.

The quickstart of the tales, with generated dialogues in their place: of whole conversations, the answers are learned.
A judge then counts how many of 50 requests that no dialogue makes are answered right.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alm import distributed
from alm.artifacts import RunMetadata
from alm.checkpoint.choose import checkpoint_at
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.conversations import Message
from alm.corpus.sources.tales.dialogues import request, shorten, tale
from alm.corpus.sources.tales.judge import Case, cases, judge
from alm.errors import ConfigError, shell
from alm.events import Listener, StageBegan, ignore
from alm.files import exclusive
from alm.generation.chat import ChatMessage, ChatModel
from alm.generation.completions import TextChunk
from alm.generation.config import ChatConfig
from alm.generation.load import load_model
from alm.packing.config import PackConfig
from alm.quickstart import recipe as recipes
from alm.quickstart.recipe import VOCAB_SIZE, Recipe
from alm.quickstart.run import LOCK_NAME, Places, Prepared, make_model, refuse_ranks
from alm.report.report import report
from alm.tokenizers.chat_format import CHATML
from alm.training.run.run_folder import exists, free_name

CORPUS_PRESET = "dialogues"
RUN = "chat"
ROW_TOKENS = 512
TOKENS_PER_DIALOGUE = 228
# Chosen by measurement (docs/benchmarks.md). Without prompts, samples are answers to questions that are held out.
RECIPE = Recipe(tales=12_000, overrides=("training.max_steps=1500", "samples.prompts=[]"))
JUDGED = 50
TEMPERATURE = 0.2
ANSWER_TOKENS = 300
STAGES = 6
_ASKED_TOO = "Who is it about?"
_DIALOGUE_SECONDS, _JUDGE_SECONDS = 1.6e-3, 20.0  # on two quiet cores, beside those of the quickstart of the tales


@dataclass(frozen=True)
class PreparedChat(Prepared):
    """A quickstart with chat that is ready to run."""

    texts: ClassVar[str] = "dialogues"

    @property
    def seconds(self) -> float | None:
        """Estimated duration of the entire quickstart, None if unknown."""
        found = super().seconds
        return None if found is None else found + self.recipe.tales * _DIALOGUE_SECONDS + _JUDGE_SECONDS

    def _words(self, at: Places, *, is_underway: bool) -> Iterator[list[object]]:
        yield ["corpus", "prepare", "--src", CORPUS_PRESET, "--out", at.clean]
        yield ["tokenizer", "train", "--input", at.clean, "--vocab-size", VOCAB_SIZE, "--out", at.tokenizer]
        packing = ["--seq-len", ROW_TOKENS, "--as", "conversations"]
        yield ["pack", "--tokenizer", at.tokenizer, "--in", at.clean, "--out", at.packed, *packing]
        yield self._training_words()
        sampling = ["--temperature", TEMPERATURE, "--once", talk_requests()[0]]
        yield ["chat", at.run, *sampling, *self._device_words]
        yield ["report", at.run, "--out", at.report]

    def corpus(self, on_event: Listener = ignore) -> CorpusConfig:
        """The dialogues."""
        return load(CorpusConfig, [Part(presets.find(CORPUS_PRESET))])

    def packing(self) -> PackConfig:
        """Rows of whole conversations."""
        return PackConfig(seq_len=ROW_TOKENS, documents="conversations")


@dataclass(frozen=True)
class Score:
    """How many of some cases were answered right, in all and of each kind; and the faults, with their number."""

    right: int
    count: int
    by_kind: dict[str, tuple[int, int]]
    faults: dict[str, int]


@dataclass(frozen=True)
class FinishedChat:
    """The results: the run, a conversation with its model, its score, and the report page."""

    run: RunMetadata
    talk: tuple[Message, ...]
    score: Score
    report: Path


def prepared(
    out: Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    is_fresh: bool = False,
    device_name: str = "auto",
) -> PreparedChat:
    """Prepare a quickstart with chat in `out`; nothing is written.

    A quickstart of another kind in `out` is a ConfigError; with `is_fresh` it is left unchanged, and the new one is
    placed beside it.
    """
    refuse_ranks(distributed.place())
    places = Places(free_name(out) if is_fresh and out.exists() else out, RUN)
    has_other = recipes.read(places.recipe) != RECIPE if places.recipe.is_file() else places.clean.exists()
    if has_other:
        raise ConfigError(
            f"the quickstart in `{places.out}` was started without `--chat`, or by another version",
            hint=f"run `{shell('alm', 'quickstart', '--chat', '--out', free_name(places.out))}`",
        )
    overrides = recipes.with_steps(RECIPE, steps) if steps is not None else []
    overrides += [f"training.seed={seed}"] if seed is not None else []
    tokens = RECIPE.tales * TOKENS_PER_DIALOGUE
    shape = {"seq_len": ROW_TOKENS, "tokens": tokens}
    plan = None if exists(places.run) else recipes.planned(RECIPE, *overrides, device_name=device_name, **shape)
    return PreparedChat(places, RECIPE, plan, tuple(overrides), None, device_name)


def quickstart_chat(job: PreparedChat, *, on_event: Listener = ignore) -> FinishedChat:
    """Prepare dialogues, train a tokenizer, pack, pretrain, judge the answers, and report.

    Raises `AlmError` if another process works on it, or has started another one there since it was prepared.
    """
    with exclusive(job.places.out / LOCK_NAME, what=f"the quickstart in `{job.places.out}`"):
        job.start()
        return _all_stages(job, on_event)


def _all_stages(job: PreparedChat, on_event: Listener) -> FinishedChat:
    places, commands = job.places, enumerate(job.commands(is_underway=True), 1)

    def begin() -> str:
        number, command = next(commands)
        on_event(StageBegan(number, STAGES, command))
        return command

    run = make_model(job, begin, on_event)
    begin()
    model = chat_model(places.run, device_name=job.device_name, on_event=on_event)
    talk = talk_with(model)
    score = scored(model, cases(JUDGED))
    begin()
    return FinishedChat(run, talk, score, report([places.run], out=places.report).out)


def chat_model(run: Path, *, device_name: str = "auto", on_event: Listener = ignore) -> ChatModel:
    """Load the model of a run on dialogues, which answers in turns of ChatML."""
    loaded = load_model(checkpoint_at(run, on_event=on_event), device_name=device_name, on_event=on_event)
    return ChatModel(loaded, CHATML, on_event=on_event)


def talk_requests() -> tuple[str, ...]:
    """Return what a quickstart asks the model at its end, one after the other."""
    made = tale(random.Random("talk").random, is_kept_back=True)
    return request(made, "with_both"), _ASKED_TOO, shorten(made)


def talk_with(model: ChatModel) -> tuple[Message, ...]:
    """Return a conversation with the model about a tale of its own."""
    messages: list[Message] = []
    for asked in talk_requests():
        messages.append(Message("user", asked))
        text, _ = answer(model, messages)
        messages.append(Message("assistant", text))
    return tuple(messages)


def scored(model: ChatModel, given: Sequence[Case], *, temperature: float = TEMPERATURE) -> Score:
    """Have the model answer cases, and judge its answers."""
    right, count, faults = Counter[str](), Counter[str](), Counter[str]()
    for number, case in enumerate(given):
        text, has_ended = answer(model, case.messages, seed=number, temperature=temperature)
        found = judge(case, text, has_ended=has_ended)
        count[case.kind] += 1
        right[case.kind] += not found
        faults.update(found)
    return Score(right.total(), len(given), {kind: (right[kind], count[kind]) for kind in count}, dict(faults))


def answer(
    model: ChatModel, messages: Sequence[Message], *, seed: int = 0, temperature: float = TEMPERATURE
) -> tuple[str, bool]:
    """Return the model's answer to messages, and whether the model ended it."""
    ids = model.encode([ChatMessage(message.role, message.content) for message in messages])
    sampling = ChatConfig(temperature=temperature, seed=seed, max_tokens=ANSWER_TOKENS)
    text, reason = "", None
    for event in model.answer(ids, sampling):
        text += event.text
        if not isinstance(event, TextChunk):
            reason = event.reason
    return text, reason == "stop"
