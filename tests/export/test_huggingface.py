"""The folder that `transformers` loads is our model: ids, logits, greedy text, and everything it is told besides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from cases import for_each
from model_kinds import EXTRAS

from alm.artifacts import ExportMetadata
from alm.errors import ArtifactError
from alm.events import Event, Warned
from alm.export import compare, hf_config, optional_tools
from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets import _chat_template, huggingface
from alm.export.targets.huggingface import Config
from alm.model.config import ModelConfig
from alm.tokenizers.file import Tokenizer

from .conftest import TINY, Make, greedy_ids

transformers = pytest.importorskip("transformers")

# fp32 on both sides, with sums in another order: as a share of the largest logit.
LOGITS = 1e-5
LLAMA3 = {"method": "llama3", "factor": 8, "original_max_position_embeddings": 16, "high_freq_factor": 6.0}
YARN = {"kind": "rope", "scaling": {"method": "yarn", "factor": 4, "original_max_position_embeddings": 16}}
SHAPES: list[dict[str, Any]] = [
    {},
    {"n_kv_heads": 1},
    {"n_kv_heads": 4, "tie_embeddings": False},
    {"qk_norm": True},
    {"qk_norm": True, "head_dim": 20, "tie_embeddings": False},
    {"head_dim": 24},
    {"vocab_size": 333},
    {"vocab_size": 333, "tie_embeddings": False, "qk_norm": True},
    {"norm_eps": 1e-2},
    {"rope_theta": 300.0},
    {"positions": {"kind": "rope", "scaling": {"method": "linear", "factor": 3.0}}},
    {"positions": YARN},
    {"positions": {**YARN, "scaling": {**YARN["scaling"], "beta_fast": 4.0, "beta_slow": 0.1}}, "qk_norm": True},  # type: ignore[dict-item]
    {"positions": {"kind": "rope", "scaling": LLAMA3}},
    {"attention": {"kind": "grouped", "bias": "qkv"}},
    {"attention": {"kind": "grouped", "bias": "qkv", "window": 8, "full_every": 2}, "head_dim": 24},
    {"attention": {"kind": "grouped", "bias": "qkvo"}},
    {"attention": {"kind": "grouped", "bias": "qkvo", "window": 8, "full_every": 2}, "qk_norm": True},
    {"attention": {"kind": "grouped", "full_every": 0}},
    {"attention": {"kind": "grouped", "window": 8, "full_every": 0}},
    {"attention": {"kind": "grouped", "window": 64, "full_every": 0}, "vocab_size": 333},
    {"attention": {"kind": "grouped", "window": 8, "full_every": 2}, "head_dim": 24},
    {"attention": {"kind": "grouped", "window": 8, "full_every": 0, "bias": "qkvo"}},
    {"positions": {"kind": "rope", "skip_every": 2}},
    {"positions": {"kind": "rope", "skip_every": 2, "scaling": LLAMA3}, "tie_embeddings": False},
    {"positions": {"kind": "rope", "skip_every": 1}, "attention": {"kind": "grouped", "window": 8, "full_every": 0}},
    {"attention": {"kind": "grouped", "window": 8}},
    {"attention": {"kind": "grouped", "window": 3, "full_every": 1}},
]
FAMILY_OF: list[tuple[dict[str, Any], str]] = [
    ({}, "llama"),
    ({"attention": {"kind": "grouped", "bias": "qkvo"}}, "llama"),
    ({"attention": {"kind": "grouped", "window": 64}}, "llama"),
    ({"attention": {"kind": "grouped", "window": 63}}, "mistral"),
    ({"attention": {"kind": "grouped", "full_every": 0}}, "mistral"),
    ({"attention": {"kind": "grouped", "bias": "qkv"}}, "qwen2"),
    ({"attention": {"kind": "grouped", "bias": "qkvo", "window": 8}, "qk_norm": True}, "qwen3"),
    ({"attention": {"kind": "grouped", "window": 8, "full_every": 2}}, "smollm3"),
    ({"positions": {"kind": "rope", "skip_every": 2}}, "smollm3"),
]


def exported(checkpoint: Path, out: Path, *, compare: bool = True, **changes: Any) -> ExportMetadata:
    return export(Config.model_validate(changes), checkpoint=checkpoint, out=out, compare=compare)


def loaded(out: Path, **options: Any) -> tuple[Any, Any]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(out, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, local_files_only=True, **options)
    return tokenizer, model.eval()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("shape", SHAPES)
@torch.no_grad()
def test_logits_and_greedy_text(
    checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any], greedy_of: Callable[[Path, str, int], list[int]]
) -> None:
    checkpoint, out = checkpoint_of(**shape), tmp_path / "out"
    exported(checkpoint, out, compare=False)
    tokenizer, model = loaded(out)
    source = load_source(checkpoint)
    ids = torch.randint(source.tokenizer.vocab_size, (3, 64), generator=torch.Generator().manual_seed(1))
    ours = source.network.logits(source.network(ids))
    torch.testing.assert_close(model(ids).logits, ours, rtol=0, atol=LOGITS * ours.abs().max().item())
    for prompt in ("hello", "The quick"):
        given = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**given, do_sample=False, temperature=None, top_k=None, max_new_tokens=40)
        found = made[0, given["input_ids"].shape[1] :].tolist()
        expected = greedy_of(checkpoint, prompt, 40)
        # What ends an answer there is the turn's end too, which a model that was not taught to chat says by chance.
        cut = next((at for at, id_ in enumerate(found) if id_ in (0, 2)), len(found))
        assert found[:cut] == expected[:cut]
        assert cut == 40 or found[cut] == 2 or len(expected) == cut


@for_each("shape, family", FAMILY_OF)
def test_the_family_that_can_hold_the_model(shape: dict[str, Any], family: str) -> None:
    model = ModelConfig.model_validate({**TINY, "vocab_size": 300, **shape})
    assert hf_config.refusals(model) == []
    assert hf_config.family(model) == family


@pytest.mark.parametrize("qk_norm", [False, True])
def test_weights_are_the_checkpoints_bit_for_bit(checkpoint_of: Make, tmp_path: Path, qk_norm: bool) -> None:
    checkpoint = checkpoint_of(qk_norm=qk_norm, tie_embeddings=False)
    exported(checkpoint, tmp_path / "out", compare=False)
    _, model = loaded(tmp_path / "out")
    expected, found = load_source(checkpoint).weights, model.state_dict()
    assert found.keys() == expected.keys()
    assert all(found[name].equal(value) for name, value in expected.items())


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("dtype", "type_"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_narrow_numbers(checkpoint_of: Make, tmp_path: Path, dtype: str, type_: torch.dtype) -> None:
    checkpoint = checkpoint_of()
    exported(checkpoint, tmp_path / "out", dtype=dtype)
    _, model = loaded(tmp_path / "out", dtype="auto")
    for name, value in load_source(checkpoint).weights.items():
        assert model.state_dict()[name].equal(value.to(type_))


def test_a_number_that_does_not_fit_is_refused(checkpoint_of: Make, tmp_path: Path, monkeypatch: Any) -> None:
    checkpoint = checkpoint_of()
    source = load_source(checkpoint)
    source.weights["model.norm.weight"][3] = 65_521.0  # rounds to 65,536, which fp16 does not have
    for dtype, reasons in (("fp16", 1), ("bf16", 0), ("fp32", 0)):
        assert len(huggingface.refusals(Config.model_validate({"dtype": dtype}), source)) == reasons
    source.weights["model.norm.weight"][3] = 65_504.0
    assert huggingface.refusals(Config(dtype="fp16"), source) == []


ALIEN: list[tuple[dict[str, Any], str]] = [
    ({"positions": "alibi"}, "positions: alibi"),
    ({"feedforward": "relu2"}, "feedforward: relu2"),
    ({"feedforward": {"kind": "dual", "small_hidden_size": 8}}, "feedforward: dual"),
    *(({key: True}, f"{key}: true") for key in EXTRAS),
    ({"attention": {"kind": "grouped", "bias": "qkv"}, "qk_norm": True}, "attention.bias: qkv"),
    ({"positions": {"kind": "rope", "skip_every": 2}, "qk_norm": True}, "positions.skip_every: 2"),
    (
        {"positions": {"kind": "rope", "skip_every": 1}, "attention": {"kind": "grouped", "bias": "qkv"}},
        "positions.skip_every: 1",
    ),
    ({"attention": {"kind": "grouped", "document_mask": True}}, "attention.document_mask: true"),
]


@pytest.mark.parametrize(("shape", "reason"), ALIEN)
def test_what_a_llama_is_not_is_refused(
    checkpoint_of: Make, tmp_path: Path, shape: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ArtifactError, match=reason) as caught:
        exported(checkpoint_of(**shape), tmp_path / "out")
    assert "--to safetensors" in str(caught.value.hint)
    assert not (tmp_path / "out").exists()


def test_every_reason_is_told_at_once() -> None:
    model = ModelConfig.model_validate({"vocab_size": 300, "positions": "alibi", "smear": True, "feedforward": "relu2"})
    assert len(hf_config.refusals(model)) == 3


def test_a_tokenizer_with_more_ids_than_the_model(checkpoint_of: Make, tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ArtifactError, match=f"has {tokenizer.vocab_size} ids, but the model of `.*` only 270"):
        exported(checkpoint_of(vocab_size=270), tmp_path / "out")


# ---- what is compared after writing ----------------------------------------------------------------------------


def spoiled(key: str, value: object) -> Callable[..., Any]:
    honest = hf_config.config_json
    return lambda *arguments, **options: {**honest(*arguments, **options), key: value}


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("key", "value"), [("rms_norm_eps", 1e-4), ("rope_theta", 9000.0), ("hidden_act", "gelu")])
def test_another_model_there_is_a_failure(
    checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    monkeypatch.setattr(hf_config, "config_json", spoiled(key, value))
    with pytest.raises(ArtifactError, match="logits: .*, at most 1e-05, transformers"):
        exported(checkpoint_of(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_other_ids_there_are_a_failure(checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(config: Config, source: Any, folder: Path) -> None:
        honest(config, source, folder)
        values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        values["model"]["merges"] = values["model"]["merges"][1:]
        (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")

    honest = huggingface.write
    monkeypatch.setattr(huggingface, "write", write)
    with pytest.raises(ArtifactError, match="texts with other ids: "):
        exported(checkpoint_of(), tmp_path / "out")


@pytest.mark.slow
def test_ids_beyond_the_tokenizer_are_never_said_there(
    checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(source: Any) -> dict[str, Any]:
        return {key: value for key, value in honest(source).items() if key != "suppress_tokens"}

    honest = huggingface._generation
    monkeypatch.setattr(huggingface, "_generation", without)
    with pytest.raises(ArtifactError, match="tokens of greedy text that differ: "):
        exported(checkpoint_of(vocab_size=2000), tmp_path / "out")


def test_a_tie_is_no_difference(checkpoint_of: Make) -> None:
    source = load_source(checkpoint_of(tie_embeddings=False))
    prompt, end = compare.prompts(source)[0], source.tokenizer.end_of_text_id
    first = greedy_ids(source.network, prompt, 1, end)[0]
    twin = next(id_ for id_ in range(20, 60) if id_ != first)
    source.weights["lm_head.weight"][twin] = source.weights["lm_head.weight"][first]
    network = source.network_of(source.weights)

    def theirs(asked: list[int], tokens: int) -> list[int]:
        ours = greedy_ids(network, asked, tokens, end)
        return [first + twin - ours[0], *ours[1:]] if asked == prompt else ours

    found = compare.greedy(source, "other", theirs)(network)
    assert (found.difference, found.is_close) == (0, True)
    assert "1 answers go apart" in found.detail
    source.weights["lm_head.weight"][twin] *= 0.999
    network = source.network_of(source.weights)
    assert not compare.greedy(source, "other", theirs)(network).is_close


@pytest.mark.parametrize("change", ["other", "short", "long"])
def test_an_answer_that_leaves_ours_is_counted_from_there(checkpoint_of: Make, change: str) -> None:
    source = load_source(checkpoint_of())
    prompts, end, network = compare.prompts(source), source.tokenizer.end_of_text_id, source.network

    def theirs(asked: list[int], tokens: int) -> list[int]:
        ours = greedy_ids(network, asked, tokens, end)
        if asked != prompts[1]:
            return ours
        kinds = {"other": [*ours[:3], (ours[3] + 1) % 272, *ours[4:]], "short": ours[:3], "long": [*ours[:3], end, 5]}
        return kinds[change]

    answer = theirs(prompts[1], compare.answer_tokens(source, prompts[1]))
    found = compare.greedy(source, "other", theirs)(network)
    assert found.difference == (1 if change == "long" else compare.answer_tokens(source, prompts[1]) - 3), answer


def test_scores_that_are_no_numbers_are_not_close(checkpoint_of: Make) -> None:
    source = load_source(checkpoint_of())
    broken = compare.logits(source, "other", lambda ids, last: torch.full((len(ids[-last:]), 277), torch.nan))
    assert not broken(source.network).is_close


@pytest.mark.slow
def test_where_the_other_tool_is_not_there(
    checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, events = checkpoint_of(), list[Event]()
    with monkeypatch.context() as patch:
        patch.setattr(optional_tools, "find_spec", lambda name: None)
        made = export(Config(), checkpoint=checkpoint, out=tmp_path / "out", on_event=events.append)
    assert made.comparisons is None
    assert events == [Warned("not compared: `transformers` is not installed", "pip install transformers")]
    assert "not compared" in (tmp_path / "out/README.md").read_text("utf-8")
    again = export(Config(), checkpoint=checkpoint, out=tmp_path / "out")
    assert again.comparisons is not None
    assert len(again.comparisons) == 3


# ---- what transformers is told besides -------------------------------------------------------------------------


def test_a_chat_is_rendered_to_our_ids_and_its_answers_are_marked(
    checkpoint_of: Make, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    exported(checkpoint_of(), tmp_path / "out", compare=False)
    theirs, _ = loaded(tmp_path / "out")
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "Well, hello."},
    ]
    expected, mask = [], []
    for turn in talk:
        head = [1, *tokenizer.encode(f"{turn['role']}\n")]
        body = [*tokenizer.encode(turn["content"]), 2]
        tail = tokenizer.encode("\n")
        expected += [*head, *body, *tail]
        mask += [0] * len(head) + [int(turn["role"] == "assistant")] * len(body) + [0] * len(tail)
    found = theirs.apply_chat_template(
        talk, chat_template="training", tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert found["input_ids"] == expected
    assert theirs.apply_chat_template(talk, tokenize=True, return_dict=False) == expected
    assert found["assistant_masks"] == mask
    asked = theirs.apply_chat_template(talk[:2], tokenize=True, return_dict=False, add_generation_prompt=True)
    assert asked == [*expected[: mask.index(1) - len(head)], 1, *tokenizer.encode("assistant\n")]


TALKS = {
    "plain": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho <b> & 'x'"}],
    "null": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}],
    "absent": [{"role": "user", "content": "Hi"}, {"role": "assistant"}],
    "parts": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "one"}, {"type": "image"}, {"type": "text", "text": "two"}],
        },
        {"role": "assistant", "content": []},
    ],
    "texts": [{"role": "user", "content": ["one", {"text": "two"}, {"type": "text", "text": None}, {"type": "image"}]}],
    "calls": [{"role": "assistant", "tool_calls": [{"id": 1}]}, {"role": "tool", "content": "1"}],
    "others": [{"role": "user", "content": {"a": 1}}, {"role": "assistant", "content": 5}],
}


def text_of(part: object) -> str | None:
    """The text of a part that is a mapping and has one."""
    found = part.get("text") if isinstance(part, dict) and part.get("type", "text") == "text" else None
    return found if isinstance(found, str) else None


def rendered(talk: list[dict[str, Any]]) -> str:
    lines = []
    for turn in talk:
        content = turn.get("content")
        parts = content if isinstance(content, list) else [content]
        texts = [part if isinstance(part, str) else text_of(part) for part in parts]
        text = "\n".join(text for text in texts if text is not None)
        lines.append(f"<|im_start|>{turn['role']}\n{text}<|im_end|>\n")
    return "".join(lines) + "<|im_start|>assistant\n"


@for_each("name", TALKS)
def test_the_template_renders_in_plain_jinja(name: str) -> None:
    """With and without the blanks that `transformers` trims, and where an absent value is an error."""
    for options in ({}, {"trim_blocks": True, "lstrip_blocks": True, "undefined": jinja2.StrictUndefined}):
        template = jinja2.Environment(**options).from_string(_chat_template.TEXT)
        assert template.render(messages=TALKS[name], add_generation_prompt=True) == rendered(TALKS[name])
        assert template.render(messages=TALKS[name]) == rendered(TALKS[name]).removesuffix("<|im_start|>assistant\n")


@pytest.mark.parametrize("name", TALKS)
def test_the_template_renders_in_minijinja(name: str) -> None:
    minijinja = pytest.importorskip("minijinja")
    environment = minijinja.Environment(templates={"chat": _chat_template.TEXT})
    assert environment.render_template("chat", messages=TALKS[name], add_generation_prompt=True) == rendered(
        TALKS[name]
    )


def test_both_templates_render_in_transformers(checkpoint_of: Make, tmp_path: Path) -> None:
    exported(checkpoint_of(), tmp_path / "out", compare=False)
    theirs, _ = loaded(tmp_path / "out")
    for talk in TALKS.values():
        for name in (None, "training"):
            found = theirs.apply_chat_template(talk, chat_template=name, tokenize=False, add_generation_prompt=True)
            assert found == rendered(talk)


def test_ends_and_padding(checkpoint_of: Make, tmp_path: Path) -> None:
    exported(checkpoint_of(vocab_size=280), tmp_path / "out", compare=False)
    tokenizer, model = loaded(tmp_path / "out")
    told = model.generation_config
    assert (told.bos_token_id, told.eos_token_id, told.pad_token_id) == (0, [0, 2], 3)
    assert (told.do_sample, told.temperature, told.top_k) == (True, 0.8, 40)
    assert told.suppress_tokens == [277, 278, 279]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.model_max_length) == (0, 3, 64)
    assert tokenizer("hello")["input_ids"] == load_source(tmp_path / "runs/tiny/ckpt-last.pt").tokenizer.encode("hello")
    assert tokenizer("<|im_end|>")["input_ids"] == [2]
    assert len(tokenizer("<|im_end|>", split_special_tokens=True)["input_ids"]) > 1


def test_of_4_x_and_of_5_x_the_same_positions(checkpoint_of: Make, tmp_path: Path) -> None:
    """What 4.x reads is `rope_theta` and `rope_scaling`; 5.x makes its own of them."""
    exported(checkpoint_of(rope_theta=500.0, positions=YARN), tmp_path / "out", compare=False)
    values = json.loads((tmp_path / "out/config.json").read_text("utf-8"))
    assert values["rope_theta"] == 500.0
    assert values["rope_scaling"] == {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }
