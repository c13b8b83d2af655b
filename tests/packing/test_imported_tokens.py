"""Other people's shards are read as they are defined, and refused where they cannot be."""

from __future__ import annotations

import struct
from pathlib import Path

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


def write_megatron(path: Path, given: list[list[int]], *, dtype: str, with_ends: bool) -> None:
    """As Megatron-LM's IndexedDatasetBuilder writes it."""
    arrays = [np.array([*ids, 0] if with_ends else ids, dtype=dtype) for ids in given]
    path.write_bytes(b"".join(array.tobytes() for array in arrays))
    lengths = np.array([len(array) for array in arrays], dtype="<i4")
    pointers = np.concatenate([[0], np.cumsum(lengths[:-1], dtype=np.int64) * np.dtype(dtype).itemsize])
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, CODES[dtype], len(arrays), len(arrays) + 1)
    ends = np.arange(len(arrays) + 1, dtype="<i8")
    path.with_suffix(".idx").write_bytes(head + lengths.tobytes() + pointers.astype("<i8").tobytes() + ends.tobytes())


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
    failing(odd, "odd number of bytes")
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
