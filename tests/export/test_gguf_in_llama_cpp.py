"""llama.cpp loads the file and is our model: ids, probabilities, greedy text. `nox -s llamacpp` runs these."""

from __future__ import annotations

import ctypes
import gzip
import json
import random
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from alm.artifacts import ExportMetadata
from alm.errors import ArtifactError
from alm.export import compare
from alm.export.run import export
from alm.export.source import Source, load_source
from alm.export.targets import _gguf_model, _gguf_tokenizer
from alm.export.targets import gguf as target
from alm.export.targets._gguf_k_quants import Bytes, Numbers, q4_k, q6_k
from alm.export.targets._llama_cpp import serving
from alm.export.targets.gguf import Config
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.tokenizers import alphabet
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import PATTERNS, Pattern, count_words
from alm.tokenizers.probes import PROBES
from alm.tokenizers.words import Words

from .conftest import TINY, Make, greedy_ids, quantize, random_weights, save

pytestmark = pytest.mark.llamacpp

DATA = Path(__file__).parents[3] / "shared" / "data"
# fp32 on both sides, with sums in another order: the bar of the issue for ln p, in nats.
LOG_PROBABILITY = 1e-3
YARN = {"method": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
SHAPES: list[dict[str, Any]] = [
    {},
    {"n_kv_heads": 1, "tie_embeddings": False},
    {"n_kv_heads": 4, "head_dim": 24},
    {"d_model": 40, "ffn_hidden_size": 50, "n_heads": 5, "n_kv_heads": 5},
    {"qk_norm": True},
    {"qk_norm": True, "head_dim": 20, "tie_embeddings": False},
    {"vocab_size": 333},
    {"vocab_size": 333, "qk_norm": True, "tie_embeddings": False},
    {"norm_eps": 1e-2},
    {"rope_theta": 300.0},
    {"positions": {"kind": "rope", "scaling": {"method": "linear", "factor": 3.0}}},
    {"positions": {"kind": "rope", "scaling": YARN}},
    {"positions": {"kind": "rope", "scaling": {**YARN, "factor": 1.5}}, "qk_norm": True, "head_dim": 16},
    {"attention": {"kind": "grouped", "window": 64, "full_every": 0}},
    {"attention": {"kind": "grouped", "bias": "qkv"}, "tie_embeddings": False},  # a Qwen2
    {"positions": {"kind": "rope", "skip_every": 4}, "n_layers": 5},  # a SmolLM3
]


def exported(checkpoint: Path, out: Path, **changes: Any) -> ExportMetadata:
    return export(Config.model_validate(changes), checkpoint=checkpoint, out=out)


def opened(out: Path, source: Source) -> Any:
    (path,) = out.glob("*.gguf")
    return serving(path, context=source.model.max_position_embeddings)


def until_end(ids: list[int]) -> list[int]:
    """`alm sample` leaves out the end of the text, and goes on behind the end of a turn, where llama.cpp stops."""
    return ids[: min((ids.index(end) for end in (0, 2) if end in ids), default=len(ids))]


@pytest.mark.parametrize("shape", SHAPES)
def test_probabilities_and_greedy_text(
    checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any], greedy_of: Callable[[Path, str, int], list[int]]
) -> None:
    checkpoint = checkpoint_of(**shape)
    made = exported(checkpoint, tmp_path / "out")
    assert [comparison.bar for comparison in made.comparisons or ()] == [0, LOG_PROBABILITY, 1e-4, 0]
    source = load_source(checkpoint)
    prompt = source.tokenizer.encode("hello there, he said and then the")
    with opened(tmp_path / "out", source) as llama:
        theirs = llama.log_probabilities(prompt, end=0, vocab_size=source.model.known_vocab_size)
        answer = llama.greedy(prompt, 30)
    with torch.no_grad():
        network = source.network
        scores = network.logits(network(torch.tensor([prompt]))[0, -1]).log_softmax(-1)
    assert (scores - theirs).abs().max() < LOG_PROBABILITY
    ours = greedy_of(checkpoint, "hello there, he said and then the", 30)
    assert until_end(answer) == until_end(ours)


@pytest.mark.parametrize("shape", [{}, {"qk_norm": True}, {"d_model": 64, "ffn_hidden_size": 96}])
@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_with_fewer_bits(checkpoint_of: Make, tmp_path: Path, dtype: str, shape: dict[str, Any]) -> None:
    made = exported(checkpoint_of(**shape), tmp_path / "out", dtype=dtype)
    assert made.comparisons is not None
    assert all(comparison.is_close for comparison in made.comparisons)


@pytest.mark.parametrize("width", [32, 64, 256])
@pytest.mark.parametrize("dtype", ["q5_1", "q4_0", "q4_k"])
def test_with_blocks_of_32_and_of_256(tmp_path: Path, tokenizer: Tokenizer, dtype: str, width: int) -> None:
    shape = {"d_model": width, "ffn_hidden_size": 2 * width, "vocab_size": tokenizer.vocab_size, "n_layers": 4}
    config = ModelConfig.model_validate({**TINY, **shape})
    found = random_weights(Transformer(config))
    # Outputs as large as those of the width 32: logits of hundreds would make a choice of every rounding.
    narrowed = {name: value if value.dim() == 1 else value * (32 / width) ** 0.5 for name, value in found.items()}
    checkpoint = save(tmp_path / "run", config, narrowed, tokenizer)
    made = exported(checkpoint, tmp_path / "out", dtype=dtype)
    assert made.comparisons is not None
    assert all(comparison.is_close for comparison in made.comparisons)


@pytest.mark.parametrize(("to", "tables"), [("int8", "int8"), ("int4", "int4"), ("int4", "int8")])
def test_a_quantized_model(trained: Path, tmp_path: Path, to: Any, tables: Any) -> None:
    run = shutil.copytree(trained, tmp_path / "tales")
    made = exported(quantize(run / "ckpt-last.pt", to, tables=tables), tmp_path / "out")
    assert made.comparisons is not None
    assert all(comparison.is_close for comparison in made.comparisons)
    assert not [each for each in made.comparisons if "costs" in each.what]  # nothing was rounded


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0", "q5_1", "q4_0", "q4_k"])
def test_a_model_that_was_trained(
    trained: Path, tmp_path: Path, dtype: str, greedy_of: Callable[[Path, str, int], list[int]]
) -> None:
    checkpoint = trained / "ckpt-last.pt"
    exported(checkpoint, tmp_path / "out", dtype=dtype)
    source = load_source(checkpoint)
    with opened(tmp_path / "out", source) as llama:
        for prompt in ("the fox", "hello again", "it said"):
            ids = llama.greedy(source.tokenizer.encode(prompt), 20)
            ours = greedy_of(checkpoint, prompt, 20)
            assert ids[: len(ours)] == ours
            assert llama.decode(ours) == source.tokenizer.decode(ours)


# ---- text ------------------------------------------------------------------------------------------------------


def fitted(pattern: Pattern, texts: Sequence[str] = compare.HARD_TEXTS) -> Tokenizer:
    """A tokenizer that joins whatever these texts let it join."""
    words = Words.of(count_words([*texts, *PROBES.values()], pattern))
    return Tokenizer.from_merges(bpe.learn_merges(words, bpe.base_tokens(), vocab_size=2500), pattern=pattern)


def speaking(tokenizer: Tokenizer, folder: Path) -> Source:
    """A model for the tokenizer, of no other use."""
    config = ModelConfig.model_validate({**TINY, "n_layers": 1, "vocab_size": tokenizer.vocab_size})
    return load_source(save(folder, config, random_weights(Transformer(config)), tokenizer))


def soup() -> list[str]:
    """Random mixtures of what splits treat differently."""
    draw = random.Random(20)
    marks = ["  ", "   ", "é", "٣", "👍", "𝟙", "𐍈", "\u3000", "\u0301", "\u0085", "\x00", "\x1c"]
    alphabet = [*"ab1 \n\r\t'.sStTlLrRvVeEdDmM", *marks]
    return ["".join(draw.choices(alphabet, k=draw.randrange(1, 60))) for _ in range(1500)]


def every_scalar() -> list[str]:
    """Scalar values, and those that are no ideographs between what splits treat differently and themselves.

    Every one of the planes 0 to 3 and of the start of plane 14; of the others, where nothing is assigned, every 61st.
    """
    points = [*range(0xD800), *range(0xE000, 0x33480), *range(0x33480, 0x110000, 61), *range(0xE0000, 0xE0200)]
    scalars = [*map(chr, points), chr(0x10FFFF)]
    texts = ["".join(scalars[start : start + 50_000]) for start in range(0, len(scalars), 50_000)]
    scripts = [range(0x3400), range(0xA000, 0xAC00), range(0xF900, 0x17000), range(0x1B000, 0x20000)]
    return texts + ["".join(f"a{c}1{c} {c}{c}'{c}\n{c}\n" for c in map(chr, part)) for part in scripts]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_and_text(pattern: Pattern, tmp_path: Path) -> None:
    mixed = soup()
    tokenizer = fitted(pattern, [*compare.HARD_TEXTS, *mixed])
    source = speaking(tokenizer, tmp_path / "run")
    target.write(Config(), source, tmp_path)
    with opened(tmp_path, source) as llama:
        # A request takes as long as a hundred short texts: most of these are sent many at once.
        together = ["\n".join(mixed[start : start + 20]) for start in range(100, len(mixed), 20)]
        for text in (*compare.HARD_TEXTS, *PROBES.values(), *mixed[:100], *together):
            assert llama.encode(text) == tokenizer.encode(text)
        for text in every_scalar():
            assert llama.encode(text) == tokenizer.encode(text)


def test_a_word_that_is_a_token_and_is_not_merged_to_it(tmp_path: Path) -> None:
    """bc comes before ab, so that abc is a and bc, though there is an abc: `llama-bpe` would take that."""
    a, b, c = (alphabet.ids()[byte] for byte in b"abc")
    tokenizer = Tokenizer.from_merges([(b, c), (a, b), (alphabet.FIRST_MERGE_ID + 1, c)], pattern="cl100k")
    assert tokenizer.encode("abc") == [a, alphabet.FIRST_MERGE_ID]
    source = speaking(tokenizer, tmp_path / "run")
    target.write(Config(), source, tmp_path)
    with opened(tmp_path, source) as llama:
        assert llama.encode("abc") == tokenizer.encode("abc")


def test_what_llama_cpp_splits_differently(tmp_path: Path) -> None:
    """One thing alone: the long s is an s whatever the case to the regular expression, and not to llama.cpp."""
    tokenizer = fitted("qwen2", ["\u017fa"] * 9)
    source = speaking(tokenizer, tmp_path / "run")
    target.write(Config(), source, tmp_path)
    with opened(tmp_path, source) as llama:
        assert llama.encode("'\u017fa") != tokenizer.encode("'\u017fa")
        assert llama.encode("a\u017fa") == tokenizer.encode("a\u017fa")


def test_special_tokens(checkpoint_of: Make, tmp_path: Path) -> None:
    source = load_source(checkpoint_of())
    target.write(Config(), source, tmp_path)
    with opened(tmp_path, source) as llama:
        for name, id_ in source.tokenizer.specials.items():
            assert llama.encode(name) == source.tokenizer.encode(name)
            asked = llama._ask("/tokenize", content=f"the{name}he", add_special=True, parse_special=True)
            assert asked["tokens"] == [273, id_, 274]  # no id before the text, and none behind it


def test_a_chat(checkpoint_of: Make, tmp_path: Path) -> None:
    source = load_source(checkpoint_of())
    target.write(Config(), source, tmp_path)
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Well, hello."},
        {"role": "user", "content": "again"},
    ]
    said = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in talk)
    with opened(tmp_path, source) as llama:
        assert llama.chat(talk) == f"{said}<|im_start|>assistant\n"


def test_a_turn_that_ends_is_no_end_of_the_text(checkpoint_of: Make, tmp_path: Path) -> None:
    """llama.cpp stops behind `<|im_end|>`; what it would say then is asked for."""
    source = load_source(checkpoint_of(tie_embeddings=False))
    prompt, weights = compare.prompts(source)[1], source.weights
    source = replace(source, load=lambda: weights)
    likeliest = greedy_ids(source.network, prompt, 5, 0)[2]
    weights["lm_head.weight"][[2, likeliest]] = weights["lm_head.weight"][[likeliest, 2]]
    assert 2 in greedy_ids(source.network, prompt, 20, 0)[:-1]
    target.write(Config(), source, tmp_path)
    found = target.compare(Config(), source, tmp_path)
    assert found is not None
    assert [comparison.difference for comparison in found if "greedy" in comparison.what] == [0]


# ---- real text -------------------------------------------------------------------------------------------------


def documents(path: Path) -> list[str]:
    """The text of `path`; for .jsonl each string in it."""
    text = gzip.decompress(path.read_bytes()).decode()
    if ".jsonl" not in path.name:
        return [text]
    records = [json.loads(line) for line in text.split("\n") if line]
    return [value for record in records for value in record.values() if isinstance(value, str)]


@pytest.mark.shared
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the checkout")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_ids_of_real_text(pattern: Pattern, tmp_path: Path) -> None:
    books = [text for path in sorted((DATA / "prose").glob("se_lewis-carroll_*")) for text in documents(path)]
    tokenizer = fitted(pattern, books)
    paths = sorted((DATA / "tokenizer").rglob("*.gz"))
    assert len(paths) >= 18
    source = speaking(tokenizer, tmp_path / "run")
    target.write(Config(), source, tmp_path)
    with opened(tmp_path, source) as llama:
        for path in paths:
            for text in documents(path):
                assert llama.encode(text) == tokenizer.encode(text), path.name


# ---- what is not the same model is a failure -------------------------------------------------------------------


def refused(checkpoint: Path, out: Path, match: str, **changes: Any) -> None:
    with pytest.raises(ArtifactError, match=match):
        exported(checkpoint, out, **changes)
    assert list(out.glob("*")) == []


@pytest.mark.parametrize(("name", "quantized"), [("q4_K", q4_k), ("q6_K", q6_k)])
def test_blocks_are_those_of_llama_cpp(name: str, quantized: Callable[[Numbers], Bytes]) -> None:
    """Its own function in C makes the same blocks, but for a few: it adds numbers in another order."""
    package = pytest.importorskip("xllamacpp")
    found = [path for path in Path(package.__file__).parent.glob("*.so") if "xllamacpp" in path.name]
    reference = getattr(ctypes.CDLL(str(found[0])), f"quantize_row_{name}_ref", None) if found else None
    if reference is None:
        pytest.skip("this build of xllamacpp does not show its functions")
    draw = np.random.default_rng(0)
    for values in (draw.normal(size=(200, 512)), draw.laplace(size=(200, 512)), draw.uniform(size=(200, 512))):
        numbers = values.astype(np.float32)
        ours = quantized(numbers)
        theirs = np.empty_like(ours)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (numbers, theirs))
        reference(*pointers, ctypes.c_int64(numbers.size))
        blocks = (ours == theirs).reshape(numbers.size // 256, -1).all(1)
        assert blocks.mean() > 0.9
        kind = gguf.GGMLQuantizationType[name.upper()]
        errors = [np.square(gguf.quants.dequantize(array, kind) - numbers).sum() for array in (ours, theirs)]
        np.testing.assert_allclose(*errors, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_rows_that_stay_where_they_are(
    checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(_gguf_model, "interleaved", lambda rows, heads: rows)
    monkeypatch.setattr(_gguf_model, "split_in_halves", lambda rows, heads: rows)
    refused(checkpoint_of(), tmp_path / "out", "ln p of every token: .*, at most .*, llama.cpp", dtype=dtype)


def test_rows_of_a_qwen3_that_are_moved(checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gguf_model, "_interleaved_heads", lambda name, model: 4 if "q_proj" in name else None)
    refused(checkpoint_of(qk_norm=True), tmp_path / "out", "ln p of every token: ")


def test_a_split_of_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gguf_tokenizer, "_split_name", lambda tokenizer: "gpt-2")
    source = speaking(fitted("qwen2"), tmp_path / "run")
    target.write(Config(), source, tmp_path)
    found = target.compare(Config(), source, tmp_path)
    assert found is not None
    assert [comparison.what for comparison in found if not comparison.is_close] == ["texts with other ids"]


def test_ids_that_stand_for_nothing_and_are_not_suppressed(
    checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = _gguf_tokenizer.add_tokenizer

    class Deaf:
        def __init__(self, writer: Any) -> None:
            self._writer = writer

        def __getattr__(self, name: str) -> Any:
            return (lambda *_: None) if name == "add_array" else getattr(self._writer, name)

    monkeypatch.setattr(_gguf_tokenizer, "add_tokenizer", lambda writer, *a, **k: honest(Deaf(writer), *a, **k))
    refused(checkpoint_of(vocab_size=2000), tmp_path / "out", "tokens of greedy text that differ: ")


def test_a_file_that_cannot_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ArtifactError, match="llama.cpp cannot load `broken.gguf`"), serving(path, context=64):
        pass


# ---- the server ------------------------------------------------------------------------------------------------


def threads() -> int:
    """Those of this process that the system knows of; 0 where it does not say."""
    return len([*Path("/proc/self/task").glob("*")])


def test_nothing_of_the_server_stays(checkpoint_of: Make, tmp_path: Path) -> None:
    source = load_source(checkpoint_of())
    target.write(Config(), source, tmp_path)
    with opened(tmp_path, source) as llama:
        place = (llama._host, llama._port)
        assert place[0] == "127.0.0.1"
        assert llama.encode("the") == [273]
        inside = threads()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=5)
    assert threads() < inside or not inside


def test_a_server_that_is_closed_at_once_ends(checkpoint_of: Make, tmp_path: Path) -> None:
    """Not once in a hundred times does closing wait for what never comes."""
    source = load_source(checkpoint_of())
    target.write(Config(), source, tmp_path)
    for _ in range(100):
        with opened(tmp_path, source):
            pass
