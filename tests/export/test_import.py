"""A folder that `transformers` wrote becomes our checkpoint, with the same logits and weights, or is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file

from alm.artifacts import ImportMetadata, damaged, read
from alm.checkpoint.load import load_checkpoint
from alm.cli.main import main
from alm.errors import ArtifactError, InputError
from alm.events import Event, Noted, Warned
from alm.export import from_hf_config, optional_tools, weights
from alm.export.importing import import_model, open_gguf
from alm.export.run import export
from alm.export.source import Source, load_source
from alm.export.targets import _transformers, gguf
from alm.export.targets.huggingface import Config
from alm.generation.completions import TextChunk
from alm.generation.config import SamplingConfig
from alm.generation.load import load_model
from alm.tokenizers import ends
from alm.tokenizers.file import Tokenizer
from alm.training.run import start

from .conftest import Make, main_ok
from .test_huggingface import LOGITS, SHAPES

transformers = pytest.importorskip("transformers")

YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "rope_theta": 700.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500.0,
}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
# What may differ from the family's small default, by the names of transformers.
THEIRS: list[tuple[str, dict[str, Any]]] = [
    ("Llama", {}),
    ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    ("Llama", {"head_dim": 20, "rms_norm_eps": 1e-3}),
    ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}),
    ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}}),
    ("Llama", {"rope_parameters": YARN}),
    ("Qwen3", {"head_dim": 16}),
    ("Llama", {"rope_parameters": LLAMA3}),
    ("Llama", {"attention_bias": True}),
    ("Mistral", {"sliding_window": 7, "head_dim": 16}),
    ("Mistral", {"sliding_window": None}),
    ("Mistral", {}),
    ("Qwen2", {"tie_word_embeddings": True}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}),
    ("Qwen2", {"use_sliding_window": True, "sliding_window": 7, "layer_types": MIXED, "num_hidden_layers": 3}),
    ("Qwen3", {"head_dim": 8, "attention_bias": True, "use_sliding_window": True, "sliding_window": 7}),
    ("SmolLM3", {"num_hidden_layers": 5, "pad_token_id": None}),
    ("SmolLM3", {"no_rope_layers": [0, 0], "attention_bias": True, "pad_token_id": None}),
    ("SmolLM3", {"no_rope_layers": [1, 0, 1], "rope_parameters": LLAMA3, "pad_token_id": None}),
    (
        "SmolLM3",
        {
            "no_rope_layer_interval": 2,
            "use_sliding_window": True,
            "sliding_window": 7,
            "pad_token_id": None,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    ("Qwen3", {"head_dim": 24, "tie_word_embeddings": True, "rope_parameters": {**YARN, "beta_fast": 8.0}}),
]


def family_of(name: str, tokenizer: Tokenizer, **changes: Any) -> Any:
    """A random model of theirs, whose weights are large enough that mistakes show."""
    values = {
        "vocab_size": tokenizer.vocab_size + 3,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **changes,
    }
    config = getattr(transformers, f"{name}Config")(**values)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.copy_(noise if parameter.dim() > 1 else 1 + noise)
    return model


@pytest.fixture
def folder_of(tmp_path: Path, tokenizer: Tokenizer) -> Callable[..., tuple[Path, Any]]:
    """A folder as `save_pretrained` leaves it, and the model that is in it."""

    def make(name: str = "Llama", *, dtype: torch.dtype = torch.float32, shard: str = "1GB", **changes: Any) -> Any:
        folder = tmp_path / "theirs"
        model = family_of(name, tokenizer, **changes).to(dtype)
        model.save_pretrained(folder, max_shard_size=shard)
        tokenizer.save(folder / "tokenizer.json")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
        return folder, model.float()

    return make


def network_of(out: Path) -> Source:
    return load_source(out / "ckpt-last.pt")


@pytest.mark.parametrize(("name", "changes"), THEIRS)
@torch.no_grad()
def test_logits_are_theirs(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    folder, theirs = folder_of(name, **changes)
    import_model(folder, out=tmp_path / "run", compare=False)
    ours = network_of(tmp_path / "run")
    ids = torch.randint(200, (3, 64), generator=torch.Generator().manual_seed(1))
    expected = theirs(ids).logits
    found = ours.network.logits(ours.network(ids))
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGITS * expected.abs().max().item())
    export(Config(), checkpoint=tmp_path / "run/ckpt-last.pt", out=tmp_path / "out", compare=False)
    assert json.loads((tmp_path / "out/config.json").read_text("utf-8"))["model_type"] == name.lower()
    import_model(tmp_path / "out", out=tmp_path / "back", compare=False)
    again = network_of(tmp_path / "back")
    assert again.model == ours.model
    assert all(again.weights[key].equal(value) for key, value in ours.weights.items())
    assert again.weights.keys() == ours.weights.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shard", ["1GB", "20KB"])
def test_every_type_in_one_file_or_in_several(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, dtype: torch.dtype, shard: str
) -> None:
    folder, theirs = folder_of(dtype=dtype, shard=shard)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (shard == "20KB")
    made = import_model(folder, out=tmp_path / "run", compare=False)
    assert made.dtype == {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
    weights = load_checkpoint(tmp_path / "run/ckpt-last.pt").model
    expected = theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(value) and value.dtype == torch.float32 for name, value in expected.items())


def test_a_file_is_mapped_in_parts(folder_of: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of a file does not stay in memory beside the weights."""
    folder, theirs = folder_of(dtype=torch.bfloat16)
    opened, counted = weights.opened, list[Path]()

    def count(path: Path) -> Any:
        counted.append(path)
        return opened(path)

    monkeypatch.setattr(weights, "opened", count)
    monkeypatch.setattr(weights, "_MAPPED_BYTES", 3000)
    stored = weights.StoredWeights.of(folder)
    counted.clear()
    found = dict(stored.tensors())
    expected = theirs.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())
    assert len(counted) > 5


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", SHAPES[:-2])
def test_there_and_back_again_nothing_has_changed(checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any]) -> None:
    checkpoint = checkpoint_of(**shape)
    export(Config(), checkpoint=checkpoint, out=tmp_path / "out", compare=False)
    import_model(tmp_path / "out", out=tmp_path / "back", compare=False)
    before, after = load_source(checkpoint), network_of(tmp_path / "back")
    assert after.model == before.model
    assert after.weights.keys() == before.weights.keys()
    assert all(after.weights[name].equal(value) for name, value in before.weights.items())
    assert after.tokenizer.sha256 == before.tokenizer.sha256
    export(Config(), checkpoint=tmp_path / "back/ckpt-last.pt", out=tmp_path / "again", compare=False)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.slow
def test_of_what_transformers_saved_again(checkpoint_of: Make, tmp_path: Path) -> None:
    """Its own form of the configuration and of the tokenizer, not ours."""
    checkpoint = checkpoint_of(qk_norm=True, tie_embeddings=False)
    export(Config(), checkpoint=checkpoint, out=tmp_path / "out", compare=False)
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "saved")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "saved")
    made = import_model(tmp_path / "saved", out=tmp_path / "back")
    assert made.comparisons is not None
    after = network_of(tmp_path / "back")
    assert all(after.weights[name].equal(value) for name, value in load_source(checkpoint).weights.items())
    assert after.model == load_source(checkpoint).model


# ---- what is made ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_other_commands_take_what_is_made(
    folder_of: Callable[..., tuple[Path, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder_of("Qwen3", head_dim=16)
    monkeypatch.chdir(tmp_path)
    main_ok(["import", "theirs", "--dry-run"])
    assert not Path("runs").exists()
    main_ok(["import", "--from", "huggingface", "theirs", "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["out"], told["architecture"], len(told["comparisons"])) == ("runs/theirs", "qwen3", 3)
    for words in (
        ["sample", "--prompt", "hello", "--max-tokens", "5", "--device", "cpu"],
        ["info", "runs/theirs"],
        ["info", "runs/theirs/ckpt-last.pt"],
        ["export", "--to", "safetensors"],
        ["config", "check", "runs/theirs/config.yaml", "train"],
    ):
        main_ok(words)


def test_the_metadata_promises_what_is_there(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, theirs = folder_of()
    made = import_model(folder, out=tmp_path / "run", compare=False)
    assert read(tmp_path / "run/import.json", ImportMetadata, hint="") == made
    assert damaged(tmp_path / "run", made.payload()) == []
    assert {file.path for file in made.files} == {path.name for path in (tmp_path / "run").iterdir()} - {"import.json"}
    read_from = {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer_config.json",
    }
    assert {Path(file.path).name for file in made.inputs} == read_from
    assert made.parameters == sum(value.numel() for value in theirs.state_dict().values())


def test_what_is_there_is_kept_or_refused(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    (folder, _), out, events = folder_of(), tmp_path / "run", list[Event]()
    made = import_model(folder, out=out, compare=False)
    assert import_model(folder, out=out, compare=False, on_event=events.append) == made
    assert events == [Noted(f"`{out}` is up to date")]
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.norm.weight": tensors["model.norm.weight"] * 2}, folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="was made from other inputs"):
        import_model(folder, out=out, compare=False)
    import_model(folder, out=out, compare=False, force=True)
    (out / "run.json").write_text("{}")
    with pytest.raises(ArtifactError, match="holds a run"):
        import_model(folder, out=out, compare=False, force=True)


def test_without_transformers_it_is_not_compared(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder, _), events = folder_of(), list[Event]()
    monkeypatch.setattr(optional_tools, "find_spec", lambda name: None)
    assert import_model(folder, out=tmp_path / "run", on_event=events.append).comparisons is None
    assert events == [Warned("not compared: `transformers` is not installed", "pip install transformers")]


def test_a_broken_or_old_transformers_is_as_good_as_none(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder, _), events = folder_of(), list[Event]()
    hint = "pip install --upgrade transformers"
    monkeypatch.setattr(_transformers, "LEAST_VERSION", 99)
    assert import_model(folder, out=tmp_path / "old", on_event=events.append).comparisons is None
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it raises ImportError
    monkeypatch.setattr(optional_tools, "find_spec", lambda name: name)
    assert import_model(folder, out=tmp_path / "broken", on_event=events.append).comparisons is None
    old, broken = events
    assert old == Warned(f"not compared: `transformers` {transformers.__version__} is too old, 99.0 is needed", hint)
    assert isinstance(broken, Warned)
    assert broken.message.startswith("not compared: `transformers` is installed but cannot be loaded: ")


def test_a_folder_that_transformers_does_not_take(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = folder_of()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": 5}')
    with pytest.raises(ArtifactError, match="`transformers` .* cannot load `") as caught:
        import_model(folder, out=tmp_path / "run")
    assert "--no-compare" in str(caught.value.hint)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_tokenizer_that_transformers_would_take_for_another(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    """Without its class it is that of the family, which normalizes."""
    folder, _ = folder_of("Qwen3", head_dim=16)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ArtifactError, match="texts with other ids: "):
        import_model(folder, out=tmp_path / "run")


@pytest.mark.slow
def test_another_model_here_is_a_failure(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = folder_of()
    honest = from_hf_config.read
    monkeypatch.setattr(from_hf_config, "read", lambda values: honest({**values, "rms_norm_eps": 1e-3}))
    with pytest.raises(ArtifactError, match="logits: .*, at most 1e-05"):
        import_model(folder, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- what is refused -------------------------------------------------------------------------------------------

ALIEN: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "gemma2"}, "`model_type: gemma2`, but alm reads only llama, mistral, qwen2, qwen3, smollm3"),
    ({"hidden_act": "gelu"}, "`hidden_act: gelu`"),
    ({"mlp_bias": True}, "`mlp_bias: True`"),
    ({"use_sliding_window": True}, "`use_sliding_window: True`"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layers of type `sliding_attention`"),
    ({"quantization_config": {"bits": 4}}, "`quantization_config: {'bits': 4}`"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "positions are scaled as `llama3`"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "positions are scaled as `dynamic`"),
    ({"rope_parameters": {**YARN, "attention_factor": 1.0}}, "yarn has `attention_factor: 1.0`"),
    ({"rope_parameters": {**YARN, "mscale": 0.7}}, "positions have `mscale: 0.7`"),
    ({"rope_parameters": {**YARN, "truncate": False}}, "yarn has `truncate: false`"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "`partial_rotary_factor: 0.5`"),
    ({"hidden_size": None}, "it has no `hidden_size`"),
    ({"hidden_size": 30}, "`model.embed_tokens.weight` is [280, 32], but [280, 30] by the configuration"),
    ({"num_hidden_layers": 3}, "it has no `model.layers.2.mlp.down_proj.weight`"),
    ({"num_hidden_layers": 1}, "`model.layers.1.mlp.down_proj.weight` is not a weight of the model"),
    ({"num_attention_heads": 3, "head_dim": None}, "n_heads 3 does not divide d_model 32"),
    ({"vocab_size": 40}, "the tokenizer has 277 ids, but the model knows only 40"),
    ({"num_hidden_layers": "two"}, '`num_hidden_layers` is "two", not a whole number from 1 to 1000'),
    ({"num_hidden_layers": True}, "`num_hidden_layers` is true, not a whole number"),
    ({"num_hidden_layers": 10**9}, "`num_hidden_layers` is 1000000000, not a whole number from 1 to 1000"),
    ({"num_attention_heads": "4"}, '`num_attention_heads` is "4", not a whole number'),
    ({"max_position_embeddings": 10**12}, "`max_position_embeddings` is 1000000000000, not a whole number"),
    ({"rms_norm_eps": float("nan")}, "`rms_norm_eps` is NaN, not a number"),
    ({"tie_word_embeddings": 0}, "`tie_word_embeddings` is 0, not a flag"),
    ({"layer_types": 5}, "`layer_types` is 5, not a list of names"),
    ({"layer_types": [["a"]]}, '`layer_types` is [["a"]], not a list of names'),
    ({"rope_parameters": {"rope_type": ["a"]}}, "positions are scaled as `['a']`"),
    ({"rope_parameters": {**YARN, "factor": "4"}}, '`rope_parameters.factor` is "4", not a number'),
    ({"rope_parameters": {**YARN, "factor": -4}}, "`rope_parameters.factor` is -4, not a number"),
    ({"rope_parameters": {**YARN, "attention_factor": "x"}}, '`rope_parameters.attention_factor` is "x"'),
    ({"rope_parameters": {**YARN, "rope_theta": 1.0}}, "yarn needs a `rope_theta` above 1, not 1.0"),
    ({"rope_parameters": {**YARN, "truncate": "no"}}, '`rope_parameters.truncate` is "no", not a flag'),
    ({"rope_parameters": {"rope_type": "yarn"}}, "positions are scaled as `yarn`, without a `factor`"),
    ({"rope_parameters": {"rope_type": "linear"}}, "positions are scaled as `linear`, without a `factor`"),
    ({"rope_parameters": {"factor": 4.0}}, "positions have `factor: 4.0`, which alm does not support"),
    ({"rope_parameters": {"full_attention": YARN}}, "is given for each type of layer (`full_attention`)"),
    ({"rope_scaling": "linear"}, '`rope_scaling` is "linear", not an object'),
    ({"rope_scaling": ["linear", 4]}, '`rope_scaling` is ["linear", 4], not an object'),
]


@pytest.mark.parametrize(("changes", "reason"), ALIEN)
def test_what_alm_is_not_is_refused(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    folder, _ = folder_of()
    values = json.loads((folder / "config.json").read_text("utf-8"))
    if "rope_scaling" in changes:
        values.pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps({**values, **changes}), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        import_model(folder, out=tmp_path / "run")
    assert reason in caught.value.message
    assert not (tmp_path / "run").exists()


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8}
F, S = "full_attention", "sliding_attention"
# What is read of windows, layers without rotation, and biases: model_type, its settings, ours.
READ: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("llama", {"sliding_window": 8}, {}),
    ("mistral", {}, {"window": 4096, "full_every": 0}),
    ("mistral", {"sliding_window": None, "use_sliding_window": True}, {"window": None, "full_every": 0}),
    ("mistral", {"sliding_window": 8, "use_sliding_window": False}, {"window": 8, "full_every": 0}),
    ("qwen2", {"sliding_window": 8}, {"bias": "qkv"}),
    ("qwen2", {**WINDOWS, "max_window_layers": 4}, {"bias": "qkv"}),
    ("qwen2", {**WINDOWS, "max_window_layers": 0}, {"bias": "qkv", "window": 8, "full_every": 0}),
    ("qwen2", {**WINDOWS, "layer_types": [S, S, F, S]}, {"bias": "qkv", "window": 8, "full_every": 3}),
    ("qwen2", {**WINDOWS, "sliding_window": None}, {"bias": "qkv"}),
    (
        "qwen3",
        {**WINDOWS, "layer_types": [S, F, S, F], "attention_bias": True},
        {"bias": "qkvo", "window": 8, "full_every": 2},
    ),
    ("smollm3", {}, {"skip_every": 4}),
    ("smollm3", {"no_rope_layer_interval": 5}, {"skip_every": 0}),
    ("smollm3", {"no_rope_layers": [0, 0, 0, 0, 1]}, {"skip_every": 1}),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1], "attention_bias": True}, {"skip_every": 0, "bias": "qkvo"}),
    ("smollm3", {**WINDOWS, "layer_types": [S, S, S, F]}, {"skip_every": 4, "window": 8, "full_every": 4}),
    ("smollm3", {**WINDOWS, "no_rope_layers": [0, 0, 0, 0]}, {"skip_every": 1, "window": 8, "full_every": 0}),
]


@pytest.mark.parametrize(("name", "given", "ours"), READ)
def test_what_is_read_of_layers(name: str, given: dict[str, Any], ours: dict[str, Any]) -> None:
    model, faults = from_hf_config.read({"model_type": name, **SMALL, **given})
    assert faults == []
    assert model is not None
    found = {**model.attention.model_dump(), **model.positions.model_dump()}
    assert {key: found[key] for key in ours} == ours


UNREAD: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2", {**WINDOWS, "max_window_layers": 2}, "`layer_types` has windows in some layers"),
    ("qwen3", {**WINDOWS, "layer_types": [F, S, S, S]}, "`layer_types` has windows in some layers"),
    ("qwen3", {**WINDOWS, "layer_types": [F, S]}, "`layer_types` has 2 entries for 4 layers"),
    ("qwen3", {**WINDOWS, "layer_types": [S, S, S, "chunked"]}, "layers of type `chunked`"),
    ("qwen3", {"layer_types": [S, S, S, S]}, "layers of type `sliding_attention`, but no `sliding_window` in use"),
    ("qwen3", {**WINDOWS, "sliding_window": -3}, "`sliding_window` is -3, not a whole number from 1 to"),
    ("qwen2", {**WINDOWS, "max_window_layers": "3"}, '`max_window_layers` is "3", not a whole number'),
    ("qwen2", {"use_sliding_window": "yes"}, '`use_sliding_window` is "yes", not a flag'),
    ("mistral", {"sliding_window": 0}, "`sliding_window` is 0, not a whole number"),
    ("mistral", {"layer_types": [S, F, S, F]}, "all layers of a mistral have its `sliding_window`"),
    ("llama", {"attention_bias": "yes"}, '`attention_bias` is "yes", not a flag'),
    ("llama", {"rope_interleaved": True}, "`rope_interleaved: True`, which alm's model does not have"),
    ("smollm3", {"no_rope_layers": [1, 1]}, "`no_rope_layers` has 2 entries for 4 layers"),
    ("smollm3", {"no_rope_layers": [0, 1, 1, 1]}, "alm leaves the rotation out of every Nth layer"),
    ("smollm3", {"no_rope_layers": [0, 1, 2, 1]}, "`no_rope_layers` is [0, 1, 2, 1], not a list of 0 and 1"),
    ("smollm3", {"no_rope_layers": 4}, "`no_rope_layers` is 4, not a list of 0 and 1"),
    ("smollm3", {"no_rope_layer_interval": 0}, "`no_rope_layer_interval` is 0, not a whole number"),
    ("smollm3", {"mlp_bias": True}, "`mlp_bias: True`, which alm's model does not have"),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "`llama3`, without a `low_freq_factor`"),
    ("llama", {"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor 4 is not below 4"),
    ("llama", {"rope_scaling": {**LLAMA3, "high_freq_factor": "4"}}, '`rope_scaling.high_freq_factor` is "4"'),
]


@pytest.mark.parametrize(("name", "given", "reason"), UNREAD)
def test_layers_that_alm_does_not_have_are_refused(name: str, given: dict[str, Any], reason: str) -> None:
    model, faults = from_hf_config.read({"model_type": name, **SMALL, **given})
    assert model is None
    assert [fault for fault in faults if reason in fault], faults


LINEAR = {"rope_type": "linear", "factor": 4.0}
SCALED: list[dict[str, Any]] = [
    {"rope_parameters": {"rope_type": "default", "rope_theta": 99.0}, "rope_scaling": LINEAR},
    {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LINEAR, "rope_theta": 500.0},
    {"rope_parameters": {}, "rope_scaling": LINEAR},
    {"rope_parameters": LINEAR, "rope_scaling": {}},
    {"rope_parameters": YARN, "rope_scaling": None},
    {"rope_parameters": LLAMA3},
    {"rope_scaling": {**LLAMA3, "type": "llama3"}},
    {"rope_parameters": LLAMA3, "original_max_position_embeddings": 16},
    {"rope_parameters": YARN, "original_max_position_embeddings": 16},
    {"rope_parameters": {**YARN, "factor": None, "original_max_position_embeddings": 16}},
    {"rope_scaling": {"type": "yarn", "factor": None}, "original_max_position_embeddings": 32},
]


@pytest.mark.parametrize("changes", SCALED)
@torch.no_grad()
def test_what_is_said_twice_of_positions_is_taken_as_they_take_it(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder, _ = folder_of()
    values = json.loads((folder / "config.json").read_text("utf-8"))
    values.pop("rope_parameters")
    (folder / "config.json").write_text(json.dumps({**values, **changes}), encoding="utf-8")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    import_model(folder, out=tmp_path / "run", compare=False)
    ours, ids = network_of(tmp_path / "run"), torch.arange(60)[None]
    expected = theirs(ids).logits
    found = ours.network.logits(ours.network(ids))
    torch.testing.assert_close(found, expected, rtol=0, atol=LOGITS * expected.abs().max().item())


def test_defaults_of_their_classes(tokenizer: Tokenizer) -> None:
    """A file may leave out what its class knows."""
    for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "SmolLM3"):
        theirs = getattr(transformers, f"{name}Config")()
        kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        values = {"model_type": name.lower(), **{key: getattr(theirs, key) for key in kept}}
        model, faults = from_hf_config.read(values)
        assert faults == []
        assert model is not None
        other = getattr(transformers, f"{name}Config")(**{key: values[key] for key in kept})
        assert model.max_position_embeddings == other.max_position_embeddings
        assert model.head_width == (getattr(other, "head_dim", None) or other.hidden_size // other.num_attention_heads)
        assert model.norm_eps == other.rms_norm_eps
        assert model.tie_embeddings == other.tie_word_embeddings
        assert model.rope_theta == other.rope_parameters["rope_theta"]
        assert model.n_kv_heads == other.num_key_value_heads
        assert (model.attention.window or None) == getattr(other, "sliding_window", None)


def spoil(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_tied_head_may_be_there_twice_but_not_otherwise(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = folder_of(tie_word_embeddings=True)
    spoil(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    import_model(folder, out=tmp_path / "run", compare=False)
    assert "lm_head.weight" not in load_checkpoint(tmp_path / "run/ckpt-last.pt").model
    spoil(folder, lambda t: t["lm_head.weight"].mul_(2))
    with pytest.raises(InputError, match="its embeddings are tied, but `lm_head.weight` is another table"):
        import_model(folder, out=tmp_path / "other", compare=False)


def test_old_files_store_their_frequencies(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = folder_of()
    spoil(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    import_model(folder, out=tmp_path / "run", compare=False)


def test_numbers_that_are_none_and_types_that_are_not_known(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = folder_of()
    spoil(folder, lambda t: t["model.norm.weight"].fill_(torch.nan))
    with pytest.raises(InputError, match="`model.norm.weight` has values that are not finite"):
        import_model(folder, out=tmp_path / "run", compare=False)
    spoil(folder, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}))
    with pytest.raises(InputError, match="stores numbers as I8, but alm reads only F32, F16, BF16"):
        import_model(folder, out=tmp_path / "run", compare=False)


def test_a_folder_without_files_to_read(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = folder_of()
    weights, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="is damaged"):
        import_model(folder, out=tmp_path / "run")
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="has no `model.safetensors` and no `model.safetensors.index.json`"):
        import_model(folder, out=tmp_path / "run")
    for text, fault in (
        ('{"weight_map": {"a": "../other.safetensors"}}', "names `../other.safetensors`, which is not beside it"),
        ('{"weight_map": {"a": "other.safetensors"}}', "is missing, which"),
        ('{"weight_map": 3}', "is damaged"),
        ("{", "is not JSON"),
    ):
        index.write_text(text)
        with pytest.raises(InputError, match=fault):
            import_model(folder, out=tmp_path / "run")
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="is not a JSON object"):
        import_model(folder, out=tmp_path / "run")
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        import_model(folder, out=tmp_path / "run")
    with pytest.raises(InputError, match="is not a folder"):
        import_model(folder / "config.json", out=tmp_path / "run")


def test_a_tokenizer_that_alm_would_not_follow(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = folder_of()
    values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**values, "normalizer": {"type": "NFKC"}}))
    with pytest.raises(InputError, match="sets `normalizer` to .*NFKC"):
        import_model(folder, out=tmp_path / "run")


WINDOWS = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 1}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "gemma2"}, "alm import Qwen/Qwen3-0.6B"),
        ({"model_type": "mixtral"}, "alm import mistralai/Mistral-7B-v0.1"),
        ({"model_type": "qwen3_moe"}, "alm import Qwen/Qwen3-0.6B"),
        ({"model_type": ["x"]}, "alm import HuggingFaceTB/SmolLM2-135M"),
        ({"model_type": "qwen2", **WINDOWS}, "without `use_sliding_window` and `layer_types` in its `config.json`"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "without `rope_scaling` in its `config.json` gives",
        ),
        ({"quantization_config": {"bits": 4}}, "import the model that it was made from"),
    ],
)
def test_a_refusal_names_what_works(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    folder, _ = folder_of(num_hidden_layers=3)
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters", None)
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 10000.0, **values}))
    with pytest.raises(InputError) as caught:
        import_model(folder, out=tmp_path / "run")
    assert said in f"{caught.value.message} {caught.value.hint}"
    assert "alm import " in str(caught.value.hint)


@pytest.mark.parametrize(
    ("given", "generation", "kept"),
    [
        (0, {}, [0]),
        ([2, 0], {}, [2, 0]),
        (None, {}, [0]),
        (2, {}, [2]),
        (0, {"eos_token_id": [2, 5, 2]}, [2, 5]),
        (0, {"eos_token_id": [7, 1 << 40]}, [7]),
    ],
)
def test_the_ends_of_its_texts_come_in_and_go_out(
    folder_of: Callable[..., tuple[Path, Any]],
    tmp_path: Path,
    given: object,
    generation: dict[str, Any],
    kept: list[int],
) -> None:
    (folder, _), events = folder_of(eos_token_id=given), list[Event]()
    (folder / "generation_config.json").write_text(json.dumps(generation))
    import_model(folder, out=tmp_path / "run", compare=False, on_event=events.append)
    assert not [event for event in events if isinstance(event, Warned)]
    source = load_source(tmp_path / "run" / "ckpt-last.pt")
    assert source.ends == list(dict.fromkeys([*kept, 0, 2]))
    assert load_model(tmp_path / "run").ends == source.stored_ends
    export(Config(), checkpoint=source.path, out=tmp_path / "back", compare=False)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "back" / name).read_text())["eos_token_id"] == source.ends
    export(gguf.Config(), checkpoint=source.path, out=tmp_path / "gguf", compare=False)
    (path,) = (tmp_path / "gguf").glob("*.gguf")
    assert set(open_gguf(path).ends) == set(source.ends)


@pytest.mark.parametrize("where", ["config", "generation", "gguf"])
def test_an_end_of_any_name(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, where: str) -> None:
    """A tokenizer has no place for it, so it comes from the settings of the model."""
    folder, _ = folder_of(eos_token_id=5 if where != "generation" else None, bos_token_id=None)
    text = (folder / "tokenizer.json").read_text("utf-8").replace("<|endoftext|>", "[BEGIN]")
    (folder / "tokenizer.json").write_text(text.replace("<|reserved_1|>", "[EOS]"), "utf-8")
    if where == "generation":
        (folder / "generation_config.json").write_text('{"eos_token_id": [5, 2]}')
    import_model(folder, out=tmp_path / "run", compare=where == "config")
    source = load_source(tmp_path / "run" / "ckpt-last.pt")
    if where == "gguf":
        export(gguf.Config(), checkpoint=source.path, out=tmp_path / "gguf", compare=False)
        (path,) = (tmp_path / "gguf").glob("*.gguf")
        import_model(path, kind="gguf", out=tmp_path / "again", compare=False)
        source = load_source(tmp_path / "again" / "ckpt-last.pt")
    assert source.tokenizer.end_of_text_id == 5
    theirs = tokenizers.Tokenizer.from_file(str(source.tokenizer_path))
    assert theirs.encode("the [EOS]!").ids[:1] == source.tokenizer.encode("the")
    assert theirs.encode("the").ids == source.tokenizer.encode("the")


def test_a_run_that_starts_from_it_ends_its_texts_as_it_does(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    folder, _ = folder_of(eos_token_id=[2, 5])
    import_model(folder, out=tmp_path / "run", compare=False)
    initial = SimpleNamespace(path=tmp_path / "run" / "ckpt-last.pt")
    packed = SimpleNamespace(metadata=SimpleNamespace(conversations=None))
    job: Any = SimpleNamespace(initial=initial, packed=packed)
    assert start._kept_files(job) == {ends.NAME: (tmp_path / "run" / ends.NAME).read_bytes()}
    job.initial = None
    assert start._kept_files(job) == {}


def test_generation_stops_at_each_of_them(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = folder_of(eos_token_id=list(range(3, 150)))
    import_model(folder, out=tmp_path / "run", compare=False)
    loaded, sampling = load_model(tmp_path / "run"), SamplingConfig(max_tokens=60, temperature=3.0, top_k=1000)
    chosen = [event.token.id for event in loaded.write(["the"], sampling) if isinstance(event, TextChunk)]
    assert len(chosen) < 59
    assert not set(chosen) & set(range(3, 150))


def test_what_is_not_taken_is_written_down(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    folder, _ = folder_of()
    (folder / "generation_config.json").write_text('{"eos_token_id": 0, "top_k": 20, "temperature": 0.6}')
    assert import_model(folder, out=tmp_path / "run", compare=False).not_taken == (
        "generation_config.json: temperature",
        "generation_config.json: top_k",
    )


def test_hints_name_what_helps(folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_model(Path("someone/model"), out=tmp_path / "run")
    assert "`alm import someone/model@main`" in str(caught.value.hint)
    folder, _ = folder_of()
    values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps({**values, "padding": {}}))
    with pytest.raises(InputError) as caught:
        import_model(folder, out=tmp_path / "run")
    assert "alm import --help" in str(caught.value.hint)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no tokenizer found at") as caught:
        import_model(folder, out=tmp_path / "run")
    assert "tokenizer train" not in str(caught.value.hint)


def test_a_dry_run_refuses_what_the_command_would(
    folder_of: Callable[..., tuple[Path, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = folder_of()
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("{}")
    with pytest.raises(SystemExit) as ending:
        main(["import", str(folder), "--out", str(out), "--dry-run"])
    assert ending.value.code == 1
    assert "holds a run" in capsys.readouterr().err


def test_an_unknown_origin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["import", "--from", "ggml", str(tmp_path)])
    assert ending.value.code == 2
    assert "cannot import from `ggml`" in capsys.readouterr().err
