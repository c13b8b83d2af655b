"""Types of the tensors in a GGUF file: which one each gets, and blocks that the library `gguf` reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
import pytest
import torch
from cases import for_each

from alm.export import importing
from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets import _gguf_k_quants, _gguf_types
from alm.export.targets import gguf as target
from alm.export.targets.gguf import Config
from alm.model.config import ModelConfig
from alm.quant.codes import TypeName, to_int4, to_int8

from .conftest import TINY, Make, quantize

Kind = gguf.GGMLQuantizationType
Types = dict[str, str]

QUERIES, VALUES, DOWN = "blk.{}.attn_q.weight", "blk.{}.attn_v.weight", "blk.{}.ffn_down.weight"
TABLE, OUTPUT = "token_embd.weight", "output.weight"


def types(path: Path) -> Types:
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """The file of a checkpoint, not compared."""

    def write(checkpoint: Path, **settings: Any) -> Path:
        source = load_source(checkpoint)
        config = Config.model_validate(settings)
        folder = tmp_path / f"written-{config.dtype}"
        folder.mkdir()
        target.write(config, source, folder)
        return folder / target.file_name(config, source)

    return write


# ---- the type of each tensor, as llama-quantize chooses it -----------------------------------------------------


def chosen(name: str, width: int, dtype: _gguf_types.Dtype, *, layers: int = 16, tied: bool = True) -> str:
    model = ModelConfig.model_validate({**TINY, "n_layers": layers, "vocab_size": 300, "tie_embeddings": tied})
    return _gguf_types.type_name(name, (64, width), dtype, model)


@for_each(
    "name, width, dtype, expected",
    [
        (QUERIES.format(0), 512, "q8_0", "Q8_0"),
        (QUERIES.format(0), 512, "q5_1", "Q5_1"),
        (QUERIES.format(0), 512, "q4_0", "Q4_0"),
        (QUERIES.format(0), 512, "q4_k", "Q4_K"),
        # rows that are no whole blocks of 256, and none of 32 either
        (QUERIES.format(0), 576, "q4_k", "Q5_0"),
        (DOWN.format(0), 576, "q4_k", "Q8_0"),
        (TABLE, 576, "q4_k", "Q8_0"),
        *(
            (name, 48, dtype, "F16")
            for name in (QUERIES.format(0), TABLE)
            for dtype in ("q8_0", "q5_1", "q4_0", "q4_k")
        ),
        # the matrix of the output, which is that of the embedding too
        (TABLE, 512, "q8_0", "Q8_0"),
        (TABLE, 512, "q5_1", "Q6_K"),
        (TABLE, 512, "q4_0", "Q6_K"),
        (TABLE, 96, "q4_0", "Q8_0"),
        (TABLE, 512, "q4_k", "Q6_K"),
        (TABLE, 512, "f16", "F16"),
        (TABLE, 512, "f32", "F32"),
    ],
)
def test_types(name: str, width: int, dtype: _gguf_types.Dtype, expected: str) -> None:
    assert chosen(name, width, dtype) == expected


def test_an_embedding_apart_from_the_output() -> None:
    assert chosen(TABLE, 512, "q4_0", tied=False) == "Q4_0"
    assert chosen(TABLE, 512, "q4_k", tied=False) == "Q4_K"
    assert chosen(OUTPUT, 512, "q4_k", tied=False) == "Q6_K"


@for_each("name", [VALUES, DOWN])
def test_layers_with_more_bits(name: str) -> None:
    """As listed by llama-quantize for models of 16 and of 30 layers in Q4_K_M."""
    for layers, expected in (
        (16, [0, 1, 4, 7, 10, 13, 14, 15]),
        (30, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, *range(26, 30)]),
    ):
        found = [n for n in range(layers) if chosen(name.format(n), 512, "q4_k", layers=layers) == "Q6_K"]
        assert found == expected
        assert {chosen(name.format(n), 512, "q4_0", layers=layers) for n in range(layers)} == {"Q4_0"}


def test_the_type_of_the_file(checkpoint_of: Make, written: Callable[..., Path]) -> None:
    checkpoint = checkpoint_of()
    for dtype, number in (("q8_0", 7), ("q5_1", 9), ("q4_0", 2), ("q4_k", 15)):
        reader = gguf.GGUFReader(written(checkpoint, dtype=dtype))
        assert reader.fields["general.file_type"].contents() == number
        assert {each.tensor_type.name for each in reader.tensors if "norm" in each.name} == {"F32"}


# ---- blocks of 256 ---------------------------------------------------------------------------------------------


def numbers(seed: int, rows: int = 40, width: int = 512) -> np.ndarray:
    draw = np.random.default_rng(seed)
    drawn = (
        draw.normal,
        draw.laplace,
        lambda size: draw.uniform(0, 1, size),
        lambda size: -draw.exponential(size=size),
    )
    return (drawn[seed % 4](size=(rows, width)) * 10.0 ** draw.uniform(-2, 1)).astype(np.float32)


def error(values: np.ndarray, array: np.ndarray, kind: Kind) -> float:
    found = gguf.quants.dequantize(array, kind)
    return float(np.square(found - values).sum() / np.square(values).sum())


@for_each("seed", range(12))
def test_k_quants_are_closer_than_blocks_of_as_many_bits(seed: int) -> None:
    values = numbers(seed)
    four, six = (error(values, *_gguf_types.stored(values, name)) for name in ("Q4_K", "Q6_K"))
    plain = {name: error(values, *_gguf_types.stored(values, name)) for name in ("Q4_0", "Q5_0", "Q8_0")}
    assert four < plain["Q4_0"] * 0.95
    assert plain["Q8_0"] < six < plain["Q5_0"] * 0.4


@for_each("seed", range(8))
def test_every_number_is_within_a_step(seed: int) -> None:
    """A group of 32 has 15 steps between its least and its largest, with scales of 6 bits; one of 16 has 63."""
    values = numbers(seed)
    for name, group, levels, slack in (("Q4_K", 32, 15, 2 / 63), ("Q6_K", 16, 31, 2 / 127)):
        array, kind = _gguf_types.stored(values, name)
        off = np.abs(gguf.quants.dequantize(array, kind) - values).reshape(len(values), -1, group).max(-1)
        groups = values.reshape(len(values), -1, group)
        span = np.maximum(groups.max(-1), 0) - np.minimum(groups.min(-1), 0) if levels == 15 else np.abs(groups).max(-1)
        block = np.abs(values).reshape(len(values), -1, 256).max(-1).repeat(256 // group, axis=-1)
        assert (off <= span / levels + slack * block).all(), name


def test_a_block_by_hand() -> None:
    """Whole numbers from 0 to 15 in each group: the scale 1 and the minimum 0 give them exactly."""
    values = np.tile(np.arange(16, dtype=np.float32), (1, 16)) * 63
    found = _gguf_k_quants.q4_k(values)
    assert found[0, :2].view(np.float16)[0] == 1
    assert found[0, 4:8].tolist() == [63 | 48 << 2 & 0xC0] * 4  # the upper bits of group 4 are beside those of group 0
    np.testing.assert_array_equal(gguf.quants.dequantize(found, Kind.Q4_K), values)


def test_blocks_are_apart() -> None:
    """A number of another block or row changes nothing."""
    values = numbers(1)
    for quantized in (_gguf_k_quants.q4_k, _gguf_k_quants.q6_k):
        before = quantized(values)
        changed = values.copy()
        changed[3, 300] = 50.0
        is_other = (quantized(changed) != before).any(1)
        assert is_other.tolist() == [row == 3 for row in range(len(values))]
        assert (quantized(changed)[3] == before[3])[: before.shape[1] // 2].all()


# ---- a quantized model -----------------------------------------------------------------------------------------

SHAPES: list[dict[str, Any]] = [
    {},
    {"qk_norm": True},
    {"tie_embeddings": False},
    {"attention": {"kind": "grouped", "bias": "qkv"}},
]


def test_blocks_of_codes() -> None:
    weight = torch.randn(6, 96, generator=torch.Generator().manual_seed(0))
    for matrix, name in ((to_int4(weight), "Q4_0"), (to_int8(weight), "Q8_0")):
        array, kind = _gguf_types.of_codes(matrix)
        assert kind.name == name
        np.testing.assert_array_equal(gguf.quants.dequantize(array, kind), matrix.dequantized().numpy())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("to", "tables"), [("int8", "int8"), ("int4", "int4"), ("int4", "int8")])
def test_codes_are_not_rounded_twice(
    checkpoint_of: Make, written: Callable[..., Path], to: Any, tables: Any, shape: dict[str, Any]
) -> None:
    checkpoint = quantize(checkpoint_of(d_model=64, ffn_hidden_size=96, **shape), to, tables=tables)
    path, source = written(checkpoint), load_source(checkpoint)
    assert path.name == f"tiny-{to}-{'q8_0' if to == 'int8' else 'q4_0'}.gguf"
    kinds = {"int8": "Q8_0", "int4": "Q4_0"}
    for name, kind in types(path).items():
        is_table = name in (TABLE, OUTPUT)
        is_matrix = "norm" not in name and "bias" not in name
        assert kind == (kinds[tables if is_table else to] if is_matrix else "F32"), name
    found = dict(importing.open_gguf(path).stored.tensors())
    assert found.keys() == source.weights.keys()
    assert all(found[name].equal(values) for name, values in source.weights.items())


def test_another_type_is_made_from_the_values(checkpoint_of: Make, written: Callable[..., Path]) -> None:
    checkpoint = quantize(checkpoint_of(d_model=64, ffn_hidden_size=96), "int4")
    assert types(written(checkpoint, dtype="q8_0"))[TABLE] == "Q8_0"
    path, source = written(checkpoint, dtype="f32"), load_source(checkpoint)
    table = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == TABLE)
    np.testing.assert_array_equal(table.data, source.weights["model.embed_tokens.weight"].numpy())


def test_rows_that_are_no_whole_blocks(checkpoint_of: Make, written: Callable[..., Path]) -> None:
    """`ffn_down` has rows of 48, which are int8 in a model of int4, and f16 in both files."""
    checkpoint = checkpoint_of()
    for to in get_args(TypeName):
        found = types(written(quantize(checkpoint, to), dtype="q8_0" if to == "int8" else "q4_0"))
        assert found[DOWN.format(0)] == "F16"
        assert found[QUERIES.format(0)] == ("Q8_0" if to == "int8" else "Q4_0")


def test_the_stage_writes_a_quantized_model(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint = quantize(checkpoint_of(), "int4")
    made = export(Config(), checkpoint=checkpoint, out=tmp_path / "out", compare=False)
    assert [file.path for file in made.files] == ["README.md", "tiny-int4-q4_0.gguf"]
