"""Other people's shards are read as they are defined, and refused where they cannot be."""

from __future__ import annotations

import struct
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import texts, write_clean, write_tokenizer

from alm.errors import InputError
from alm.packing.config import PackConfig
from alm.packing.imported_tokens import find
from alm.packing.pack import pack
from alm.packing.shards import TRAIN, VALIDATION, open_packed

CODES = {"<u1": 1, "<i4": 4, "<i8": 5, "<u2": 8}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tokenizer")
    return write_tokenizer(root / "tokenizer.json", write_clean(root / "clean", texts(50)))


def documents(count: int, seed: int = 0) -> list[list[int]]:
    draw = np.random.default_rng(seed)
    return [draw.integers(16, 300, size=draw.integers(0, 30)).tolist() for _ in range(count)]


def joined(given: list[list[int]]) -> list[int]:
    return [token for document in given for token in [*document, 0]]


def stream_of(folder: Path, split: str) -> list[int]:
    stream = open_packed(folder).split(split)
    return stream.tokens(0, sum(shard.tokens for shard in stream.shards)).tolist()


def write_megatron(
    path: Path, given: list[list[int]], *, dtype: str, with_ends: bool, ends: list[int] | None = None
) -> None:
    """As Megatron-LM's IndexedDatasetBuilder writes it."""
    arrays = [np.array([*ids, 0] if with_ends else ids, dtype=dtype) for ids in given]
    path.write_bytes(b"".join(array.tobytes() for array in arrays))
    lengths = np.array([len(array) for array in arrays], dtype="<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64) * np.dtype(dtype).itemsize])
    documents = np.array(ends or range(len(arrays) + 1), dtype="<i8")
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, CODES[dtype], len(arrays), len(ends or [*arrays, 1]))
    path.with_suffix(".idx").write_bytes(
        head + lengths.tobytes() + pointers.astype("<i8").tobytes() + documents.tobytes()
    )


def test_nanogpt_files_keep_their_split(tmp_path: Path, tokenizer: Path) -> None:
    folder = tmp_path / "shakespeare"
    folder.mkdir()
    train, held = documents(60), documents(20, seed=1)
    np.array(joined(train), dtype="<u2").tofile(folder / "train.bin")
    np.array(joined(held)[:-1], dtype="<u2").tofile(folder / "val.bin")  # the last one has no end
    config = PackConfig(seq_len=16)
    made = pack(config, tokenizer=tokenizer, foreign_tokens=[folder], out=tmp_path / "out")
    assert list(made.sources) == ["shakespeare"]
    for split, given in ((TRAIN, train), (VALIDATION, held)):
        stored = stream_of(tmp_path / "out", split)
        assert stored == joined(given)[: len(stored)]
        assert made.sources["shakespeare"][split].documents == len(given)
        assert len(joined(given)) - len(stored) < 16


@pytest.mark.parametrize("dtype", ["<u2", "<i4", "<i8"])
@pytest.mark.parametrize("with_ends", [False, True])
def test_megatron_sequences_are_documents(
    tmp_path: Path, tokenizer: Path, dtype: str, with_ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alm.packing import imported_tokens

    monkeypatch.setattr(imported_tokens, "_PART_TOKENS", 100)
    given = documents(60)
    write_megatron(tmp_path / "wiki_text_document.bin", given, dtype=dtype, with_ends=with_ends)
    config = PackConfig(seq_len=16, validation_fraction=0.0)
    made = pack(config, tokenizer=tokenizer, foreign_tokens=[tmp_path / "wiki_text_document.bin"], out=tmp_path / "out")
    assert made.sources["wiki"][TRAIN].documents == 60
    stored = stream_of(tmp_path / "out", TRAIN)
    assert stored == joined(given)[: len(stored)]


def test_without_names_documents_are_held_out_by_hash(tmp_path: Path, tokenizer: Path) -> None:
    np.array(joined(documents(300)), dtype="<u2").tofile(tmp_path / "tokens.bin")
    config = PackConfig(seq_len=16, validation_fraction=0.2)
    made = pack(config, tokenizer=tokenizer, foreign_tokens=[tmp_path / "tokens.bin"], out=tmp_path / "out")
    assert 30 < made.sources["tokens"][VALIDATION].documents < 90


def test_what_cannot_be_read_is_told(tmp_path: Path, tokenizer: Path) -> None:
    def failing(path: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            pack(PackConfig(seq_len=4), tokenizer=tokenizer, foreign_tokens=[path], out=tmp_path / "out")

    odd = tmp_path / "odd.bin"
    odd.write_bytes(b"\x10\x00\x11")
    failing(odd, "has 3 bytes: it is not a file of uint16 ids")
    large = tmp_path / "large.bin"
    np.array([16, 50256, 0] * 20, dtype="<u2").tofile(large)
    failing(large, "holds the id 50256, but the tokenizer has 300 ids")
    write_megatron(tmp_path / "m.bin", documents(5), dtype="<u2", with_ends=True)
    index = tmp_path / "m.idx"
    data = index.read_bytes()
    for broken in (b"", b"WRONG" + data, data[:40], data.replace(struct.pack("<Q", 1), struct.pack("<Q", 9), 1)):
        index.write_bytes(broken)
        failing(tmp_path / "m.bin", "cannot be read as Megatron's index")
    index.write_bytes(data)
    (tmp_path / "m.bin").write_bytes(b"\x10\x00")
    failing(tmp_path / "m.bin", "points outside")
    for path, message in ((tmp_path / "none.bin", "is not a `.bin` file"), (tmp_path / "out", "is not a `.bin` file")):
        with pytest.raises(InputError, match=message):
            find([str(path)])


def packed_ids(tmp_path: Path, tokenizer: Path, *given: Path, dtype: Any = None) -> list[int]:
    config = PackConfig(seq_len=16, validation_fraction=0.0, from_dtype=dtype)
    pack(config, tokenizer=tokenizer, foreign_tokens=given, out=tmp_path / "out", force=True)
    return stream_of(tmp_path / "out", TRAIN)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32", "int64"])
@pytest.mark.parametrize("is_named", [False, True])
def test_plain_ids_are_read_in_the_width_they_have(tmp_path: Path, tokenizer: Path, dtype: str, is_named: bool) -> None:
    given = joined(documents(60))
    np.array(given, dtype=dtype).tofile(tmp_path / "tokens.bin")
    found = packed_ids(tmp_path, tokenizer, tmp_path / "tokens.bin", dtype=dtype if is_named else None)
    assert found == given[: len(found)]
    assert len(given) - len(found) < 16


def test_a_named_width_that_is_wrong_is_an_error(tmp_path: Path, tokenizer: Path) -> None:
    np.array(joined(documents(60)), dtype="<u2").tofile(tmp_path / "tokens.bin")
    with pytest.raises(InputError, match="the tokenizer has 300 ids") as raised:
        packed_ids(tmp_path, tokenizer, tmp_path / "tokens.bin", dtype="uint32")
    assert "--from-dtype" in str(raised.value.hint)


@pytest.mark.parametrize(("magic", "dtype"), [(20240520, "<u2"), (20240801, "<u4")])
def test_the_header_of_llm_c_is_no_text(tmp_path: Path, tokenizer: Path, magic: int, dtype: str) -> None:
    train, held = joined(documents(60)), joined(documents(20, seed=1))
    for name, ids in (("fineweb_train_000001.bin", train), ("fineweb_val_000000.bin", held)):
        header = np.zeros(256, dtype="<i4")
        header[:3] = magic, 1, len(ids)
        (tmp_path / name).write_bytes(header.tobytes() + np.array(ids, dtype=dtype).tobytes())
    found = packed_ids(tmp_path, tokenizer, tmp_path)
    assert found == train[: len(found)]
    assert len(train) - len(found) < 16
    assert stream_of(tmp_path / "out", VALIDATION) == held[: len(held) // 16 * 16 + 1]
    with (tmp_path / "fineweb_val_000000.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="its header promises"):
        packed_ids(tmp_path, tokenizer, tmp_path)


@pytest.mark.parametrize("head", [b"LITPKDS", b"\x93NUMPY", b"GGUF", b"PK\x03\x04", b"\x1f\x8b"])
def test_other_files_that_end_in_bin_are_named(tmp_path: Path, tokenizer: Path, head: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(head.ljust(200, b"\1"))
    with pytest.raises(InputError, match="not a file of token ids"):
        packed_ids(tmp_path, tokenizer, tmp_path / "a.bin")


def test_a_name_that_only_begins_like_held_out_text_is_training_text(tmp_path: Path, tokenizer: Path) -> None:
    for name, seed in (("valley.bin", 0), ("interval.bin", 1)):
        np.array(joined(documents(60, seed)), dtype="<u2").tofile(tmp_path / name)
    write_megatron(tmp_path / "val.bin", documents(30, 2), dtype="<u2", with_ends=True)
    made = pack(
        PackConfig(seq_len=16, validation_fraction=0.0),
        tokenizer=tokenizer,
        foreign_tokens=[tmp_path],
        out=tmp_path / "out",
    )
    assert {name: splits[VALIDATION].documents for name, splits in made.sources.items()} == dict.fromkeys(
        ("interval", "val", "valley"), 0
    )


def test_sequences_of_one_megatron_document_stay_together(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alm.packing import imported_tokens

    monkeypatch.setattr(imported_tokens, "_PART_TOKENS", 100)
    sentences = [ids or [20] for ids in documents(60)]
    ends = [0, 3, 4, 10, 10, 31, 60]
    write_megatron(tmp_path / "a.bin", sentences, dtype="<i4", with_ends=False, ends=ends)
    found = packed_ids(tmp_path, tokenizer, tmp_path / "a.bin")
    given = joined([list(chain(*sentences[start:end])) for start, end in pairwise(ends)])
    assert found == given[: len(found)]
    for wrong in ([0, 3, 59], [0, 70], [1, 60], [0, 30, 20, 60]):
        write_megatron(tmp_path / "a.bin", sentences, dtype="<i4", with_ends=False, ends=wrong)
        with pytest.raises(InputError, match="document ends do not match"):
            packed_ids(tmp_path, tokenizer, tmp_path / "a.bin")
