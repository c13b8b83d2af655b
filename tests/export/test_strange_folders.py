"""Folders of Hugging Face from strangers: each is refused in a sentence, or read as the one it was made from."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from alm.errors import InputError
from alm.export.from_hf_config import read
from alm.export.importing import open_folder
from alm.export.weights import StoredWeights
from alm.model.weights import shapes_of
from alm.tokenizers.file import Tokenizer

Values = dict[str, Any]
CONFIG: Values = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 272,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `save_pretrained` leaves of a small model, with weights of one file."""
    found = tmp_path / "theirs"
    found.mkdir()
    model, faults = read(CONFIG)
    assert model is not None, faults
    save_file({name: torch.full(shape, 0.5) for name, shape in shapes_of(model).items()}, found / "model.safetensors")
    (found / "config.json").write_text(json.dumps(CONFIG))
    Tokenizer.from_merges([]).save(found / "tokenizer.json")
    return found


def read_or_refused(folder: Path) -> str | None:
    """Why the folder is refused; None where it is read, with the weights that it was made with."""
    try:
        found = open_folder(folder)
        for name, tensor in found.stored.tensors():
            assert torch.equal(tensor, torch.full(found.stored.shapes[name], 0.5))
        return None
    except InputError as error:
        refusal = error.message
    assert len(refusal) < 2000
    return refusal


def test_the_folder_itself_is_read(folder: Path) -> None:
    assert read_or_refused(folder) is None


EVIL: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**20,
    2**23,
    10**12,
    10**4000,
    1e308,
    1e-300,
    float("nan"),
    "x" * 5000,
    [],
    {},
    [[1]],
    {"a": {}},
)


@pytest.mark.parametrize("key", [*CONFIG, "head_dim", "rope_scaling", "rope_parameters", "layer_types", "eos_token_id"])
def test_evil_values_of_a_configuration(key: str, folder: Path) -> None:
    for value in EVIL:
        if value == 10**4000:
            text = json.dumps({**CONFIG, key: 0})[:-2] + "1" * 4000 + "}"
        else:
            text = json.dumps({**CONFIG, key: value})
        (folder / "config.json").write_text(text)
        read_or_refused(folder)


@pytest.mark.parametrize("theta", [1, 1e12, 2])
@pytest.mark.parametrize("beta", [1e-6, 1, 2**20])
def test_evil_values_of_positions(theta: float, beta: float, folder: Path) -> None:
    for factor in (1, 2**20, 1e-9, None):
        scaling = {"rope_type": "yarn", "factor": factor, "beta_fast": beta, "beta_slow": beta, "rope_theta": theta}
        for first in (1, 2**23, None):
            given = {**CONFIG, "rope_scaling": {**scaling, "original_max_position_embeddings": first}}
            (folder / "config.json").write_text(json.dumps(given))
            read_or_refused(folder)


def test_a_deep_or_long_configuration(folder: Path) -> None:
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"model_type": "llama", "x": "' + "y" * (20 << 20) + '"}'):
        (folder / "config.json").write_text(text)
        assert read_or_refused(folder) is not None


def with_header(path: Path, change: Callable[[Values], object]) -> None:
    """Rewrite the header of the file at `path`; its numbers stay."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    change(header)
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + data[8 + size :])


NORM = "model.norm.weight"
HEADERS: dict[str, Callable[[Values], object]] = {
    "10 GB": lambda h: h[NORM].update(shape=[2_500_000_000], data_offsets=[0, 10_000_000_000]),
    "a shape whose product is large": lambda h: h[NORM].update(shape=[2**32, 2**32, 2**32]),
    "a negative size": lambda h: h[NORM].update(shape=[-16]),
    "a size with a point": lambda h: h[NORM].update(shape=[16.0]),
    "a size in words": lambda h: h[NORM].update(shape="16"),
    "another size": lambda h: h[NORM].update(shape=[8]),
    "more dimensions": lambda h: h[NORM].update(shape=[1] * 500 + [16]),
    "another type": lambda h: h[NORM].update(dtype="F64"),
    "whole numbers": lambda h: h[NORM].update(dtype="I32"),
    "a type that nobody has": lambda h: h[NORM].update(dtype="\x1b[31m"),
    "over another": lambda h: h[NORM].update(data_offsets=[0, 64]),
    "backwards": lambda h: h[NORM].update(data_offsets=[64, 0]),
    "no place": lambda h: h[NORM].pop("data_offsets"),
    "missing": lambda h: h.pop(NORM),
    "another name": lambda h: h.update({"model.norm.wait": h.pop(NORM)}),
    "nothing": lambda h: h.clear(),
    "a list": lambda h: h.update({NORM: []}),
    "one more": lambda h: h.update(extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "a long name": lambda h: h.update({"x" * 100_000: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
    "metadata of numbers": lambda h: h.update(__metadata__={"a": 1}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_evil_headers_of_weights(name: str, folder: Path) -> None:
    with_header(folder / "model.safetensors", HEADERS[name])
    assert read_or_refused(folder) is not None


@pytest.mark.parametrize("size", [0, 1, 7, 2**16, 2**27, 2**62, 2**64 - 1])
def test_evil_lengths_of_a_header(size: int, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", size) + path.read_bytes()[8:])
    assert read_or_refused(folder) is not None


def test_flipped_bits_and_cuts_of_weights(folder: Path) -> None:
    """In the header: what numbers should be is nowhere written, so `alm import` cannot know."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    draw = random.Random(1)
    for _ in range(100):
        changed = bytearray(data)
        bit = draw.randrange(8 * (8 + size))
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        read_or_refused(folder)
    for end in (0, 1, 8, 100, size, len(data) - 1):
        path.write_bytes(data[:end])
        assert read_or_refused(folder) is not None


OUTSIDE = (
    "../other.safetensors",
    "/etc/passwd",
    "a/b.safetensors",
    "..",
    ".",
    "",
    "a\\b",
    "C:x",
    "a\0b",
    "x" * 300,
    "\ud800",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_index_names_files_beside_it_alone(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert read_or_refused(folder) is not None


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": None}}]
)
def test_an_index_of_another_form(value: object, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(value))
    assert read_or_refused(folder) is not None


def test_weights_that_lie_in_two_files(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(data)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})
    )
    assert "twice" in str(read_or_refused(folder))


def test_a_link_leads_out_of_the_folder_only_in_the_hub_s_cache(folder: Path, tmp_path: Path) -> None:
    weights, elsewhere = folder / "model.safetensors", tmp_path / "elsewhere.safetensors"
    weights.rename(elsewhere)
    try:
        weights.symlink_to(elsewhere)
    except OSError:  # Windows, without the right to
        return
    assert "out of its folder" in str(read_or_refused(folder))
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    elsewhere.rename(tmp_path / "models--a--b" / "blobs" / "4567")
    folder.rename(tmp_path / "moved")
    snapshot.parent.mkdir()
    (tmp_path / "moved").rename(snapshot)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/4567"))
    assert StoredWeights.of(snapshot).dtype == "fp32"
    assert read_or_refused(snapshot) is None
