"""Our model in GGUF: its architecture, the keys of its shape, and its tensors by name.

H query heads, K key/value heads, E head width, D model width.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from alm.export import hf_config
from alm.export.from_gguf_header import read_header
from alm.model.config import ModelConfig, RopeConfig, RopeScaling
from alm.model.weights import shapes_of

if TYPE_CHECKING:
    import gguf
    from torch import Tensor

Numbers = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)

FREQUENCIES = "rope_freqs.weight"
OWN_SCALING = "alm.rope.scaling."
"""Beginning of the keys of alm's own files for the settings of `llama3` scaling."""
SKIPPED = 4
"""Which layers of a SmolLM3 have no rotation: every fourth."""


def architecture(model: ModelConfig) -> str:
    """Return llama.cpp's name for such a model."""
    family = hf_config.family(model)
    return "llama" if family == "mistral" else family


def refusals(model: ModelConfig) -> list[str]:
    """List settings that a family can have, but not in llama.cpp."""
    return [*_attention_refusals(model), *_scaling_refusals(model)]


def _attention_refusals(model: ModelConfig) -> list[str]:
    name, found = architecture(model), []
    windows = (model.attention.window_of(layer) for layer in range(model.n_layers))
    if any(window is not None and window < model.max_position_embeddings for window in windows):
        found.append(f"`attention.window: {model.attention.window}`: llama.cpp's {name} attends to all previous tokens")
    if model.attention.bias == "qkvo" and name != "llama":
        found.append(f"`attention.bias: qkvo`: llama.cpp's {name} has no biases")
    skipped = model.positions.model_dump().get("skip_every", 0)
    if skipped not in (0, SKIPPED):
        found.append(f"`positions.skip_every: {skipped}`: in llama.cpp it is {SKIPPED}")
    return found


def _scaling_refusals(model: ModelConfig) -> list[str]:
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
    if scaling.method == "llama3":
        # llama.cpp reads the divisors alone; these keys are for alm, which otherwise knows only those of Llama 3.
        for key in ("factor", "low_freq_factor", "high_freq_factor"):
            writer.add_float32(OWN_SCALING + key, getattr(scaling, key))
        assert scaling.original_max_position_embeddings is not None
        writer.add_uint32(f"{OWN_SCALING}original_max_position_embeddings", scaling.original_max_position_embeddings)
        writer.add_tensor(FREQUENCIES, llama3_divisors(scaling, model.rope_theta, model.head_width))
        return
    kinds = {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}
    writer.add_rope_scaling_type(kinds[scaling.method])
    writer.add_rope_scaling_factor(scaling.factor)
    if scaling.original_max_position_embeddings is not None:
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)


def llama3_divisors(scaling: RopeScaling, theta: float, width: int) -> Numbers:
    """Compute the tensor (width/2,) by which llama.cpp divides the frequencies of pairs, for `llama3` scaling."""
    from alm.model.positions import rope_frequencies

    plain, _ = rope_frequencies(width, theta, RopeScaling())
    scaled, _ = rope_frequencies(width, theta, scaling)
    divisors: Numbers = (plain / scaled).float().numpy()
    return divisors


def in_their_order(name: str, rows: npt.NDArray[Number], model: ModelConfig) -> npt.NDArray[Number]:
    """Return the rows of the tensor that a checkpoint calls `name`, numbers or blocks, in llama.cpp's order."""
    heads = _interleaved_heads(name, model)
    return rows if heads is None else interleaved(rows, heads)


def read_weights(path: Path, model: ModelConfig) -> dict[str, Tensor]:
    """Read the file at `path` as fp32, under the names of a checkpoint and with rows in our order."""
    header = read_header(path)
    return {name: our_tensor(name, header.read(gguf_name(name)), model) for name in shapes_of(model)}


def our_tensor(name: str, values: Numbers, model: ModelConfig) -> Tensor:
    """Return the `values` of a file as the tensor that a checkpoint calls `name`, with rows in our order."""
    import torch

    heads = _interleaved_heads(name, model)
    return torch.from_numpy(values if heads is None else split_in_halves(values, heads))


_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)|blk\.(\d+)\.(.+)\.(weight|bias)", re.ASCII)
_PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_OURS = {theirs: ours for ours, theirs in (_PARTS | _WHOLE).items()}


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of the tensor that a checkpoint calls `name`."""
    if name in _WHOLE:
        return _WHOLE[name]
    found = _LAYER.fullmatch(name)
    assert found is not None, name
    return f"blk.{found[1]}.{_PARTS[found[2]]}.{found[3]}"


def our_name(name: str) -> str:
    """Return a checkpoint's name of the tensor that a file calls `name`; that name itself if no model of alm has it."""
    found = _LAYER.fullmatch(name)
    if found is None or found[5] not in _OURS:
        return _OURS.get(name, name)
    return f"model.layers.{found[4]}.{_OURS[found[5]]}.{found[6]}"


def _interleaved_heads(name: str, model: ModelConfig) -> int | None:
    """Return the number of heads whose rows llama.cpp orders differently; None if it has our order."""
    if architecture(model) not in ("llama", "smollm3"):  # rotated as we do
        return None
    heads = {"q_proj": model.n_heads, "k_proj": model.n_kv_heads}
    return heads.get(name.rpartition(".")[0].rpartition(".")[2])


def interleaved(rows: npt.NDArray[Number], heads: int) -> npt.NDArray[Number]:
    """Reorder the rows (heads E, D) of queries or keys, or the numbers (heads E,) added to them, for llama.cpp.

    We rotate the pairs (i, i + E/2); in a Llama, llama.cpp rotates the neighbours (2i, 2i + 1). Queries and keys change
    their order together, so scores stay the same.
    """
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])  # (heads, 2, E/2, D)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def split_in_halves(rows: Numbers, heads: int) -> Numbers:
    """Undo `interleaved`: rows in our order."""
    neighbours = rows.reshape(heads, -1, 2, *rows.shape[1:])  # (heads, E/2, 2, D)
    return np.ascontiguousarray(neighbours.swapaxes(1, 2)).reshape(rows.shape)
