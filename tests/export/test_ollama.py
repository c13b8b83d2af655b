"""The Modelfile beside a GGUF file: its template writes what our format writes, and it ends answers where we do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cases import for_each

from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets import _ollama
from alm.export.targets.gguf import Config
from alm.generation import chat_formats
from alm.tokenizers import chat_template
from alm.tokenizers.chat_format import CHATML, ChatFormat, Message, Turn
from alm.tokenizers.file import Tokenizer

from .conftest import Make
from .go_templates import instructions, render

TEXTS = (
    "Hi.",
    "Größe 日本 🚀",
    "two\n\n\tlines ",
    '{{ .Content }} """ {% if %} \\n',
    "<|im_start|>user",
    "",
)
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
ODD = Turn(before='{{"""\x07\u2028\U0001f680}} {', after='\\{% "\n')
LLAMA3 = {
    role: Turn(before=f"<|start_header_id|>{role}<|end_header_id|>\n\n", after="<|eot_id|>")
    for role in ("system", "user", "assistant")
}


def formats() -> dict[str, ChatFormat]:
    """Every form, and what else a format can have. None removes blanks, which Ollama cannot."""
    tokenizer = Tokenizer.from_merges([])
    named = [chat_formats.named(name, tokenizer) for name in ("chatml", "llama2", "mistral", "zephyr")]
    named.append(ChatFormat(form="llama3", begin="<s>", opening=LLAMA3["assistant"].before, **LLAMA3))
    found = {chat.form: chat.model_copy(update={"strips": False, "strips_answers": False}) for chat in named}
    opened = found["llama2"].user.model_copy(update={"before": "<s>[INST] "})
    return found | {
        "llama2 with a begin in each turn": found["llama2"].model_copy(update={"user": opened}),
        "a system by default": CHATML.model_copy(update={"default_system": 'You "help".'}),
        "dates": found["llama3"].model_copy(update={"before_system": DATES}),
        "dates and a system by default": found["llama3"].model_copy(
            update={"before_system": DATES, "default_system": "Help."}
        ),
        "what has to be escaped": CHATML.model_copy(update={"user": ODD, "opening": "{"}),
    }


def conversations(chat: ChatFormat, number: int) -> list[list[Message]]:
    """Conversations of several turns that end with a question."""
    draw, made = random.Random(4), []
    for _ in range(number):
        answered = (
            ["user", "assistant", "tool", "assistant"] if chat.tool and draw.random() < 0.5 else ["user", "assistant"]
        )
        turns = answered * draw.randrange(4) + ["user"]
        roles = turns if draw.random() < 0.5 or not (chat.system or chat.within_user) else ["system", *turns]
        made.append([{"role": role, "content": draw.choice(TEXTS) or "x" * (role == "system")} for role in roles])
    return made


@for_each("name", formats())
@for_each("added", ["", "<s>"])
def test_the_template_writes_what_the_format_writes(name: str, added: str) -> None:
    chat = formats()[name]
    written = _ollama.template(chat, added=added)
    for messages in conversations(chat, 40):
        assert render(written, messages) == chat.render(messages).removeprefix(added)


def test_a_mistake_in_a_template_shows() -> None:
    chat = formats()["dates"]
    written = _ollama.template(chat).replace("eq $i 0", "eq $i 1")
    assert any(render(written, messages) != chat.render(messages) for messages in conversations(chat, 40))


def taught(checkpoint: Path, template: str) -> Path:
    """The model with the template of a fine-tuned one."""
    (checkpoint.parent / "chat_template.jinja").write_text(template, encoding="utf-8")
    return checkpoint


def test_the_file_of_a_model_that_was_taught_to_answer(checkpoint_of: Make, tmp_path: Path) -> None:
    checkpoint = taught(checkpoint_of(max_position_embeddings=96), chat_template.CHATML)
    made = export(Config(dtype="q8_0"), checkpoint=checkpoint, out=tmp_path / "out", compare=False)
    assert {file.path for file in made.files} == {"Modelfile", "README.md", "tiny-q8_0.gguf"}
    written = (tmp_path / "out" / "Modelfile").read_text(encoding="utf-8")
    assert instructions(written) == [
        ("FROM", "./tiny-q8_0.gguf"),
        ("TEMPLATE", _ollama.template(CHATML)),
        ("PARAMETER", "num_ctx 96"),
        ("PARAMETER", "temperature 0.8"),
        ("PARAMETER", "top_k 40"),
        ("PARAMETER", "top_p 1"),
        ("PARAMETER", "repeat_penalty 1"),
        ("PARAMETER", 'stop "<|im_end|>"'),
        ("PARAMETER", 'stop "<|endoftext|>"'),
        ("PARAMETER", 'stop "<|im_start|>"'),
    ]
    assert "ollama create my-model -f out/Modelfile" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_context_that_is_asked_for_is_bounded(checkpoint_of: Make) -> None:
    source = load_source(taught(checkpoint_of(max_position_embeddings=40_000), chat_template.CHATML))
    assert "\nPARAMETER num_ctx 8192\n" in (_ollama.modelfile("a.gguf", source) or "")


@pytest.mark.parametrize("template", ["", "{{ messages }}"])
def test_a_model_without_turns_that_are_known_has_none(checkpoint_of: Make, tmp_path: Path, template: str) -> None:
    checkpoint = checkpoint_of()
    if template:
        taught(checkpoint, template)
    export(Config(), checkpoint=checkpoint, out=tmp_path / "out", compare=False)
    assert not (tmp_path / "out" / "Modelfile").exists()
    assert "ollama" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_name_that_would_end_the_line_is_not_written(checkpoint_of: Make) -> None:
    source = load_source(taught(checkpoint_of(), chat_template.CHATML))
    assert _ollama.modelfile("a\nADAPTER b.gguf", source) is None
    assert (_ollama.modelfile("a b.gguf", source) or "").startswith("FROM ./a b.gguf\n")
