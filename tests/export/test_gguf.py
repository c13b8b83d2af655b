"""The file for llama.cpp, read back by the library `gguf` alone: every key and number as worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import jinja2
import numpy as np
import pytest
import torch
from cases import for_each
from model_kinds import EXTRAS

from alm.cli.main import main
from alm.errors import ArtifactError
from alm.events import Event, Warned
from alm.export import optional_tools
from alm.export.run import export
from alm.export.source import Source, load_source
from alm.export.targets import _chat_template, _gguf_model, _gguf_tokenizer, _gguf_types
from alm.export.targets import gguf as target
from alm.export.targets.gguf import Config
from alm.model.config import ModelConfig
from alm.model.positions import Rotary
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe, unigram
from alm.tokenizers.pretokenize import PATTERNS, Pattern, count_words
from alm.tokenizers.words import Words

from .conftest import MERGES, Make

YARN = {"method": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
PROSE = "the cat sat on the mat, and then it sat there again; the hat and the bat"
BLOCK = 32

Written = Callable[..., gguf.GGUFReader]


@pytest.fixture
def written(checkpoint_of: Make, tmp_path: Path) -> Written:
    """What is in the file of a small random model; keywords are of its configuration."""

    def read(dtype: str = "f32", **changes: Any) -> gguf.GGUFReader:
        source = load_source(checkpoint_of(**changes))
        folder = tmp_path / "written"
        folder.mkdir()
        target.write(Config.model_validate({"dtype": dtype}), source, folder)
        (path,) = folder.iterdir()
        assert path.name == f"tiny-{dtype}.gguf"
        return gguf.GGUFReader(path)

    return read


def keys(reader: gguf.GGUFReader) -> dict[str, Any]:
    """All keys but those of the container and the tokenizer."""
    values = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return {name: value for name, value in values.items() if not name.startswith("tokenizer.")}


def tokenizer_keys(reader: gguf.GGUFReader) -> dict[str, Any]:
    found = {name: field.contents() for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    return {name.removeprefix("tokenizer.").removeprefix("ggml."): value for name, value in found.items()}


def tensors(reader: gguf.GGUFReader) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in reader.tensors}


def weights_of(tmp_path: Path) -> dict[str, np.ndarray]:
    source = load_source(tmp_path / "runs/tiny/ckpt-last.pt")
    return {name: tensor.numpy() for name, tensor in source.weights.items()}


# ---- keys ------------------------------------------------------------------------------------------------------


def test_the_keys_of_a_llama(written: Written, tmp_path: Path) -> None:
    found = keys(written(rope_theta=500.0, norm_eps=1e-5))
    source = load_source(tmp_path / "runs/tiny/ckpt-last.pt")
    assert found.pop("llama.attention.layer_norm_rms_epsilon") == pytest.approx(1e-5)
    assert found == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "tiny",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "alm.step": 7,
        "alm.checkpoint_sha256": source.sha256,
        "alm.tokenizer_sha256": source.tokenizer.sha256,
        "llama.vocab_size": 277,
        "llama.context_length": 64,
        "llama.embedding_length": 32,
        "llama.block_count": 2,
        "llama.feed_forward_length": 48,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 8,
        "llama.rope.dimension_count": 8,
        "llama.rope.freq_base": 500.0,
    }


def test_a_model_with_qk_norm_is_a_qwen3(written: Written) -> None:
    found = keys(written(qk_norm=True, head_dim=10, n_kv_heads=1))
    assert found["general.architecture"] == "qwen3"
    assert {name.partition(".")[0] for name in found} == {"general", "alm", "qwen3"}
    assert [found[f"qwen3.attention.{name}"] for name in ("head_count_kv", "key_length", "value_length")] == [1, 10, 10]
    assert found["qwen3.rope.dimension_count"] == 10


@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_keys_of_scaled_positions(written: Written, tmp_path: Path, qk_norm: bool) -> None:
    arch = "qwen3" if qk_norm else "llama"
    found = keys(written(qk_norm=qk_norm, positions={"kind": "rope", "scaling": YARN}))
    assert {name: value for name, value in found.items() if ".scaling." in name} == {
        f"{arch}.rope.scaling.type": "yarn",
        f"{arch}.rope.scaling.factor": 4.0,
        f"{arch}.rope.scaling.original_context_length": 16,
    }


def test_the_keys_of_positions_that_are_divided(written: Written) -> None:
    found = keys(written(positions={"kind": "rope", "scaling": {"method": "linear", "factor": 3.0}}))
    scaling = {name: value for name, value in found.items() if ".scaling." in name}
    assert scaling == {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 3.0}


def test_licence_and_title_are_in_the_file(checkpoint_of: Make, tmp_path: Path) -> None:
    target.write(Config(licence="cc0-1.0", title="Tales"), load_source(checkpoint_of()), tmp_path)
    found = keys(gguf.GGUFReader(tmp_path / "tiny-f32.gguf"))
    assert (found["general.license"], found["general.name"]) == ("cc0-1.0", "Tales")


# ---- tensors ---------------------------------------------------------------------------------------------------

PARTS = {
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
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def expected_names(model: ModelConfig) -> dict[str, str]:
    """Our name by llama.cpp's."""
    inside = {
        f"blk.{layer}.{theirs}.weight": f"model.layers.{layer}.{ours}.weight"
        for layer in range(model.n_layers)
        for ours, theirs in PARTS.items()
        if model.qk_norm or "_norm" not in ours.partition(".")[2]
    }
    outside = {f"{theirs}.weight": f"{ours}.weight" for ours, theirs in WHOLE.items()}
    if model.tie_embeddings:
        del outside["output.weight"]
    return inside | outside


@pytest.mark.parametrize("shape", [{}, {"qk_norm": True}, {"tie_embeddings": False, "n_kv_heads": 4, "head_dim": 12}])
def test_every_tensor_is_there_with_its_rows_in_place(written: Written, tmp_path: Path, shape: dict[str, Any]) -> None:
    found = tensors(written(**shape))
    model, weights = load_source(tmp_path / "runs/tiny/ckpt-last.pt").model, weights_of(tmp_path)
    names = expected_names(model)
    assert found.keys() == names.keys()
    for theirs, ours in names.items():
        values = weights[ours]
        heads = {"attn_q": model.n_heads, "attn_k": model.n_kv_heads}.get(theirs.split(".")[-2])
        if heads is not None and not model.qk_norm:
            E = model.head_width
            order = [
                head * E + pair + half * E // 2 for head in range(heads) for pair in range(E // 2) for half in (0, 1)
            ]
            values = values[order]
        assert found[theirs].tensor_type == gguf.GGMLQuantizationType.F32
        np.testing.assert_array_equal(found[theirs].data, values)


def test_scores_are_the_same_when_neighbours_are_rotated() -> None:
    """Rows in llama.cpp's order, rotated as it rotates, against ours: each pair a complex number times a unit."""
    heads, E, D, T = 3, 10, 7, 6
    draw = np.random.default_rng(1)
    frequencies = torch.tensor([1000.0 ** (-2 * i / E) for i in range(E // 2)])
    rotation = Rotary(frequencies, max_positions=T)(0, T)
    x, rows = draw.normal(size=(T, D)), draw.normal(size=(2, heads * E, D)).astype(np.float32)

    def ours(matrix: np.ndarray) -> np.ndarray:
        projected = torch.from_numpy((x @ matrix.T).reshape(1, T, heads, E)).float()
        return rotation.rotate(projected)[0].numpy()

    def theirs(matrix: np.ndarray) -> np.ndarray:
        projected = (x @ _gguf_model.interleaved(matrix, heads).T).reshape(T, heads, E // 2, 2)
        turned = (projected[..., 0] + 1j * projected[..., 1]) * np.exp(1j * np.outer(np.arange(T), frequencies))[
            :, None
        ]
        return np.stack([turned.real, turned.imag], axis=-1).reshape(T, heads, E)

    scores = [np.einsum("the,she->hts", rotate(rows[0]), rotate(rows[1])) for rotate in (ours, theirs)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_what_is_read_back_is_the_checkpoint(checkpoint_of: Make, tmp_path: Path, qk_norm: bool) -> None:
    source = load_source(checkpoint_of(qk_norm=qk_norm, tie_embeddings=False))
    target.write(Config(), source, tmp_path)
    found = _gguf_model.read_weights(tmp_path / "tiny-f32.gguf", source.model)
    assert found.keys() == source.weights.keys()
    assert all(found[name].equal(tensor) for name, tensor in source.weights.items())


def test_matrices_are_halved_and_vectors_are_not(written: Written, tmp_path: Path) -> None:
    reader = written("f16")
    weights = weights_of(tmp_path)
    for name, tensor in tensors(reader).items():
        is_vector = len(tensor.shape) == 1
        assert tensor.tensor_type.name == ("F32" if is_vector else "F16"), name
    np.testing.assert_array_equal(
        tensors(reader)["token_embd.weight"].data, weights["model.embed_tokens.weight"].astype(np.float16)
    )
    assert keys(reader)["general.file_type"] == 1


def block_by_hand(values: list[float]) -> tuple[float, list[int]]:
    """The scale and the 32 whole numbers of a block: the largest is 127 or -127, halves are rounded away from 0."""
    scale = np.float32(max(abs(value) for value in values)) / np.float32(127)
    inverse = np.float32(1) / scale if scale else np.float32(0)
    scaled = [float(np.float32(value) * inverse) for value in values]
    return float(np.float16(scale)), [int(math.copysign(math.floor(abs(value) + 0.5), value)) for value in scaled]


def test_blocks_of_8_bits_by_hand(written: Written, tmp_path: Path) -> None:
    reader = written("q8_0", d_model=64, ffn_hidden_size=96)
    weights = weights_of(tmp_path)
    tensor = tensors(reader)["blk.1.ffn_down.weight"]  # (64, 96): three blocks a row
    assert tensor.tensor_type.name == "Q8_0"
    rows = weights["model.layers.1.mlp.down_proj.weight"]
    assert tensor.data.shape == (64, 3 * (2 + BLOCK))
    for row, stored in zip(rows, tensor.data, strict=True):
        for number in range(3):
            scale, whole = block_by_hand(row[number * BLOCK : (number + 1) * BLOCK].tolist())
            block = stored[number * (2 + BLOCK) : (number + 1) * (2 + BLOCK)]
            assert block[:2].view(np.float16)[0] == scale
            assert block[2:].view(np.int8).tolist() == whole
    assert keys(reader)["general.file_type"] == 7


@for_each("name", ["Q8_0", "Q5_1", "Q5_0", "Q4_0", "Q4_K", "Q6_K"])
def test_blocks_of_zeros_and_of_tiny_numbers(name: str) -> None:
    for value in (0.0, 1e-12, -1e-42):
        array, kind = _gguf_types.stored(np.full((2, 512), value, dtype=np.float32), name)
        assert kind.name == name
        assert not gguf.quants.dequantize(array, kind).any()


def test_rows_without_whole_blocks_are_f16(written: Written) -> None:
    """The width is 32, and 48 inside the feed-forward layer: only rows of `ffn_down` are no whole blocks."""
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors(written("q8_0")).items()}
    assert {name for name, kind in kinds.items() if kind == "F16"} == {f"blk.{n}.ffn_down.weight" for n in range(2)}
    assert {name for name, kind in kinds.items() if kind == "F32"} == {name for name in kinds if "norm" in name}


def test_the_same_model_gives_the_same_bytes(checkpoint_of: Make, tmp_path: Path) -> None:
    source = load_source(checkpoint_of())
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        target.write(Config(dtype="q8_0"), source, tmp_path / folder)
    first, second = (tmp_path / folder / "tiny-q8_0.gguf" for folder in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


# ---- the tokenizer ---------------------------------------------------------------------------------------------


def test_the_tokenizer_by_hand(written: Written) -> None:
    found = tokenizer_keys(written())
    tokens, types = found.pop("tokens"), found.pop("token_type")
    assert tokens[:4] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    assert tokens[15:18] == ["<|reserved_11|>", "!", '"']
    assert tokens[272:] == ["th", "the", "he", "ll", "Ġa"]
    assert types == [3] * 16 + [1] * 261  # CONTROL, NORMAL
    template = found.pop("chat_template")
    assert template == _chat_template.TEXT
    # As llama-cpp-python and others do, which know no tags of `transformers`.
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    rendered = jinja2.Environment().from_string(template).render(messages=talk, add_generation_prompt=True)
    assert rendered == ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>assistant\n")
    assert found == {
        "model": "gpt2",
        "pre": "qwen2",
        "merges": ["t h", "th e", "h e", "l l", "Ġ a"],
        "bos_token_id": 0,
        "eos_token_id": 0,
        "eot_token_id": 2,
        "padding_token_id": 3,
        "add_bos_token": False,
        "add_eos_token": False,
    }


def test_rows_that_stand_for_nothing_are_unused_and_never_said(written: Written) -> None:
    found = tokenizer_keys(written(vocab_size=280))
    assert found["tokens"][277:] == ["[unused 277]", "[unused 278]", "[unused 279]"]
    assert found["token_type"][277:] == [5, 5, 5]
    assert found["suppress_tokens"] == [277, 278, 279]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_split_has_a_name_there(pattern: Pattern, checkpoint_of: Make, tmp_path: Path) -> None:
    names = {"qwen2": "qwen2", "cl100k": "dbrx", "gpt2": "gpt-2", "smollm": "smollm"}
    source = with_tokenizer(load_source(checkpoint_of()), Tokenizer.from_merges(MERGES, pattern=pattern))
    assert target.refusals(Config(), source) == []
    target.write(Config(), source, tmp_path)
    assert tokenizer_keys(gguf.GGUFReader(tmp_path / "tiny-f32.gguf"))["pre"] == names[pattern]


def with_tokenizer(source: Source, tokenizer: Tokenizer) -> Source:
    return replace(source, tokenizer=tokenizer)


def test_a_tokenizer_with_one_special_token(checkpoint_of: Make, tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    document = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    document["added_tokens"] = document["added_tokens"][:1]
    for id_ in range(1, 16):  # what was special is text now
        name = next(name for name, other in document["model"]["vocab"].items() if other == id_)
        document["model"]["vocab"][f"{name[2:-2]}{id_}"] = document["model"]["vocab"].pop(name)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    source = with_tokenizer(load_source(checkpoint_of()), Tokenizer.load(tmp_path / "tokenizer.json"))
    target.write(Config(), source, tmp_path)
    found = tokenizer_keys(gguf.GGUFReader(tmp_path / "tiny-f32.gguf"))
    assert found["token_type"] == [3] + [1] * 276
    assert {name: value for name, value in found.items() if name.endswith("_id")} == {
        "bos_token_id": 0,
        "eos_token_id": 0,
        "eot_token_id": 0,
        "padding_token_id": 0,
    }
    assert "chat_template" not in found


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"positions": "alibi"}, "`positions: alibi`"),
        ({"feedforward": "relu2"}, "`feedforward: relu2`"),
        ({"attention": {"kind": "grouped", "window": 5}}, "`attention.window: 5`"),
        ({"x0_skip": True}, "`x0_skip: true`"),
    ],
)
def test_a_model_that_is_no_llama_is_refused(
    checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ArtifactError, match="cannot be exported to gguf") as raised:
        export(Config(), checkpoint=checkpoint_of(**shape), out=tmp_path / "out")
    assert reason in raised.value.message
    assert raised.value.hint is not None
    assert "--to safetensors" in raised.value.hint
    assert not (tmp_path / "out").exists()


def test_another_ramp_of_yarn_is_refused(checkpoint_of: Make) -> None:
    scaling = {**YARN, "beta_fast": 8.0, "beta_slow": 0.5}
    source = load_source(checkpoint_of(positions={"kind": "rope", "scaling": scaling}))
    assert target.refusals(Config(), source) == [
        "`positions.scaling.beta_fast: 8`: in llama.cpp it is 32",
        "`positions.scaling.beta_slow: 0.5`: in llama.cpp it is 1",
    ]


def test_every_reason_is_told(checkpoint_of: Make) -> None:
    source = load_source(checkpoint_of(**EXTRAS, positions="alibi"))
    assert len(target.refusals(Config(), source)) == 4


def trained(kind: str) -> Tokenizer:
    words = Words.of(count_words([PROSE], "qwen2"))
    if kind == "unigram":
        return Tokenizer.of(unigram.train(words, config=unigram.Config(), vocab_size=400))
    return Tokenizer.of(bpe.train(words, config=bpe.Config(byte_handling="fallback"), vocab_size=300))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("unigram", "the tokenizer is `unigram`"), ("fallback", "words are made of characters")],
)
def test_a_tokenizer_that_llama_cpp_would_read_differently_is_refused(
    checkpoint_of: Make, kind: str, reason: str
) -> None:
    source = with_tokenizer(load_source(checkpoint_of(vocab_size=400)), trained(kind))
    (found,) = target.refusals(Config(), source)
    assert reason in found


def test_a_split_without_a_name_there_is_refused(checkpoint_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("qwen2", "deepseek-r1-qwen"):
        monkeypatch.delitem(_gguf_tokenizer.SPLITS, name)
    assert target.refusals(Config(), load_source(checkpoint_of())) == ["llama.cpp does not split text as `qwen2` does"]


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0", "q4_k"])
def test_numbers_that_f16_cannot_hold(checkpoint_of: Make, dtype: str) -> None:
    source = load_source(checkpoint_of())
    source.weights["model.layers.0.mlp.up_proj.weight"][3, 4] = 1e5
    found = target.refusals(Config.model_validate({"dtype": dtype}), source)
    assert found == ([] if dtype == "f32" else [
        "`model.layers.0.mlp.up_proj.weight` has values beyond 65,504, the largest of fp16"
    ])  # fmt: skip


# ---- the stage -------------------------------------------------------------------------------------------------


@pytest.fixture
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional_tools, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_llama_cpp")
def test_without_llama_cpp_the_file_is_written_and_that_is_told(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint, events = checkpoint_of(), list[Event]()
    made = export(Config(dtype="q8_0"), checkpoint=checkpoint, out=tmp_path / "out", on_event=events.append)
    assert [file.path for file in made.files] == ["README.md", "tiny-q8_0.gguf"]
    assert made.comparisons is None
    assert events == [Warned("not compared: `xllamacpp` is not installed", "pip install xllamacpp")]
    page = (tmp_path / "out/README.md").read_text("utf-8")
    assert "llama-completion -m out/tiny-q8_0.gguf" in page
    assert "not compared" in page


@pytest.mark.usefixtures("no_llama_cpp")
def test_another_type_is_not_written_over_the_first(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint, out = checkpoint_of(), tmp_path / "out"
    export(Config(), checkpoint=checkpoint, out=out)
    with pytest.raises(ArtifactError, match="dtype"):
        export(Config(dtype="f16"), checkpoint=checkpoint, out=out)
    export(Config(dtype="f16"), checkpoint=checkpoint, out=out, force=True)
    assert [path.name for path in out.glob("*.gguf")] == ["tiny-f16.gguf"]


@pytest.mark.usefixtures("no_llama_cpp")
def test_the_command(checkpoint_of: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "export",
        "--checkpoint",
        str(checkpoint_of()),
        "--to",
        "gguf",
        "--dtype",
        "f16",
        "--out",
        str(tmp_path / "x"),
    ]
    with pytest.raises(SystemExit) as ending:
        main([*words, "--json"])
    assert ending.value.code == 0
    assert json.loads(capsys.readouterr().out)["config"]["dtype"] == "f16"
    assert (tmp_path / "x/tiny-f16.gguf").is_file()
    with pytest.raises(SystemExit) as ending:
        main([*words[:-4], "--dtype", "fp16"])
    assert ending.value.code == 2
    listed = capsys.readouterr().err
    assert all(name in listed for name in ("f32", "f16", "q8_0", "q5_1", "q4_0", "q4_k"))
