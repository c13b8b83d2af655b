"""The complete pipeline, with the same stage functions that the commands call: on the built-in tales, or on own text.

Each stage keeps what is up to date and training continues from its newest checkpoint, so running
this again after an interruption continues where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from alm import distributed
from alm.artifacts import RunMetadata
from alm.checkpoint.choose import choose
from alm.checkpoint.format import LAST_NAME
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.held_out import in_words
from alm.corpus.pipeline.prepare import prepare
from alm.distributed import Place
from alm.errors import ConfigError, EchoedError, shell
from alm.events import Listener, StageBegan, Warned, ignore
from alm.files import exclusive
from alm.generation.config import SamplingConfig
from alm.generation.load import load_model
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import open_packed
from alm.quickstart import recipe as recipes
from alm.quickstart.recipe import LEAST_SHARE, RUN_PRESET, SAMPLE_TOKENS, SEQ_LEN, TALES, VOCAB_SIZE, Recipe
from alm.report.report import report
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.train import train_tokenizer
from alm.training.config import RunConfig
from alm.training.plan import Plan
from alm.training.pretrain import pretrain
from alm.training.run.run_folder import OtherRunError, exists, free_name
from alm.training.sizing.budget import FEWEST_STEPS, TooShortError

LOCK_NAME = ".quickstart.lock"
CORPUS_PRESET = "tales"
PACK_MODE = "bestfit"  # most rows begin with a tale, so that they introduce its characters
PROMPTS = ("Once upon a time", "", "There was once")  # as tales begin
STAGES = 6
TEMPERATURE = 0.4  # a model this small writes best when it keeps to likely tokens
TOO_SLOW = f"this machine has become too slow for the budget: training takes {FEWEST_STEPS} steps, and ends late"


class Places:
    """Paths of a quickstart, laid out like a project with your own text."""

    def __init__(self, out: Path, run: str = "tales") -> None:
        self.out = out
        self.recipe = out / recipes.NAME
        self.clean = out / "data" / "clean"
        self.tokenizer = out / "artifacts" / "tokenizer.json"
        self.packed = out / "data" / "packed"
        self.run = out / "runs" / run
        self.report = out / "report.html"

    @property
    def checkpoint(self) -> Path:
        """The checkpoint to sample from: the best of the run if it keeps that."""
        found = choose(self.run)
        return self.run / LAST_NAME if found is None else found.path


class Job(Protocol):
    """A quickstart that is ready to run: what differs between the tales and one's own text."""

    @property
    def places(self) -> Places:
        """Its paths."""

    @property
    def device_name(self) -> str:
        """The device to train on, or `auto`."""

    def start(self) -> None:
        """Write the recipe, or check that another process has not written another one. The caller holds the lock."""

    def commands(self, *, is_underway: bool = False) -> Iterator[str]:
        """The command for each stage, ready to be pasted; with `is_underway`, each is made when its stage begins."""

    def corpus(self, on_event: Listener) -> CorpusConfig:
        """The text; `on_event` receives what was chosen for it."""

    def tokenizer(self) -> TokenizerConfig:
        """The vocabulary."""

    def packing(self) -> PackConfig:
        """The rows."""

    def train(self, on_event: Listener) -> RunMetadata:
        """Train the model, in the run folder."""

    def prompts(self) -> Sequence[str]:
        """Beginnings of the texts to write at the end."""

    def sampling(self) -> SamplingConfig:
        """How these texts are written."""


def train_run(job: Job, config: RunConfig, finish_by: float | None, on_event: Listener) -> RunMetadata:
    """Train the run of a quickstart, or resume it."""
    return pretrain(
        config,
        data=job.places.packed,
        out=job.places.run,
        device_name=job.device_name,
        finish_by=finish_by,
        on_event=on_event,
    )


@dataclass(frozen=True)
class Prepared:
    """A quickstart that is ready to run. `plan` is None if it resumes a run.

    With a budget, training ends at `finish_by` (of `time.monotonic`).
    """

    places: Places
    recipe: Recipe
    plan: Plan | None
    overrides: tuple[str, ...] = ()  # from the user
    finish_by: float | None = None
    device_name: str = "auto"
    texts: ClassVar[str] = "tales"  # what the corpus consists of

    @property
    def seconds(self) -> float | None:
        """Estimated duration of the entire quickstart, None if unknown."""
        if self.recipe.budget is not None:
            return self.recipe.budget
        if self.plan is None or self.plan.time.seconds is None:
            return None
        return self.plan.time.seconds + recipes.others(self.recipe)

    @property
    def training_ends(self) -> float | None:
        """End time of training that starts now, with a budget: it gets a minimum share even if it starts late."""
        if self.finish_by is None or self.recipe.budget is None:
            return None
        return max(self.finish_by, time.monotonic() + LEAST_SHARE * self.recipe.budget)

    def commands(self, *, is_underway: bool = False) -> Iterator[str]:
        """The command for each stage, ready to be pasted.

        With a budget, the training command gets the time expected to be left for it; with `is_underway`, the time left
        now.
        """
        return (shell("alm", *map(str, words)) for words in self._words(self.places, is_underway=is_underway))

    def _words(self, at: Places, *, is_underway: bool) -> Iterator[list[object]]:
        tales = [] if self.recipe.tales == TALES else ["--set", self.corpus_override]
        yield ["corpus", "prepare", "--src", CORPUS_PRESET, "--out", at.clean, *tales]
        yield ["tokenizer", "train", "--input", at.clean, "--vocab-size", VOCAB_SIZE, "--out", at.tokenizer]
        packing = ["--seq-len", SEQ_LEN, "--mode", PACK_MODE]
        yield ["pack", "--tokenizer", at.tokenizer, "--in", at.clean, "--out", at.packed, *packing]
        yield [*self._training_words(), *self._time_left(is_underway=is_underway)]
        sampling = ["--prompt", PROMPTS[0], "--max-tokens", SAMPLE_TOKENS, "--temperature", TEMPERATURE]
        yield ["sample", "--checkpoint", at.checkpoint, *sampling, *self._device_words]
        yield ["report", at.run, "--out", at.report]

    def _training_words(self) -> list[object]:
        changes = [word for change in self.run_overrides for word in ("--set", change)]
        run = ["--model", RUN_PRESET, "--train", RUN_PRESET, "--data", self.places.packed, "--out", self.places.run]
        return ["pretrain", *run, *changes, *self._device_words]

    @property
    def _device_words(self) -> list[object]:
        return [] if self.device_name == "auto" else ["--device", self.device_name]

    def _time_left(self, *, is_underway: bool) -> list[str]:
        ends, budget = self.training_ends, self.recipe.budget
        if ends is None or budget is None:
            return []
        left = ends - time.monotonic() if is_underway else recipes.for_training(self.recipe, budget)
        return ["--budget", f"{max(round(left), 1)}s"]

    def start(self) -> None:
        """Write the recipe before any stage, so that an interrupted quickstart continues with it."""
        if not self.places.recipe.is_file():
            recipes.write(self.recipe, self.places.recipe)
        elif recipes.read(self.places.recipe) != self.recipe:
            raise ConfigError(
                f"another quickstart was started in `{self.places.out}` in the meantime",
                hint="run the same command again, or add `--fresh`",
            )

    def corpus(self, on_event: Listener = ignore) -> CorpusConfig:
        """The tales."""
        overrides = [] if self.recipe.tales == TALES else [self.corpus_override]
        return load(CorpusConfig, [Part(presets.find(CORPUS_PRESET))], overrides=overrides)

    def tokenizer(self) -> TokenizerConfig:
        """The vocabulary."""
        return TokenizerConfig(vocab_size=VOCAB_SIZE)

    def packing(self) -> PackConfig:
        """The rows."""
        return PackConfig(seq_len=SEQ_LEN, mode=PACK_MODE)

    def train(self, on_event: Listener) -> RunMetadata:
        """Train the preset's model, or the one that fits the budget."""
        config = self.recipe.config(*self.overrides)

        def run(config: RunConfig, finish_by: float | None) -> RunMetadata:
            return train_run(self, config, finish_by, on_event)

        try:
            return run(config, self.training_ends)
        except OtherRunError as error:  # started with other --steps or --seed: a new quickstart needs a new folder
            command = shell("alm", "quickstart", "--out", free_name(self.places.out))
            raise ConfigError(error.message, hint=f"run `{command}`") from error
        except TooShortError:  # the machine has become much slower since the budget was accepted
            on_event(Warned(TOO_SLOW, None))
            return run(self.recipe.config(*recipes.with_steps(self.recipe, FEWEST_STEPS), *self.overrides), None)

    def prompts(self) -> Sequence[str]:
        """Beginnings of tales."""
        return PROMPTS

    def sampling(self) -> SamplingConfig:
        """How tales are written."""
        return SamplingConfig(max_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE)

    @property
    def corpus_override(self) -> str:
        """The override that sets the number of tales."""
        return f"sources.tales.documents={self.recipe.tales}"

    @property
    def run_overrides(self) -> tuple[str, ...]:
        """The overrides of the run's preset."""
        return (*self.recipe.overrides, *self.overrides)


@dataclass(frozen=True)
class Finished:
    """The results: the run, what its score was measured on, a text for each prompt, and the report page."""

    run: RunMetadata
    held_out: str
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    report: Path


def prepared(
    out: Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    budget: float | None = None,
    is_fresh: bool = False,
    device_name: str = "auto",
    started: float | None = None,
) -> Prepared:
    """Prepare a quickstart in `out`; nothing is written.

    `budget`, in seconds from `started` (of `time.monotonic`, now by default), chooses the size of the model, the tales
    and the steps; `steps` and `seed` override the preset. An existing quickstart keeps its recipe: ConfigError for
    another budget. With `is_fresh` it is left unchanged, and the new one is placed beside it.
    """
    refuse_ranks(distributed.place())
    began = time.monotonic() if started is None else started
    if budget is not None and steps is not None:
        raise ConfigError("`--budget` chooses the steps, which `--steps` sets too", hint="leave out one of the two")
    places = Places(free_name(out) if is_fresh and out.exists() else out)
    recipe = _recipe(places, budget, device_name)
    overrides = recipes.with_steps(recipe, steps) if steps is not None else []
    overrides += [f"training.seed={seed}"] if seed is not None else []
    plan = None if exists(places.run) else recipes.planned(recipe, *overrides, device_name=device_name)
    finish_by = None if recipe.budget is None else began + recipe.budget - recipe.end
    return Prepared(places, recipe, plan, tuple(overrides), finish_by, device_name)


def refuse_ranks(here: Place) -> None:
    """Raise `ConfigError` under torchrun: all ranks would run the stages at once, in the same files."""
    if here.size == 1:
        return
    if not here.is_main:
        raise EchoedError("the main rank reports it", exit_code=0)
    raise ConfigError(
        f"a quickstart runs in one process, but torchrun has started {here.size}",
        hint=f"run `alm quickstart` without torchrun; with your own text, `alm pretrain --nproc {here.size}`",
    )


def _recipe(places: Places, budget: float | None, device_name: str) -> Recipe:
    if not places.recipe.is_file() and not places.clean.exists():
        return Recipe() if budget is None else recipes.for_budget(budget, device_name=device_name)
    own = recipes.read(places.recipe) if places.recipe.is_file() else Recipe()
    if budget not in (None, own.budget):
        begun = "without a budget" if own.budget is None else f"for {own.budget:,.0f} seconds"
        raise ConfigError(
            f"the quickstart in `{places.out}` was started {begun}",
            hint="leave out `--budget` to continue it, or add `--fresh` to start another one beside it",
        )
    return own


def quickstart(job: Job, *, on_event: Listener = ignore) -> Finished:
    """Prepare the text, train a tokenizer, pack, pretrain, sample and report.

    Raises `AlmError` if another process works on it, or has started another one there since it was prepared.
    """
    out = job.places.out
    with exclusive(out / LOCK_NAME, what=f"the quickstart in `{out}`"):
        job.start()
        return _all_stages(job, on_event)


def _all_stages(job: Job, on_event: Listener) -> Finished:
    places, commands = job.places, enumerate(job.commands(is_underway=True), 1)

    def begin() -> str:
        number, command = next(commands)
        on_event(StageBegan(number, STAGES, command))
        return command

    run = make_model(job, begin, on_event)
    begin()
    model = load_model(places.checkpoint, device_name=job.device_name, on_event=on_event)
    sampling = job.sampling()
    prompts = tuple(job.prompts())
    texts = tuple(prompt + model.complete(prompt, sampling) for prompt in prompts)
    begin()
    held_out = open_packed(places.packed).metadata.held_out
    scored = "held-out text" if held_out is None else in_words(held_out)
    return Finished(run, scored, prompts, texts, report([places.run], out=places.report).out)


def make_model(job: Job, begin: Callable[[], str], on_event: Listener) -> RunMetadata:
    """Prepare the text, train a tokenizer, pack and pretrain. `begin` begins a stage and returns its command."""
    places = job.places
    command = begin()
    prepare(job.corpus(on_event), out=places.clean, redo=command, on_event=on_event)
    train_tokenizer(job.tokenizer(), inputs=[places.clean], out=places.tokenizer, redo=begin(), on_event=on_event)
    command = begin()
    pack(
        job.packing(),
        tokenizer=places.tokenizer,
        clean=[places.clean],
        out=places.packed,
        redo=command,
        on_event=on_event,
    )
    begin()
    return job.train(on_event)
