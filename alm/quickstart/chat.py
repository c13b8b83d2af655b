"""`alm quickstart --chat`: a model that writes tales on request and answers questions about them.

The quickstart of the tales, with fewer steps; then the stage `finetune` on generated dialogues, and a judge that counts
how many of 50 requests that no dialogue makes are answered right.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm import distributed
from alm.artifacts import RunMetadata
from alm.checkpoint.choose import checkpoint_at
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.conversations import Message
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.sources.tales.dialogues import request, shorten, tale
from alm.corpus.sources.tales.judge import Case, cases, judge
from alm.errors import ConfigError, shell
from alm.events import Listener, StageBegan, ignore
from alm.files import exclusive
from alm.finetune.finetune import Request, finetune
from alm.generation.chat import ChatMessage, ChatModel
from alm.generation.completions import TextChunk
from alm.generation.config import ChatConfig
from alm.generation.load import load_model
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.quickstart import recipe as recipes
from alm.quickstart.recipe import Recipe
from alm.quickstart.run import LOCK_NAME, Places, Prepared, make_model, refuse_ranks
from alm.report.report import report
from alm.tokenizers.chat_format import CHATML
from alm.training.run.run_folder import exists, free_name

DIALOGUES_PRESET = "dialogues"
TALES, STEPS = 4_000, 400
TUNE_STEPS = 2_000
ROW_TOKENS = 512
JUDGED = 50
TEMPERATURE = 0.2
ANSWER_TOKENS = 300
STAGES = 9
_ASKED_TOO = "Who is it about?"
# A model this small learns to answer at rates near those of its pretraining.
_TUNING = (
    *("training.micro_batch_size=2", "training.gradient_accumulation=1", "training.checkpoint_interval=500"),
    *("optim.kind=muon", "optim.lr=0.008", "optim.weight_decay=0.01"),
    *("scheduler.decay_fraction=0.7", "validation.interval=500"),
)
# Seconds on two quiet cores outside both trainings, beside those of the quickstart of the tales.
_OTHER_SECONDS = 45.0
_TOKENS_PER_TUNE_STEP = 2 * ROW_TOKENS


class ChatPlaces(Places):
    """Paths of a quickstart that ends in a chat."""

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        self.dialogues = out / "data" / "dialogues"
        self.dialogues_packed = out / "data" / "dialogues-packed"
        self.chat = out / "runs" / "chat"


@dataclass(frozen=True)
class PreparedChat(Prepared):
    """A quickstart with chat that is ready to run. `tune_steps` are those of the fine-tuning."""

    places: ChatPlaces
    tune_steps: int = TUNE_STEPS

    @property
    def seconds(self) -> float | None:
        """Estimated duration of the entire quickstart, None if unknown."""
        if self.plan is None or self.plan.time.seconds is None:
            return None
        text = self.plan.text
        ratio = self.tune_steps * _TOKENS_PER_TUNE_STEP / (text.steps * text.tokens_per_step)
        return self.plan.time.seconds * (1 + ratio) + recipes.others(self.recipe) + _OTHER_SECONDS

    def commands(self, *, is_underway: bool = False) -> Iterator[str]:
        """The command for each stage, ready to be pasted."""
        made = itertools.islice(super().commands(is_underway=is_underway), 4)
        return itertools.chain(made, (shell("alm", *map(str, words)) for words in self._more_words()))

    def _more_words(self) -> Iterator[list[object]]:
        at = self.places
        device = [] if self.device_name == "auto" else ["--device", self.device_name]
        yield ["corpus", "prepare", "--src", DIALOGUES_PRESET, "--out", at.dialogues]
        packing = ["--seq-len", ROW_TOKENS, "--as", "conversations"]
        yield ["pack", "--tokenizer", at.tokenizer, "--in", at.dialogues, "--out", at.dialogues_packed, *packing]
        changes = [word for change in self.tuning for word in ("--set", change)]
        yield ["finetune", "--model", at.run, "--data", at.dialogues_packed, "--out", at.chat, *changes, *device]
        asked = talk_requests()[0]
        yield ["chat", at.chat, "--temperature", TEMPERATURE, "--once", asked, *device]
        yield ["report", at.run, at.chat, "--out", at.report]

    @property
    def tuning(self) -> tuple[str, ...]:
        """The overrides of the fine-tuning."""
        seeds = [change for change in self.overrides if change.startswith("training.seed=")]
        return (f"training.max_steps={self.tune_steps}", *_TUNING, *seeds)


@dataclass(frozen=True)
class Score:
    """How many of some cases were answered right, in all and of each kind; and the faults, with their number."""

    right: int
    count: int
    by_kind: dict[str, tuple[int, int]]
    faults: dict[str, int]


@dataclass(frozen=True)
class FinishedChat:
    """The results: the run that was fine-tuned, a conversation with it, its score, and the report page."""

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

    `steps` are those of pretraining, and shorten the fine-tuning by as much. A quickstart of another kind in `out` is a
    ConfigError; with `is_fresh` it is left unchanged, and the new one is placed beside it.
    """
    refuse_ranks(distributed.place())
    places = ChatPlaces(free_name(out) if is_fresh and out.exists() else out)
    recipe = Recipe(TALES, tuple(recipes.with_steps(Recipe(), STEPS)))
    has_other = recipes.read(places.recipe) != recipe if places.recipe.is_file() else places.clean.exists()
    if has_other:
        raise ConfigError(
            f"the quickstart in `{places.out}` was started without `--chat`",
            hint=f"run `{shell('alm', 'quickstart', '--chat', '--out', free_name(places.out))}`",
        )
    overrides = recipes.with_steps(recipe, steps) if steps is not None else []
    overrides += [f"training.seed={seed}"] if seed is not None else []
    plan = None if exists(places.run) else recipes.planned(recipe, *overrides, device_name=device_name)
    tune_steps = TUNE_STEPS if steps is None else max(1, round(TUNE_STEPS * steps / STEPS))
    return PreparedChat(places, recipe, plan, tuple(overrides), None, device_name, tune_steps)


def quickstart_chat(job: PreparedChat, *, on_event: Listener = ignore) -> FinishedChat:
    """Pretrain on the tales, fine-tune on dialogues about them, judge the answers, and report.

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

    make_model(job, begin, on_event)
    command = begin()
    prepare(
        load(CorpusConfig, [Part(presets.find(DIALOGUES_PRESET))]),
        out=places.dialogues,
        redo=command,
        on_event=on_event,
    )
    command = begin()
    pack(
        PackConfig(seq_len=ROW_TOKENS, documents="conversations"),
        tokenizer=places.tokenizer,
        clean=[places.dialogues],
        out=places.dialogues_packed,
        redo=command,
        on_event=on_event,
    )
    begin()
    asked = Request(
        model=places.run,
        texts=(str(places.dialogues_packed),),
        out=places.chat,
        changes=job.tuning,
        device_name=job.device_name,
        started=time.monotonic(),
    )
    run = finetune(asked, on_event=on_event)
    begin()
    model = chat_model(places.chat, device_name=job.device_name, on_event=on_event)
    talk = talk_with(model)
    score = scored(model, cases(JUDGED))
    begin()
    return FinishedChat(run, talk, score, report([places.run, places.chat], out=places.report).out)


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
