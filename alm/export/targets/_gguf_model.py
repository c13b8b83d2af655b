"""Our model in GGUF: its architecture, the keys of its shape, and its tensors by name.

H query heads, K key/value heads, E head width, D model width.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from alm.model.config import ModelConfig, RopeConfig, RopeScaling

if TYPE_CHECKING:
    import gguf
    from torch import Tensor

Dtype = Literal["f32", "f16", "q8_0"]
Numbers = npt.NDArray[np.float32]

BLOCK = 32
"""Number of values that share a scale in q8_0."""


def architecture(model: ModelConfig) -> Literal["llama", "qwen3"]:
    """Return llama.cpp's name for such a model."""
    return "qwen3" if model.qk_norm else "llama"


def refusals(model: ModelConfig) -> list[str]:
    """List settings that a Llama can have, but not in llama.cpp."""
    if not isinstance(model.positions, RopeConfig) or model.positions.scaling.method != "yarn":
        return []
    usual, scaling = RopeScaling(), model.positions.scaling
    # The file format has keys for them, but llama.cpp reads those only for other architectures.
    return [
        f"`positions.scaling.{name}: {getattr(scaling, name):g}`: in llama.cpp it is {getattr(usual, name):g}"
        for name in ("beta_fast", "beta_slow")
        if getattr(scaling, name) != getattr(usual, name)
    ]


def add_shape(writer: gguf.GGUFWriter, model: ModelConfig) -> None:
    """Write every number that llama.cpp needs to build the model."""
    writer.add_vocab_size(model.known_vocab_size)
    writer.add_context_length(model.max_position_embeddings)
    writer.add_embedding_length(model.d_model)
    writer.add_block_count(model.n_layers)
    writer.add_feed_forward_length(model.ffn_hidden_size)
    writer.add_head_count(model.n_heads)
    writer.add_head_count_kv(model.n_kv_heads)
    writer.add_key_length(model.head_width)
    writer.add_value_length(model.head_width)
    writer.add_layer_norm_rms_eps(model.norm_eps)
    writer.add_rope_dimension_count(model.head_width)
    writer.add_rope_freq_base(model.rope_theta)
    _add_scaling(writer, model)


def _add_scaling(writer: gguf.GGUFWriter, model: ModelConfig) -> None:
    import gguf

    assert isinstance(model.positions, RopeConfig)
    scaling = model.positions.scaling
    if scaling.method == "none":
        return
    kinds = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
    writer.add_rope_scaling_type(kinds[scaling.method])
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.original_max_position_embeddings is not None:
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)


def tensors(model: ModelConfig, weights: dict[str, Tensor]) -> Iterator[tuple[str, Numbers]]:
    """Yield the tensors of a checkpoint by their names in GGUF, with their rows in llama.cpp's order."""
    for name, tensor in weights.items():
        values: Numbers = tensor.numpy()
        heads = _interleaved_heads(name, model)
        yield _gguf_name(name, model), values if heads is None else interleaved(values, heads)


def read_weights(path: Path, model: ModelConfig, names: Iterable[str]) -> dict[str, Tensor]:
    """Read the file at `path` as fp32, under the `names` of a checkpoint and with rows in our order."""
    import gguf
    import torch

    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    weights = {}
    for name in names:
        stored = found[_gguf_name(name, model)]
        values = np.array(gguf.quants.dequantize(stored.data, stored.tensor_type), dtype=np.float32)
        heads = _interleaved_heads(name, model)
        weights[name] = torch.from_numpy(values if heads is None else split_in_halves(values, heads))
    return weights


@functools.cache
def _names(arch: str, n_layers: int) -> gguf.TensorNameMap:
    import gguf

    return gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), n_layers)


def _gguf_name(name: str, model: ModelConfig) -> str:
    found = _names(architecture(model), model.n_layers).get_name(name, try_suffixes=(".weight",))
    assert found is not None, name
    return found


def _interleaved_heads(name: str, model: ModelConfig) -> int | None:
    """Return the number of heads whose rows llama.cpp orders differently; None if it has our order."""
    if architecture(model) == "qwen3":  # rotated as we do
        return None
    heads = {"q_proj": model.n_heads, "k_proj": model.n_kv_heads}
    return heads.get(name.removesuffix(".weight").rpartition(".")[2])


def interleaved(rows: Numbers, heads: int) -> Numbers:
    """Reorder the rows (heads E, D) of queries or keys within each head, for llama.cpp.

    We rotate the pairs (i, i + E/2); in a Llama, llama.cpp rotates the neighbours (2i, 2i + 1). Queries and keys change
    their order together, so scores stay the same.
    """
    halves = rows.reshape(heads, 2, -1, rows.shape[1])  # (heads, 2, E/2, D)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def split_in_halves(rows: Numbers, heads: int) -> Numbers:
    """Undo `interleaved`: rows (heads E, D) in our order."""
    neighbours = rows.reshape(heads, -1, 2, rows.shape[1])  # (heads, E/2, 2, D)
    return np.ascontiguousarray(neighbours.swapaxes(1, 2)).reshape(rows.shape)


def stored(values: Numbers, dtype: Dtype) -> tuple[npt.NDArray[np.generic], gguf.GGMLQuantizationType]:
    """Return a tensor as the file holds it, and its type.

    Vectors stay fp32. Rows whose length is not a multiple of `BLOCK` cannot be q8_0 and are f16, as in llama.cpp.
    """
    import gguf

    kinds = gguf.GGMLQuantizationType
    if dtype == "f32" or values.ndim == 1:
        return values, kinds.F32
    if dtype == "q8_0" and values.shape[1] % BLOCK == 0:
        return gguf.quants.quantize(values, kinds.Q8_0), kinds.Q8_0
    return values.astype(np.float16), kinds.F16
