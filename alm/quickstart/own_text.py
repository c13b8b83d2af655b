"""A quickstart with one's own text: everything is chosen for the text, the machine and the time.

The vocabulary and the rows are chosen before the first stage, from the size of the files. The run is chosen once the
text is packed, by the function that `alm pretrain` uses, for the time that is left.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from alm import artifacts, distributed
from alm.artifacts import RunMetadata
from alm.config import presets
from alm.config.base import Config
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.from_paths import corpus_of_paths
from alm.corpus.pipeline.job import inspect, jobs_of, name_source_in_errors
from alm.corpus.pipeline.prepare import expected_bytes
from alm.corpus.split import TRAIN, VALIDATION
from alm.errors import ArtifactError, ConfigError, InputError, shell
from alm.events import Listener, Warned, ignore
from alm.files import read_json, write_text
from alm.generation.config import SamplingConfig
from alm.packing.config import PackConfig
from alm.packing.shards import open_packed
from alm.quickstart.run import TOO_SLOW, Places, refuse_ranks, train_run
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.file import Tokenizer
from alm.training.config import MODEL_SECTIONS, TRAIN_SECTIONS, RunConfig, TrainingConfig
from alm.training.monitoring.samples import held_out_prompts
from alm.training.run.run_folder import CONFIG_NAME, OtherRunError, exists, free_name
from alm.training.sizing.budget import FEWEST_STEPS, TooShortError, rounded
from alm.training.sizing.suggest import DEFAULT_SECONDS, Suggestion, suggest

SAMPLE_TOKENS = 150
_PROMPTS, _PROMPT_TOKENS, _MOST_BEGINNINGS = 3, 8, 20
# For the stages before and after training, beside the share of the time that reading the text takes.
_OTHER_SECONDS, _SECONDS_PER_BYTE, _END_SECONDS = 15.0, 1e-6, 10.0
_LEAST_SHARE = 0.2  # of the time, at least for training
_LEAST_BYTES = 2_000
# Of a small text, 1% would be too little for a score.
_SMALL_TEXT_BYTES, _HELD_OUT_OF_SMALL = 5_000_000, "validation_fraction=0.05"
_MOST_BYTES = 1 << 20  # of a recipe
# What to expect of a text of this many bytes or more.
EXPECTED = (
    (20_000_000, "paragraphs in the style of the text, and few facts"),
    (1_000_000, "sentences in the style of the text, and no facts"),
    (100_000, "sentences in the style of the text that do not hang together, and no facts"),
    (0, "words and turns of phrase of the text, and few complete sentences"),
)


@dataclass(frozen=True)
class Recipe:
    """The choices before the first stage.

    `texts` are paths as given, `changes` overrides of the corpus file made of them; `budget` is in seconds.
    """

    texts: tuple[str, ...]
    changes: tuple[str, ...]
    budget: float
    vocab_size: int
    seq_len: int

    @property
    def by_user(self) -> tuple[str, ...]:
        """The overrides that the user gave."""
        return tuple(change for change in self.changes if change != _HELD_OUT_OF_SMALL)


class _Stored(Config):
    """Schema of the file that stores a recipe."""

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    changes: tuple[str, ...]
    budget: Annotated[float, Field(strict=True, gt=0, le=1e9)]
    vocab_size: Annotated[int, Field(strict=True, ge=1, le=2**24)]
    seq_len: Annotated[int, Field(strict=True, ge=2, le=2**24)]


def read(path: Path) -> Recipe:
    """Read a recipe that `OwnText.start` wrote."""
    try:
        stored = _Stored.model_validate(read_json(path, most=_MOST_BYTES))
    except (InputError, ValidationError) as error:
        reason = error.message if isinstance(error, InputError) else artifacts.first_problem(error)
        hint = "name another folder with `--out`, or add `--fresh`"
        raise ArtifactError(
            f"`{path}` is not what a quickstart with your own text writes: {reason}", hint=hint
        ) from error
    return Recipe(**dict(stored))


class OwnText:
    """A quickstart with one's own text, ready to run: a `Job`.

    `text_bytes` is the expected size of the text, `expected` the run that suits it; both are None if a run is resumed.
    """

    def __init__(
        self,
        places: Places,
        recipe: Recipe,
        *,
        text_bytes: int | None,
        expected: Suggestion | None,
        overrides: Sequence[str],
        device_name: str,
        started: float,
    ) -> None:
        self.places, self.recipe, self.device_name = places, recipe, device_name
        self.text_bytes, self.expected, self.overrides = text_bytes, expected, tuple(overrides)
        self._started = started
        self._chosen: Suggestion | None = None

    @property
    def seconds(self) -> float:
        """Expected duration of the entire quickstart: less than the budget if the text cannot use it."""
        if self.expected is None or self.text_bytes is None:
            return self.recipe.budget
        return min(self.recipe.budget, _others(self.text_bytes) + self.expected.seconds)

    @property
    def is_capped(self) -> bool:
        """Whether more time would only add passes that teach little."""
        return self.seconds < self.recipe.budget

    @property
    def expectation(self) -> str | None:
        """What texts of the model will be like, in words."""
        size = self.text_bytes
        return None if size is None else next(text for least, text in EXPECTED if size >= least)

    def start(self) -> None:
        """Write the recipe before any stage, so that an interrupted quickstart continues with it."""
        path = self.places.recipe
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(asdict(self.recipe), indent=2) + "\n")
        elif read(path) != self.recipe:
            raise ConfigError(
                f"another quickstart was started in `{self.places.out}` in the meantime",
                hint="run the same command again, or add `--fresh`",
            )

    def commands(self, *, is_underway: bool = False) -> Iterator[str]:
        """The command for each stage; the run is chosen when its turn comes, and expected before that."""
        at = self.places
        changes = [word for change in self.recipe.changes for word in ("--set", change)]
        yield _command("corpus", "prepare", *self.recipe.texts, "--out", at.clean, *changes)
        vocabulary = ("--vocab-size", self.recipe.vocab_size)
        yield _command("tokenizer", "train", "--input", at.clean, *vocabulary, "--out", at.tokenizer)
        rows = ("--seq-len", self.recipe.seq_len)
        yield _command("pack", "--tokenizer", at.tokenizer, "--in", at.clean, "--out", at.packed, *rows)
        yield self._pretrain_command(is_underway=is_underway)
        device = [] if self.device_name == "auto" else ["--device", self.device_name]
        yield _command("sample", "--checkpoint", at.run, "--max-tokens", SAMPLE_TOKENS, *device)
        yield _command("report", at.run, "--out", at.report)

    def _pretrain_command(self, *, is_underway: bool) -> str:
        at = self.places
        device = [] if self.device_name == "auto" else ["--device", self.device_name]
        found = self._choose() if is_underway and not exists(at.run) else self.expected
        if found is None or exists(at.run):
            return _command("pretrain", "--data", at.packed, "--out", at.run, *device)
        changes = [word for change in (*found.overrides, *self.overrides) for word in ("--set", change)]
        time_left = [] if self._has_steps else ["--budget", f"{found.seconds:.0f}s"]
        return _command(
            "pretrain", "--model", found.preset, "--data", at.packed, "--out", at.run, *changes, *device, *time_left
        )

    @property
    def _has_steps(self) -> bool:
        return _steps(self.overrides) is not None

    def _choose(self) -> Suggestion:
        """Choose the run for the packed text and the time that is left."""
        seconds = self._started + self.recipe.budget - _END_SECONDS - time.monotonic()
        seconds = max(seconds, _LEAST_SHARE * self.recipe.budget)
        self._chosen = suggest(
            seconds,
            data=self.places.packed,
            steps=_steps(self.overrides),
            device_name=self.device_name,
            precision=_precision(self.overrides),
        )
        return self._chosen

    def corpus(self, on_event: Listener = ignore) -> CorpusConfig:
        """The text; `on_event` receives how its rows are read."""
        return corpus_of_paths(self.recipe.texts, overrides=self.recipe.changes, on_event=on_event)

    def tokenizer(self) -> TokenizerConfig:
        """The vocabulary."""
        return TokenizerConfig(vocab_size=self.recipe.vocab_size)

    def packing(self) -> PackConfig:
        """The rows."""
        return PackConfig(seq_len=self.recipe.seq_len)

    def train(self, on_event: Listener = ignore) -> RunMetadata:
        """Train what was chosen, or resume the run."""
        places = self.places

        def run(config: RunConfig, finish_by: float | None = None) -> RunMetadata:
            return train_run(self, config, finish_by, on_event)

        if exists(places.run):
            try:
                return run(load(RunConfig, [Part(places.run / CONFIG_NAME)], overrides=self.overrides))
            except OtherRunError as error:
                command = shell("alm", "quickstart", *self.recipe.texts, "--out", free_name(places.out))
                raise ConfigError(error.message, hint=f"add these settings to `{command}`") from error
        found = self._chosen or self._choose()
        config = _run(found, self.overrides)
        try:
            return run(config, None if self._has_steps else time.monotonic() + found.seconds)
        except TooShortError:  # the machine has become much slower since the budget was accepted
            on_event(Warned(TOO_SLOW, None))
            return run(_run(found, [*self.overrides, f"training.max_steps={FEWEST_STEPS}"]))

    def prompts(self) -> Sequence[str]:
        """An empty prompt, and the beginnings of documents: held-out ones, as far as there are any."""
        packed = open_packed(self.places.packed)
        tokenizer = Tokenizer.load(packed.tokenizer_path)
        found = itertools.chain.from_iterable(
            held_out_prompts(packed.split(split), tokenizer, tokens=_PROMPT_TOKENS) for split in (VALIDATION, TRAIN)
        )
        beginnings = dict.fromkeys(_words(text) for text in itertools.islice(found, _MOST_BEGINNINGS))
        return ("", *[text for text in beginnings if text.strip()][: _PROMPTS - 1])

    def sampling(self) -> SamplingConfig:
        """How the texts are written."""
        return SamplingConfig(max_tokens=SAMPLE_TOKENS)


def prepared(
    texts: Sequence[str],
    out: Path | None,
    *,
    changes: Sequence[str] = (),
    steps: int | None = None,
    seed: int | None = None,
    budget: float | None = None,
    is_fresh: bool = False,
    device_name: str = "auto",
    started: float | None = None,
) -> OwnText:
    """Prepare a quickstart with the files and folders `texts` in `out`; nothing is written.

    `changes` override keys of the corpus file that these make, or of the run.
    `budget` is in seconds from `started`, of `time.monotonic`. An existing quickstart keeps its recipe: `ConfigError`
    for other texts or another budget. With `is_fresh` it is left unchanged, and the new one is placed beside it.
    """
    refuse_ranks(distributed.place())
    if budget is not None and steps is not None:
        raise ConfigError("`--budget` chooses the steps, which `--steps` sets too", hint="leave out one of the two")
    began = time.monotonic() if started is None else started
    name = _name(texts)
    out = out or _beside(texts, f"alm-{name}")
    places = Places(free_name(out) if is_fresh and out.exists() else out, run=name)
    _refuse_inside(texts, places.out)
    of_text = tuple(change for change in changes if _key(change) in CorpusConfig.model_fields)
    overrides = [change for change in changes if change not in of_text]
    overrides += [f"training.max_steps={steps}"] if steps is not None else []
    overrides += [f"training.seed={seed}"] if seed is not None else []
    recipe = _stored(places, texts, of_text, budget)
    text_bytes, expected = None, None
    if recipe is None or not exists(places.run):
        text_bytes = _size(texts, of_text if recipe is None else recipe.changes, places)
        seconds = recipe.budget if recipe is not None else budget or DEFAULT_SECONDS
        expected = _expected(text_bytes, seconds, recipe, overrides, device_name)
        _run(expected, overrides)  # a mistake in them is reported before the first stage
    elif recipe is not None:
        _refuse_other_text(recipe, places)
    if recipe is None:
        assert expected is not None
        assert text_bytes is not None
        has_own_share = any(_key(change) == "validation_fraction" for change in of_text)
        if text_bytes < _SMALL_TEXT_BYTES and not has_own_share:
            of_text = (_HELD_OUT_OF_SMALL, *of_text)
        recipe = Recipe(tuple(texts), of_text, budget or DEFAULT_SECONDS, expected.vocab_size, expected.seq_len)
    return OwnText(
        places,
        recipe,
        text_bytes=text_bytes,
        expected=expected,
        overrides=overrides,
        device_name=device_name,
        started=began,
    )


def _beside(texts: Sequence[str], name: str) -> Path:
    """Return a folder of this name in the current one, or outside the texts if that is one of them."""
    here = Path.cwd()
    around = [Path(text).resolve() for text in texts if here.is_relative_to(Path(text).resolve())]
    top = min(around, key=lambda path: len(path.parts), default=None)
    return Path(name) if top is None else Path(os.path.relpath(top.parent / name))


def _refuse_inside(texts: Sequence[str], out: Path) -> None:
    """Raise `ConfigError` if the result would be text of the next quickstart."""
    for text in texts:
        if Path(text).is_dir() and out.resolve().is_relative_to(Path(text).resolve()):
            beside = Path(os.path.relpath(Path(text).resolve().parent / f"alm-{_name(texts)}"))
            raise ConfigError(f"`{out}` is inside the text `{text}`", hint=f"add `{shell('--out', beside)}`")


def _refuse_other_text(recipe: Recipe, places: Places) -> None:
    """Raise `ConfigError` if the text has changed since a run was trained on it, whose data would be overwritten."""
    for job in jobs_of(corpus_of_paths(recipe.texts, overrides=recipe.changes), out=places.clean):
        try:
            found = inspect(job, on_event=ignore)
            is_same = found.current or found.published is None
        except ArtifactError:
            is_same = False
        if not is_same:
            raise ConfigError(
                f"the text has changed since the quickstart in `{places.out}`",
                hint="add `--fresh` to start another one beside it",
            )


def _stored(places: Places, texts: Sequence[str], changes: Sequence[str], budget: float | None) -> Recipe | None:
    """Return the recipe of a quickstart that exists already; `ConfigError` if it is for another text or time."""
    if not places.recipe.is_file():
        return None
    own, fresh = read(places.recipe), "add `--fresh` to start another one beside it"
    is_same = own.changes in (tuple(changes), (_HELD_OUT_OF_SMALL, *changes))
    if own.texts != tuple(texts) or not is_same:
        given = shell(*own.texts, *(word for change in own.by_user for word in ("--set", change)))
        raise ConfigError(f"the quickstart in `{places.out}` was started with `{given}`", hint=fresh)
    if budget not in (None, own.budget):
        raise ConfigError(
            f"the quickstart in `{places.out}` was started for {own.budget:,.0f} seconds",
            hint=f"leave out `--budget` to continue it, or {fresh}",
        )
    return own


def _size(texts: Sequence[str], changes: Sequence[str], places: Places) -> int:
    """Return the expected bytes of clean text; `InputError` if there is too little to learn from."""
    size = 0
    for job in jobs_of(corpus_of_paths(texts, overrides=changes), out=places.clean):
        with name_source_in_errors(job):
            size += expected_bytes(job, inspect(job, on_event=ignore).plan)
    if size < _LEAST_BYTES:
        raise InputError(
            f"{shell(*texts)} has only {size:,} bytes of text: too little to learn from",
            hint="give it more text, 50 kB or more; `alm quickstart` without a path uses built-in tales",
        )
    return size


def _expected(
    size: int, seconds: float, recipe: Recipe | None, overrides: Sequence[str], device_name: str
) -> Suggestion:
    """Return the run that suits the expected text and time; `ConfigError` if the time is too short for any."""
    others = _others(size)
    training = max(seconds - others, _LEAST_SHARE * seconds)
    seq_len = None if recipe is None else recipe.seq_len
    steps = _steps(overrides)
    found = suggest(
        training,
        text_bytes=size,
        seq_len=seq_len,
        steps=steps,
        device_name=device_name,
        precision=_precision(overrides),
    )
    if steps is None and found.config.training.max_steps < FEWEST_STEPS:
        least = others + FEWEST_STEPS * training / found.config.training.max_steps
        raise ConfigError(
            f"{seconds:,.0f} seconds are too short: a model would learn nothing",
            hint=f"give it at least `{shell('--budget', rounded(least))}`",
        )
    return found


def _others(size: int) -> float:
    """Return the expected seconds outside training for a text of `size` bytes."""
    return _OTHER_SECONDS + _END_SECONDS + _SECONDS_PER_BYTE * size


def _of_training(overrides: Sequence[str]) -> TrainingConfig:
    of_training = [change for change in overrides if _key(change) == "training"]
    return load(RunConfig, [Part(presets.find("train"), TRAIN_SECTIONS)], overrides=of_training).training


def _steps(overrides: Sequence[str]) -> int | None:
    """Return the number of steps that `overrides` set; None if they leave it open."""
    is_set = any(change.partition("=")[0].strip() == "training.max_steps" for change in overrides)
    return _of_training(overrides).max_steps if is_set else None


def _precision(overrides: Sequence[str]) -> Literal["auto", "fp32", "bf16", "fp16"]:
    return _of_training(overrides).precision


def _key(change: str) -> str:
    """Return the first part of the key of an override."""
    return change.partition("=")[0].partition(".")[0].strip()


def _run(found: Suggestion, overrides: Sequence[str]) -> RunConfig:
    parts = [Part(presets.find(found.preset), MODEL_SECTIONS), Part(presets.find("train"), TRAIN_SECTIONS)]
    return load(RunConfig, parts, overrides=[*found.overrides, *overrides])


def _name(texts: Sequence[str]) -> str:
    """Return a name for a folder, from that of the first text."""
    path = Path(texts[0]).resolve()
    stem = path.name if path.is_dir() else path.name.split(".")[0]
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "text"


def _words(text: str) -> str:
    """Return the beginning of a text without its last word, or last character, which may be cut."""
    found = text.rstrip()
    at = max(found.rfind(" "), found.rfind("\n"))
    return found[: at if at > 0 else -1]


def _command(*words: object) -> str:
    return shell("alm", *map(str, words))
