"""The whole pipeline on the built-in tales, by the same stage functions that the commands call.

Each stage keeps what is up to date and training continues from its newest checkpoint, so running
this again after an interruption goes on where it stopped.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from alm import distributed
from alm.artifacts import PackMetadata, RunMetadata, TokenizerMetadata
from alm.checkpoint.format import LAST_NAME
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.prepare import prepare
from alm.distributed import Place
from alm.errors import ConfigError, EchoedError
from alm.events import Listener, StageBegan, ignore
from alm.generation.load import load_model
from alm.generation.sampling import SamplingConfig
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.train import train_tokenizer
from alm.training.config import RunConfig
from alm.training.pretrain import pretrain
from alm.training.run import free_name

CORPUS_PRESET = "tales"
RUN_PRESET = "quickstart"
VOCAB_SIZE = 2048
SEQ_LEN = 256
PROMPTS = ("Once upon a time", "", "One morning")
SAMPLE_TOKENS = 220
TEMPERATURE = 0.5  # so small a model is at its best when it keeps to what it is sure of
STAGES = 5


@dataclass(frozen=True)
class Places:
    """Where everything of a quickstart lies: laid out as a project of one's own would be."""

    out: Path

    @property
    def clean(self) -> Path:
        """The clean text."""
        return self.out / "data" / "clean"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer."""
        return self.out / "artifacts" / "tokenizer.json"

    @property
    def packed(self) -> Path:
        """The shards."""
        return self.out / "data" / "packed"

    @property
    def run(self) -> Path:
        """The run."""
        return self.out / "runs" / "tales"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint of the run."""
        return self.run / LAST_NAME


@dataclass(frozen=True)
class Finished:
    """What came out: the run, and a text for each prompt."""

    run: RunMetadata
    texts: tuple[str, ...]


def quickstart(
    out: Path,
    *,
    steps: int | None = None,
    seed: int | None = None,
    device_name: str = "auto",
    on_event: Listener = ignore,
) -> Finished:
    """Prepare, train a tokenizer, pack, pretrain and sample in `out`; `steps` and `seed` override the preset.

    Raises `ConfigError` where torchrun has started several of this.
    """
    _refuse_ranks(distributed.place())
    places = Places(out)
    overrides = [f"training.max_steps={steps}"] if steps else []
    overrides += [f"training.seed={seed}"] if seed is not None else []
    _prepare(places, on_event)
    _train_tokenizer(places, on_event)
    _pack(places, on_event)
    run = _pretrain(places, overrides, device_name, on_event)
    return Finished(run, _sample(places, device_name, on_event))


def _refuse_ranks(here: Place) -> None:
    """Stages would be done by all ranks at once, in the same files."""
    if here.size == 1:
        return
    if not here.is_main:
        raise EchoedError("the main rank tells", exit_code=0)
    raise ConfigError(
        f"a quickstart is one process, torchrun has started {here.size}",
        hint=f"run `alm quickstart` without torchrun; with text of your own, `alm pretrain --nproc {here.size}`",
    )


def _command(*words: object) -> str:
    """The command line of `words`, ready to be pasted."""
    return shlex.join(["alm", *map(str, words)])


def _prepare(places: Places, on_event: Listener) -> None:
    command = _command("corpus", "prepare", "--src", CORPUS_PRESET, "--out", places.clean)
    on_event(StageBegan(1, STAGES, command))
    config = load(CorpusConfig, [Part(presets.find(CORPUS_PRESET))])
    prepare(config, out=places.clean, redo=command, on_event=on_event)


def _train_tokenizer(places: Places, on_event: Listener) -> TokenizerMetadata:
    words = ("--input", places.clean, "--vocab-size", VOCAB_SIZE, "--out", places.tokenizer)
    command = _command("tokenizer", "train", *words)
    on_event(StageBegan(2, STAGES, command))
    config = TokenizerConfig(vocab_size=VOCAB_SIZE)
    return train_tokenizer(config, inputs=[places.clean], out=places.tokenizer, redo=command, on_event=on_event)


def _pack(places: Places, on_event: Listener) -> PackMetadata:
    words = ("--tokenizer", places.tokenizer, "--in", places.clean, "--out", places.packed, "--seq-len", SEQ_LEN)
    command = _command("pack", *words)
    on_event(StageBegan(3, STAGES, command))
    return pack(
        PackConfig(seq_len=SEQ_LEN),
        tokenizer=places.tokenizer,
        clean=[places.clean],
        out=places.packed,
        redo=command,
        on_event=on_event,
    )


def _pretrain(places: Places, overrides: list[str], device_name: str, on_event: Listener) -> RunMetadata:
    words = ["--model", RUN_PRESET, "--train", RUN_PRESET, "--data", places.packed, "--out", places.run]
    words += [word for override in overrides for word in ("--set", override)]
    command = _command("pretrain", *words)
    on_event(StageBegan(4, STAGES, command))
    config = load(RunConfig, [Part(presets.find(RUN_PRESET))], overrides=overrides)
    try:
        return pretrain(config, data=places.packed, out=places.run, device_name=device_name, on_event=on_event)
    except ConfigError as error:  # begun with other --steps or another --seed: a new quickstart is a new folder
        raise ConfigError(
            error.message, hint=f"run `{_command('quickstart', '--out', free_name(places.out))}`"
        ) from error


def _sample(places: Places, device_name: str, on_event: Listener) -> tuple[str, ...]:
    words = ("--prompt", PROMPTS[0], "--max-tokens", SAMPLE_TOKENS, "--temperature", TEMPERATURE)
    command = _command("sample", "--checkpoint", places.checkpoint, *words)
    on_event(StageBegan(5, STAGES, command))
    model = load_model(places.checkpoint, device_name=device_name, on_event=on_event)
    sampling = SamplingConfig(max_tokens=SAMPLE_TOKENS, temperature=TEMPERATURE)
    return tuple(prompt + "".join(model.generate(prompt, sampling).text()) for prompt in PROMPTS)
