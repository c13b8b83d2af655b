"""The stage `alm tokenizer train`: text in, `tokenizer.json` with its metadata out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alm import artifacts, kinds
from alm.artifacts import FileRecord, TokenizerMetadata
from alm.corpus.read import find
from alm.errors import InputError, quoted, shell
from alm.events import Listener, Noted, Warned, ignore
from alm.files import Unchanged, publish, sha256, sweep, workspace
from alm.formatting import size
from alm.tokenizers.config import TokenizerConfig, vocabulary_for_text
from alm.tokenizers.count import Counted, count
from alm.tokenizers.file import Tokenizer, metadata_path


def train_tokenizer(
    config: TokenizerConfig,
    *,
    inputs: Sequence[str | Path],
    out: Path,
    workers: int = 1,
    force: bool = False,
    redo: str = "alm tokenizer train",
    on_event: Listener = ignore,
) -> TokenizerMetadata:
    """Train a tokenizer on every document of `inputs` and write it to `out`. Keep one that is up to date.

    Words are counted by `workers` threads, whose number does not change the result.

    A text that cannot fill the vocabulary ends training early, with a warning. Raises `ArtifactError`
    if `out` was made with other settings and `force` is not set.
    """
    if out.is_dir():
        raise InputError(
            f"`{out}` is a folder, the tokenizer is a file", hint=f"`--out {quoted(out / 'tokenizer.json')}`"
        )
    files = find(inputs)
    given = Unchanged(path for file in files for path in file.paths)
    records = tuple(file.record(relative_to=out.parent) for file in files)
    values = config.model_dump(mode="json")
    place = metadata_path(out)
    made = _made(place, values, records, force=force, redo=redo)
    if made is None:
        with workspace(out.parent, out.stem, what=f"`{out}`") as stage:
            made = _made(place, values, records, force=force, redo=redo)  # by the last holder of the lock
            if made is None:
                with given.blamed():
                    text = count(files, config.model.pattern, workers=workers, on_event=on_event)  # type: ignore[attr-defined] # of every kind
                given.check()  # the recorded hashes are from before the files were read
                tokenizer = _trained(config, text, on_event)
                _refuse_stranger(out, place, tokenizer, force=force, redo=redo)
                tokenizer.save(stage / out.name)
                metadata = _metadata(config, values, records, text, tokenizer, stage / out.name, redo)
                artifacts.write(stage / place.name, metadata)
                publish(stage, out.parent, last=place.name)
                return metadata
    sweep(out.parent, out.stem)
    on_event(Noted(f"`{out}` is up to date: {made.vocab_size:,} tokens"))
    return made


def _made(
    place: Path, values: artifacts.Values, records: Sequence[FileRecord], *, force: bool, redo: str
) -> TokenizerMetadata | None:
    made = artifacts.current(place, TokenizerMetadata, config=values, inputs=records, force=force, redo=redo)
    return None if made is None or artifacts.damaged(place.parent, made.payload()) else made


def _trained(config: TokenizerConfig, text: Counted, on_event: Listener) -> Tokenizer:
    module = kinds.module_of(config.model)
    wanted = vocabulary_for_text(text.bytes) if config.vocab_size == "auto" else config.vocab_size
    if config.vocab_size == "auto":
        flag = shell("--vocab-size", str(wanted))
        on_event(Noted(f"{size(text.bytes)} of text: a vocabulary of {wanted:,} tokens (`{flag}`)"))
    model = module.train(text.words, config=config.model, vocab_size=wanted, on_event=on_event)
    tokenizer = Tokenizer.of(model, pattern=config.model.pattern)  # type: ignore[attr-defined] # of every kind
    if tokenizer.vocab_size < wanted:
        on_event(Warned(f"the text fills {tokenizer.vocab_size:,} of {wanted:,} tokens: nothing is left to learn"))
    return tokenizer


def _metadata(
    config: TokenizerConfig,
    values: artifacts.Values,
    records: tuple[FileRecord, ...],
    text: Counted,
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
    """Refuse to replace a file without metadata, unless it has the same bytes: then a kill came before the metadata."""
    if out.exists() and not place.is_file() and not force and sha256(out) != tokenizer.sha256:
        raise InputError(
            f"`{out}` exists and no `{place.name}` says how it was made", hint=f"run `{redo} --force` to replace it"
        )
