"""Conversations replayed in the tools that an export is for: the ids of each turn, the greedy answer, and its end.

The model has learned conversations, so that answers end by themselves. `alm` renders and answers as `alm chat` does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from builders import run_config, texts, write_clean, write_tokenizer

from alm.checkpoint.format import LAST_NAME
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.export.run import export
from alm.export.source import Source, load_source
from alm.export.targets import gguf, huggingface
from alm.export.targets._llama_cpp import LlamaCpp, serving
from alm.generation.chat import ChatModel
from alm.generation.completions import Finished, TextChunk
from alm.generation.config import ChatConfig
from alm.generation.load import load_model
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.tokenizers import chat_format
from alm.tokenizers.chat_format import ChatFormat
from alm.training.pretrain import pretrain

from .conftest import greedy_ids
from .go_templates import instructions, render

Talk = list[dict[str, str]]
NUMBER, TOKENS = 20, 11  # with its end, the first answer is longer than that
QUESTIONS = ("Does the fox see it?", "  Größe 日本?  ", "def f(x):\n\treturn {'a': x}\n", '<b>1 & 2</b> \'tis "it"', "")
ANSWERS = ("the fox sees it.", "no.", "the old hen runs to the hill and then it said hello.")


class Answer(NamedTuple):
    """A greedy answer: its ids, the token that ended it with them, and why it ended: `stop` or `length`."""

    ids: list[int]
    reason: str


def talks(seed: int, number: int = NUMBER) -> list[Talk]:
    """Conversations of several turns, each of which ends with a question."""
    draw, made = random.Random(seed), []
    for _ in range(number):
        turns: Talk = [{"role": "system", "content": "Be brief.\n"}] * draw.randrange(2)
        for _ in range(draw.randrange(1, 4)):
            turns += [{"role": "user", "content": draw.choice(QUESTIONS)}]
            turns += [{"role": "assistant", "content": draw.choice(ANSWERS)}]
        made.append([*turns, {"role": "user", "content": draw.choice(QUESTIONS)}])
    return made


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run that learned conversations of a few turns, and nothing else."""
    root = tmp_path_factory.mktemp("taught")
    tokenizer = write_tokenizer(root / "tokenizer.json", write_clean(root / "texts", texts(80)))
    lines = [json.dumps({"messages": [*talk, {"role": "assistant", "content": ANSWERS[0]}]}) for talk in talks(1, 60)]
    (root / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")
    source = {"kind": "files", "paths": str(root / "chats.jsonl"), "adapter": "messages"}
    prepare(CorpusConfig.model_validate({"sources": {"chats": source}}), out=root / "clean")
    config = PackConfig(seq_len=128, documents="conversations")
    pack(config, tokenizer=tokenizer, clean=[root / "clean"], out=root / "packed")
    shape = {"model__d_model": 32, "model__n_heads": 4, "model__max_position_embeddings": 512}
    steps = {"training__max_steps": 60, "optim__lr": 0.02, "validation__interval": 60, "samples__prompts": []}
    pretrain(run_config(**shape, **steps), data=root / "packed", out=root / "chat")
    return root / "chat"


def turns(talk: Talk) -> list[Talk]:
    """What the model is shown at each question of a conversation."""
    return [talk[: number + 1] for number, message in enumerate(talk) if message["role"] == "user"]


def answers_here(run: Path, conversations: Sequence[Talk]) -> list[Answer]:
    """The answers of `alm chat`; the token of an end is the likeliest after the text."""
    source, loaded = load_source(run), load_model(run / LAST_NAME, device_name="cpu")
    chat, found = format_of(source), []
    for talk in conversations:
        prompt = chat.encode(loaded.tokenizer, talk)
        *tokens, finished = ChatModel(loaded, chat).answer(prompt, ChatConfig(temperature=0, max_tokens=TOKENS))
        assert isinstance(finished, Finished)
        ids = [each.token.id for each in tokens if isinstance(each, TextChunk)]
        ends = greedy_ids(source.network, [*prompt, *ids], 1, -1) if finished.reason == "stop" else []
        found.append(Answer([*ids, *ends], finished.reason))
    return found


def format_of(source: Source) -> ChatFormat:
    chat = chat_format.beside(source.tokenizer_path, source.tokenizer)
    assert chat is not None
    return chat


@pytest.fixture(scope="session")
def expected(taught: Path) -> list[Answer]:
    """Answers of the model, of which some end and some are cut."""
    found = answers_here(taught, talks(2))
    assert {answer.reason for answer in found} == {"stop", "length"}
    assert {answer.ids[-1] for answer in found if answer.reason == "stop"} == {2}
    return found


# ---- transformers ----------------------------------------------------------------------------------------------


def answers_of_transformers(folder: Path, source: Source, conversations: Sequence[Talk]) -> list[Answer]:
    """The answers there, after a comparison of the ids of every turn."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    chat, found, ends = format_of(source), [], model.generation_config.eos_token_id
    for talk in conversations:
        for shown in turns(talk):
            given = tokenizer.apply_chat_template(
                shown, add_generation_prompt=True, return_dict=True, return_tensors="pt"
            )
            assert given["input_ids"][0].tolist() == chat.encode(source.tokenizer, shown)
        made = model.generate(**given, do_sample=False, temperature=None, top_k=None, max_new_tokens=TOKENS)
        ids = made[0, given["input_ids"].shape[1] :].tolist()
        found.append(Answer(ids, "stop" if ids[-1] in ends else "length"))
    return found


@pytest.mark.slow
def test_transformers_answers_the_same(taught: Path, expected: list[Answer], tmp_path: Path) -> None:
    export(huggingface.Config(), checkpoint=taught, out=tmp_path / "out")
    assert answers_of_transformers(tmp_path / "out", load_source(taught), talks(2)) == expected


# ---- llama.cpp -------------------------------------------------------------------------------------------------


def answers_of_llama_cpp(folder: Path, source: Source, conversations: Sequence[Talk]) -> list[Answer]:
    """The answers there, after a comparison of the ids of every turn: of its own template, and of that for Ollama."""
    (path,) = folder.glob("*.gguf")
    written = dict(instructions((folder / "Modelfile").read_text(encoding="utf-8")))
    chat, found = format_of(source), []
    with serving(path, context=source.model.max_position_embeddings) as llama:
        for talk in conversations:
            for shown in turns(talk):
                prompt = chat.encode(source.tokenizer, shown)
                assert read(llama, llama.chat(shown)) == prompt
                assert read(llama, render(written["TEMPLATE"], shown)) == prompt
            answer = llama.complete(prompt, TOKENS)
            found.append(Answer(answer["tokens"], {"eos": "stop", "limit": "length"}[answer["stop_type"]]))
    return found


def read(llama: LlamaCpp, prompt: str) -> list[int]:
    """The ids of a rendered conversation, as the server reads it."""
    ids: list[int] = llama._ask("/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    return ids


@pytest.mark.llamacpp
def test_llama_cpp_answers_the_same(taught: Path, expected: list[Answer], tmp_path: Path) -> None:
    export(gguf.Config(), checkpoint=taught, out=tmp_path / "out")
    assert answers_of_llama_cpp(tmp_path / "out", load_source(taught), talks(2)) == expected
