"""Turn formats by name, for a model whose folder does not say which one it was trained in."""

from __future__ import annotations

import re
from typing import Literal, cast, get_args

from alm.config.base import did_you_mean
from alm.errors import ConfigError
from alm.tokenizers.chat_format import CHATML, ChatFormat, Turn
from alm.tokenizers.file import Tokenizer

FormatName = Literal["chatml", "llama3", "llama2", "mistral", "zephyr", "plain"]
NAMES: tuple[str, ...] = get_args(FormatName)
_PLAIN_STOPS = ("\nUser:", "\nAssistant:")
_CONTROL = re.compile(r"<\|(?:im|start|end|eot)_\w+\|>")
_ROLES = ("system", "user", "assistant")


def named(name: str, tokenizer: Tokenizer) -> ChatFormat:
    """Return the turn format `name`. `ConfigError` if there is none, or `tokenizer` lacks its control tokens."""
    if name not in NAMES:
        raise ConfigError(f"unknown turn format `{name}`{did_you_mean(name, NAMES)}", hint=f"use {', '.join(NAMES)}")
    found = _format(cast(FormatName, name), tokenizer)
    tokens = {**tokenizer.found_in_text, **tokenizer.specials}
    missing = [token for token in _CONTROL.findall(found.opening + found.assistant.after) if token not in tokens]
    if missing:
        raise ConfigError(
            f"the turn format `{name}` needs the token `{missing[0]}`, which the model's tokenizer lacks",
            hint="use `--format plain`, which needs no tokens of its own",
        )
    return found


def stops_of(chat: ChatFormat) -> tuple[str, ...]:
    """Return the texts that end an answer, where no token does."""
    return _PLAIN_STOPS if chat.form == "plain" else ()


def _format(name: FormatName, tokenizer: Tokenizer) -> ChatFormat:
    names, begin_id = tokenizer.token_names, tokenizer.begin_of_text_id
    begin = "" if begin_id is None else names[begin_id]
    end = names[tokenizer.end_of_text_id]
    if name == "chatml":
        return CHATML
    if name == "llama3":
        heads = {role: f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in _ROLES}
        turns = {role: Turn(before=head, after="<|eot_id|>") for role, head in heads.items()}
        return ChatFormat(form=name, begin=begin, opening=heads["assistant"], strips=True, strips_answers=True, **turns)
    if name == "zephyr":
        turns = {role: Turn(before=f"<|{role}|>\n", after=f"{end}\n") for role in _ROLES}
        return ChatFormat(form=name, begin=begin, opening=turns["assistant"].before, **turns)
    if name == "plain":
        turns = {role: Turn(before=f"{role.capitalize()}: ", after="\n") for role in _ROLES[1:]}
        system = Turn(after="\n")
        return ChatFormat(
            form=name, begin=begin, system=system, opening="Assistant:", strips=True, strips_answers=True, **turns
        )
    opens_each = begin if name == "llama2" else ""
    return ChatFormat(
        form=name,
        begin="" if opens_each else begin,
        user=Turn(before=f"{opens_each}[INST] ", after=" [/INST]"),
        assistant=Turn(before=" ", after=f" {end}" if name == "llama2" else end),
        within_user=Turn(before="<<SYS>>\n", after="\n<</SYS>>\n\n") if name == "llama2" else None,
        opening="",
        strips=True,
        strips_answers=True,
    )
