"""A model of codes computes what the same model with their values computes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.quant import calibrate
from alm.quant.calibrate import count_types, quantized, stored_bytes
from alm.quant.codes import Int4Matrix, Int8Matrix, Matrix, TypeName
from alm.quant.network import network

IDS = torch.arange(24).view(2, 12) % 300


def model(**changes: object) -> Transformer:
    shape = {"d_model": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "ffn_hidden_size": 96, "vocab_size": 300}
    made = Transformer(ModelConfig.model_validate({**shape, "max_position_embeddings": 32, **changes}))
    initialize(made, seed=1)
    return made.eval()


@pytest.mark.parametrize("to", ["int8", "int4"])
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"attention": {"kind": "grouped", "bias": "qkv"}}])
@torch.no_grad()
def test_codes_compute_what_their_values_do(to: TypeName, changes: dict[str, object]) -> None:
    values = model(**changes)
    weights = quantized(values, to, text=[IDS])
    codes = network(values.config, weights)
    assert torch.equal(codes.logits(codes(IDS)), values.logits(values(IDS)))
    kinds = {name: type(value) for name, value in weights.items() if not isinstance(value, torch.Tensor)}
    assert set(kinds.values()) == {Int8Matrix if to == "int8" else Int4Matrix}
    assert "model.norm.weight" not in kinds
    assert "model.embed_tokens.weight" in kinds
    assert ("lm_head.weight" in kinds) is ("tie_embeddings" in changes)


@torch.no_grad()
def test_calibration_makes_the_outputs_better_than_rounding_alone() -> None:
    """The weights have the size of trained ones; the text is what they are calibrated on."""
    before = model()
    wanted = before.logits(before(IDS))

    def error(text: Sequence[torch.Tensor]) -> float:
        rounded = model()
        quantized(rounded, "int4", tables="int8", text=text)
        return float((rounded.logits(rounded(IDS)) - wanted).square().mean())

    assert error([IDS]) < 0.8 * error([])


@torch.no_grad()
def test_a_block_is_calibrated_on_what_the_rounded_blocks_before_it_give(monkeypatch: pytest.MonkeyPatch) -> None:
    moments, seen = calibrate._moments, list[torch.Tensor]()

    def recording(block: torch.nn.Module, inputs: Sequence[tuple[torch.Tensor, ...]]) -> dict[str, torch.Tensor]:
        seen.append(inputs[0][0])
        return moments(block, inputs)

    monkeypatch.setattr(calibrate, "_moments", recording)
    rounded, expected = model(), list[torch.Tensor]()
    quantized(rounded, "int4", text=[IDS], tables="int8")
    table = rounded.model.embed_tokens.weight
    table.copy_(model().model.embed_tokens.weight)  # tables are rounded last
    for block in rounded.model.layers:
        block.register_forward_pre_hook(lambda _, given: expected.append(given[0]))
    rounded(IDS)
    assert all(torch.equal(*pair) for pair in zip(seen, expected, strict=True))


@torch.no_grad()
def test_a_matrix_without_groups_becomes_int8() -> None:
    made = model(d_model=48, ffn_hidden_size=64)
    weights: dict[str, torch.Tensor | Matrix] = quantized(made, "int4", text=[IDS])
    assert isinstance(weights["model.layers.0.mlp.down_proj.weight"], Int4Matrix)
    assert isinstance(weights["model.layers.0.mlp.up_proj.weight"], Int8Matrix)
    counts = count_types(weights)
    assert sum(counts.values()) == sum(value.numel() for value in made.state_dict().values())


@pytest.mark.parametrize("to", ["int8", "int4"])
def test_the_size_is_known_before(to: TypeName) -> None:
    made = model()
    shapes = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    parts = [
        part
        for value in quantized(made, to, tables="int8").values()
        for part in ([value] if isinstance(value, torch.Tensor) else [value.codes, value.scales])
    ]
    assert stored_bytes(shapes, to) == sum(part.nbytes for part in parts)


@torch.no_grad()
def test_tables_become_int4_where_that_costs_hardly_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights: no text is likelier than another, so int4 costs nothing."""
    name = "model.embed_tokens.weight"
    assert isinstance(quantized(model(), "int4", text=[IDS])[name], Int4Matrix)
    assert isinstance(quantized(model(), "int4")[name], Int8Matrix)
    monkeypatch.setattr(calibrate, "_MOST_NATS_FOR_TABLES", -1.0)
    assert isinstance(quantized(model(), "int4", text=[IDS])[name], Int8Matrix)
