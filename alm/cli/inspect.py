"""Inspection for `alm info`: the kind of an artifact, facts from its metadata, and faults in its files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm import artifacts
from alm.artifacts import (
    ExportMetadata,
    FileRecord,
    ImportMetadata,
    PackMetadata,
    QuantizedMetadata,
    RunMetadata,
    SourceMetadata,
    TokenizerMetadata,
)
from alm.checkpoint.choose import choose
from alm.checkpoint.format import LINK_NAMES, QUANTIZED_NAME, numbered
from alm.checkpoint.load import verify
from alm.cli import ui
from alm.cli.event_lines import result_score
from alm.config.commands import Stage, command_of
from alm.corpus.held_out import in_words
from alm.corpus.read import has_shards, prepare_again
from alm.errors import AlmError, ArtifactError, InputError, absent_hint, quoted, shell
from alm.files import read_json, readable
from alm.packing.shards import pack_command
from alm.tokenizers.file import metadata_path

Rows = list[tuple[str, str]]
_HEAD_BYTES = 4096
# Metadata of alm begins with its format; parsing all of it only for that would take as long as reading it.
_BEGINS = re.compile(rb'\s*\{\s*"format"\s*:\s*"([^"\\]*)"')


@dataclass(frozen=True)
class Found:
    """An artifact: facts to show, faults in its files, and the command that makes it again."""

    what: str
    rows: Rows
    faults: list[str]
    fix: str
    metadata: list[Any]  # Any: JSON

    def values(self) -> dict[str, Any]:  # Any: JSON
        """The fields as JSON values."""
        return {"what": self.what, "metadata": self.metadata, "faults": self.faults, "whole": not self.faults}


def inspect(path: Path) -> Found:
    """Inspect the artifact at `path`; `ArtifactError` if it is not one."""
    if not path.exists():
        raise ArtifactError(f"`{path}` does not exist", hint=absent_hint(path))
    for applies, look in _LOOKS:
        if applies(path):
            return look(path)
    raise ArtifactError(
        f"`{path}` is not an artifact of alm",
        hint="name a clean corpus, a tokenizer, packed data, a run, a checkpoint, a quantized model or an export",
    )


def _clean(path: Path) -> Found:
    folder = path if path.is_dir() else path.parent
    names = sorted(folder.glob("*.json")) if path.is_dir() else [path]
    rows: Rows = []
    faults: list[str] = []
    seen: list[SourceMetadata] = []
    fix = ""
    for name in names:
        if not has_shards(name):
            continue
        metadata = artifacts.read(name, SourceMetadata, hint=f"run `{prepare_again(name)} --force`")
        documents, size = metadata.documents, metadata.bytes
        rows.append((metadata.source, f"{metadata.kind}, {len(metadata.shards)} shards, {_origin(metadata)}"))
        rows.append(("", f"documents {documents.input:,} in = {documents.kept:,} kept + {_sum(documents.dropped)}"))
        rows.append(("", f"bytes {size.input:,} in = {size.kept:,} kept + {_sum(size.dropped)}"))
        rows.append(("", f"bytes {size.output:,} out = {size.kept:,} kept + {_sum(size.changed)}"))
        if metadata.conversations:
            rows.append(("", f"conversations: {metadata.conversations:,}, with roles"))
        known = metadata.held_out
        rows.append(("", f"held out: {in_words(known) if known else f'{metadata.validation_documents:,} documents'}"))
        seen.append(metadata)
        found = artifacts.damaged(folder, metadata.payload())
        if found and not faults:
            fix = f"run `{prepare_again(name, metadata)} --force`"
        faults += found
    return Found("clean corpus", rows, faults, fix, [metadata.model_dump(mode="json") for metadata in seen])


def _origin(metadata: SourceMetadata) -> str:
    known = [f"revision {metadata.revision}"] if metadata.revision else []
    return ", ".join([*known, f"licence {metadata.licence or 'not stated'}"])


def _sum(parts: dict[str, int]) -> str:
    listed = ", ".join(f"{name} {number:,}" for name, number in parts.items())
    return f"{sum(parts.values()):,}" + (f" ({listed})" if listed else "")


def _tokenizer(path: Path) -> Found:
    stage = ("alm", "tokenizer", "train")
    again = shell(*stage, "--out", path)
    metadata = artifacts.read(metadata_path(path), TokenizerMetadata, hint=f"run `{again} --force`")
    rows = [
        ("kind", metadata.kind),
        ("tokens", f"{metadata.vocab_size:,}" + (f", {metadata.merges:,} of them merges" if metadata.merges else "")),
        ("trained on", f"{metadata.documents:,} documents, {ui.size(metadata.bytes)}"),
        ("sha256", metadata.file.sha256),
    ]
    return _made("tokenizer", rows, metadata, path.parent, stage=stage, out=path, otherwise=again)


def _packed(path: Path) -> Found:
    metadata = artifacts.read(path / "metadata.json", PackMetadata, hint=f"run `{pack_command(path)} --force`")
    stored = metadata.total_tokens - metadata.padding_tokens
    rows = [
        ("tokens", f"{metadata.input_tokens:,} in = {stored:,} stored + {metadata.tail_tokens:,} tail"),
        *([("padding", f"{metadata.padding_tokens:,} tokens")] if metadata.padding_tokens else []),
        *((f"{split} epoch", f"{count:,} tokens predicted") for split, count in metadata.target_tokens.items()),
        ("rows", f"{metadata.seq_len:,} tokens each, {metadata.mode}, {metadata.dtype}"),
        (
            "vocabulary",
            f"{metadata.vocab_size:,} tokens, tokenizer {metadata.tokenizer_sha256[: artifacts.SHORT_HASH]}",
        ),
    ]
    for source, splits in metadata.sources.items():
        for split, c in splits.items():
            per_token = f"{c.bytes / c.tokens:.2f} bytes/token" if c.tokens else "empty"
            counts = f"{c.documents:,} documents, {c.tokens:,} tokens, {per_token}"
            rows.append((f"{source} {split}", f"{counts}, tail {c.tail_tokens:,}"))
    if (chats := metadata.conversations) is not None:
        left_out = "".join(f", {number:,} left out: {reason}" for reason, number in chats.dropped.items())
        rows.append(
            ("conversations", f"{sum(chats.conversations.values()):,} in turns of {chats.chat['form']}{left_out}")
        )
        if chats.shortened:
            rows.append(("shortened", f"{chats.shortened:,} conversations, by {chats.dropped_turns:,} messages"))
    if metadata.held_out is not None:
        rows.append(("held out", in_words(metadata.held_out)))
    rows.append(("shards", f"{len(metadata.shards)}"))
    again = pack_command(path)
    return _made("packed data", rows, metadata, path, stage=("alm", "pack"), out=path, otherwise=again)


def _run(path: Path) -> Found:
    metadata = artifacts.read(path / "run.json", RunMetadata, hint=f"run `alm pretrain --out {quoted(path)}`")
    rows = [
        ("parameters", f"{metadata.parameters:,}"),
        ("data", f"{metadata.data}, {metadata.data_sha256[: artifacts.SHORT_HASH]}"),
        ("tokenizer", metadata.tokenizer_sha256[: artifacts.SHORT_HASH]),
        *((key, value) for key, value in metadata.environment.items()),
    ]
    if metadata.initial_weights is not None:
        initial = metadata.initial_weights
        rows.append(("started from", f"{initial.path}, {initial.sha256[: artifacts.SHORT_HASH]}"))
    if metadata.result is not None:
        rows.append(("finished", f"{metadata.result.step:,} steps, {metadata.result.training_tokens:,} tokens"))
        if metadata.result.bits_per_byte is not None:
            rows.append(("held-out text", result_score(metadata.result)))
        if metadata.result.stopped is not None:
            rows.append(("stopped", metadata.result.stopped))
    choice = choose(path)
    if choice is not None and not choice.is_last:
        rows.append(("used", f"{choice.path.name}: {choice.describe()}"))
    checkpoints = numbered(path)
    rows.append(("checkpoints", ", ".join(checkpoint.name for checkpoint in checkpoints) or "none"))
    faults = artifacts.damaged(path, metadata.payload())
    links = [path / name for name in LINK_NAMES if (path / name).is_file()]
    for checkpoint in [*checkpoints, *links]:
        faults += _faults_of(checkpoint)
    fix = f"run `alm pretrain --resume auto --out {quoted(path)}`: it uses the newest complete checkpoint"
    return Found("run", rows, faults, fix, [metadata.model_dump(mode="json")])


def _faults_of(checkpoint: Path) -> list[str]:
    try:
        verify(checkpoint)
    except ArtifactError as error:
        if isinstance(error.__cause__, InputError):  # it cannot be read, which is no fault
            raise
        return [error.message]
    return []


def _checkpoint(path: Path) -> Found:
    from alm.checkpoint.load import load_checkpoint

    found = verify(path)
    loaded = load_checkpoint(path, step=found.step, with_optimizer=False)
    rows = [
        ("step", f"{loaded.step:,}"),
        ("sequences seen", f"{loaded.samples_seen:,}"),
        ("parameters", f"{sum(tensor.numel() for tensor in loaded.model.values()):,}"),
        ("sha256", found.sha256),
        ("tokenizer", loaded.tokenizer_sha256[: artifacts.SHORT_HASH]),
        ("data", loaded.data_sha256[: artifacts.SHORT_HASH]),
        *loaded.environment.items(),
    ]
    facts = {"step": loaded.step, "samples_seen": loaded.samples_seen, "sha256": found.sha256}
    facts |= {"config": loaded.config, "environment": loaded.environment}
    return Found("checkpoint", rows, [], "", [facts])


def _export(path: Path) -> Found:
    from alm.export.run import METADATA_NAME
    from alm.export.staging import line

    metadata = artifacts.read(
        path / METADATA_NAME, ExportMetadata, hint=f"run `{shell('alm', 'export', '--out', path)} --force`"
    )
    rows = [
        ("form", metadata.to),
        ("parameters", f"{metadata.parameters:,}"),
        ("step", f"{metadata.step:,}"),
        ("tokenizer", metadata.tokenizer_sha256[: artifacts.SHORT_HASH]),
        *(("compared", line(comparison)) for comparison in metadata.comparisons or ()),
    ]
    checkpoint = [path / file.path for file in metadata.inputs if file.path.endswith(".pt")][:1]
    read = [word for found in checkpoint for word in ("--checkpoint", str(found))]
    again = shell("alm", "export", *read, "--to", metadata.to, "--out", path)
    return _made("export", rows, metadata, path, stage=("alm", "export"), out=path, otherwise=again)


def _import(path: Path) -> Found:
    from alm.export.importing import METADATA_NAME
    from alm.export.staging import line

    metadata = artifacts.read(
        path / METADATA_NAME, ImportMetadata, hint=f"run `{shell('alm', 'import', 'MODEL', '--out', path)} --force`"
    )
    rows = [
        ("form", f"{metadata.kind}, {metadata.architecture} in {metadata.dtype}"),
        *(("from", f"{at.name} at {at.sha}, licence {at.licence or 'unknown'}") for at in [metadata.repository] if at),
        ("parameters", f"{metadata.parameters:,}"),
        ("tokenizer", metadata.tokenizer_sha256[: artifacts.SHORT_HASH]),
        *(("compared", line(comparison)) for comparison in metadata.comparisons or ()),
    ]
    # Joined as text, so that it never begins with a dash, which would make it an option.
    names, kind = [file.path for file in metadata.inputs], []
    if metadata.kind == "gguf":
        kind = ["--from", "gguf"]
    else:
        names = [os.path.dirname(name) for name in names if Path(name).name == "config.json"]  # noqa: PTH120
    found = [os.path.join(path, name) for name in names]  # noqa: PTH118
    again = shell("alm", "import", *kind, *(found or ["MODEL"])[:1], "--out", path)
    return _made("imported model", rows, metadata, path, stage=("alm", "import"), out=path, otherwise=again)


def _quantized(path: Path) -> Found:
    from alm.export.quantizing import lines
    from alm.quant.file import METADATA_NAME, read

    folder = path if path.is_dir() else path.parent
    if not (folder / METADATA_NAME).is_file():  # a copy of the weights alone
        block = read(folder / QUANTIZED_NAME).block
        facts = [
            ("type", block.to),
            ("step", f"{block.step:,}"),
            ("tokenizer", block.tokenizer_sha256[: artifacts.SHORT_HASH]),
        ]
        rows = [*facts, ("made from", f"a checkpoint  {block.source_sha256[: artifacts.SHORT_HASH]}")]
        return Found("quantized model", rows, [], "", [block.model_dump(mode="json")])
    again = shell("alm", "quantize", "RUN", "--out", folder)
    metadata = artifacts.read(folder / METADATA_NAME, QuantizedMetadata, hint=f"run `{again} --force`")
    rows = [
        ("weights", lines(metadata)[0]),
        ("parameters", f"{metadata.parameters:,}"),
        ("step", f"{metadata.step:,}"),
        ("tokenizer", metadata.tokenizer_sha256[: artifacts.SHORT_HASH]),
        *(("cost", line) for line in lines(metadata)[1:]),
    ]
    return _made("quantized model", rows, metadata, folder, stage=("alm", "quantize"), out=folder, otherwise=again)


def _made(
    what: str, rows: Rows, metadata: Any, folder: Path, *, stage: Stage, out: Path, otherwise: str
) -> Found:  # Any: metadata that records its inputs
    """An artifact whose metadata says what it was made from, and with which command."""
    fix = f"run `{command_of(metadata.command, stage=stage, out=out, otherwise=otherwise)} --force`"
    faults = artifacts.damaged(folder, metadata.payload())
    return Found(what, [*rows, *_inputs(metadata.inputs)], faults, fix, [metadata.model_dump(mode="json")])


def _inputs(inputs: tuple[FileRecord, ...]) -> Rows:
    shown = [("made from", f"{file.path}  {file.sha256[: artifacts.SHORT_HASH]}") for file in inputs[:5]]
    return [*shown, ("", f"and {len(inputs) - 5} more files")] if len(inputs) > 5 else shown


def _is_clean_metadata(path: Path) -> bool:
    return path.suffix == ".json" and has_shards(path)


def _is_quantized(path: Path) -> bool:
    return path.name == QUANTIZED_NAME or (path / QUANTIZED_NAME).is_file()


def _is(path: Path, artifact: str) -> bool:
    """Whether the file is metadata of format `artifact`. Its name is not enough: a source may be named `run`."""
    if not path.is_file():
        return False
    try:
        with readable(path), path.open("rb") as file:
            begins = _BEGINS.match(file.read(_HEAD_BYTES))
        if begins:
            return begins[1] == artifact.encode()
        found = read_json(path)
    except AlmError:
        return True  # damaged: reading it as metadata reports that
    return not isinstance(found, dict) or found.get("format") == artifact


_LOOKS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Found]], ...] = (
    (lambda path: path.suffix == ".pt", _checkpoint),
    (lambda path: _is(path / "run.json", "alm-run"), _run),
    (lambda path: _is(path / "metadata.json", "alm-packed"), _packed),
    (lambda path: _is(path / "export.json", "alm-export"), _export),
    (lambda path: _is(path / "import.json", "alm-import"), _import),
    (lambda path: _is(path / "quantized.json", "alm-quantized-model") or _is_quantized(path), _quantized),
    (lambda path: path.is_dir() and any(_is_clean_metadata(p) for p in path.glob("*.json")), _clean),
    (_is_clean_metadata, _clean),
    (lambda path: path.is_file() and metadata_path(path).is_file(), _tokenizer),
)
