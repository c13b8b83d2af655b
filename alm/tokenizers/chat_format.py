"""The turn format of a chat model: read from its Jinja template without running it, and rendered to ids.

A template is a program from a stranger, so it is never executed. Its literals are read instead: if they are those of a
form that is known here (ChatML, Llama 3, Llama 2, Mistral, Zephyr), the format is stored as data. Text of a message is
encoded as text: it can never become a control token.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from alm.config.base import Config
from alm.errors import InputError
from alm.tokenizers.file import Tokenizer

Form = Literal["chatml", "llama3", "llama2", "mistral", "zephyr"]
Message = Mapping[str, str]
"""`role` and `content`."""


class Turn(Config):
    """What stands before and after the text of a message. Names of special tokens in it are these tokens."""

    before: str = ""
    after: str = ""

    def around(self, text: str) -> Iterator[_Part]:
        """Yield the parts of a turn with this text."""
        yield _Part(self.before, is_control=True)
        yield _Part(text)
        yield _Part(self.after, is_control=True)


class ChatFormat(Config):
    """How a conversation is written. Roles are `system`, `user` and `assistant`.

    Without a turn of its own, the text of the system stands in the first message of the user, `within_user`.
    """

    form: Form | Literal["plain"]
    begin: str = Field("", description="What stands before the first turn.")
    system: Turn | None = None
    user: Turn
    assistant: Turn
    within_user: Turn | None = None
    opening: str = Field(description="What asks for an answer: the beginning of a turn of the assistant.")
    default_system: str | None = Field(None, description="Text of the system if a conversation has none.")
    before_system: str = Field("", description="What stands before the text of the system in its turn.")
    strips: bool = Field(False, description="Whether blanks around the text of a message are left out.")
    strips_answers: bool = Field(False, description="The same for the assistant.")

    def render(self, messages: Sequence[Message], *, asks: bool = True) -> str:
        """Return the text of a conversation, as the template would, for people to read. `asks` for an answer."""
        return "".join(part.text for part in self._parts(messages, asks=asks))

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Message], *, asks: bool = True) -> list[int]:
        """Return the ids of a conversation. Only the format's own special tokens become such ids."""
        tokens, encode = _control_tokens(tokenizer), tokenizer.literal.encode
        special = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
        ids: list[int] = []
        text = ""
        for part in self._parts(messages, asks=asks):
            found = special.finditer(part.text) if part.is_control else iter(())
            start = 0
            for match in found:
                text += part.text[start : match.start()]
                ids += encode(text) if text else []
                ids.append(tokens[match[0]])
                text, start = "", match.end()
            text += part.text[start:]
        return ids + (encode(text) if text else [])

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the ids of the special tokens that end an answer."""
        tokens = _control_tokens(tokenizer)
        found = [name for name in tokens if self.assistant.after.lstrip().startswith(name)]
        return (tokens[max(found, key=len)],) if found else ()

    def _parts(self, messages: Sequence[Message], *, asks: bool) -> Iterator[_Part]:
        """Yield the parts of a conversation. Raises `InputError` for roles in an order that the form does not have."""
        messages = list(messages)
        self._check(messages)
        system = self.default_system
        if messages and messages[0]["role"] == "system":
            system = messages.pop(0)["content"]
        yield _Part(self.begin, is_control=True)
        first: list[_Part] = []  # what the first message of the user begins with
        if system is not None or self.before_system:
            own, text = self.system or Turn(), _Part(self._text(system or "", strips=self.strips))
            if self.within_user is None:
                yield from (
                    _Part(own.before + self.before_system, is_control=True),
                    text,
                    _Part(own.after, is_control=True),
                )
            else:
                first = list(self.within_user.around(system or ""))
        for message in messages:
            turn = {"user": self.user, "assistant": self.assistant, "system": self.system}[message["role"]]
            assert turn is not None
            strips = self.strips_answers if message["role"] == "assistant" else self.strips
            text = _Part(self._text(message["content"], strips=strips, is_first=not first))
            yield from (_Part(turn.before, is_control=True), *first, text, _Part(turn.after, is_control=True))
            first = []
        if asks:
            yield _Part(self.opening, is_control=True)

    @property
    def _has_system(self) -> bool:
        return self.system is not None or self.within_user is not None

    def _check(self, messages: Sequence[Message]) -> None:
        follows = [message["role"] for message in messages[1:2]]
        if self.within_user is not None and messages and messages[0]["role"] == "system" and follows != ["user"]:
            raise InputError(
                f"the turn format `{self.form}` puts the text of the system into a message of the user; none follows",
                hint="put a message of the user after the system's",
            )
        for number, message in enumerate(messages):
            role = message["role"]
            has_turn = role in ("user", "assistant") or (role == "system" and (self.system is not None or number == 0))
            if not has_turn or (role == "system" and self.system is None and self.within_user is None):
                raise InputError(
                    f"message {number + 1} has the role `{role}`, which the turn format `{self.form}` lacks there",
                    hint="use the roles user and assistant" + (", with system first" if self._has_system else ""),
                )

    @staticmethod
    def _text(text: str, *, strips: bool, is_first: bool = True) -> str:
        """Return the text of a turn, which may not be the first in it."""
        if not strips:
            return text
        return text.strip() if is_first else text.rstrip()


def _control_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the tokens that a format may write: special ones, and added ones, as some files list the end of a turn."""
    return {**tokenizer.found_in_text, **tokenizer.specials}


@dataclass(frozen=True)
class _Part:
    text: str
    is_control: bool = False


# ---- reading a template ----------------------------------------------------------------------------------

LONGEST = 200_000
_MOST_TAGS = 2000  # the longest templates have some hundreds; each that does not end is searched to the end
_TAG = re.compile(r"\{#.*?#\}|\{\{-?(.*?)-?\}\}|\{%[-+]?(.*?)-?%\}", re.DOTALL)
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
# In the stream of a template: the role and the text of a message, another value, and the border of a statement.
_ROLE, _TEXT, _STRIPPED, _OTHER, _BORDER = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
_CONTENT = f"([{_TEXT}{_STRIPPED}])"
_PLAIN = f"[^{_ROLE}{_TEXT}{_STRIPPED}{_OTHER}{_BORDER}]"


def recognised(template: str, *, begin_of_text: str = "", end_of_text: str = "") -> ChatFormat | None:
    """Return the format that `template` writes, or None if it is of none of the known forms.

    `begin_of_text` and `end_of_text` are what it calls `bos_token` and `eos_token`.
    """
    if len(template) > LONGEST or sum(template.count(opener) for opener in ("{{", "{%", "{#")) > _MOST_TAGS:
        return None
    stream = _stream(template, {"bos_token": begin_of_text, "eos_token": end_of_text})
    for read in (_chatml, _llama3, _inst, _zephyr):
        found = read(stream, begin_of_text, end_of_text)
        if found is not None:
            return found
    return None


def _stream(template: str, tokens: Mapping[str, str]) -> str:
    """Return what the template writes, in the order of its text, with a sign for each value and each statement.

    Blanks around tags go as they do with `trim_blocks` and `lstrip_blocks`, which `transformers` sets.
    """
    parts: list[str] = []
    end = 0
    for tag in _TAG.finditer(template):
        raw = template[end : tag.start()]
        before = template[max(0, end - 2) : end]
        if template[:end][-3:].startswith("-"):  # `-}}` and `-%}` take the blanks behind them
            raw = raw.lstrip()
        elif before in ("%}", "#}"):
            raw = raw.removeprefix("\n")
        if tag[0][2:3] == "-":
            raw = raw.rstrip()
        elif not tag[0].startswith("{{"):
            raw = re.sub(r"(^|\n)[ \t]*\Z", r"\1", raw) if end or not raw.strip() else raw
        parts.append(raw)
        if tag[1] is not None:
            parts.append(_written(tag[1], tokens))
        elif tag[2] is not None:
            parts.append(_BORDER)
            name, _, value = tag[2].strip().partition("=")
            if name.startswith("set "):
                parts += [_written(value, tokens), _BORDER]
        end = tag.end()
    tail = template[end:]
    parts.append(tail.lstrip() if template[:end][-3:].startswith("-") else tail)
    return "".join(parts)


def _written(expression: str, tokens: Mapping[str, str]) -> str:
    """Return what an expression writes: its literals, and a sign for each other value."""
    found: list[str] = []
    end = 0
    for string in [*_STRING.finditer(expression), None]:
        between = expression[end : string.start() if string else len(expression)]
        # A string within brackets is a key, as in message['role'].
        if string is not None and between.rstrip().endswith(("[", "(", "==", "!=", "in")):
            continue
        found += [_value(part, tokens) for part in re.split(r"[+~]", between) if part.strip()]
        if string is not None:
            found.append(_literal(string[0]))
            end = string.end()
    return "".join(found)


def _literal(string: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not have
            return str(ast.literal_eval(string.replace("\n", "\\n")))
    except (ValueError, SyntaxError):
        return _OTHER


def _value(name: str, tokens: Mapping[str, str]) -> str:
    name = re.sub(r"^\w*\((.*)\)$", r"\1", name.strip()).strip()  # within a macro
    if name in tokens:
        return tokens[name]
    if re.fullmatch(r"\w+(\[['\"]role['\"]\]|\.role)", name):
        return _ROLE
    if re.fullmatch(r"(\w+(\[['\"]content['\"]\]|\.content)|content)", name):
        return _TEXT
    if re.fullmatch(r"(\w+(\[['\"]content['\"]\]|\.content)|content)(\s*\|\s*trim|\.strip\(\))", name):
        return _STRIPPED
    return _OTHER


def _begin(stream: str, first: str, begin_of_text: str) -> str:
    """Return the begin-of-text token if the template writes it anywhere before the `first` turn."""
    return begin_of_text if begin_of_text and begin_of_text in stream[: stream.find(first)] else ""


def _chatml(stream: str, begin_of_text: str, end_of_text: str) -> ChatFormat | None:
    turn = re.search(rf"<\|im_start\|>{_ROLE}\n{_BORDER}*{_CONTENT}<\|im_end\|>(\n?)", stream)
    if turn is None:
        return None
    after = f"<|im_end|>{turn[2]}"
    given = re.search(rf"<\|im_start\|>system\n({_PLAIN}+?)<\|im_end\|>", stream)
    strips = turn[1] == _STRIPPED
    return ChatFormat(
        form="chatml",
        begin=_begin(stream, "<|im_start|>", begin_of_text),
        **{role: Turn(before=f"<|im_start|>{role}\n", after=after) for role in ("system", "user", "assistant")},
        opening="<|im_start|>assistant\n",
        default_system=given[1] if given and "# Tools" not in given[1] else None,
        strips=strips,
        strips_answers=strips,
    )


def _llama3(stream: str, begin_of_text: str, end_of_text: str) -> ChatFormat | None:
    turn = re.search(rf"<\|start_header_id\|>{_ROLE}<\|end_header_id\|>\n\n{_CONTENT}<\|eot_id\|>", stream)
    if turn is None:
        return None
    dates = re.search(r"Cutting Knowledge Date: [^\n]+\n", stream)
    today = re.search(r"\d\d [A-Z][a-z]{2} 20\d\d", stream)
    strips = turn[1] == _STRIPPED
    roles = ("system", "user", "assistant")
    return ChatFormat(
        form="llama3",
        begin=begin_of_text if begin_of_text and begin_of_text in stream else "",
        **{r: Turn(before=f"<|start_header_id|>{r}<|end_header_id|>\n\n", after="<|eot_id|>") for r in roles},
        opening="<|start_header_id|>assistant<|end_header_id|>\n\n",
        before_system=f"{dates[0]}Today Date: {today[0]}\n\n" if dates and today else "",
        strips=strips,
        strips_answers=strips,
    )


def _inst(stream: str, begin_of_text: str, end_of_text: str) -> ChatFormat | None:
    """Read the forms of Llama 2 and Mistral: `[INST] ... [/INST]`."""
    if not end_of_text:
        return None
    begin, end = re.escape(begin_of_text), re.escape(end_of_text)
    user = re.search(rf"((?:{begin})?\[INST\] ?){_CONTENT}( ?\[/INST\] ?)", stream)
    answer = re.search(rf"( ?){_CONTENT}( ?{end} ?)", stream)
    if user is None or answer is None:
        return None
    opens_each = bool(begin_of_text) and user[1].startswith(begin_of_text)
    system = re.search(rf"<<SYS>>\n[{_TEXT}{_STRIPPED}{_OTHER}]\n<</SYS>>\n\n", stream)
    return ChatFormat(
        form="llama2" if system else "mistral",
        begin="" if opens_each else _begin(stream, "[INST]", begin_of_text),
        user=Turn(before=user[1], after=user[3]),
        assistant=Turn(before=answer[1], after=answer[3]),
        within_user=Turn(before="<<SYS>>\n", after="\n<</SYS>>\n\n") if system else None,
        opening="",
        strips=user[2] == _STRIPPED,
        strips_answers=answer[2] == _STRIPPED,
    )


def _zephyr(stream: str, begin_of_text: str, end_of_text: str) -> ChatFormat | None:
    if not end_of_text:
        return None
    turns = {}
    for role in ("system", "user", "assistant"):
        found = re.search(rf"<\|{role}\|>(\n?){_CONTENT}({re.escape(end_of_text)}\n?)", stream)
        if found is None:
            return None
        turns[role] = (Turn(before=f"<|{role}|>{found[1]}", after=found[3]), found[2] == _STRIPPED)
    opening = re.search(rf"{_BORDER}(<\|assistant\|>\n?){_BORDER}", stream)
    return ChatFormat(
        form="zephyr",
        begin=_begin(stream, "<|user|>", begin_of_text),
        **{role: turn for role, (turn, _) in turns.items()},
        opening=opening[1] if opening else turns["assistant"][0].before,
        strips=turns["user"][1],
        strips_answers=turns["assistant"][1],
    )
