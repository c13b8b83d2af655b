"""A GGUF file becomes our checkpoint: every type of numbers, every family, its tokenizer; anything else is refused."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from alm.artifacts import ImportMetadata, read
from alm.cli.main import main
from alm.errors import InputError
from alm.export import from_gguf
from alm.export.from_gguf_header import DTYPES, read_header
from alm.export.importing import import_model, open_gguf
from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets import _gguf_model
from alm.export.targets.gguf import Config
from alm.tokenizers import alphabet
from alm.tokenizers.file import Tokenizer

from .conftest import Make, main_ok

Kinds = gguf.GGMLQuantizationType
WIDTH, INNER, HEADS, KV_HEADS, LAYERS = 256, 512, 4, 2, 2
# Token names of a byte-level vocabulary: three special tokens, the bytes, two merges.
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NAMES = [*SPECIALS, *alphabet.characters(), "th", "the"]
MERGES = ["t h", "th e"]
SHAPE: dict[str, Any] = {
    "block_count": LAYERS,
    "context_length": 64,
    "embedding_length": WIDTH,
    "feed_forward_length": INNER,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.layer_norm_rms_epsilon": 1e-5,
}


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def tokenizer_keys(**changes: Any) -> dict[str, Any]:
    keys = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": NAMES,
        "token_type": [3] * len(SPECIALS) + [1] * (len(NAMES) - len(SPECIALS)),
        "merges": MERGES,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_bos_token": False,
        **changes,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items() if value is not None}


def shapes(architecture: str = "llama", rows: int = len(NAMES), *, tied: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file's tensors."""
    width = WIDTH // HEADS
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (rows, WIDTH), "output_norm.weight": (WIDTH,)}
    if not tied:
        found["output.weight"] = (rows, WIDTH)
    for layer in range(LAYERS):
        inside: dict[str, tuple[int, ...]] = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (KV_HEADS * width, WIDTH),
            "attn_v": (KV_HEADS * width, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (INNER, WIDTH),
            "ffn_up": (INNER, WIDTH),
            "ffn_down": (WIDTH, INNER),
        }
        if architecture == "qwen3":
            inside |= {"attn_q_norm": (width,), "attn_k_norm": (width,)}
        found |= {f"blk.{layer}.{name}.weight": shape for name, shape in inside.items()}
        if architecture == "qwen2":
            found |= {f"blk.{layer}.attn_{name}.bias": inside[f"attn_{name}"][:1] for name in "qkv"}
    return found


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 0.2
    return drawn + 1 if len(shape) == 1 else drawn


def blocks(shape: tuple[int, ...], kind: Kinds, seed: int) -> np.ndarray:
    """Random bytes of K-quants, whose library cannot write them; the scales, in f16, are small."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    count = math.prod(shape) // 256
    drawn = np.random.default_rng(seed).integers(0, 256, size=(count, size), dtype=np.uint8)
    scales = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind.name]
    for at in scales:
        drawn[:, at : at + 2] = np.full(count, 0.001, dtype=np.float16).view(np.uint8).reshape(count, 2)
    return drawn.reshape(*shape[:-1], -1)


def stored(values: np.ndarray, kind: Kinds, seed: int) -> np.ndarray:
    if values.ndim == 1 or kind == Kinds.F32:
        return values
    return blocks(values.shape, kind, seed) if kind.name.endswith("_K") else gguf.quants.quantize(values, kind)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A file of a small random model; `changes` of its settings, None for those that it does not have."""

    def make(
        architecture: str = "llama",
        *,
        kind: Kinds = Kinds.F32,
        tensors: dict[str, np.ndarray] | None = None,
        tokenizer: dict[str, Any] | None = None,
        tied: bool = True,
        rows: int = len(NAMES),
        **changes: Any,
    ) -> Path:
        path = tmp_path / "theirs.gguf"
        writer = gguf.GGUFWriter(path, architecture)
        settings = {f"{architecture}.{key}": value for key, value in {**SHAPE, **changes}.items()}
        for key, value in {**settings, **(tokenizer_keys() if tokenizer is None else tokenizer)}.items():
            if value is not None:
                add(writer, key, value)
        drawn = {
            name: numbers(shape, n) for n, (name, shape) in enumerate(shapes(architecture, rows, tied=tied).items())
        }
        for number, (name, values) in enumerate({**drawn, **(tensors or {})}.items()):
            is_vector = values.ndim == 1
            writer.add_tensor(name, stored(values, kind, number), raw_dtype=Kinds.F32 if is_vector else kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


# ---- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DTYPES)
def test_every_type_of_numbers(name: str, write: Write) -> None:
    path = write(kind=Kinds[name])
    found = open_gguf(path)
    assert found.stored.dtype == name.lower()
    weights = dict(found.stored.tensors())
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    for ours, tensor in (("embed_tokens", "token_embd"), ("layers.1.mlp.down_proj", "blk.1.ffn_down")):
        of_file = theirs[f"{tensor}.weight"]
        expected = gguf.quants.dequantize(of_file.data, of_file.tensor_type)
        np.testing.assert_array_equal(weights[f"model.{ours}.weight"].numpy(), expected)
        assert np.isfinite(expected).all()


def test_the_rows_of_a_llama_by_hand(write: Write) -> None:
    """Neighbours (2i, 2i + 1) of the file are the pairs (i, i + E/2) here; of other families nothing moves."""
    E = WIDTH // HEADS
    for architecture in ("llama", "qwen3"):
        path = write(architecture)
        weights = dict(open_gguf(path).stored.tensors())
        theirs = {tensor.name: tensor.data for tensor in gguf.GGUFReader(path).tensors}
        order = [head * E + 2 * pair + half for head in range(KV_HEADS) for half in (0, 1) for pair in range(E // 2)]
        rows = theirs["blk.0.attn_k.weight"]
        expected = rows[order] if architecture == "llama" else rows
        np.testing.assert_array_equal(weights["model.layers.0.self_attn.k_proj.weight"].numpy(), expected)
        np.testing.assert_array_equal(
            weights["model.layers.0.self_attn.v_proj.weight"].numpy(), theirs["blk.0.attn_v.weight"]
        )


def test_memory_is_that_of_the_weights(write: Write) -> None:
    """Quantized tensors are read one at a time: at no moment is there much more than all weights in fp32."""
    found = open_gguf(write(kind=Kinds.Q8_0))
    tracemalloc.start()
    weights = dict(found.stored.tensors())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * sum(4 * tensor.numel() for tensor in weights.values())


# ---- families --------------------------------------------------------------------------------------------------


def test_settings_are_those_of_the_file(write: Write) -> None:
    changes = {"rope.freq_base": 100000.0, "attention.key_length": 64, "rope.dimension_count": 64}
    model = open_gguf(write("llama", tied=False, **changes)).model
    assert (model.n_layers, model.n_heads, model.n_kv_heads, model.head_width) == (LAYERS, HEADS, KV_HEADS, 64)
    assert (model.norm_eps, model.rope_theta, model.max_position_embeddings) == (1e-5, 100000.0, 64)
    assert not model.tie_embeddings
    assert open_gguf(write("qwen3")).model.qk_norm
    assert open_gguf(write("qwen2")).model.attention.bias == "qkv"
    for none in (64, 0):  # as long as the context, and llama.cpp's word for none
        assert open_gguf(write(**{"attention.sliding_window": none})).model.attention.window is None
    mistral = open_gguf(write(**{"attention.sliding_window": 16})).model.attention
    assert (mistral.window, mistral.full_every) == (16, 0)


@pytest.mark.parametrize(
    ("changes", "scaling"),
    [
        ({"rope.scaling.type": "none"}, {}),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, {"method": "linear", "factor": 4.0}),
        ({"rope.scale_linear": 2.0}, {"method": "linear", "factor": 2.0}),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
            {"method": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        ),
    ],
)
def test_scaled_positions(write: Write, changes: dict[str, Any], scaling: dict[str, Any]) -> None:
    found = open_gguf(write(**changes)).model.positions.model_dump()["scaling"]
    assert {key: found[key] for key in scaling} == scaling
    assert scaling or found["method"] == "none"


def llama3_by_hand(factor: float, width: int, theta: float, length: int) -> list[float]:
    """As `convert_hf_to_gguf.py` computes `rope_freqs.weight`."""
    found = []
    for pair in range(width // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / width)
        if wavelength < length / 4:
            found.append(1.0)
        elif wavelength > length / 1:
            found.append(factor)
        else:
            smooth = (length / wavelength - 1) / (4 - 1)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return found


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_positions_of_llama_3(write: Write, factor: float) -> None:
    divisors = np.array(llama3_by_hand(factor, 64, 500000.0, 8192), dtype=np.float32)
    path = write(tensors={"rope_freqs.weight": divisors}, **{"rope.freq_base": 500000.0})
    scaling = open_gguf(path).model.positions.model_dump()["scaling"]
    assert {key: scaling[key] for key in ("method", "factor", "original_max_position_embeddings")} == {
        "method": "llama3",
        "factor": factor,
        "original_max_position_embeddings": 8192,
    }
    path = write(tensors={"rope_freqs.weight": divisors + 0.1}, **{"rope.freq_base": 500000.0})
    with pytest.raises(InputError, match="`rope_freqs.weight` scales positions in another way"):
        open_gguf(path)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tie_embeddings": False, "n_kv_heads": 1},
        {"qk_norm": True, "head_dim": 10},
        {"attention": {"kind": "grouped", "bias": "qkv"}},
        {"attention": {"kind": "grouped", "bias": "qkvo"}},
        {"positions": {"kind": "rope", "skip_every": 4}, "n_layers": 4},
        {"vocab_size": 290, "norm_eps": 3e-4, "rope_theta": 777.0},
        {"positions": {"kind": "rope", "scaling": {"method": "linear", "factor": 3.0}}},
        {
            "positions": {
                "kind": "rope",
                "scaling": {
                    "method": "llama3",
                    "factor": 5.0,
                    "original_max_position_embeddings": 24,
                    "low_freq_factor": 1.5,
                    "high_freq_factor": 3.0,
                },
            }
        },
    ],
)
def test_there_and_back_again_nothing_has_changed(checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(**shape)
    export(Config(), checkpoint=checkpoint, out=tmp_path / "out", compare=False)
    import_model(tmp_path / "out/tiny-f32.gguf", kind="gguf", out=tmp_path / "tiny", compare=False)
    before, after = load_source(checkpoint), load_source(tmp_path / "tiny/ckpt-last.pt")
    assert after.model == before.model
    assert after.weights.keys() == before.weights.keys()
    assert all(after.weights[name].equal(value) for name, value in before.weights.items())
    texts = ["the other thing", "3.14 Größe\n\n日本語", " <|im_end|>"]
    assert [after.tokenizer.encode(text) for text in texts] == [before.tokenizer.encode(text) for text in texts]
    assert after.tokenizer.specials == before.tokenizer.specials
    export(Config(), checkpoint=tmp_path / "tiny/ckpt-last.pt", out=tmp_path / "again", compare=False)
    first, second = (read_header(tmp_path / name / "tiny-f32.gguf") for name in ("out", "again"))
    assert first.tensors == second.tensors
    assert all(np.array_equal(first.read(name), second.read(name)) for name in first.tensors)
    own = ("alm.checkpoint_sha256", "alm.tokenizer_sha256", "alm.step")
    assert {key: value for key, value in first.settings.items() if key not in own} == {
        key: value for key, value in second.settings.items() if key not in own
    }


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"architecture": "gemma3"}, "`general.architecture: gemma3`, but alm reads only llama, qwen2, qwen3 and smollm3"),
    ({"block_count": None}, "it has no `llama.block_count`"),
    ({"attention.layer_norm_rms_epsilon": None}, "it has no `llama.attention.layer_norm_rms_epsilon`"),
    ({"expert_count": 8}, "`llama.expert_count: 8`, which alm's model does not have"),
    ({"architecture": "qwen3", "attention.sliding_window": 16}, "`qwen3.attention.sliding_window: 16`"),
    ({"attention.sliding_window": [16]}, "`sliding_window` is [16], not a whole number"),
    ({"logit_scale": 0.5}, "`llama.logit_scale: 0.5`, which alm's model does not have"),
    ({"attention.causal": False}, "`llama.attention.causal: False`"),
    ({"rope.dimension_count": 32}, "`llama.rope.dimension_count: 32`, which alm's model does not have"),
    ({"rope.scaling.type": "longrope"}, "positions are scaled as `longrope`"),
    ({"rope.scaling.type": "linear"}, "positions are scaled as `linear`, without a `factor`"),
    ({"block_count": 3}, "it has no `model.layers.2."),
    ({"block_count": 10**9}, "`llama.block_count` is 1000000000, not a whole number from 1 to 1000"),
    ({"attention.head_count": 0}, "`llama.attention.head_count` is 0"),
    ({"attention.head_count": [4, 4]}, "`llama.attention.head_count` is [4, 4], not a whole number"),
    ({"embedding_length": 128}, "by the configuration"),
    ({"tensors": {"blk.0.ffn_gate_inp.weight": numbers((4, WIDTH), 1)}}, "`blk.0.ffn_gate_inp.weight` is not a weight"),
    ({"tensors": {"blk.0.attn_norm.weight": numbers((WIDTH,), 1) * np.nan}}, "has values that are not finite"),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED)
def test_what_alm_is_not_is_refused(write: Write, tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write(**changes)
    with pytest.raises(InputError) as caught:
        import_model(path, kind="gguf", out=tmp_path / "run", compare=False)
    assert reason in caught.value.message
    assert caught.value.hint is not None
    assert not (tmp_path / "run").exists()


# ---- the tokenizer ---------------------------------------------------------------------------------------------


def ids(path: Path, text: str) -> list[int]:
    return open_gguf(path).tokenizer.encode(text)


def test_the_tokenizer_is_rebuilt(write: Write) -> None:
    found = open_gguf(write(tokenizer=tokenizer_keys(pre="smollm")))
    assert found.tokenizer.pattern == "smollm"
    assert found.tokenizer.specials == {name: id_ for id_, name in enumerate(SPECIALS)}
    assert found.tokenizer.encode("the") == [NAMES.index("the")]
    assert found.tokenizer.encode("thé <|im_end|>")[0] == NAMES.index("th")
    assert 2 not in found.tokenizer.encode("<|im_end|>")
    assert found.ends == (2,)


@pytest.mark.parametrize(
    ("pre", "pattern"),
    [("smollm", "smollm"), ("gpt-2", "gpt2"), ("qwen2", "qwen2"), ("dbrx", "cl100k")],
)
def test_every_split(write: Write, pre: str, pattern: str) -> None:
    assert open_gguf(write(tokenizer=tokenizer_keys(pre=pre))).tokenizer.pattern == pattern


def test_unused_ids_pad_the_table(write: Write) -> None:
    names = [*NAMES, "[PAD1]", "[PAD2]"]
    types = [3] * 3 + [1] * (len(NAMES) - 3) + [5, 5]
    found = open_gguf(write(tokenizer=tokenizer_keys(tokens=names, token_type=types), rows=len(names)))
    assert (found.tokenizer.vocab_size, found.model.known_vocab_size) == (len(NAMES), len(names))


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"pre": "tekken"}, "its split is `tekken`, and alm has smollm"),
    ({"pre": None}, "its split is `None`"),
    ({"pre": "default"}, "its split is `default`"),
    ({"model": "bert"}, "its model is `bert`"),
    ({"tokens": None}, "it has no list `tokenizer.ggml.tokens`"),
    ({"tokens": [*NAMES[:-1], "th"]}, "two of its tokens have the same name"),
    ({"tokens": [*NAMES[:-1], "x" * 2000]}, "a token has 2,000 characters"),
    ({"token_type": [1, 1]}, "tokens and 2 types of them"),
    ({"merges": ["a b c"]}, "`model.merges[0]` that is not a pair of tokens"),
    ({"merges": ["q z"]}, "`model.merges[0]` of an unknown token"),
]


@pytest.mark.parametrize(("changes", "reason"), BROKEN)
def test_another_tokenizer_is_refused(write: Write, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError) as caught:
        open_gguf(write(tokenizer=tokenizer_keys(**changes)))
    assert reason in caught.value.message


# ---- the command -----------------------------------------------------------------------------------------------


def test_other_commands_take_what_is_made(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"tokenizer.chat_template": "{{ messages }}", "general.sampling.temp": 0.5}
    write(tokenizer=tokenizer_keys() | keys)
    monkeypatch.chdir(tmp_path)
    main_ok(["import", "--from", "gguf", "theirs.gguf", "--dry-run"])
    assert not Path("runs").exists()
    main_ok(["import", "--from", "gguf", "theirs.gguf", "--no-compare", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["out"], told["kind"], told["architecture"], told["dtype"]) == ("runs/theirs", "gguf", "llama", "f32")
    made = read(Path("runs/theirs/import.json"), ImportMetadata, hint="")
    assert made.not_taken == ("general.sampling.temp",)
    assert made.chat is None
    assert Path("runs/theirs/chat_template.jinja").read_text() == "{{ messages }}"
    for words in (
        ["info", "runs/theirs"],
        ["sample", "--prompt", "hello", "--max-tokens", "5", "--device", "cpu"],
        ["import", "--from", "gguf", "theirs.gguf", "--no-compare"],
    ):
        main_ok(words)


def test_errors_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    for words, code, message in (
        (["--from", "ggml", str(tmp_path)], 2, "cannot import from `ggml` (there is: huggingface, gguf)"),
        (["--from", "gguf", str(tmp_path / "text.gguf")], 1, "is not a GGUF file: it begins with b'hell'"),
        ([str(tmp_path / "text.gguf")], 1, f"run `alm import --from gguf {tmp_path / 'text.gguf'}`"),
        (["--from", "gguf", str(tmp_path)], 1, "is a folder, but a file is needed"),
        (["--from", "gguf", str(tmp_path / "absent.gguf")], 1, "does not exist"),
    ):
        with pytest.raises(SystemExit) as ending:
            main(["import", *words])
        assert ending.value.code == code
        assert message in capsys.readouterr().err


def test_names_go_both_ways() -> None:
    for ours in ("model.norm.weight", "lm_head.weight", "model.layers.12.self_attn.k_norm.weight"):
        assert _gguf_model.our_name(_gguf_model.gguf_name(ours)) == ours
    for strange in ("blk.1.x.weight", "../../etc/passwd", "blk.٣.attn_q.weight", "", "token_embd.bias"):
        assert _gguf_model.our_name(strange) == strange


def test_divisors_by_hand() -> None:
    scaling = from_gguf.RopeScaling(method="llama3", factor=8.0, original_max_position_embeddings=8192)
    found = _gguf_model.llama3_divisors(scaling, 500000.0, 128)
    np.testing.assert_allclose(found, llama3_by_hand(8.0, 128, 500000.0, 8192), rtol=1e-5)


def test_the_tokenizer_of_an_own_file_is_the_same(tokenizer: Tokenizer, checkpoint_of: Make, tmp_path: Path) -> None:
    export(Config(), checkpoint=checkpoint_of(), out=tmp_path / "out", compare=False)
    found = open_gguf(tmp_path / "out/tiny-f32.gguf").tokenizer
    assert found.merge_pairs == tokenizer.merge_pairs
