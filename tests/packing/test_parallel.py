"""Packing in parts: the same bytes whatever the parts, the workers and the kills."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path

import forked
import numpy as np
import pytest
from builders import copy_of, texts, write_clean, write_tokenizer

from alm import artifacts, engines
from alm.artifacts import PackMetadata
from alm.corpus.read import find, parts_of, read_documents, read_part
from alm.errors import ArtifactError
from alm.events import Listener
from alm.packing import pack as pack_module
from alm.packing.config import PackConfig
from alm.packing.encode import EncodeWork, Marker, encode
from alm.packing.pack import pack
from alm.packing.shards import TRAIN, open_packed
from alm.tokenizers.file import Tokenizer

MARK = "<|endoftext|>"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def corpus(root: Path) -> tuple[Path, Path]:
    """A corpus of two sources with foreign text beside it, and a tokenizer."""
    copy_of(make_corpus, root)
    return root / "clean", root / "tokenizer.json"


def make_corpus(root: Path) -> None:
    clean = write_clean(root / "clean", texts(120), source="b", validation_fraction=0.2)
    write_clean(clean, texts(80, seed=4), source="a", validation_fraction=0.2)
    (clean / "foreign.txt").write_text(f"\n{MARK}\n".join(texts(30, seed=5)), encoding="utf-8")
    (clean / "plain.txt").write_text("one document\n\nwithout marks\n", encoding="utf-8")
    (clean / "packed.txt.gz").write_bytes(gzip.compress(f"x\n{MARK}\ny\n{MARK}\n".encode()))
    write_tokenizer(root / "tokenizer.json", clean)


def test_parts_hold_every_document_once(tmp_path: Path) -> None:
    files = find([corpus(tmp_path)[0]])
    every = list(read_documents(files))
    for size in (1, 100, 1000, 1 << 30):
        parts = [part for file in files for part in parts_of(file, part_bytes=size)]
        assert [document for part in parts for document in read_part(part)] == every, size


def test_parts_of_hard_texts_hold_every_document_once(tmp_path: Path) -> None:
    pieces = ["a", "\n", f"\n{MARK}\n", f"{MARK}\n", f"\\{MARK}\n", MARK, "é" * 50]
    path = tmp_path / "t.txt"
    for seed in range(30):
        draw = random.Random(seed)
        path.write_text("".join(draw.choices(pieces, k=draw.randrange(0, 30))), encoding="utf-8", newline="")
        files = find([path])
        every = list(read_documents(files))
        for size in (1, 7, 40):
            parts = list(parts_of(files[0], part_bytes=size))
            assert [document for part in parts for document in read_part(part)] == every, (seed, size)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("mode", ["concat", "bestfit"])
def test_neither_parts_nor_workers_change_a_byte(tmp_path: Path, mode: str) -> None:
    clean, tokenizer = corpus(tmp_path)
    config = PackConfig.model_validate({"seq_len": 16, "sequences_per_shard": 7, "mode": mode})
    packed = []
    ways = [("whole", 1 << 30, 1), ("parts", 500, 1), ("two", 2000, 2)]
    # Workers encode, and the mode decides what is done with the ids later: two processes are enough once.
    for name, part_bytes, workers in ways if mode == "bestfit" else ways[:2]:
        out = tmp_path / name
        engine = engines.choose(workers=workers)
        pack(config, tokenizer=tokenizer, clean=[clean], out=out, engine=engine, part_bytes=part_bytes)
        packed.append(files_in(out))
    assert all(files == packed[0] for files in packed)


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, tokenizer = corpus(tmp_path)
    config = PackConfig(seq_len=16)
    pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "whole", part_bytes=500)
    numbers: list[int] = []

    def stopping(job: EncodeWork, tell: Listener) -> Marker:
        if len(numbers) == 5:
            raise KeyboardInterrupt
        numbers.append(job.number)
        return encode(job, tell)

    def counting(job: EncodeWork, tell: Listener) -> Marker:
        numbers.append(job.number)
        return encode(job, tell)

    monkeypatch.setattr(pack_module, "encode", stopping)
    with pytest.raises(KeyboardInterrupt):
        pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "out", part_bytes=500)
    # A part whose ids are not whole is encoded again.
    next((tmp_path / "out" / ".alm" / "parts").glob("000003.train.ids")).write_bytes(b"")
    monkeypatch.setattr(pack_module, "encode", counting)
    pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "out", part_bytes=500)
    assert len(numbers) - 1 == len(set(numbers))
    assert numbers.count(3) == 2
    assert files_in(tmp_path / "out") == files_in(tmp_path / "whole")
    assert not (tmp_path / "out" / ".alm").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    given, out = corpus(tmp_path), tmp_path / "out"
    seconds = [forked.killed_after(None, forked.pack_corpus, *given, tmp_path / f"whole{n}", n) for n in (1, 2)]
    draw = random.Random(2)
    for attempt in range(5):
        which = attempt % 2
        after = seconds[which] * draw.uniform(0.2, 1.1)
        forked.killed_after(after, forked.pack_corpus, *given, out, 1 + which)
    forked.killed_after(None, forked.pack_corpus, *given, out, 1)
    assert files_in(out) == files_in(tmp_path / "whole1") == files_in(tmp_path / "whole2")


def test_a_shard_that_was_edited_is_told(tmp_path: Path) -> None:
    clean, tokenizer = corpus(tmp_path)
    shard = clean / "a-00000.txt"
    shard.write_bytes(shard.read_bytes().replace(b"fox", b"dog", 1))
    with pytest.raises(ArtifactError, match="has changed since it was written"):
        pack(PackConfig(seq_len=16), tokenizer=tokenizer, clean=[clean], out=tmp_path / "out")
    lines = clean / "b-00000.jsonl"
    lines.write_bytes(lines.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="has changed since it was written"):
        pack(PackConfig(seq_len=16), tokenizer=tokenizer, clean=[clean / "b-00000.txt"], out=tmp_path / "out")


def test_a_flipped_byte_in_any_shard_is_found_and_named(tmp_path: Path) -> None:
    clean, tokenizer = corpus(tmp_path)
    config = PackConfig(seq_len=16, sequences_per_shard=20)
    metadata = pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "out")
    for promised in metadata.payload():
        path = tmp_path / "out" / promised.path
        data = bytearray(path.read_bytes())
        if not data:
            continue
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert artifacts.damaged(tmp_path / "out", metadata.payload()) == [f"`{path}` has changed since it was written"]
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


def fitted(root: Path) -> tuple[Path, PackMetadata]:
    clean, tokenizer = corpus(root)
    config = PackConfig(seq_len=32, sequences_per_shard=9, mode="bestfit")
    return clean, pack(config, tokenizer=tokenizer, clean=[clean], out=root / "packed")


def test_fitted_rows_hold_every_token_once_and_are_counted(tmp_path: Path) -> None:
    clean, metadata = fitted(tmp_path)
    packed = open_packed(tmp_path / "packed")
    tokenizer = Tokenizer.load(packed.tokenizer_path)
    stream = packed.split(TRAIN)
    rows = stream.rows(np.arange(stream.sequences))
    kept = [row[: 33 - stream.padding.get(number, 0)].tolist() for number, row in enumerate(rows)]
    wanted: dict[str, list[int]] = {}
    for document in read_documents(find([clean])):
        if document.split == TRAIN:
            wanted.setdefault(document.source, []).extend([*tokenizer.encode(document.text), 0])
    for source in ("a", "b"):
        own = stream.sources[source]
        assert sorted(token for row in kept[own.start : own.stop] for token in row) == sorted(wanted[source])
    assert metadata.mode == "bestfit"
    assert metadata.input_tokens == metadata.total_tokens - metadata.padding_tokens + metadata.tail_tokens
    assert metadata.target_tokens[TRAIN] == sum(len(row) - 1 for row in kept)
    assert all(counts[TRAIN].tail_tokens == 0 for counts in metadata.sources.values())


@pytest.mark.slow
def test_document_starts_are_known_in_either_mode(tmp_path: Path) -> None:
    clean, tokenizer = corpus(tmp_path)
    for mode in ("concat", "bestfit"):
        config = PackConfig.model_validate({"seq_len": 24, "sequences_per_shard": 5, "mode": mode})
        pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / mode)
        stream = open_packed(tmp_path / mode).split(TRAIN)
        for row in range(stream.sequences):
            ids = stream.rows(np.array([row]))[0]
            length = len(ids) - stream.padding.get(row, 0)
            after_ends = {at + 1 for at in np.flatnonzero(ids[: length - 1] == 0).tolist()}
            assert set(stream.starts(row).tolist()) - {0} == after_ends


def test_another_split_of_the_same_text_is_another_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is the same byte for byte: only the document lines say what is held out."""
    clean = write_clean(tmp_path / "clean", texts(60), validation_fraction=0.1)
    tokenizer = write_tokenizer(tmp_path / "tokenizer.json", clean)
    config, out = PackConfig(seq_len=16), tmp_path / "out"
    before = pack(config, tokenizer=tokenizer, clean=[clean], out=out)
    other = write_clean(tmp_path / "other", texts(60), validation_fraction=0.5)
    assert (other / "s-00000.txt").read_bytes() == (clean / "s-00000.txt").read_bytes()
    (clean / "s-00000.jsonl").write_bytes((other / "s-00000.jsonl").read_bytes())
    (clean / "s.json").write_bytes((other / "s.json").read_bytes())
    with pytest.raises(ArtifactError, match=r"made from other inputs\n.*s-00000.jsonl"):
        pack(config, tokenizer=tokenizer, clean=[clean], out=out)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "assemble", stopped)
        with pytest.raises(KeyboardInterrupt):
            pack(config, tokenizer=tokenizer, clean=[clean], out=out, force=True)
    after = pack(config, tokenizer=tokenizer, clean=[clean], out=out, force=True)
    assert after.sources["s"]["validation"].documents > before.sources["s"]["validation"].documents
    # And the parts of the one are not those of the other.
    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "assemble", stopped)
        with pytest.raises(KeyboardInterrupt):
            pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "two")
    fresh = write_clean(tmp_path / "third", texts(60), validation_fraction=0.1)
    for name in ("s-00000.jsonl", "s.json"):
        (clean / name).write_bytes((fresh / name).read_bytes())
    again = pack(config, tokenizer=tokenizer, clean=[clean], out=tmp_path / "two")
    assert again.sources == before.sources
