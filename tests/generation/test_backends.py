"""Every way to decode gives what the full forward gives, row by row."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import for_each
from torch import Tensor

from alm.generation import engine
from alm.generation.backends.fixed_shape_rows import FixedShapeRows
from alm.generation.backends.torch_rows import TorchRows
from alm.generation.engine import Rows, rows_for
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.quant.codes import Matrix, fits_int4, to_int4, to_int8
from alm.quant.network import network

# Products of fp32 are summed in another order: some roundings of 2^-24 in each of a few layers.
TOLERANCE = 5e-6
# Activations are rounded to 2^16 levels of the largest of 32, before each product of a few layers.
TOLERANCE_OF_CODES = 1e-3
Make = Callable[..., Rows]


def compiled(model: Transformer, *, count: int, max_tokens: int) -> Rows:
    from alm.generation.backends.numba_rows import NumbaRows

    return NumbaRows(model, count=count, max_tokens=max_tokens)


LLAMAS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one key head": {"n_kv_heads": 1},
    "qwen": {"qk_norm": True, "tie_embeddings": False},
    "windows": {"n_kv_heads": 4, "attention": {"kind": "grouped", "window": 5, "full_every": 2}},
    "biases": {"attention": {"kind": "grouped", "bias": "qkv"}},
    "biases everywhere": {"attention": {"kind": "grouped", "bias": "qkvo", "window": 5}, "qk_norm": True},
    "yarn": {
        "positions": {
            "kind": "rope",
            "scaling": {"method": "yarn", "factor": 2, "original_max_position_embeddings": 24},
        }
    },
    "llama3": {
        "positions": {
            "kind": "rope",
            "scaling": {"method": "llama3", "factor": 8, "original_max_position_embeddings": 24},
        }
    },
    "some layers without positions": {"positions": {"kind": "rope", "skip_every": 2}, "qk_norm": True},
    "odd widths": {"d_model": 36, "n_heads": 6, "n_kv_heads": 3, "ffn_hidden_size": 49, "vocab_size": 67},
}
OTHERS: dict[str, dict[str, Any]] = {
    "alibi": {"positions": "alibi"},
    "extras": {"x0_skip": True, "value_residual": True, "smear": True},
    "documents": {"attention": {"kind": "grouped", "document_mask": True, "end_of_text_id": 3}},
    "relu2": {"feedforward": "relu2"},
    "dual": {"feedforward": "dual"},
}


def made(**changes: Any) -> Transformer:
    values = {
        "d_model": 32,
        "n_layers": 3,
        "n_heads": 4,
        "n_kv_heads": 2,
        "ffn_hidden_size": 48,
        "vocab_size": 61,
        "max_position_embeddings": 48,
    }
    model = Transformer(ModelConfig.model_validate({**values, **changes}))
    initialize(model, seed=7)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.2)
    return model.eval()


def quantized(to: str, **changes: Any) -> Transformer:
    """A model of codes; in int4, matrices that do not consist of groups are int8."""
    model = made(**{"d_model": 64, "ffn_hidden_size": 96, **changes})
    weights: dict[str, Tensor | Matrix] = {**model.state_dict()}
    for name, weight in weights.items():
        if isinstance(weight, Tensor) and weight.dim() == 2:
            is_int4 = to == "int4" and fits_int4(tuple(weight.shape))
            weights[name] = to_int4(weight) if is_int4 else to_int8(weight)
    return network(model.config, weights)


class Checked:
    """Rows, of which each answer is compared with the full forward over the row's whole text."""

    def __init__(self, model: Transformer, rows: Rows, tolerance: float = TOLERANCE) -> None:
        self.model, self.rows, self.texts, self.tolerance = model, rows, dict[int, list[int]](), tolerance

    def prefill(self, row: int, ids: list[int]) -> None:
        self.texts[row] = list(ids)
        self._compare([row], self.rows.prefill(row, ids)[None])

    def extend(self, row: int, kept: int, ids: list[int]) -> None:
        self.texts[row] = [*self.texts[row][:kept], *ids]
        self._compare([row], self.rows.prefill(row, self.texts[row], kept)[None])

    def share(self, source: int, row: int, tokens: int) -> None:
        self.texts[row] = self.texts[source][:tokens]
        if not self.rows.share(source, row, tokens):
            self.rows.prefill(row, self.texts[row])

    def step(self, rows: list[int], ids: list[int]) -> None:
        for row, token in zip(rows, ids, strict=True):
            self.texts[row] = [*self.texts[row], token]
        self._compare(rows, self.rows.step(rows, ids))

    @torch.no_grad()
    def _compare(self, rows: list[int], found: Tensor) -> None:
        for row, scores in zip(rows, found, strict=True):
            text = torch.tensor([self.texts[row]], device=self.model.head_weight.device)
            expected = self.model.logits(self.model(text))[0, -1].cpu()
            assert (scores - expected).abs().max() <= self.tolerance * expected.abs().max(), self.texts[row]


def check(model: Transformer, rows: Rows, tolerance: float = TOLERANCE) -> Checked:
    """Rows that begin, go on, rest, begin anew and share, at different places."""
    checked = Checked(model, rows, tolerance)
    checked.prefill(0, [1, 2, 3])
    checked.prefill(2, [4, 5, 6, 7, 8, 9])
    checked.share(2, 1, 6)
    checked.step([2, 0], [7, 8])
    checked.step([0, 1, 2], [10, 11, 12])
    checked.step([1], [3])
    checked.prefill(0, [5, 3] * 15)
    checked.step([0, 1], [3, 4])
    checked.share(1, 1, 4)
    checked.step([1, 0, 2], [9, 8, 7])
    for token in range(10):
        checked.step([0, 2], [token, token + 1])
    return checked


@pytest.mark.sampled(9)
@pytest.mark.parametrize("make", [TorchRows, compiled, FixedShapeRows])
@pytest.mark.parametrize("shape", LLAMAS)
def test_a_llama_in_every_way_equals_the_full_forward(shape: str, make: Make) -> None:
    model = made(**LLAMAS[shape])
    checked = check(model, make(model, count=3, max_tokens=48))
    checked.extend(0, 20, [1, 2, 3, 4])  # shorter than what the row has read, and after it
    checked.extend(1, len(checked.texts[1]), [5])
    checked.step([0, 1, 2], [6, 7, 8])


CODES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "biases and norms": {"attention": {"kind": "grouped", "bias": "qkvo"}, "qk_norm": True, "tie_embeddings": False},
    "no whole groups": {"d_model": 36, "n_heads": 6, "n_kv_heads": 3, "ffn_hidden_size": 49},
}


@pytest.mark.parametrize("to", ["int8", "int4"])
@for_each("shape", CODES)
def test_a_llama_of_codes_equals_the_full_forward_with_their_values(shape: str, to: str) -> None:
    model = quantized(to, **CODES[shape])
    rows = rows_for(model, count=3, max_tokens=48)
    assert type(rows).__name__ == "NumbaRows"
    checked = check(model, rows, TOLERANCE_OF_CODES)
    checked.extend(0, 20, [1, 2, 3, 4])
    checked.extend(1, len(checked.texts[1]), [5])
    checked.step([0, 1, 2], [6, 7, 8])
    checked.prefill(2, [5, 3] * 20)  # too long for the loops
    checked.step([0, 2], [6, 7])
    for make in (TorchRows, FixedShapeRows):
        check(model, make(model, count=3, max_tokens=48))


@pytest.mark.parametrize("to", ["int8", "int4"])
@for_each("shape", OTHERS)
def test_other_models_of_codes_equal_the_full_forward(shape: str, to: str) -> None:
    model = quantized(to, **OTHERS[shape])
    rows = rows_for(model, count=3, max_tokens=48)
    assert isinstance(rows, TorchRows)
    check(model, rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@for_each("shape", LLAMAS)
def test_graphs_on_every_gpu_equal_the_full_forward(shape: str) -> None:
    """Two spans, and what rests between them."""
    for number in range(torch.cuda.device_count()):
        model = made(**{**LLAMAS[shape], "max_position_embeddings": 600}).to(f"cuda:{number}")
        rows = rows_for(model, count=3, max_tokens=600)
        assert isinstance(rows, FixedShapeRows)
        checked = check(model, rows)
        checked.prefill(2, [5, 3] * 130)
        checked.step([0, 2], [1, 2])
        checked.step([0, 1], [1, 2])


@for_each("shape", OTHERS)
def test_other_models_equal_the_full_forward(shape: str) -> None:
    model = made(**OTHERS[shape])
    rows = rows_for(model, count=3, max_tokens=48)
    assert isinstance(rows, TorchRows)
    check(model, rows)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("to", ["fp32", "int8", "int4"])
def test_compiled_rows_have_the_same_bits_alone_and_among_others(to: str, threads: int) -> None:
    shape = {"d_model": 64, "n_heads": 4, "n_kv_heads": 2, "ffn_hidden_size": 2112, "vocab_size": 3001}
    model = made(**shape) if to == "fp32" else quantized(to, **shape)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together, alone = (compiled(model, count=count, max_tokens=48) for count in (5, 1))
    finally:
        torch.set_num_threads(before)
    prompts = [[1, 2, 3], [9], [4] * 20, [5, 6], [7] * 7]
    for row, prompt in enumerate(prompts):
        together.prefill(row, prompt)
    steps = [[(3 * step + row) % 61 for row in range(5)] for step in range(12)]
    found = [together.step(range(5), ids) for ids in steps]
    for row, prompt in enumerate(prompts):
        alone.prefill(0, prompt)
        for ids, scores in zip(steps, found, strict=True):
            assert torch.equal(alone.step([0], [ids[row]])[0], scores[row])


PROBE = """
import numpy as np
from alm.generation.backends import _kernels
one = np.ones((1, 1), dtype=np.float32)
_kernels.{name}(one, one, one.copy())
print(sum(_kernels.{name}.stats.cache_hits.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="one thread elsewhere")
def test_compiled_rows_leave_the_threads_of_pytorch_as_they_are() -> None:
    """In a process of its own: Numba starts its threads once."""
    probe = "import torch; torch.set_num_threads(2); from alm.generation.backends.numba_rows import _threads; "
    done = subprocess.run(
        [sys.executable, "-c", probe + "print(_threads(), torch.get_num_threads())"],
        env={**os.environ, "NUMBA_NUM_THREADS": "4"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["2", "2"]


@pytest.mark.slow
def test_a_product_in_threads_and_one_without_are_kept_apart(tmp_path: Path) -> None:
    """What one process has compiled is not what another loads for the other of the two."""
    for name, hits in (("multiply", 0), ("multiply_in_threads", 0), ("multiply", 1), ("multiply_in_threads", 1)):
        done = subprocess.run(
            [sys.executable, "-c", PROBE.format(name=name)],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert int(done.stdout) == hits, name


def test_a_static_step_leaves_rows_that_rest_as_they_are() -> None:
    model = made()
    rows = FixedShapeRows(model, count=2, max_tokens=8)
    rows.prefill(0, [1, 2, 3, 4, 5, 6, 7])
    full = rows.step([0], [8])
    rows.prefill(1, [9])
    for token in range(5):
        rows.step([1], [token])
    rows.share(0, 1, 7)
    assert torch.equal(rows.step([1], [8]), full)


@pytest.mark.parametrize("make", [TorchRows, compiled, FixedShapeRows])
def test_a_row_that_is_full_is_no_place_to_write(make: Make) -> None:
    rows = make(made(), count=1, max_tokens=4)
    rows.prefill(0, [1, 2, 3])
    rows.step([0], [4])
    with pytest.raises(ValueError, match="4"):
        rows.step([0], [5])


def test_the_fast_ways_are_for_models_that_they_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALM_KERNELS", raising=False)
    model = made()
    assert type(rows_for(model, count=1, max_tokens=8)).__name__ == "NumbaRows"
    assert isinstance(rows_for(model, count=1, max_tokens=8, plain=True), TorchRows)
    assert isinstance(rows_for(made().bfloat16(), count=1, max_tokens=8), TorchRows)
    monkeypatch.setenv("ALM_KERNELS", "never")
    assert isinstance(rows_for(model, count=1, max_tokens=8), TorchRows)
    monkeypatch.delenv("ALM_KERNELS")
    monkeypatch.setattr(engine.compiling, "is_installed", lambda: False)
    assert isinstance(rows_for(model, count=1, max_tokens=8), TorchRows)


def test_weights_are_read_where_they_lie() -> None:
    model = made()
    rows = rows_for(model, count=1, max_tokens=8)
    rows.prefill(0, [1])
    before = rows.step([0], [2])
    with torch.no_grad():
        model.head_weight.mul_(2)
    rows.prefill(0, [1])
    assert not torch.equal(rows.step([0], [2]), before)
