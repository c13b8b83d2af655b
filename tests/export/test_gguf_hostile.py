"""GGUF files from strangers: each is refused in a sentence, soon and with little memory, or read as the one it was."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from alm.errors import InputError
from alm.export.from_gguf_header import read_header
from alm.export.importing import open_gguf
from alm.export.source import load_source
from alm.export.targets import gguf as target
from alm.export.targets.gguf import Config

from .conftest import Make

MOST_SECONDS, MOST_BYTES = 1.0, 32 << 20
TENSOR = b"blk.0.attn_q.weight"  # (32, 32) in fp32


@pytest.fixture
def file(checkpoint_of: Make, tmp_path: Path) -> Path:
    target.write(Config(), load_source(checkpoint_of()), tmp_path)
    return tmp_path / "tiny-f32.gguf"


def refusal(path: Path) -> str | None:
    """Why the file is refused; None where it is read."""
    message = None
    tracemalloc.start()
    began = time.process_time()
    try:
        found = open_gguf(path)
        weights = dict(found.stored.tensors())
        assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == found.stored.shapes
    except InputError as error:
        message = error.message
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MOST_BYTES
    assert seconds < MOST_SECONDS
    assert message is None or len(message) < 2000
    return message


def test_the_file_itself_is_read(file: Path) -> None:
    assert refusal(file) is None


Change = Callable[[bytearray], object]


def place(data: bytearray, name: bytes) -> int:
    """Where the description begins after the name of a tensor or a setting."""
    return data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)


def tensor(dims: tuple[int, ...] = (32, 32), kind: int = 0, offset: int | None = None, count: int = 2) -> Change:
    """Describe `TENSOR` so; its description always takes two dimensions' room."""

    def change(data: bytearray) -> None:
        at = place(data, TENSOR)
        was = struct.unpack_from("<IQQIQ", data, at)
        new = struct.pack("<IQQIQ", count, *dims, kind, was[-1] if offset is None else offset)
        data[at : at + len(new)] = new

    return change


def setting(name: bytes, form: str, value: float, skip: int = 4) -> Change:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, place(data, name) + skip, value)

    return change


def counts(tensors: int, settings: int) -> Change:
    return lambda data: struct.pack_into("<QQ", data, 8, tensors, settings)


def renamed(old: bytes, new: bytes) -> Change:
    assert len(old) == len(new)

    def change(data: bytearray) -> None:
        at = place(data, old)
        data[at - len(old) : at] = new

    return change


HUGE = 2**64 - 1
EVIL: dict[str, tuple[Change, str]] = {
    "10 GB": (tensor((32, 78_125_000)), "ends at byte "),
    "a shape whose product overflows": (tensor((2**33, 2**33)), "numbers"),
    "dimensions of 64 bits": (tensor((HUGE, HUGE)), "numbers"),
    "no numbers": (tensor((0, 32)), "holds 0 numbers"),
    "many dimensions": (tensor(count=5), "has 5 dimensions"),
    "no dimensions": (tensor(count=0), "has 0 dimensions"),
    "an unknown type": (tensor(kind=999), "as 999, but alm reads only F32, F16"),
    "a type of others": (tensor(kind=16), "as IQ2_XXS, but alm reads only F32, F16"),
    "rows of half blocks": (tensor((33, 32), kind=8), "not whole blocks of 32 in Q8_0"),
    "a negative offset": (tensor(offset=HUGE - 31), "ends at byte"),
    "an offset behind the end": (tensor(offset=1 << 40), "ends at byte"),
    "an offset that is not aligned": (tensor(offset=1), "ends at byte"),
    "over another tensor": (tensor(offset=0), "lies over another tensor"),
    "a tensor twice": (renamed(b"blk.1.attn_q.weight", TENSOR), "stores `blk.0.attn_q.weight` twice"),
    "a path as a name": (renamed(TENSOR, b"../../../etc/passwd"), "is not a weight of the model"),
    "control characters in a name": (renamed(TENSOR, b"\x1b]52;c;blk.0.attn_q\x07"[:19]), "is not a weight"),
    "a name that is not UTF-8": (renamed(TENSOR, b"\xff" * 19), "is not UTF-8"),
    "a setting twice": (renamed(b"llama.block_count", b"llama.vocab_size2"), "it has no `llama.block_count`"),
    "many tensors": (counts(HUGE, 30), "18,446,744,073,709,551,615 tensors"),
    "many settings": (counts(21, 1 << 40), "settings"),
    "more tensors than there are": (counts(22, 31), "header"),
    "a long list": (setting(b"tokenizer.ggml.tokens", "<Q", 1 << 40, 8), "lists 1,099,511,627,776 values"),
    "a list of lists": (setting(b"tokenizer.ggml.tokens", "<I", 9), "is a list of the type 9"),
    "a longer list": (setting(b"tokenizer.ggml.tokens", "<Q", 1 << 19, 8), ""),
    "a long text": (setting(b"general.name", "<Q", 1 << 62), "amid its header"),
    "a long template": (setting(b"tokenizer.chat_template", "<Q", 1 << 21), "has 2,097,152 bytes, more than"),
    "an unknown type of setting": (setting(b"llama.block_count", "<I", 77, 0), "has the unknown type 77"),
    "a version of the future": (lambda data: struct.pack_into("<I", data, 4, 4), "has version 4 of GGUF"),
    "the first version": (lambda data: struct.pack_into("<I", data, 4, 1), "has version 1 of GGUF"),
    "big-endian": (lambda data: struct.pack_into(">I", data, 4, 3), "is written for big-endian machines"),
    "another magic": (lambda data: struct.pack_into("<I", data, 0, 3), "is not a GGUF file"),
    "a thousand layers": (setting(b"llama.block_count", "<I", 1000), "`model.n_layers` is 1,000, but it has only"),
    "a wide model": (setting(b"llama.embedding_length", "<I", 1 << 20), ""),
    "many heads": (setting(b"llama.attention.head_count", "<I", 1 << 31), "not a whole number from"),
    "a long context": (setting(b"llama.context_length", "<I", 1 << 31), "not a whole number from"),
    "no base": (setting(b"llama.rope.freq_base", "<f", float("nan")), "`llama.rope.freq_base` is NaN"),
    "an endless base": (setting(b"llama.rope.freq_base", "<f", float("inf")), "`llama.rope.freq_base` is Infinity"),
    "no epsilon": (setting(b"llama.attention.layer_norm_rms_epsilon", "<f", 0.0), "is 0.0, not a number"),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_headers(name: str, file: Path) -> None:
    change, reason = EVIL[name]
    data = bytearray(file.read_bytes())
    change(data)
    file.write_bytes(data)
    found = refusal(file)
    assert found is not None
    assert reason in found


def test_alignments(file: Path) -> None:
    """`general.alignment` is set in the place of another setting of four bytes."""
    for alignment in (0, 3, 1 << 31):
        data = bytearray(file.read_bytes())
        at = place(data, b"general.quantization_version")
        new = b"general.alignment"
        start = at - 8 - len(b"general.quantization_version")
        data[start : at + 8] = struct.pack("<Q", len(new)) + new + struct.pack("<II", 4, alignment)
        path = file.with_name("aligned.gguf")
        path.write_bytes(data)
        assert "`general.alignment` is" in str(refusal(path))


def test_cuts(file: Path) -> None:
    data = file.read_bytes()
    draw = random.Random(1)
    for end in (0, 1, 4, 8, 23, 24, 100, len(data) - 1, *(draw.randrange(len(data)) for _ in range(40))):
        file.write_bytes(data[:end])
        assert refusal(file) is not None


def test_flipped_bits(file: Path) -> None:
    """What a tensor's numbers or a token's name should be is nowhere written, so that some of these are read."""
    data = file.read_bytes()
    header = min(tensor.start for tensor in read_header(file).tensors.values())
    draw = random.Random(2)
    for _ in range(40):
        changed = bytearray(data)
        bit = draw.randrange(8 * header)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        refusal(file)
