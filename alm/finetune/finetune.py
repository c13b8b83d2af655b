"""The stage `alm finetune`: a model and conversations in, a run with a model that answers out.

It prepares and packs the conversations with the stages of the same names, and trains with `alm.training.pretrain`: the
loop, checkpoints and resume are those of every run.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from alm import device as devices
from alm.artifacts import RunMetadata, SourceMetadata
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.load import verify
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.from_paths import corpus_of_paths
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import is_text
from alm.distributed import Place
from alm.errors import AlmError, ArtifactError, ConfigError, InputError, shell
from alm.events import Listener, Noted, ignore
from alm.export.importing import import_model
from alm.files import sha256
from alm.finetune import choose, scores
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.packing.shards import PackedData, open_packed
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig
from alm.training.plan import Plan, plan
from alm.training.pretrain import pretrain
from alm.training.run import ranks, run_folder
from alm.training.run.resolve import Resume
from alm.training.sizing import probe
from alm.training.sizing.memory import split_step

# A score needs more of a few conversations than 1%, and the best checkpoint is chosen by it.
HELD_OUT = "validation_fraction=0.05"
_TOKENS = (".bin", ".idx")  # files of other tools that `alm pack --from` reads


@dataclass(frozen=True)
class Places:
    """Paths of a fine-tuning: the run, and beside it its text, prepared and packed."""

    run: Path

    @property
    def clean(self) -> Path:
        return self._data / "clean"

    @property
    def packed(self) -> Path:
        return self._data / "packed"

    @property
    def _data(self) -> Path:
        return self.run.with_name(f"{self.run.name}-data")


@dataclass(frozen=True)
class Request:
    """What the user asks for. `texts` are conversations, or one folder with packed ones; `changes` override settings.

    What is None is chosen, or as in the run that is resumed. `lora` is the rank of adapters, 0 to train the weights.
    `budget` is in seconds from `started`, of `time.monotonic`. `replay` is text to learn beside the conversations; None
    for that of the model's own run, if it is still there. `ranks` processes will train.
    """

    model: Path
    texts: tuple[str, ...]
    out: Path
    epochs: float | None = None
    seq_len: int | None = None
    lora: int | None = None
    train_on: Literal["assistant", "all"] | None = None
    replay: tuple[str, ...] | None = None
    budget: float | None = None
    changes: tuple[str, ...] = ()
    device_name: str = "auto"
    ranks: int = 1
    resume: Resume = "auto"
    started: float = field(default_factory=time.monotonic)

    @property
    def is_resumed(self) -> bool:
        """Whether the run exists and is to be continued."""
        return run_folder.exists(self.out) and self.resume != "never"


@dataclass(frozen=True)
class Prepared:
    """A fine-tuning that is ready to train. `base` may be gone if the run `is_resumed`."""

    request: Request
    base: Path
    packed: PackedData
    run: choose.Run
    is_resumed: bool
    is_finished: bool

    @property
    def init(self) -> Path | None:
        """The checkpoint that a new run starts from."""
        return None if self.is_resumed else self.base


def finetune(request: Request, *, on_event: Listener = ignore) -> RunMetadata:
    """Teach the model of `request` to answer as in its conversations, in a new run folder, or resume that run.

    Raises `AlmError` if the texts hold no conversations or do not fit the model.
    """
    ready = prepared(request, on_event=on_event)
    made = pretrain(
        ready.run.config,
        data=ready.packed.folder,
        out=request.out,
        init=ready.init,
        device_name=request.device_name,
        resume=request.resume,
        finish_by=ready.run.finish_by,
        started=request.started,
        on_event=on_event,
    )
    note_base_text(ready, on_event=on_event)
    return made


def prepared(request: Request, *, on_event: Listener = ignore) -> Prepared:
    """Import the model, prepare and pack the conversations, choose the run, and score the model, as far as needed."""
    if request.resume == "never" and run_folder.exists(request.out):
        raise ConfigError(f"`{request.out}` already holds a run", hint=_elsewhere(request))
    is_resumed = request.is_resumed
    base = recorded_base(request.out) if is_resumed else start_model(request.model, request.out, on_event=on_event)
    packed = packed_conversations(request, base, Places(request.out), on_event=on_event)
    run = _resumed(request, on_event) if is_resumed else _chosen(request, base, packed, on_event)
    run = replace(run, config=_for_ranks(run.config, request.ranks))
    is_finished = is_resumed and run_folder.read_metadata(request.out).result is not None
    before = None if is_resumed else scores.of_answers(base, packed, run.config)
    if before is not None:
        on_event(Noted(f"Answers held out, before: {before:.3f} bits/byte"))
    probe.release_memory(devices.choose(request.device_name, precision="fp32").device)  # for the processes that train
    return Prepared(request, base, packed, run, is_resumed, is_finished)


def note_base_text(ready: Prepared, *, on_event: Listener) -> None:
    """Say how well the model knows the text of its base after the run, unless the run was finished before."""
    if ready.base.is_file() and not ready.is_finished:
        for line in scores.about_base_text(ready.base, ready.request.out):
            on_event(Noted(line))


def planned(request: Request, *, on_event: Listener = ignore) -> tuple[RunConfig, Plan]:
    """Return the configuration of a new run and its plan. Text is prepared in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="alm-finetune-") as folder:
        request = replace(request, out=Path(folder) / request.out.name)
        base = start_model(request.model, request.out, on_event=on_event)
        packed = packed_conversations(request, base, Places(request.out), on_event=on_event)
        run = _chosen(request, base, packed, on_event=ignore)  # the plan says it
        config = _for_ranks(run.config, request.ranks)
        made = plan(
            config,
            data=packed.folder,
            init=base,
            device_name=request.device_name,
            ranks=request.ranks,
            budget=None if run.finish_by is None else request.budget,
            started=request.started,
            on_event=on_event,
        )
    return config, replace(made, initial_weights=str(request.model))


def _for_ranks(config: RunConfig, number: int) -> RunConfig:
    """Return `config` with the same batch in micro-batches that `number` ranks can share, if there are any.

    Raises `ConfigError` if there are none.
    """
    training = config.training
    if training.gradient_accumulation % number:
        training = split_step(training, most=training.micro_batch_size, ranks=number) or training
    config = config.model_copy(update={"training": training})
    ranks.check(config, Place(size=number, local_size=number))
    return config


def _chosen(request: Request, base: Path, packed: PackedData, on_event: Listener) -> choose.Run:
    changes = tuple(change for change in request.changes if not _is_of_corpus(change))
    wishes = choose.Wishes(request.epochs, request.lora or 0, request.budget, changes, request.device_name)
    return choose.run(base, packed, wishes, started=request.started, on_event=on_event)


def _resumed(request: Request, on_event: Listener) -> choose.Run:
    """Return the run of the folder. Raises `ConfigError` if it trains something else than is requested."""
    changes = [change for change in request.changes if not _is_of_corpus(change)]
    config = load(RunConfig, [Part(request.out / run_folder.CONFIG_NAME)], overrides=changes)
    if request.lora not in (None, config.lora.rank):
        trains = f"adapters of rank {config.lora.rank}" if config.lora.rank else "all weights"
        raise ConfigError(f"the run in `{request.out}` trains {trains}", hint=_elsewhere(request))
    if request.epochs is not None or request.budget is not None:
        steps = config.training.max_steps
        on_event(Noted(f"`{request.out}` keeps its {steps:,} steps: passes and a budget are for a run that starts"))
    return choose.Run(config)


def _elsewhere(request: Request) -> str:
    return f"name another folder: {shell('--out', run_folder.free_name(request.out))}"


def recorded_base(run: Path) -> Path:
    """Return the checkpoint that `run` was started from, which may be gone. Raises `ConfigError` if there is none."""
    initial = run_folder.read_metadata(run).initial_weights
    if initial is None:
        hint = f"name another folder: {shell('--out', run_folder.free_name(run))}"
        raise ConfigError(f"`{run}` holds a run that started with random weights, and no fine-tuning", hint=hint)
    return Path(os.path.normpath(run / initial.path))


def is_finetuned(run: Path) -> bool:
    """Whether `run` was trained on conversations, from the weights of another one."""
    if not run_folder.exists(run):
        return False
    metadata = run_folder.read_metadata(run)
    try:
        packed = open_packed(Path(os.path.normpath(run / metadata.data)))
    except AlmError:
        return False
    return metadata.initial_weights is not None and packed.metadata.conversations is not None


def start_model(model: Path, out: Path, *, on_event: Listener = ignore) -> Path:
    """Return the checkpoint of `model`: a run, a checkpoint, or a model of another tool, imported beside `out`."""
    is_gguf = model.suffix == ".gguf"
    is_foreign = model.is_dir() and (model / "config.json").is_file() and not run_folder.exists(model)
    if not (is_gguf or is_foreign):
        checkpoint = checkpoint_at(model, on_event=on_event)
        if not checkpoint.is_file():
            verify(checkpoint)  # says what is missing, before the text is prepared
        return checkpoint
    kind = "gguf" if is_gguf else "huggingface"
    folder = out.with_name(f"{model.resolve().stem if is_gguf else model.resolve().name}-base")
    redo = shell("alm", "import", "--from", kind, model, "--out", folder)
    import_model(model, kind=kind, out=folder, compare=False, redo=redo, on_event=on_event)
    return checkpoint_at(folder, on_event=on_event)


def packed_conversations(request: Request, base: Path, places: Places, *, on_event: Listener = ignore) -> PackedData:
    """Return the packed conversations of `request`, in the turns of the model `base`."""
    if len(request.texts) == 1 and (Path(request.texts[0]) / PACK_METADATA_NAME).is_file():
        packed = open_packed(Path(request.texts[0]))
        _check_packed(packed, request, base)
        return packed
    try:
        _prepare_and_pack(request, base, places, on_event, force=False)
    except (ArtifactError, InputError) as error:
        if request.is_resumed:
            again = shell("alm", "pretrain", "--resume", "auto", "--out", request.out)
            hint = f"for other conversations or settings {_elsewhere(request)}; the run itself continues with `{again}`"
            raise type(error)(error.message, hint=hint) from error
        if isinstance(error, InputError):
            raise
        # No run depends on it yet.
        _prepare_and_pack(request, base, places, on_event, force=True)
    return open_packed(places.packed)


def _prepare_and_pack(request: Request, base: Path, places: Places, on_event: Listener, *, force: bool) -> None:
    tokenizer = base.with_name(run_folder.TOKENIZER_NAME)
    shape = choose.model_of(base if base.is_file() else request.out)
    context = shape.max_position_embeddings
    if request.seq_len is not None and request.seq_len > context:
        raise ConfigError(
            f"rows of {request.seq_len:,} tokens are longer than the model's context of {context:,}",
            hint=f"use `{shell('--seq-len', str(context))}`, or less",
        )
    before = open_packed(places.packed).metadata if request.is_resumed and places.packed.is_dir() else None
    replay = request.replay
    if replay is None:
        replay = text_of(base) if before is None else _located(before.config.get("replay", []), places.packed)
    corpus = corpus_of_paths(request.texts, overrides=_of_corpus(request), on_event=on_event)
    sources = prepare(corpus, out=places.clean, force=force, on_event=on_event)
    _check_roles(sources, request)
    chosen = choose.row_length(sources, shape) if before is None else before.seq_len
    learned = "assistant" if before is None or before.conversations is None else before.conversations.train_on
    pack(
        PackConfig(seq_len=request.seq_len or chosen, documents="conversations", train_on=request.train_on or learned),
        tokenizer=tokenizer if tokenizer.is_file() else request.out / run_folder.TOKENIZER_NAME,
        clean=[places.clean],
        replay=replay,
        out=places.packed,
        force=force,
        on_event=on_event,
    )


def text_of(base: Path) -> tuple[str, ...]:
    """Return the files of text that the run with the checkpoint `base` was trained on.

    No files if some are gone or have changed, and for conversations and the token files of other tools.
    """
    run = base.parent
    if not run_folder.exists(run):
        return ()
    metadata = run_folder.read_metadata(run)
    folder = Path(os.path.normpath(run / metadata.data))
    try:
        packed = open_packed(folder).metadata
        is_same = sha256(folder / PACK_METADATA_NAME) == metadata.data_sha256
    except AlmError:
        return ()
    records = [record for record in packed.inputs if record.sha256 != packed.tokenizer_sha256]
    paths = [Path(path) for path in _located([record.path for record in records], folder)]
    is_same &= all(path.is_file() and sha256(path) == each.sha256 for path, each in zip(paths, records, strict=True))
    if not is_same or packed.conversations is not None or any(path.suffix in _TOKENS for path in paths):
        return ()
    return tuple(str(path) for path in paths if is_text(path))


def _located(names: Sequence[str], folder: Path) -> tuple[str, ...]:
    return tuple(os.path.normpath(folder / name) for name in names)


def _check_packed(packed: PackedData, request: Request, base: Path) -> None:
    """Raise `AlmError` if the packed data is not what is requested, or not for this model."""
    conversations = packed.metadata.conversations
    if conversations is None:
        raise ArtifactError(
            f"`{packed.folder}` holds text and no conversations",
            hint=f"to train on text, use {shell('alm', 'pretrain', '--init', request.model, '--data', packed.folder)}",
        )
    if request.replay is not None:
        raise ConfigError(
            f"`--replay` is for conversations that are packed here, and `{packed.folder}` is packed already",
            hint="leave out `--replay`; `alm pack --replay` puts text beside conversations",
        )
    tokenizer = base.with_name(run_folder.TOKENIZER_NAME)
    if tokenizer.is_file() and Tokenizer.load(tokenizer).sha256 != packed.metadata.tokenizer_sha256:
        raise ArtifactError(
            f"`{packed.folder}` was packed with another tokenizer than that of `{base}`",
            hint="name the conversations themselves with `--data`: they are packed for this model",
        )
    for flag, wanted, found in (
        ("--seq-len", request.seq_len, packed.metadata.seq_len),
        ("--train-on", request.train_on, conversations.train_on),
    ):
        if wanted not in (None, found):
            raise ConfigError(
                f"`{packed.folder}` was packed with `{flag} {found}`",
                hint=f"leave out `{flag} {wanted}`, or name the conversations themselves with `--data`",
            )


def _check_roles(sources: Sequence[SourceMetadata], request: Request) -> None:
    """Raise `InputError` for the first source with texts that no one says."""
    for source in sources:
        texts = source.documents.output - source.conversations
        if texts:
            number = "no" if not source.conversations else f"only {source.conversations:,}"
            raise InputError(
                f"`{source.source}` holds {number} conversations, and {texts:,} other texts",
                hint="conversations are rows of JSON with `messages`, `conversations`, or `instruction` and `output`; "
                f"to train on text, prepare and pack it, and run `{shell('alm', 'pretrain', '--init', request.model)}`",
            )


def _is_of_corpus(change: str) -> bool:
    return change.partition("=")[0].split(".")[0] in CorpusConfig.model_fields


def _of_corpus(request: Request) -> list[str]:
    own = [change for change in request.changes if _is_of_corpus(change)]
    return own if any(change.startswith("validation_fraction") for change in own) else [HELD_OUT, *own]
