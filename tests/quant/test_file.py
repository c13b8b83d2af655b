"""The file of quantized weights: what is written is read, and what is no such file is refused."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import for_each
from hostile import mutations
from torch import Tensor

from alm import artifacts, files
from alm.artifacts import QuantizedMetadata
from alm.errors import AlmError, ArtifactError
from alm.events import Event, Warned
from alm.files.tensors import write_tensors
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.quant import codes, file
from alm.quant.calibrate import count_types, quantized
from alm.quant.codes import Int8Matrix, TypeName

SHAPE = {"d_model": 32, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "ffn_hidden_size": 64, "vocab_size": 40}
NAME, BLOCK = "quantized.safetensors", "alm_quantized"
QUERIES, TABLE, NORM = "model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight", "model.norm.weight"
MOST_BYTES = 32 << 20
"""Memory that a refusal may take: the file has 20 kB."""

Change = Callable[[dict[str, Tensor], dict[str, Any]], None]


@functools.cache
def made(to: TypeName, tables: TypeName) -> file.QuantizedModel:
    config = ModelConfig.model_validate({**SHAPE, "max_position_embeddings": 16})
    model = Transformer(config)
    initialize(model, seed=0)
    block = file.Block(to=to, model=config, step=7, tokenizer_sha256="a" * 64, source_sha256="b" * 64)
    return file.QuantizedModel(block, quantized(model, to, tables=tables))


def written(folder: Path, to: TypeName = "int4", tables: TypeName = "int8") -> Path:
    file.write(folder / NAME, made(to, tables))
    return folder / NAME


def changed(folder: Path, change: Change, to: TypeName = "int4") -> Path:
    """The file with other tensors, or another block."""
    model = made(to, "int8")
    tensors, block = (
        {name: tensor.clone() for name, tensor in stored(model).items()},
        model.block.model_dump(mode="json"),
    )
    change(tensors, block)
    write_tensors(folder / NAME, tensors, {BLOCK: json.dumps(block)})
    return folder / NAME


def refused(path: Path, match: str) -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        file.read(path)
    assert caught.value.hint
    assert "rm " not in caught.value.hint


# ---- what is written -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "tables"), [("int8", "int8"), ("int4", "int4"), ("int4", "int8")])
def test_what_is_written_is_read(tmp_path: Path, to: TypeName, tables: TypeName) -> None:
    path, model = written(tmp_path, to, tables), made(to, tables)
    found = file.read(path)
    assert found.block == file.read_block(path) == model.block
    assert found.weights.keys() == model.weights.keys()
    for name, value in model.weights.items():
        other = found.weights[name]
        assert type(other) is type(value)
        if isinstance(value, Tensor):
            assert value.equal(other)
        else:
            assert value.codes.equal(other.codes)
            assert value.scales.equal(other.scales)
    assert isinstance(found.weights[TABLE], Int8Matrix) == (tables == "int8")


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    first = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == first


# ---- tensors ---------------------------------------------------------------------------------------------------


def setting(name: str, at: int, value: float) -> Change:
    def change(tensors: dict[str, Tensor], block: dict[str, Any]) -> None:
        tensors[name].view(-1)[at] = value

    return change


def replacing(name: str, by: Callable[[Tensor], Tensor]) -> Change:
    def change(tensors: dict[str, Tensor], block: dict[str, Any]) -> None:
        tensors[name] = by(tensors[name])

    return change


def removing(name: str) -> Change:
    return lambda tensors, block: tensors.__delitem__(name)


def adding(name: str, tensor: Tensor) -> Change:
    return lambda tensors, block: tensors.__setitem__(name, tensor)


def in_block(**values: Any) -> Change:
    return lambda tensors, block: block.update(values)


CODES, SCALES = QUERIES + ".codes", QUERIES + ".scales"


@for_each(
    "to, change, match",
    [
        ("int8", setting(CODES, 5, -128), "has the code -128, below -127"),
        ("int8", setting(SCALES, 5, -0.1), "has a scale below zero"),
        *((to, setting(SCALES, 5, value), "not finite") for to in ("int8", "int4") for value in (float("nan"), 1e9)),
        ("int4", setting(NORM, 3, float("inf")), f"`{NORM}` has values that are not finite"),
        ("int4", replacing(SCALES, lambda found: found[:, :0].contiguous()), r"has scales of \[32, 0\], not \[32, 1\]"),
        ("int4", replacing(SCALES, lambda found: found[:5].contiguous()), r"has scales of \[5, 1\]"),
        ("int4", replacing(SCALES, lambda found: found[:, 0].contiguous()), r"has scales of \[32\]"),
        ("int8", replacing(SCALES, lambda found: found[:, None].contiguous()), r"has scales of \[32, 1\], not \[32\]"),
        ("int8", replacing(SCALES, lambda found: found.float()), "with scales of F32"),
        ("int8", replacing(CODES, lambda found: found.short()), "is I16"),
        ("int8", replacing(CODES, lambda found: found.view(torch.uint8)), "has scales of"),
        ("int4", replacing(CODES, lambda found: found.view(torch.int8)), "has scales of"),
        ("int4", replacing(CODES, lambda found: found[:, :10].contiguous()), "has scales of"),
        ("int4", replacing(CODES, lambda found: found[None]), r"is U8 \[1, 32, 16\]"),
        ("int4", replacing(CODES, lambda found: found[:0]), "has scales of"),
        ("int4", replacing(NORM, lambda found: found.half()), f"`{NORM}` is F16, but numbers are F32"),
        ("int4", replacing(NORM, lambda found: found[:5]), f"`{NORM}` is .5., but .32. by the configuration"),
        ("int4", removing(CODES), "is F16, but numbers are F32"),
        ("int4", removing(SCALES), "with scales of none"),
        ("int4", removing(NORM), f"it has no `{NORM}`"),
        ("int4", adding("extra", torch.zeros(2)), "`extra` is not a weight of the model"),
        ("int4", adding(QUERIES, torch.zeros(32, 32)), "is there twice"),
        ("int4", adding("extra.scales", torch.zeros(2)), "is not a weight of the model"),
        ("int4", adding("x" * 9000 + ".codes", torch.zeros(2)), "with scales of none"),
    ],
)
def test_other_tensors(tmp_path: Path, to: TypeName, change: Change, match: str) -> None:
    refused(changed(tmp_path, change, to), match)


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_scales_of_zero(tmp_path: Path, to: TypeName) -> None:
    """They belong to values that are all too small for one."""
    name = "model.layers.0.mlp.up_proj.weight"
    refused(changed(tmp_path, replacing(f"{name}.scales", torch.zeros_like), to), "scale of zero for codes")
    for weight in (torch.zeros(2, 32), torch.full((2, 32), 1e-12)):
        for matrix in (codes.to_int8(weight), codes.to_int4(weight)):
            assert not file._has_lost_scales(matrix.codes, matrix.scales)


def test_two_codes_of_other_matrices(tmp_path: Path) -> None:
    def swap(tensors: dict[str, Tensor], block: dict[str, Any]) -> None:
        for part in (".codes", ".scales"):
            other = "model.layers.0.mlp.up_proj.weight" + part
            tensors[QUERIES + part], tensors[other] = tensors[other], tensors[QUERIES + part]

    refused(changed(tmp_path, swap), "by the configuration")


# ---- the block -------------------------------------------------------------------------------------------------


@for_each(
    "change, match",
    [
        (in_block(group=64), "its groups have 64 columns, but 32 share a scale"),
        (in_block(group=True), "group"),
        (in_block(group=10**400), "64 bits"),
        (in_block(format_version=0), "format_version"),
        (in_block(format_version=True), "format_version"),
        (in_block(format="alm-checkpoint"), "format"),
        (in_block(to="int2"), "to"),
        (in_block(step=-1), "step"),
        (in_block(source_sha256="b"), "source_sha256"),
        (in_block(calibrated="yes"), "calibrated"),
        (in_block(model=None), "model"),
        (in_block(model={**SHAPE, "d_model": 0}), "d_model"),
        (in_block(model={**SHAPE, "extra": 1}), "extra"),
        (in_block(model={**SHAPE, "vocab_size": "auto"}), "vocab_size"),
        (in_block(model={**SHAPE, "n_layers": 2}), "n_layers|it has no"),
        (in_block(model={**SHAPE, "n_heads": 3}), "n_heads|head"),
        (lambda tensors, block: block.pop("model"), "model"),
        (lambda tensors, block: block.clear(), "to"),
    ],
)
def test_other_blocks(tmp_path: Path, change: Change, match: str) -> None:
    refused(changed(tmp_path, change), match)


def test_a_version_to_come(tmp_path: Path) -> None:
    path = changed(tmp_path, in_block(format_version=2, group=16, other=1))
    with pytest.raises(AlmError, match="has format version 2, this alm reads 1") as caught:
        file.read(path)
    assert caught.value.hint == "run `pip install --upgrade a-lm`"


@for_each("text", ["", "{", "[]", "null", "5", '"x"', "{}", "[" * 100_000, '{"a":' * 5000, "NaN", '{"to": "\\ud800"}'])
def test_a_block_that_is_no_object(tmp_path: Path, text: str) -> None:
    path = written(tmp_path)
    write_tensors(path, {"a": torch.zeros(1)}, {BLOCK: text})
    refused(path, "is damaged")


def test_a_file_of_another_tool(tmp_path: Path) -> None:
    path = tmp_path / NAME
    write_tensors(path, {"a": torch.zeros(1)})
    refused(path, "is not a quantized model of alm: its header has no `alm_quantized`")


# ---- sizes -----------------------------------------------------------------------------------------------------


@for_each("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_file_that_ends_early(tmp_path: Path, share: float) -> None:
    path = written(tmp_path)
    os.truncate(path, int(path.stat().st_size * share))
    refused(path, "is damaged")


@for_each("length", [10 << 30, (1 << 64) - 1, 1 << 63, 1 << 25])
def test_a_header_that_is_said_to_be_huge(tmp_path: Path, length: int) -> None:
    path = written(tmp_path)
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with bounded():
        refused(path, "its header has .* bytes, more than")


@for_each(
    "shape",
    [
        {"d_model": 8192, "n_layers": 1, "n_heads": 8, "vocab_size": 300_000},  # 10 GB
        {"n_layers": 100_000},
        {"vocab_size": 2**40},
        {"ffn_hidden_size": 2**40},
        {"max_position_embeddings": 2**40},
        {"max_position_embeddings": 2**24, "d_model": 4096, "n_heads": 1},
    ],
)
def test_a_model_that_is_said_to_be_huge(tmp_path: Path, shape: dict[str, Any]) -> None:
    path = changed(tmp_path, in_block(model={**SHAPE, **shape}))
    with bounded():
        refused(path, "is damaged")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fail if what happens inside takes more than `MOST_BYTES` of Python's memory at once."""
    tracemalloc.start()
    try:
        yield
        _, most = tracemalloc.get_traced_memory()
        assert most < MOST_BYTES
    finally:
        tracemalloc.stop()


# ---- the metadata beside it ------------------------------------------------------------------------------------


def with_metadata(path: Path, **changes: Any) -> Path:
    model = made("int4", "int8")
    values: dict[str, Any] = {
        "command": "alm quantize",
        "config": {},
        "inputs": (),
        "to": "int4",
        "name": "tiny",
        "step": 7,
        "parameters": 10,
        "bytes_before": 40,
        "tokenizer_sha256": "a" * 64,
        "tensors": count_types(model.weights),
        "files": (artifacts.record(path, relative_to=path.parent, sha256=files.sha256(path)),),
    }
    artifacts.write(path.with_name("quantized.json"), QuantizedMetadata.model_validate(values | changes))
    return path


def test_the_file_is_the_one_of_its_metadata(tmp_path: Path) -> None:
    path = with_metadata(written(tmp_path))
    events: list[Event] = []
    found, digest = file.open_verified(path, on_event=events.append)
    assert digest == files.sha256(path)
    assert found.block.step == 7
    assert events == []


def test_another_hash(tmp_path: Path) -> None:
    path = with_metadata(written(tmp_path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # a value that is as good as the first
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="its hash differs from the one in `quantized.json`"):
        file.open_verified(path)


def test_metadata_that_does_not_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="its hash differs"):
        file.open_verified(with_metadata(written(tmp_path), files=()))


def test_a_copy_without_metadata(tmp_path: Path) -> None:
    path, events = written(tmp_path), list[Event]()
    file.open_verified(path, on_event=events.append)
    assert [type(event) for event in events] == [Warned]
    path.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        file.open_verified(path)


# ---- anything --------------------------------------------------------------------------------------------------


def test_random_mutations_are_refused_or_read(tmp_path: Path) -> None:
    """Most hit a code, which is as good as any other; half of them here are in the header."""
    path, draw = written(tmp_path), random.Random("quantized 0")
    whole, outcomes = path.read_bytes(), {"refused": 0, "read": 0}
    header = int.from_bytes(whole[:8], "little") + 8
    for number in range(400):
        way = draw.choice(mutations.ANY)
        part = whole[:header] if number % 2 else whole
        data = way(part, draw) + whole[len(part) :]
        path.write_bytes(data)
        try:
            found = file.read(path)
        except AlmError:
            outcomes["refused"] += 1
        else:
            assert all(values.isfinite().all() for values in found.dequantized().values())
            outcomes["read"] += 1
    assert min(outcomes.values()) > 40


def test_random_mutations_of_the_block(tmp_path: Path) -> None:
    draw, refusals = random.Random("block 0"), 0
    path, tensors, block = written(tmp_path), stored(made("int4", "int8")), made("int4", "int8").block
    for _ in range(150):
        text = mutations.in_json(block.model_dump_json().encode(), draw).decode("utf-8", "replace")
        write_tensors(path, tensors, {BLOCK: text})
        try:
            file.read(path)
        except AlmError:
            refusals += 1
    assert refusals > 75


def stored(model: file.QuantizedModel) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in model.weights.items():
        parts = (
            {name: value}
            if isinstance(value, Tensor)
            else {name + ".codes": value.codes, name + ".scales": value.scales}
        )
        found |= parts
    return found
