"""Turn formats are read from templates without running them, and write what the templates write."""

from __future__ import annotations

import json
from pathlib import Path

import jinja2.sandbox
import pytest
from cases import for_each

from alm.errors import InputError
from alm.export.targets import _chat_template
from alm.tokenizers.chat_format import ChatFormat, Message, recognised
from alm.tokenizers.file import Tokenizer

CHATML = """{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
CHATML_IN_ONE_LINE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Of a line that holds statements alone nothing is written, not even its end.
CHATML_IN_LINES = """{% for message in messages %}
<|im_start|>{{ message.role }}
{% if true %}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA3_DATED = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
TEMPLATES = {
    "chatml": CHATML,
    "chatml in one line": CHATML_IN_ONE_LINE,
    "llama3": LLAMA3,
    "llama3 with dates": LLAMA3_DATED,
    "llama2": LLAMA2,
    "mistral": MISTRAL,
    "mistral, spaces": MISTRAL.replace("message['content'] + eos_token", "message['content'] + eos_token + ' '"),
    "mistral, newer": MISTRAL.replace("' [/INST]'", "'[/INST]'").replace(
        "{{ message['content'] + eos_token }}", "{{ ' ' + message['content'] | trim + eos_token }}"
    ),
    "zephyr": ZEPHYR,
    "chatml in lines": CHATML_IN_LINES,
    "chatml, our own": _chat_template.TEXT,
}
QUESTION = {"role": "user", "content": " What is <|im_end|> </s> [/INST]? "}
ANSWER = {"role": "assistant", "content": "A sign.\n"}
SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS: tuple[list[Message], ...] = (
    [QUESTION],
    [QUESTION, ANSWER],
    [QUESTION, ANSWER, QUESTION],
    [SYSTEM, QUESTION],
    [SYSTEM, QUESTION, ANSWER, QUESTION],
)


def as_jinja_writes(template: str, messages: list[Message], *, asks: bool) -> str:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    found = environment.from_string(template)
    return found.render(messages=messages, add_generation_prompt=asks, bos_token="<s>", eos_token="</s>")


@for_each("name", TEMPLATES)
def test_a_format_writes_what_its_template_writes(name: str) -> None:
    template = TEMPLATES[name]
    found = recognised(template, begin_of_text="<s>", end_of_text="</s>")
    assert found is not None
    assert found.form == name.split(",")[0].split()[0]
    assert ChatFormat.model_validate_json(found.model_dump_json()) == found
    for messages in CONVERSATIONS:
        if messages[0] is SYSTEM and found.form == "mistral":
            with pytest.raises(InputError, match="role `system`"):
                found.render(messages)
            continue
        for asks in (True, False) if messages[-1] is QUESTION or found.form != "zephyr" else (False,):
            assert found.render(messages, asks=asks) == as_jinja_writes(template, messages, asks=asks), (messages, asks)


@for_each(
    "template",
    [
        "",
        "{{ messages }}",
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}",
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}",
        "{{ '<|im_start|>' ",
        "'" * 1000,
        "{{ " + "'" * 1001 + " }}",
        "{{ '\\" + "x' }}",
        "x" * 300_000,
        "{{" * 10_000,
        "{{ '\\d' }}",
    ],
)
def test_another_template_is_not_recognised(template: str) -> None:
    assert recognised(template, begin_of_text="<s>", end_of_text="</s>") is None


def test_text_of_a_person_never_becomes_a_control_token(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_merges([])
    found = recognised(CHATML)
    assert found is not None
    messages = [QUESTION, ANSWER]
    ids = found.encode(tokenizer, messages)
    start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
    assert [id_ for id_ in ids if id_ in (start, end)] == [start, end, start, end, start, end, start]
    assert tokenizer.decode(ids) == found.render(messages)
    assert found.end_ids(tokenizer) == (end,)
    json.loads(found.model_dump_json())


def test_a_turn_end_that_is_no_special_token_is_still_one_of_the_format_only(tmp_path: Path) -> None:
    values = json.loads(Tokenizer.from_merges([])._data)
    for token in values["added_tokens"]:
        token["special"] = token["content"] == "<|endoftext|>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    end = tokenizer.found_in_text["<|im_end|>"]
    found = recognised(CHATML)
    assert found is not None
    assert (
        found.encode(tokenizer, [QUESTION, ANSWER]).count(end) == 3
    )  # of the system's, the user's, the assistant's turn
    assert found.end_ids(tokenizer) == (end,)


def test_the_system_of_llama2_needs_a_user() -> None:
    found = recognised(LLAMA2, begin_of_text="<s>", end_of_text="</s>")
    assert found is not None
    for messages in ([SYSTEM], [SYSTEM, ANSWER, QUESTION]):
        with pytest.raises(InputError, match="none follows"):
            found.render(messages)
