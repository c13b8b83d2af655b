"""The stage `alm finetune`: a model and conversations in, a run with a model that answers out.

It prepares and packs the conversations with the stages of the same names, and trains with `alm.training.pretrain`: the
loop, checkpoints and resume are those of every run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alm.artifacts import RunMetadata, SourceMetadata
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.load import verify
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.from_paths import corpus_of_paths
from alm.corpus.pipeline.prepare import prepare
from alm.errors import ArtifactError, InputError, shell
from alm.events import Listener, Noted, ignore
from alm.export.importing import import_model
from alm.finetune import choose, scores
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import METADATA_NAME as PACK_METADATA_NAME
from alm.packing.shards import PackedData, open_packed
from alm.training.config import RunConfig
from alm.training.pretrain import pretrain
from alm.training.run import run_folder
from alm.training.run.resolve import Resume

# A score needs more of a few conversations than 1%, and the best checkpoint is chosen by it.
HELD_OUT = "validation_fraction=0.05"


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

    `epochs` and `seq_len` are chosen if they are None. `lora` is the rank of adapters, 0 to train the weights. `budget`
    is in seconds from `started`, of `time.monotonic`.
    """

    model: Path
    texts: tuple[str, ...]
    out: Path
    epochs: float | None = None
    seq_len: int | None = None
    lora: int = 0
    train_on: str = "assistant"
    budget: float | None = None
    changes: tuple[str, ...] = ()
    device_name: str = "auto"
    resume: Resume = "auto"
    started: float = 0.0


def finetune(request: Request, *, on_event: Listener = ignore) -> RunMetadata:
    """Teach the model of `request` to answer as in its conversations, in a new run folder, or resume that run.

    Raises `AlmError` if the texts hold no conversations or do not fit the model.
    """
    places = Places(request.out)
    base = start_model(request.model, request.out, on_event=on_event)
    packed = packed_conversations(request, base, places, on_event=on_event)
    run = _run(request, base, packed, on_event)
    before = None if run_folder.exists(request.out) else scores.of_answers(base, packed, run.config)
    if before is not None:
        on_event(Noted(f"Answers held out, before: {before:.3f} bits/byte"))
    made = pretrain(
        run.config,
        data=packed.folder,
        out=request.out,
        init=base,
        device_name=request.device_name,
        resume=request.resume,
        finish_by=run.finish_by,
        started=request.started,
        on_event=on_event,
    )
    for line in scores.about_base_text(base, request.out):
        on_event(Noted(line))
    return made


def planned(request: Request, *, on_event: Listener = ignore) -> RunConfig:
    """Return the configuration of a new run; events say how long it takes. Text is prepared in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="alm-finetune-") as folder:
        request = replace(request, out=Path(folder) / request.out.name)
        base = start_model(request.model, request.out, on_event=on_event)
        packed = packed_conversations(request, base, Places(request.out), on_event=on_event)
        return _run(request, base, packed, on_event).config


def _run(request: Request, base: Path, packed: PackedData, on_event: Listener) -> choose.Run:
    """Return the run of the folder, or choose one."""
    changes = [change for change in request.changes if not _is_of_corpus(change)]
    if run_folder.exists(request.out) and request.resume != "never":
        return choose.Run(load(RunConfig, [Part(request.out / run_folder.CONFIG_NAME)], overrides=changes))
    return choose.run(
        base,
        packed,
        choose.Wishes(request.epochs, request.lora, request.budget, tuple(changes), request.device_name),
        started=request.started,
        on_event=on_event,
    )


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
    else:
        corpus = corpus_of_paths(request.texts, overrides=_of_corpus(request), on_event=on_event)
        sources = prepare(corpus, out=places.clean, on_event=on_event)
        _check_roles(sources, request)
        seq_len = request.seq_len or choose.row_length(sources, choose.model_of(base))
        pack(
            PackConfig(seq_len=seq_len, documents="conversations", train_on=request.train_on),
            tokenizer=base.with_name(run_folder.TOKENIZER_NAME),
            clean=[places.clean],
            out=places.packed,
            on_event=on_event,
        )
        packed = open_packed(places.packed)
    if packed.metadata.conversations is None:
        raise ArtifactError(
            f"`{packed.folder}` holds text and no conversations",
            hint=f"to train on text, use {shell('alm', 'pretrain', '--init', request.model, '--data', packed.folder)}",
        )
    return packed


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
