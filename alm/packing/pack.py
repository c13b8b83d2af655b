"""The stage `alm pack`: clean text in, shards of token ids out, with every token counted.

An engine encodes the text part by part (`encode`). The lengths of the documents decide the rows (`rows`). The same
engine then assembles the shards (`assemble`). Tokens that do not fill a last row are the counted tail: tokens in =
stored + tail. Nothing depends on the number of workers.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np

from alm import artifacts, engines
from alm.artifacts import FileRecord, HeldOut, PackedConversations, PackedShard, PackedSource, PackMetadata
from alm.corpus import held_out
from alm.corpus.read import CleanFile, CleanPart, find, parts_of
from alm.corpus.split import SPLITS, TRAIN, VALIDATION
from alm.engines import Engine
from alm.errors import AlmError, ArtifactError, ConfigError, InputError, shell
from alm.events import Listener, Noted, Progressed, Warned, ignore
from alm.files import Unchanged, publish, remove_folder, sha256, sweep, workspace
from alm.packing import foreign_text, imported_tokens
from alm.packing.assemble import ShardWork, assemble
from alm.packing.config import PackConfig
from alm.packing.conversations import MEANINGS, Turns, turns_for
from alm.packing.encode import Count, EncodeWork, encode
from alm.packing.rows import PlannedShard, Span, bestfit, concat, whole
from alm.packing.shards import METADATA_NAME, TOKENIZER_NAME
from alm.tokenizers.chat_format import ChatFormat
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import PADDING

Mode = Literal["concat", "bestfit", "conversations"]
_SHARD = re.compile(r"shard_\d{5,}\.(bin|idx|mask)")
_STATE_FOLDER = ".alm"
_LABEL = "packing"
_BESIDE = {".txt": ".jsonl", ".bin": ".idx"}  # document lines, and Megatron's index
_PART_BYTES = 8 << 20
_FEWEST_TOKENS = 3  # the shortest sequence and one more to predict
_WORTH_SHARING = 500_000_000  # tokens; fewer are copied in less time than workers take to start
BESTFIT_TOKENS = 100_000_000
POOLED = "conversations"  # the rows of several sources, which fill up better together
REPLAY = "replay"
_REPLAYED_BYTES = 64 << 20  # more than a fine-tuning sees; of a longer text, parts at equal distances


def pack(
    config: PackConfig,
    *,
    tokenizer: Path,
    clean: Sequence[str | Path] = (),
    replay: Sequence[str | Path] = (),
    foreign_tokens: Sequence[str | Path] = (),
    out: Path,
    force: bool = False,
    redo: str = "alm pack",
    engine: Engine | None = None,
    part_bytes: int = _PART_BYTES,
    chat: ChatFormat | None = None,
    on_event: Listener = ignore,
) -> PackMetadata:
    """Write the shards of the text in `clean`, or of `foreign_tokens`, to `out`. Keep shards that are up to date.

    `chat` is the turn format of conversations, by default that of the model beside `tokenizer`, or else ChatML. The
    text in `replay` is learned beside conversations, in rows of its own that make up the source `REPLAY`; what it holds
    out is left out.

    Parts that a killed run has encoded are not encoded again. Raises `InputError` if the training text is shorter than
    one sequence, and `ArtifactError` if `out` was made with other settings and `force` is not set.
    """
    loaded = Tokenizer.load(tokenizer)
    _check_width(config, loaded)
    files = find(clean) if clean else []
    replayed = find(replay) if replay else []
    others = imported_tokens.find([str(path) for path in foreign_tokens]) if foreign_tokens else []
    given = Unchanged(
        [*(path for file in (*files, *replayed) for path in file.paths), *imported_tokens.watched(others)]
    )
    inputs = (
        artifacts.record(tokenizer, relative_to=out, sha256=loaded.sha256),
        *(record for file in (*files, *replayed) for record in file.records(relative_to=out)),
        *imported_tokens.records(others, relative_to=out),
    )
    turns = None if others else turns_for(config, loaded, tokenizer, files, chat)
    _check_replayed(replayed, files)
    if replayed and turns is None:
        raise ConfigError(
            "`--replay` is for text beside conversations, and here all is text",
            hint="name all text with `--in`; conversations are packed with `--as conversations`",
        )
    job = PackJob(config, tokenizer, loaded, files, others, inputs, given, out, part_bytes, turns, replayed)
    values = job.config_values()
    made = _made(job, values, force=force, redo=redo)
    if made is None:
        with workspace(out, _LABEL, what=f"packing to `{out}`") as stage:
            made = _made(job, values, force=force, redo=redo)  # by the last holder of the lock
            if made is None:
                replaces = _replaceable(job, force=force)
                with _removing_parts(job), given.blamed():
                    return _make(job, stage, replaces, values, redo, engine or engines.choose("serial"), on_event)
    sweep(out, _LABEL, also=[job.parts_folder])
    _remove_if_empty(out / _STATE_FOLDER)
    on_event(Noted(f"`{out}` is up to date: {made.total_tokens:,} tokens in {len(made.shards)} shards"))
    return made


def _check_replayed(replayed: Sequence[CleanFile], files: Sequence[CleanFile]) -> None:
    """Raise `AlmError` for a file that is packed otherwise, too, and for what is not plain text."""
    given = {file.path.resolve() for file in files}
    for file in replayed:
        if file.path.resolve() in given:
            raise ConfigError(f"`{file.path}` is named by `--in` and by `--replay`", hint="leave it out of one of them")
        if file.has_messages:
            raise InputError(f"`{file.path}` holds conversations", hint="leave it out of `--replay`, and use `--in`")
        if file.shard is None and file.path.suffix != ".txt":
            raise InputError(
                f"`{file.path}` is neither clean text nor a .txt file",
                hint=f"run `{shell('alm', 'corpus', 'prepare', file.path, '--out', 'data/known')}`, and use "
                "`--replay data/known`",
            )


def _made(job: PackJob, values: artifacts.Values, *, force: bool, redo: str) -> PackMetadata | None:
    place = job.out / METADATA_NAME
    return artifacts.current(place, PackMetadata, config=values, inputs=job.inputs, force=force, redo=redo)


@contextlib.contextmanager
def _removing_parts(job: PackJob) -> Iterator[None]:
    """Keep the encoded parts if packing is interrupted; remove them when it is done or the input is at fault."""
    try:
        yield
    except AlmError as error:
        if isinstance(error, InputError) or not job.given.holds():
            _remove_parts(job.parts_folder)
        raise
    _remove_parts(job.parts_folder)


def _remove_parts(folder: Path) -> None:
    remove_folder(folder)
    _remove_if_empty(folder.parent)


def _remove_if_empty(folder: Path) -> None:
    for _ in range(2):  # one error need not last
        with contextlib.suppress(OSError):  # not empty, or it does not exist
            folder.rmdir()


@dataclass(frozen=True)
class PackJob:
    """Inputs and settings of one packing."""

    config: PackConfig
    tokenizer_path: Path
    tokenizer: Tokenizer
    files: Sequence[CleanFile]
    foreign: Sequence[Path]
    inputs: Sequence[FileRecord]
    given: Unchanged
    out: Path
    part_bytes: int
    turns: Turns | None
    replayed: Sequence[CleanFile] = ()

    def config_values(self) -> artifacts.Values:
        """Return the settings that decide the output, those of conversations only where there are such."""
        values = self.config.model_dump(mode="json", exclude={"documents", "train_on"})
        if self.turns is not None:
            values |= self.turns.model_dump(mode="json", exclude={"seq_len"})
        if self.replayed:
            values["replay"] = [artifacts.relative(file.path, self.out) for file in self.replayed]
        return values

    @cached_property
    def pool(self) -> str | None:
        """The name under which the conversations of all sources share rows; None if each source has its own."""
        names = {file.source for file in self.files}
        is_one = len(names) == 1 and not self.replayed and names != {REPLAY}
        return None if self.turns is None else names.pop() if is_one else POOLED

    def source_of(self, work: EncodeWork) -> str:
        """Return the source whose rows a part is in."""
        return REPLAY if work.is_replayed else self.pool or work.source

    @property
    def parts_folder(self) -> Path:
        """Folder of the encoded parts."""
        return self.out / _STATE_FOLDER / "parts"

    def works(self) -> Iterator[EncodeWork]:
        """Yield the parts in order. Later files are cut while earlier ones are being encoded."""
        of_file = {record.path: record.sha256 for record in self.inputs}
        size = sum(file.path.stat().st_size for file in (*self.files, *self.replayed))
        own = (part for file in self.files for part in parts_of(file, part_bytes=self.part_bytes))
        others = imported_tokens.parts(
            list(self.foreign),
            end_of_text_id=self.tokenizer.end_of_text_id,
            vocab_size=self.tokenizer.vocab_size,
            dtype=self.config.from_dtype,
        )
        parts: Iterator[CleanPart | imported_tokens.Part] = chain(own, others, self._replayed_parts())
        hold_out = foreign_text.choose(self.files, self.config.validation_fraction)
        for number, part in enumerate(parts):
            path = part.path if isinstance(part, imported_tokens.Part) else part.file.path
            beside = [path.with_suffix(_BESIDE[path.suffix])] if path.suffix in _BESIDE else []
            names = [artifacts.relative(each, self.out) for each in (path, *beside)]
            yield EncodeWork(
                number,
                part,
                " ".join(of_file[name] for name in names if name in of_file),
                self.tokenizer_path,
                self.tokenizer.sha256,
                self.tokenizer.begin_of_text_id,
                self.config.validation_fraction,
                hold_out,
                self.config.dtype,
                self.parts_folder,
                size,
                self.given.part(
                    imported_tokens.watched([path]) if isinstance(part, imported_tokens.Part) else part.file.paths
                ),
                self.turns,
                isinstance(part, CleanPart) and part.file in self.replayed,
            )

    def _replayed_parts(self) -> Iterator[CleanPart]:
        parts = [part for file in self.replayed for part in parts_of(file, part_bytes=self.part_bytes)]
        size = sum(file.path.stat().st_size for file in self.replayed)
        return iter(parts[:: max(1, round(size / _REPLAYED_BYTES))])


@dataclass(frozen=True)
class _Part:
    """An encoded part."""

    work: EncodeWork
    counts: dict[str, Count]
    left_out: dict[str, str]
    source: str  # whose rows it is in


def _make(
    job: PackJob,
    stage: Path,
    replaces: list[str],
    values: artifacts.Values,
    redo: str,
    engine: Engine,
    on_event: Listener,
) -> PackMetadata:
    parts = _encode_all(job, engine, on_event)
    tokens = sum(part.counts[TRAIN].tokens for part in parts)
    mode: Mode = "conversations" if job.turns is not None else "concat" if tokens <= BESTFIT_TOKENS else "bestfit"
    if mode == "conversations":
        _check_conversations(job, parts, on_event)
    else:
        _check_length(job.config, tokens)
        mode = mode if job.config.mode == "auto" else job.config.mode
    shards = _assemble_all(job, parts, mode, stage, engine, on_event)
    job.given.check()  # parts are byte ranges, which mean other text if a file has changed
    job.tokenizer.save(stage / TOKENIZER_NAME)
    metadata = _metadata(job, parts, shards, mode, values, redo)
    _warn_without_validation(metadata, on_event)
    artifacts.write(stage / METADATA_NAME, metadata)
    # The metadata is moved last, because it promises that all other files are complete.
    publish(stage, job.out, last=METADATA_NAME, replaces=replaces)
    return metadata


def _replaceable(job: PackJob, *, force: bool) -> list[str]:
    """Return the names of the packed files to replace. Without `force`, raise `ArtifactError` for other shard files."""
    promised: list[str] = []
    with contextlib.suppress(AlmError):
        hint = "run `alm pack --force`"
        promised = [file.path for file in artifacts.read(job.out / METADATA_NAME, PackMetadata, hint=hint).payload()]
    tokenizer = job.out / TOKENIZER_NAME
    found = [path for path in job.out.glob("shard_*") if path.is_file() and _SHARD.fullmatch(path.name)]
    if tokenizer.is_file() and sha256(tokenizer) != job.tokenizer.sha256:
        found.append(tokenizer)
    unknown = [path for path in found if path.name not in promised]
    if unknown and not force:
        raise ArtifactError(
            f"`{unknown[0]}` exists, and no `{METADATA_NAME}` says that packing wrote it",
            hint=f"add `{shell('--out', f'{job.out}-2')}`, or `--force` to replace it",
        )
    return sorted({*promised, *(path.name for path in found)})


def _check_width(config: PackConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size > np.iinfo(config.dtype).max + 1:
        raise ConfigError(
            f"a vocabulary of {tokenizer.vocab_size:,} does not fit in {config.dtype}",
            hint="pack with `--dtype uint32`",
        )


def _check_length(config: PackConfig, tokens: int) -> None:
    if tokens < _FEWEST_TOKENS:
        raise InputError(
            f"the training text has {tokens:,} tokens: there is nothing to pack",
            hint="check what is held out with `alm info`, or prepare more text",
        )
    if tokens < config.seq_len + 1:
        raise InputError(
            f"the training text has {tokens:,} tokens, one sequence of {config.seq_len:,} needs {config.seq_len + 1:,}",
            hint=f"pack with `--seq-len {max(2, tokens // 2)}` or less, or prepare more text",
        )


def _check_conversations(job: PackJob, parts: Sequence[_Part], on_event: Listener) -> None:
    """Report conversations that were left out or shortened. Raise `InputError` if none is left to train on."""
    total = sum((count for part in parts for count in part.counts.values()), Count())
    said = [
        f"{number:,} {reason} ({MEANINGS[reason]}; first `{first}`)"
        for reason in MEANINGS
        if (number := getattr(total, reason))
        for first in [next(part.left_out[reason] for part in parts if reason in part.left_out)]
    ]
    longer = f"give rows more tokens: `{shell('--seq-len', f'{2 * job.config.seq_len}')}`" if total.too_long else None
    if not any(part.counts[TRAIN].documents for part in parts if not part.work.is_replayed):
        why = f": left out are {', '.join(said)}" if said else ""
        raise InputError(
            f"there is no conversation to train on{why}", hint=longer or "prepare conversations with answers"
        )
    if said:
        on_event(Warned(f"conversations are left out: {', '.join(said)}", longer))
    if total.shortened:
        what = "1 conversation that is" if total.shortened == 1 else f"{total.shortened:,} conversations that are"
        on_event(Noted(f"{what} longer than a row lost {total.dropped_turns:,} messages"))


def _warn_without_validation(metadata: PackMetadata, on_event: Listener) -> None:
    held = sum(splits[VALIDATION].tokens for splits in metadata.sources.values())
    is_asked_for = held == 0 and metadata.config.get("validation_fraction") == 0
    if metadata.sequences(VALIDATION) == 0 and metadata.conversations is not None:
        on_event(Warned("no conversation is held out: training will not be validated", "prepare more conversations"))
    elif metadata.sequences(VALIDATION) == 0 and not is_asked_for:
        on_event(
            Warned(
                f"{held:,} tokens are held out, fewer than one sequence: training will not be validated",
                "raise `validation_fraction` in the corpus (for other text: `--val-fraction`), or lower `--seq-len`",
            )
        )


def _encode_all(job: PackJob, engine: Engine, on_event: Listener) -> list[_Part]:
    found: dict[int, _Part] = {}
    begun: list[EncodeWork] = []
    documents = 0

    def pending() -> Iterator[EncodeWork]:
        for work in job.works():
            if (marker := work.finished()) is not None:
                found[work.number] = _Part(work, marker.counts, marker.left_out, job.source_of(work))
            else:
                begun.append(work)
                yield work

    for index, marker in engine.map(encode, pending(), on_event=on_event):
        work = begun[index]
        found[work.number] = _Part(work, marker.counts, marker.left_out, job.source_of(work))
        documents += sum(count.documents for count in marker.counts.values())
        on_event(Progressed("packing", documents, None, "documents"))
    return [found[number] for number in sorted(found)]


def _assemble_all(
    job: PackJob, parts: Sequence[_Part], mode: Mode, stage: Path, engine: Engine, on_event: Listener
) -> list[PackedShard]:
    planned = ((split, shard) for split in SPLITS for shard in _planned(job.config, parts, mode, split))
    pad_id = job.tokenizer.specials.get(PADDING, job.tokenizer.end_of_text_id)
    works = (
        ShardWork(
            number, split, shard, job.parts_folder, stage, job.config.dtype, pad_id, is_masked=job.turns is not None
        )
        for number, (split, shard) in enumerate(planned)
    )
    if sum(count.tokens for part in parts for count in part.counts.values()) < _WORTH_SHARING:
        engine = engines.choose("serial")
    found = dict(engine.map(assemble, works, on_event=on_event))
    return [found[number] for number in sorted(found)]


def _planned(config: PackConfig, parts: Sequence[_Part], mode: Mode, split: str) -> Iterator[PlannedShard]:
    if mode == "concat" or (mode == "bestfit" and split == VALIDATION):
        # Both modes validate on the same rows, so that scores are comparable.
        spans = [Span(part.work.number, part.source, part.counts[split].tokens) for part in parts]
        yield from concat(spans, seq_len=config.seq_len, sequences_per_shard=config.sequences_per_shard)
        return
    plan = whole if mode == "conversations" else bestfit
    for source in dict.fromkeys(part.source for part in parts):
        yield from plan(
            _documents([part.work for part in parts if part.source == source], split),
            source=source,
            seq_len=config.seq_len,
            sequences_per_shard=config.sequences_per_shard,
        )


def _documents(works: Sequence[EncodeWork], split: str) -> Iterator[tuple[int, int, int]]:
    for work in works:
        start = 0
        for end in work.encoded.ends(split).tolist():
            yield work.number, start, end - start
            start = end


def _metadata(
    job: PackJob, parts: Sequence[_Part], shards: Sequence[PackedShard], mode: Mode, values: artifacts.Values, redo: str
) -> PackMetadata:
    sources = {
        name: {split: _packed_source(parts, shards, name, split) for split in SPLITS}
        for name in sorted({part.source for part in parts})
    }
    input_tokens = sum(c.tokens for splits in sources.values() for c in splits.values())
    tail_tokens = sum(c.tail_tokens for splits in sources.values() for c in splits.values())
    total_tokens = sum(shard.tokens for shard in shards)
    padding_tokens = sum(shard.padding for shard in shards)
    assert input_tokens == total_tokens - padding_tokens + tail_tokens, (input_tokens, total_tokens, tail_tokens)
    conversations = None if job.turns is None else _conversations(job.turns, parts)
    targets = {
        split: sum(s.sequences * job.config.seq_len - s.padding for s in shards if s.split == split) for split in SPLITS
    }
    return PackMetadata(
        format_version=1 if conversations is None else PackMetadata.newest_version,
        command=redo,
        config=values,
        inputs=tuple(job.inputs),
        seq_len=job.config.seq_len,
        sequences_per_shard=job.config.sequences_per_shard,
        dtype=job.config.dtype,
        vocab_size=job.tokenizer.vocab_size,
        mode=mode,
        end_of_text_id=job.tokenizer.end_of_text_id,
        tokenizer_sha256=job.tokenizer.sha256,
        tokenizer_file=TOKENIZER_NAME,
        sources=sources,
        shards=tuple(shards),
        input_tokens=input_tokens,
        total_tokens=total_tokens,
        tail_tokens=tail_tokens,
        held_out=_held_out(job, parts),
        padding_tokens=padding_tokens,
        target_tokens=targets if conversations is None else conversations.trained_tokens,
        conversations=conversations,
    )


def _conversations(turns: Turns, parts: Sequence[_Part]) -> PackedConversations:
    counts = {split: sum((part.counts[split] for part in parts), Count()) for split in SPLITS}
    total = sum(counts.values(), Count())
    return PackedConversations(
        chat=turns.chat.model_dump(mode="json"),
        train_on=turns.train_on,
        conversations={
            split: sum(part.counts[split].documents for part in parts if not part.work.is_replayed) for split in SPLITS
        },
        trained_tokens={split: count.trained for split, count in counts.items()},
        replayed_tokens=sum(part.counts[TRAIN].trained for part in parts if part.work.is_replayed),
        shortened=total.shortened,
        dropped_turns=total.dropped_turns,
        dropped={reason: number for reason in MEANINGS if (number := getattr(total, reason))},
    )


def _held_out(job: PackJob, parts: Sequence[_Part]) -> HeldOut | None:
    """Return what the held-out text consists of, None if it is unknown: of some shards of a source that was cut."""
    found = []
    parts = [part for part in parts if not part.work.is_replayed]
    for name in dict.fromkeys(part.work.source for part in parts):
        count = sum((part.counts[VALIDATION] for part in parts if part.work.source == name), Count())
        whole = HeldOut(
            documents=count.documents - count.pieces,
            pieces=count.pieces,
            cut_documents=count.cut_documents,
            bytes=count.bytes,
        )
        given = next((file.held_out for file in job.files if file.source == name and file.shard is not None), whole)
        if given is None or (given.pieces and given.documents + given.pieces != count.documents):
            return None
        found.append(given if given.pieces else whole)
    return held_out.total(found)


def _packed_source(parts: Sequence[_Part], shards: Sequence[PackedShard], name: str, split: str) -> PackedSource:
    count = sum((part.counts[split] for part in parts if part.source == name), Count())
    stored = sum(shard.tokens - shard.padding for shard in shards if (shard.source, shard.split) == (name, split))
    return PackedSource(
        documents=count.documents,
        bytes=count.bytes,
        tokens=count.tokens,
        stored_tokens=stored,
        tail_tokens=count.tokens - stored,
    )
