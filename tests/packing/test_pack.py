"""Packing: tokens in = stored + tail, and every row where the format says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from builders import VOCAB_SIZE, copy_of, texts, write_clean, write_packed, write_tokenizer

from alm import artifacts
from alm.corpus.read import find, read_documents
from alm.corpus.split import SPLITS, TRAIN, VALIDATION
from alm.errors import AlmError, ArtifactError, ConfigError, InputError
from alm.events import Event, Noted, Warned
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer


def two_sources(root: Path) -> Path:
    copy_of(make_two_sources, root)
    return root / "clean"


def make_two_sources(root: Path) -> None:
    write_clean(root / "clean", texts(90, seed=1), source="first")
    write_clean(root / "clean", texts(70, seed=2), source="second")


def expected_stream(clean: Path, tokenizer: Tokenizer, split: str) -> list[int]:
    """The tokens of a split, made the slow and obvious way: the oracle of this file."""
    stream: list[int] = []
    for document in read_documents(find([clean])):
        if document.split == split:
            stream += [*tokenizer.encode(document.text), tokenizer.end_of_text_id]
    return stream


@pytest.mark.parametrize(("seq_len", "sequences_per_shard"), [(16, 7), (64, 1), (33, 1000), (2, 90), (100, 3)])
def test_the_stored_stream_is_the_encoded_text_but_for_the_counted_tail(
    tmp_path: Path, seq_len: int, sequences_per_shard: int
) -> None:
    clean = two_sources(tmp_path)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    config = PackConfig(seq_len=seq_len, sequences_per_shard=sequences_per_shard)
    metadata = pack(config, tokenizer=path, clean=[clean], out=tmp_path / "packed")
    tokenizer = Tokenizer.load(path)
    tail = 0
    for split in SPLITS:
        expected = expected_stream(clean, tokenizer, split)
        shards = [shard for shard in metadata.shards if shard.split == split]
        stored = [np.fromfile(tmp_path / "packed" / shard.file, dtype="<u4") for shard in shards]
        joined = np.concatenate(stored).tolist() if stored else []
        assert joined == expected[: len(joined)]
        rows = (len(expected) - 1) // seq_len
        assert len(joined) == (rows * seq_len + 1 if rows else 0)
        assert metadata.sequences(split) == rows
        assert [shard.tokens for shard in shards] == [len(ids) for ids in stored]
        assert all(shard.tokens <= seq_len * sequences_per_shard for shard in shards)
        tail += len(expected) - len(joined)
    assert metadata.input_tokens == metadata.total_tokens + metadata.tail_tokens
    assert metadata.tail_tokens == tail < 2 * seq_len
    assert metadata.total_tokens == sum(shard.tokens for shard in metadata.shards)


def test_documents_begin_with_the_token_that_the_tokenizer_puts_there(tmp_path: Path) -> None:
    """As in Llama's files, whose template puts a token before a text."""
    clean = two_sources(tmp_path)
    own = json.loads(write_tokenizer(tmp_path / "own.json", clean).read_text())
    own["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(own))
    metadata = pack(PackConfig(seq_len=20), tokenizer=path, clean=[clean], out=tmp_path / "packed")
    tokenizer, stream = Tokenizer.load(path), open_packed(tmp_path / "packed").split(TRAIN)
    expected: list[int] = []
    starts = []
    for document in read_documents(find([clean])):
        if document.split == TRAIN:
            starts.append(len(expected))
            expected += [1, *tokenizer.encode(document.text), tokenizer.end_of_text_id]
    stored = metadata.tokens(TRAIN)
    assert stream.tokens(0, stored).tolist() == expected[:stored]
    assert stream.document_starts().tolist() == [start for start in starts if start < stored]


def test_rows_start_every_seq_len_tokens_and_read_one_more(tmp_path: Path) -> None:
    clean = two_sources(tmp_path)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    pack(PackConfig(seq_len=10, sequences_per_shard=3), tokenizer=path, clean=[clean], out=tmp_path / "packed")
    stream = open_packed(tmp_path / "packed").split(TRAIN)
    expected = expected_stream(clean, Tokenizer.load(path), TRAIN)
    rows = stream.rows(np.arange(stream.sequences))
    assert rows.shape == (stream.sequences, 11)
    for number, row in enumerate(rows.tolist()):
        assert row == expected[number * 10 : number * 10 + 11]
    # Every token but the first of the split is predicted once an epoch.
    assert rows[:, 1:].flatten().tolist() == expected[1 : stream.sequences * 10 + 1]


def test_a_shard_holds_one_split_of_one_source_and_knows_its_documents(tmp_path: Path) -> None:
    clean = two_sources(tmp_path)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    metadata = pack(PackConfig(seq_len=8, sequences_per_shard=4), tokenizer=path, clean=[clean], out=tmp_path / "p")
    assert {(s.source, s.split) for s in metadata.shards} == {
        (source, split) for source in ("first", "second") for split in SPLITS
    }
    end = Tokenizer.load(path).end_of_text_id
    starts = 0
    for shard in metadata.shards:
        ids = np.fromfile(tmp_path / "p" / shard.file, dtype="<u4")
        index = np.fromfile(tmp_path / "p" / shard.index_file, dtype="<i8")
        # A document starts after an end of text; only one that goes on from the shard before has no start.
        after_ends = (np.flatnonzero(ids[:-1] == end) + 1).tolist()
        assert [start for start in index.tolist() if start] == after_ends
        starts += len(index)
    documents = sum(c.documents for splits in metadata.sources.values() for c in splits.values())
    assert documents - 2 <= starts <= documents  # a tail may hide the start of the last of each split


def test_counts_are_kept_by_source_and_split(tmp_path: Path) -> None:
    clean = two_sources(tmp_path)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    metadata = pack(PackConfig(seq_len=8), tokenizer=path, clean=[clean], out=tmp_path / "packed")
    tokenizer = Tokenizer.load(path)
    for source, splits in metadata.sources.items():
        for split, counted in splits.items():
            documents = [d for d in read_documents(find([clean])) if (d.source, d.split) == (source, split)]
            assert counted.documents == len(documents)
            assert counted.bytes == sum(len(d.text.encode()) for d in documents)
            assert counted.tokens == sum(len(tokenizer.encode(d.text)) + 1 for d in documents)
            assert counted.tokens == counted.stored_tokens + counted.tail_tokens


def test_the_metadata_vouches_for_every_file(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    assert artifacts.damaged(out, metadata.payload()) == []
    assert metadata.tokenizer_sha256 == Tokenizer.load(out / "tokenizer.json").sha256
    promised = {file.path for file in metadata.payload()} | {"metadata.json"}
    assert {path.name for path in out.iterdir()} == promised


def test_foreign_text_is_split_by_hash(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "clean", texts(20))
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    (tmp_path / "foreign.txt").write_text("\n<|endoftext|>\n".join(texts(300, seed=9)), encoding="utf-8")
    config = PackConfig(seq_len=8, validation_fraction=0.2)
    metadata = pack(config, tokenizer=path, clean=[tmp_path / "foreign.txt"], out=tmp_path / "packed")
    counted = metadata.sources["foreign"]
    assert counted[TRAIN].documents + counted[VALIDATION].documents == 300
    assert 30 < counted[VALIDATION].documents < 95


def test_no_document_is_on_both_sides(tmp_path: Path) -> None:
    repeated = texts(30) * 5
    clean = write_clean(tmp_path / "clean", repeated, validation_fraction=0.3)
    sides: dict[str, set[str | None]] = {}
    for document in read_documents(find([clean])):
        sides.setdefault(document.text, set()).add(document.split)
    assert all(len(found) == 1 for found in sides.values())


def test_uint16_holds_the_same_ids(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    narrow = pack(
        PackConfig(seq_len=16, sequences_per_shard=50, dtype="uint16"),
        tokenizer=tmp_path / "tokenizer.json",
        clean=[tmp_path / "clean"],
        out=tmp_path / "narrow",
    )
    wide_rows, narrow_rows = (
        open_packed(folder).split(TRAIN).rows(np.arange(metadata.sequences(TRAIN)))
        for folder in (out, tmp_path / "narrow")
    )
    assert (wide_rows == narrow_rows).all()
    assert narrow.shards[0].tokens * 2 == (tmp_path / "narrow" / narrow.shards[0].file).stat().st_size


def test_what_is_up_to_date_is_kept_and_other_inputs_are_refused(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    events: list[Event] = []

    def again(*, seq_len: int = 16, force: bool = False) -> object:
        config = PackConfig(seq_len=seq_len, sequences_per_shard=50)
        tokenizer = tmp_path / "tokenizer.json"
        return pack(
            config, tokenizer=tokenizer, clean=[tmp_path / "clean"], out=out, force=force, on_event=events.append
        )

    assert again() == metadata
    assert any(isinstance(event, Noted) for event in events)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(ArtifactError, match=r"seq_len  16 -> 8"):
        again(seq_len=8)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    again(seq_len=8, force=True)
    assert open_packed(out).metadata.seq_len == 8


def test_a_text_shorter_than_a_sequence_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    out, _ = write_packed(tmp_path)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match="one sequence of 1,000,000 needs 1,000,001") as caught:
        pack(
            PackConfig(seq_len=1_000_000),
            tokenizer=tmp_path / "tokenizer.json",
            clean=[tmp_path / "clean"],
            out=out,
            force=True,
        )
    assert "--seq-len" in str(caught.value.hint)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_few_foreign_texts_hold_pieces_of_each_out(tmp_path: Path) -> None:
    folder = tmp_path / "books"
    folder.mkdir()
    for name in "abc":
        text = "\n\n".join(f"Paragraph {n} of {name}: {'word ' * 40}" for n in range(400))
        (folder / f"{name}.txt").write_text(text)
    (folder / "note.txt").write_text("short\n")
    path = write_tokenizer(tmp_path / "tokenizer.json", folder)
    tokenizer = Tokenizer.load(path)
    for fraction in (0.05, 0.000001):
        config = PackConfig(seq_len=16, validation_fraction=fraction)
        out = tmp_path / f"packed-{fraction}"
        made = pack(config, tokenizer=path, clean=[folder], out=out)
        packed = open_packed(out)
        train, held = (tokenizer.decode(packed.split(s).tokens(0, made.tokens(s))) for s in (TRAIN, VALIDATION))
        heads = [set(re.findall(r"Paragraph \d+ of \w", text)) for text in (train, held)]
        assert len(heads[0] | heads[1]) >= 1198  # the tail is shorter than a row
        assert not heads[0] & heads[1]
        assert made.held_out is not None
        assert made.held_out.documents == 0
        assert made.held_out.pieces == sum(c[VALIDATION].documents for c in made.sources.values())
        assert made.held_out.bytes == sum(c[VALIDATION].bytes for c in made.sources.values())
        assert made.held_out.cut_documents == (3 if fraction == 0.05 else 1)

    none = pack(PackConfig(seq_len=16, validation_fraction=0.0), tokenizer=path, clean=[folder], out=tmp_path / "none")
    assert not any(counts[VALIDATION].documents for counts in none.sources.values())


def test_a_tenth_of_a_small_foreign_text_is_held_out(tmp_path: Path) -> None:
    folder = tmp_path / "chats"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"Chat {number}. " + "word " * (40 + number % 7))
    (folder / "long.txt").write_text("\n\n".join(f"Paragraph {n}. {'word ' * 40}" for n in range(100)))
    path = write_tokenizer(tmp_path / "tokenizer.json", folder)
    made = pack(PackConfig(seq_len=16), tokenizer=path, clean=[folder], out=tmp_path / "packed")
    train, held = ([c[split].bytes for c in made.sources.values()] for split in (TRAIN, VALIDATION))
    assert sum(held) == pytest.approx(0.1 * sum(train + held), rel=0.3)
    assert made.held_out is not None
    assert made.held_out.documents >= 5
    assert made.held_out.cut_documents == 1


def test_packed_data_says_what_its_clean_text_holds_out(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "clean", ["\n".join(f"line {n}" for n in range(9000)), "x"], validation_fraction=0.1)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    made = pack(PackConfig(seq_len=8), tokenizer=path, clean=[clean], out=tmp_path / "packed")
    assert made.held_out is not None
    assert made.held_out.cut_documents == 1
    assert made.held_out.pieces > 1
    assert made.held_out.bytes == sum(counts[VALIDATION].bytes for counts in made.sources.values())


def test_nothing_is_said_of_held_out_text_that_was_not_asked_for(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json", write_clean(tmp_path / "clean", texts(20)))
    (tmp_path / "raw.txt").write_text(" ".join(texts(20)))
    events: list[Event] = []
    config = PackConfig(seq_len=16, validation_fraction=0)
    pack(config, tokenizer=path, clean=[tmp_path / "raw.txt"], out=tmp_path / "packed", on_event=events.append)
    assert not any(isinstance(event, Warned) for event in events)


def test_too_little_held_out_text_is_told(tmp_path: Path) -> None:
    clean = write_clean(tmp_path / "clean", texts(40), validation_fraction=0.0)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    events: list[Event] = []
    pack(PackConfig(seq_len=8), tokenizer=path, clean=[clean], out=tmp_path / "packed", on_event=events.append)
    assert any(isinstance(event, Warned) and "will not be validated" in event.message for event in events)


def test_a_vocabulary_that_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packed(tmp_path)
    monkeypatch.setattr(Tokenizer, "vocab_size", 65_537)
    with pytest.raises(ConfigError, match="a vocabulary of 65,537 does not fit in uint16"):
        pack(
            PackConfig(dtype="uint16"),
            tokenizer=tmp_path / "tokenizer.json",
            clean=[tmp_path / "clean"],
            out=tmp_path / "x",
        )


def test_damaged_packed_data_is_told(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    shard = out / metadata.shards[0].file
    data = shard.read_bytes()
    shard.write_bytes(data[:-4])
    with pytest.raises(ArtifactError, match="were written"):
        open_packed(out)
    shard.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        open_packed(out)
    shard.write_bytes(bytes(len(data)))
    assert artifacts.damaged(out, metadata.payload()) == [f"`{shard}` has changed since it was written"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "other"}', '{"format_version": 99}'])
def test_metadata_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(AlmError) as caught:
        open_packed(tmp_path)
    assert caught.value.hint


def test_shards_of_another_tokenizer_are_told_with_both_hashes(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    other = write_tokenizer(tmp_path / "other.json", write_clean(tmp_path / "other", texts(50, seed=8)))
    (out / "tokenizer.json").write_bytes(other.read_bytes())
    with pytest.raises(ArtifactError, match="were made with another tokenizer") as caught:
        open_packed(out)
    assert metadata.tokenizer_sha256[:8] in caught.value.message
    assert Tokenizer.load(other).sha256[:8] in caught.value.message
    assert "--force" in str(caught.value.hint)


def test_packed_data_whose_files_are_all_gone_is_packed_without_force(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    for file in metadata.payload():
        (out / file.path).unlink()
    settings = PackConfig(seq_len=8, sequences_per_shard=50)
    packed = pack(settings, tokenizer=tmp_path / "tokenizer.json", clean=[tmp_path / "clean"], out=out)
    assert packed.seq_len == 8
    open_packed(out)


def test_packed_data_with_a_file_gone_is_not_up_to_date(tmp_path: Path) -> None:
    out, metadata = write_packed(tmp_path)
    (out / metadata.shards[0].index_file).unlink()
    with pytest.raises(ArtifactError, match="no longer matches its files"):
        pack(
            PackConfig(seq_len=16, sequences_per_shard=50),
            tokenizer=tmp_path / "tokenizer.json",
            clean=[tmp_path / "clean"],
            out=out,
        )


def test_no_packed_data_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no packed data") as caught:
        open_packed(tmp_path / "none")
    assert "alm pack" in str(caught.value.hint)


def test_the_vocabulary_is_recorded(tmp_path: Path) -> None:
    _, metadata = write_packed(tmp_path)
    assert metadata.vocab_size == VOCAB_SIZE


@pytest.mark.parametrize("name", ["shard_00007.bin", "tokenizer.json"])
def test_files_of_somebody_else_are_replaced_only_when_asked_for(tmp_path: Path, name: str) -> None:
    clean, out = two_sources(tmp_path), tmp_path / "out"
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    out.mkdir()
    (out / name).write_bytes(b"mine")
    with pytest.raises(ArtifactError, match=f"`{out / name}` exists"):
        pack(PackConfig(seq_len=16), tokenizer=path, clean=[clean], out=out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == {name: b"mine"}
    pack(PackConfig(seq_len=16), tokenizer=path, clean=[clean], out=out, force=True)
    assert artifacts.damaged(out, open_packed(out).metadata.payload()) == []
    assert not (out / "shard_00007.bin").exists()


def test_the_state_of_a_corpus_in_the_same_folder_stays(tmp_path: Path) -> None:
    clean = two_sources(tmp_path)
    path = write_tokenizer(tmp_path / "tokenizer.json", clean)
    before = {file: file.read_bytes() for file in (clean / ".alm").rglob("*") if file.is_file()}
    for _ in range(2):
        pack(PackConfig(seq_len=16), tokenizer=path, clean=[clean], out=clean)
    assert before
    assert {file: file.read_bytes() for file in (clean / ".alm").rglob("*") if file.is_file()} == before
