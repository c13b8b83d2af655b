"""The stage `alm tokenizer train`: text in, `tokenizer.json` with its metadata out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm import artifacts, kinds
from alm.artifacts import FileRecord, TokenizerMetadata
from alm.corpus.read import CleanFile, find, read_documents
from alm.errors import InputError
from alm.events import Listener, Noted, Progressed, Warned, ignore
from alm.files import publish, sha256, staging
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.pretokenize import count_words

_REPORT_EVERY = 500


def metadata_path(tokenizer: Path) -> Path:
    """`tokenizer.meta.json` for `tokenizer.json`."""
    return tokenizer.with_name(f"{tokenizer.stem}.meta.json")


def train_tokenizer(
    config: TokenizerConfig,
    *,
    inputs: Sequence[str | Path],
    out: Path,
    force: bool = False,
    redo: str = "alm tokenizer train",
    on_event: Listener = ignore,
) -> TokenizerMetadata:
    """Train a tokenizer on every document of `inputs` and write it to `out`; one that is up to date is kept.

    A text that cannot fill the vocabulary ends training early, which is told. Raises `ArtifactError`
    when `out` was made otherwise and `force` is not given.
    """
    if out.is_dir():
        raise InputError(f"`{out}` is a folder, the tokenizer is a file", hint=f"`--out {out / 'tokenizer.json'}`")
    files = find(inputs)
    records = tuple(file.record(relative_to=out.parent) for file in files)
    values = config.model_dump(mode="json")
    place = metadata_path(out)
    kept = artifacts.current(place, TokenizerMetadata, config=values, inputs=records, force=force, redo=redo)
    if kept is not None and not artifacts.damaged(out.parent, kept.payload()):
        on_event(Noted(f"`{out}` is up to date: {kept.vocab_size:,} tokens"))
        return kept
    text = _count(files, config, on_event)
    module = kinds.module_of(config.model)
    merges = module.train(text.words, vocab_size=config.vocab_size, on_event=on_event)
    tokenizer = Tokenizer.from_merges(merges, pattern=config.model.pattern)  # type: ignore[attr-defined] # of every kind
    if tokenizer.vocab_size < config.vocab_size:
        on_event(
            Warned(f"the text fills {tokenizer.vocab_size:,} of {config.vocab_size:,} tokens: no pair is left to merge")
        )
    _refuse_stranger(out, place, tokenizer, force=force, redo=redo)
    with staging(out.parent, out.stem) as stage:
        tokenizer.save(stage / out.name)
        metadata = _metadata(config, values, records, text, tokenizer, stage / out.name, redo)
        artifacts.write(stage / place.name, metadata)
        publish(stage, out.parent, last=place.name)
    return metadata


def _metadata(
    config: TokenizerConfig,
    values: artifacts.Values,
    records: tuple[FileRecord, ...],
    text: _Text,
    tokenizer: Tokenizer,
    file: Path,
    command: str,
) -> TokenizerMetadata:
    return TokenizerMetadata(
        command=command,
        config=values,
        inputs=records,
        kind=config.model.kind,  # type: ignore[attr-defined] # of every kind
        vocab_size=tokenizer.vocab_size,
        merges=tokenizer.merges,
        documents=text.documents,
        bytes=text.bytes,
        bytes_per_id=tuple(tokenizer.bytes_per_id.tolist()),
        file=artifacts.record(file, relative_to=file.parent, sha256=tokenizer.sha256),
    )


def _refuse_stranger(out: Path, place: Path, tokenizer: Tokenizer, *, force: bool, redo: str) -> None:
    """A file without metadata is somebody's, unless it is the very one: then a kill came before its metadata."""
    if out.exists() and not place.is_file() and not force and sha256(out) != tokenizer.sha256:
        raise InputError(
            f"`{out}` exists and no `{place.name}` says how it was made", hint=f"run `{redo} --force` to replace it"
        )


@dataclass
class _Text:
    """The words of the text and how often each occurs."""

    words: Counter[str]
    documents: int = 0
    bytes: int = 0


def _count(files: Sequence[CleanFile], config: TokenizerConfig, on_event: Listener) -> _Text:
    text = _Text(Counter())

    def texts() -> Iterator[str]:
        for document in read_documents(files):
            text.documents += 1
            text.bytes += len(document.text.encode("utf-8"))
            if text.documents % _REPORT_EVERY == 0:
                on_event(Progressed("counting words", text.documents, None, "documents"))
            yield document.text

    count_words(texts(), config.model.pattern, text.words)  # type: ignore[attr-defined] # of every kind
    if not text.words:
        raise InputError("the text is empty: there is nothing to train on", hint="run `alm corpus prepare` first")
    return text
