"""Rows on a CPU: PyTorch reads prompts, compiled loops over the model's own weights or codes compute single tokens.

B rows of the batch, R rows of the cache, D model width, V vocabulary, W some width.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alm.generation.backends import _kernels
from alm.model.transformer import Block, Transformer
from alm.quant.network import QuantizedEmbedding, QuantizedLinear

Array = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

# Entries of a matrix from which on threads are faster: starting them takes some microseconds.
_THREADS_PAY_FROM = 1 << 17
_ALL = 1 << 62
# Prompts of codes up to this length are read by the loops too: turning all codes into numbers takes 60 ms for pico.
_SHORT = 32


class NumbaRows:
    """Rows of a model for which `ModelConfig.is_llama` holds. The weights must not be moved while this is used."""

    def __init__(self, model: Transformer, *, count: int, max_tokens: int) -> None:
        config = model.config
        self._model = model
        self._cache = model.new_cache(batch_size=count, max_tokens=max_tokens)
        self._lengths = np.zeros(count, dtype=np.int64)
        self._table: Any = model.model.embed_tokens
        head = self._table if model.lm_head is None else model.lm_head
        self._head = _Matrix.of(head, config.known_vocab_size)
        self._norm, self._eps = _array(model.model.norm.weight), np.float32(config.norm_eps)
        positions: Any = model.model.positions
        self._angles = tuple(_array(table[:, 0]) for table in (positions.cos, positions.sin))
        caches = [(_array(layer.keys), _array(layer.values)) for layer in self._cache.layers]
        blocks = cast(Iterable[Block], model.model.layers)
        self._layers = [_Layer.of(block, *cache) for block, cache in zip(blocks, caches, strict=True)]
        self._scores = np.empty(max_tokens, dtype=np.float32)
        self._threads = _threads()
        self._load()

    def _load(self) -> None:
        """Load or compile all loops now, not at the first token, by running them on empty arrays."""
        none = np.empty((0, self._norm.size), dtype=np.float32)
        rows = np.empty(0, dtype=np.int64)
        self._attention(self._layers[0], none, rows, rows)
        self._feedforward(self._layers[0], none)
        _kernels.normalize(none, self._norm, self._eps, none)

    @torch.inference_mode()
    def prefill(self, row: int, ids: Sequence[int], kept: int = 0) -> Tensor:
        """Compute the scores (V,) of the token after `ids`, of which the row has read the first `kept`."""
        self._check_room(len(ids))
        new = ids[kept:]
        if self._head.scales is not None and len(new) <= _SHORT:
            places = np.arange(kept, len(ids), dtype=np.int64)
            hidden = self._read(np.full(len(new), row, dtype=np.int64), places, new)
        else:
            hidden = _array(self._model(torch.tensor([new]), self._cache.row(row, length=kept))[0])
        self._lengths[row] = len(ids)
        return torch.from_numpy(self._product(self._head, hidden[-1:])[0])

    @torch.inference_mode()
    def share(self, source: int, row: int, tokens: int) -> bool:
        """Copy keys and values: a row has no other state."""
        self._cache.copy_row(source, row, tokens)
        self._lengths[row] = tokens
        return True

    @torch.inference_mode()
    def step(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Compute the scores (B, V) of the tokens after `ids`."""
        numbers = np.array(rows, dtype=np.int64)
        places = self._lengths[numbers]
        self._check_room(int(places.max()) + 1)
        hidden = self._read(numbers, places, ids)
        self._lengths[numbers] += 1
        return torch.from_numpy(self._product(self._head, hidden))

    def _check_room(self, tokens: int) -> None:
        if tokens > len(self._scores):  # compiled loops would write past the end
            raise ValueError(f"a row is full: it has room for {len(self._scores)} tokens")

    def _read(self, rows: Places, places: Places, ids: Sequence[int]) -> Array:
        """Let `rows` read `ids` at their `places`, and return the hidden states (B, D) after the final norm.

        A row may be there several times, with one place after the other.
        """
        x = _array(self._table(torch.tensor(ids)))
        normal = np.empty_like(x)
        for layer in self._layers:
            _kernels.normalize(x, layer.norm, self._eps, normal)
            x += self._attention(layer, normal, rows, places)
            _kernels.normalize(x, layer.second_norm, self._eps, normal)
            x += self._feedforward(layer, normal)
        _kernels.normalize(x, self._norm, self._eps, normal)
        return normal

    def _attention(self, layer: _Layer, x: Array, rows: Places, places: Places) -> Array:
        parts = zip((layer.q, layer.k, layer.v), (layer.q_bias, layer.k_bias, layer.v_bias), strict=True)
        q, k, v = (self._product(weight, x, bias) for weight, bias in parts)
        for heads, norm in ((q, layer.q_norm), (k, layer.k_norm)):
            if norm is not None:
                _kernels.normalize(heads, norm, self._eps, heads)
            if layer.rotates:
                _kernels.rotate(heads, *self._angles, places)
        _kernels.store(k, v, layer.keys, layer.values, rows, places)
        mixed = np.empty_like(q)
        _kernels.attend(q, layer.keys, layer.values, rows, places, layer.window, self._scores, mixed)
        return self._product(layer.o, mixed, layer.o_bias)

    def _feedforward(self, layer: _Layer, x: Array) -> Array:
        gates, up = self._product(layer.gate, x), self._product(layer.up, x)
        _kernels.gate(gates, up)
        return self._product(layer.down, gates)

    def _product(self, weight: _Matrix, x: Array, bias: Array | None = None) -> Array:
        numbers, scales = weight.numbers, weight.scales
        out = np.empty((len(x), len(numbers)), dtype=np.float32)
        in_threads = self._threads > 1 and numbers.size >= _THREADS_PAY_FROM
        if in_threads:
            numba.set_num_threads(self._threads)  # the setting belongs to the calling thread, which may change
        if scales is None:
            (_kernels.multiply_in_threads if in_threads else _kernels.multiply)(numbers, x, out)
        else:
            (_kernels.multiply_codes_in_threads if in_threads else _kernels.multiply_codes)(numbers, scales, x, out)
        if bias is not None:
            out += bias
        return out


@dataclass(frozen=True)
class _Matrix:
    """A matrix (out, in): numbers in fp32, or codes with scales, in the model's own memory."""

    numbers: npt.NDArray[Any]
    scales: npt.NDArray[np.int16] | None  # bits of fp16, which Numba does not have on a CPU

    @classmethod
    def of(cls, layer: Any, rows: int | None = None) -> _Matrix:  # Any: modules with or without codes
        """Return the first `rows` rows (absent: all) of the matrix of a layer."""
        if isinstance(layer, QuantizedLinear | QuantizedEmbedding):
            codes, scales = layer.codes[:rows].numpy(), layer.scales[:rows].view(torch.int16).numpy()
            return cls(np.ascontiguousarray(codes), np.ascontiguousarray(scales))
        return cls(_array(layer.weight[:rows]), None)


@dataclass(frozen=True)
class _Layer:
    """Weights of a block (out, in), and the block's part of the cache (R, K, max_tokens, E)."""

    norm: Array
    q: _Matrix
    k: _Matrix
    v: _Matrix
    o: _Matrix
    q_bias: Array | None
    k_bias: Array | None
    v_bias: Array | None
    o_bias: Array | None
    q_norm: Array | None
    k_norm: Array | None
    second_norm: Array
    gate: _Matrix
    up: _Matrix
    down: _Matrix
    keys: Array
    values: Array
    window: int
    rotates: bool

    @classmethod
    def of(cls, block: Block, keys: Array, values: Array) -> _Layer:
        attention: Any = block.self_attn  # Any: modules of kinds
        mlp: Any = block.mlp
        return cls(
            norm=_array(block.input_layernorm.weight),
            q=_Matrix.of(attention.q_proj),
            k=_Matrix.of(attention.k_proj),
            v=_Matrix.of(attention.v_proj),
            o=_Matrix.of(attention.o_proj),
            q_bias=_optional(attention.q_proj.bias),
            k_bias=_optional(attention.k_proj.bias),
            v_bias=_optional(attention.v_proj.bias),
            o_bias=_optional(attention.o_proj.bias),
            q_norm=None if attention.q_norm is None else _array(attention.q_norm.weight),
            k_norm=None if attention.k_norm is None else _array(attention.k_norm.weight),
            second_norm=_array(block.post_attention_layernorm.weight),
            gate=_Matrix.of(mlp.gate_proj),
            up=_Matrix.of(mlp.up_proj),
            down=_Matrix.of(mlp.down_proj),
            keys=keys,
            values=values,
            window=_ALL if attention.window is None else attention.window,
            rotates=attention.rotates,
        )


def _array(tensor: Tensor) -> Array:
    """Return the memory of `tensor` as an array; a copy only if it is not contiguous."""
    return np.ascontiguousarray(tensor.detach().numpy())


def _optional(tensor: Tensor | None) -> Array | None:
    return None if tensor is None else _array(tensor)


def _threads() -> int:
    """Return the number of threads for a large product: PyTorch's on Linux, where threads are tested; else 1.

    They are tried right away: 1 if Numba has no threading layer that several callers may use.
    """
    usable: Any = numba.config  # Any: not all of it is declared
    threads: int = min(torch.get_num_threads(), usable.NUMBA_NUM_THREADS)
    if threads == 1 or sys.platform != "linux":
        return 1
    # TBB or OpenMP. Numba's own pool serves one caller at a time, and takes 60 to 90 us to start, OpenMP 5
    # (docs/benchmarks.md).
    usable.THREADING_LAYER = "threadsafe"
    one, of_torch = np.ones((1, 1), dtype=np.float32), torch.get_num_threads()
    try:
        _kernels.multiply_in_threads(one, one, one.copy())
    except ValueError:
        return 1
    torch.set_num_threads(of_torch)  # Numba's start sets OpenMP's number, which is PyTorch's too, to all processors
    return threads
