"""The turn format of a chat model: read from its Jinja template without running it, and rendered to ids.

A template is a program from a stranger, so it is never executed. Its literals are read instead: if they are those of a
form that is known here (ChatML, Llama 3, Llama 2, Mistral, Zephyr), the format is stored as data. Text of a message is
encoded as text: it can never become a control token.

A conversation is encoded with a mask for training: of an answer its words and the token that ends it are learned.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from alm import artifacts, files
from alm.artifacts import ImportMetadata
from alm.config.base import Config
from alm.errors import ConfigError, InputError, shell
from alm.tokenizers import chat_template
from alm.tokenizers.file import Encoded, Tokenizer
from alm.tokenizers.special import TURN_END, TURN_START

IMPORT_NAME, TEMPLATE_NAME = "import.json", "chat_template.jinja"  # beside the tokenizer of a model

Form = Literal["chatml", "llama3", "llama2", "mistral", "zephyr"]
TrainOn = Literal["assistant", "all"]
Message = Mapping[str, Any]  # Any: text, or the weight
"""`role` and `content`, and perhaps `weight`: 0 for a message that is not learned."""


class Turn(Config):
    """What stands before and after the text of a message. Names of special tokens in it are these tokens."""

    before: str = ""
    after: str = ""

    def around(self, text: str, *, weight: int = 1, is_answer: bool = False) -> Iterator[_Part]:
        """Yield the parts of a turn with this text."""
        yield _Part(self.before, weight, is_control=True)
        yield _Part(text, weight, is_answer=is_answer)
        yield _Part(self.after, weight, is_answer=is_answer, is_control=True)


class ChatFormat(Config):
    """How a conversation is written. Roles are `system`, `user` and `assistant`, and `tool` where it has a turn.

    Without a turn of its own, the text of the system stands in the first message of the user, `within_user`.
    """

    form: Form | Literal["plain"]
    begin: str = Field("", description="What stands before the first turn.")
    system: Turn | None = None
    user: Turn
    assistant: Turn
    tool: Turn | None = None
    within_user: Turn | None = None
    opening: str = Field(description="What asks for an answer: the beginning of a turn of the assistant.")
    default_system: str | None = Field(None, description="Text of the system if a conversation has none.")
    before_system: str = Field("", description="What stands before the text of the system in its turn.")
    strips: bool = Field(False, description="Whether blanks around the text of a message are left out.")
    strips_answers: bool = Field(False, description="The same for the assistant.")

    def render(self, messages: Sequence[Message], *, asks: bool = True) -> str:
        """Return the text of a conversation, as the template would, for people to read. `asks` for an answer."""
        return "".join(part.text for part in self.parts(messages, asks=asks))

    def encode(self, tokenizer: Tokenizer, messages: Sequence[Message], *, asks: bool = True) -> list[int]:
        """Return the ids of a conversation. Only the format's own special tokens become such ids."""
        ids: list[int] = ConversationEncoder(self, tokenizer).encode([messages], asks=asks)[0].ids.tolist()
        return ids

    def template(self) -> str | None:
        """Return the Jinja template of the format, for other tools; None for forms that only they choose."""
        if self == CHATML:
            return chat_template.CHATML
        turns = {"system": self.system, "user": self.user, "assistant": self.assistant}
        plain = {role: (turn.before, turn.after) for role, turn in turns.items() if turn is not None}
        if self.form != "zephyr" or self.strips or self.strips_answers or self.default_system is not None:
            return None
        return chat_template.in_turns(plain, begin=self.begin, opening=self.opening)

    def end_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the ids of the special tokens that end an answer."""
        tokens = _control_tokens(tokenizer)
        found = [name for name in tokens if self.assistant.after.lstrip().startswith(name)]
        return (tokens[max(found, key=len)],) if found else ()

    def parts(self, messages: Sequence[Message], *, asks: bool) -> Iterator[_Part]:
        """Yield the parts of a conversation. Raises `InputError` for roles in an order that the form does not have."""
        messages = list(messages)
        self._check(messages)
        system, weight = self.default_system, 1
        if messages and messages[0]["role"] == "system":
            message = messages.pop(0)
            system, weight = message["content"], message.get("weight", 1)
        yield _Part(self.begin, is_control=True)
        first: list[_Part] = []  # what the first message of the user begins with
        if system is not None or self.before_system:
            own = self.system or Turn()
            if self.within_user is None:
                own = Turn(before=own.before + self.before_system, after=own.after)
                yield from own.around(self._text(system or "", strips=self.strips), weight=weight)
            else:
                first = list(self.within_user.around(system or "", weight=weight))
        for message in messages:
            role, weight = message["role"], message.get("weight", 1)
            turn = {"user": self.user, "assistant": self.assistant, "system": self.system, "tool": self.tool}[role]
            assert turn is not None
            strips = self.strips_answers if role == "assistant" else self.strips
            text = self._text(message["content"], strips=strips, is_first=not first)
            is_answer = role == "assistant" and bool(text)  # an answer without words teaches to say nothing
            before, *rest = turn.around(text, weight=weight, is_answer=is_answer)
            yield from (before, *first, *rest)
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
            has_turn = role in ("user", "assistant") or (role == "tool" and self.tool is not None)
            has_turn = has_turn or (role == "system" and (self.system is not None or number == 0))
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


class _Part(NamedTuple):
    """Some text of a conversation: of a message of this weight, or between messages. `is_answer` up to its end."""

    text: str
    weight: int = 1
    is_answer: bool = False
    is_control: bool = False


CHATML = ChatFormat(
    form="chatml",
    **{
        role: Turn(before=f"{TURN_START}{role}\n", after=f"{TURN_END}\n")
        for role in ("system", "user", "assistant", "tool")
    },
    opening=f"{TURN_START}assistant\n",
)
"""The format of models that have none of another tool; exports have the same as a template."""


def default_for(tokenizer: Tokenizer) -> ChatFormat:
    """Return the format for a model without one of its own: ChatML, or without its tokens the turns of Zephyr.

    Those need no more than a token that ends a text.
    """
    if {TURN_START, TURN_END} <= tokenizer.specials.keys():
        return CHATML
    begin, end = _begin_and_end(tokenizer)
    turns = {role: Turn(before=f"<|{role}|>\n", after=f"{end}\n") for role in ("system", "user", "assistant")}
    return ChatFormat(form="zephyr", begin=begin, **turns, opening="<|assistant|>\n")


def _begin_and_end(tokenizer: Tokenizer) -> tuple[str, str]:
    """Return the names of the tokens that begin and end a text; nothing for one that is not there."""
    names = {id_: name for name, id_ in tokenizer.specials.items()}
    begin = tokenizer.begin_of_text_id
    return "" if begin is None else names.get(begin, ""), names.get(tokenizer.end_of_text_id, "")


def beside(path: Path, tokenizer: Tokenizer) -> ChatFormat | None:
    """Return the format of the model whose tokenizer is the file `path`: of an import, or of a run that began from one.

    Raises `ConfigError` if it has a chat template of no known form.
    """
    found, template = path.with_name(IMPORT_NAME), path.with_name(TEMPLATE_NAME)
    if found.is_file():
        chat = artifacts.read(found, ImportMetadata, hint="import the model again").chat
        if chat is not None:
            return ChatFormat.model_validate(chat)
    if not template.is_file():
        return None
    begin, end = _begin_and_end(tokenizer)
    text = files.as_text(template, files.bounded_bytes(template, most=4 * LONGEST))
    chat_format = recognised(text, begin_of_text=begin, end_of_text=end)
    if chat_format is None:
        aside = shell("mv", "-n", template, template.with_name(f"{TEMPLATE_NAME}.aside"))
        raise ConfigError(
            f"the chat template `{template}` is of no form that is known here",
            hint=f"to train in turns of ChatML instead, set it aside: `{aside}`",
        )
    return chat_format


# ---- encoding --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodedConversation:
    """Ids, and whether each of them is learned."""

    ids: npt.NDArray[np.int32]
    is_trained: npt.NDArray[np.bool_]


class _Layout:
    """Some conversations in pieces: control tokens, and texts between them, each of which is encoded as one."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.pieces: list[int] = []  # the id of a control token, or -1 for the next text
        self.is_trained: list[bool] = []  # of each piece; of a text this is in `learned`
        self.learned: list[tuple[int, int, int]] = []  # a text, and the characters from and to which it is learned
        self.ends: list[int] = []  # of each conversation, in pieces
        self._parts: list[str] = []
        self._size = 0

    def add(self, text: str, *, is_trained: bool) -> None:
        """Add to the open text."""
        if text:
            if is_trained:
                self.learned.append((len(self.texts), self._size, self._size + len(text)))
            self._parts.append(text)
            self._size += len(text)

    def add_control(self, id_: int, *, is_trained: bool) -> None:
        """Close the open text, and add a control token."""
        self._close()
        self.pieces.append(id_)
        self.is_trained.append(is_trained)

    def end(self) -> None:
        """End a conversation."""
        self._close()
        self.ends.append(len(self.pieces))

    def _close(self) -> None:
        if self._parts:
            self.texts.append("".join(self._parts))
            self.pieces.append(-1)
            self.is_trained.append(False)
            self._parts, self._size = [], 0


class ConversationEncoder:
    """Encodes conversations in the turns of `chat`. With `train_on: all`, every message is learned, not answers alone.

    The first token of a conversation is never learned: nothing is before it.
    """

    def __init__(self, chat: ChatFormat, tokenizer: Tokenizer, *, train_on: TrainOn = "assistant") -> None:
        self._chat = chat
        self._tokenizer = tokenizer.literal
        self._control = _control_tokens(tokenizer)
        names = sorted(self._control, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        self._trains_all = train_on == "all"
        self._known: dict[str, list[tuple[str, int | None]]] = {}

    def expect(self, characters: int) -> None:
        """Announce the amount of text to come, as `Tokenizer.expect`."""
        self._tokenizer.expect(characters)

    def encode(self, conversations: Sequence[Sequence[Message]], *, asks: bool = False) -> list[EncodedConversation]:
        """Encode each conversation. Raises `InputError` for a role that the format does not have there."""
        layout = _Layout()
        for messages in conversations:
            self._lay_out(layout, messages, asks=asks)
        encoded = self._tokenizer.encode_batch(layout.texts)
        pieces = np.array(layout.pieces, dtype=np.int32)
        is_text = pieces < 0
        sizes = np.ones(len(pieces), dtype=np.int64)
        sizes[is_text] = np.diff(encoded.offsets)
        of_text = np.repeat(is_text, sizes)
        ids = np.repeat(pieces, sizes)
        mask = np.repeat(np.array(layout.is_trained, dtype=bool), sizes)
        ids[of_text], mask[of_text] = encoded.ids, self._learned(layout, encoded)
        ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])[layout.ends]
        made = []
        for start, end in pairwise([0, *ends.tolist()]):
            mask[start : min(start + 1, end)] = False
            made.append(EncodedConversation(ids[start:end], mask[start:end]))
        return made

    def _lay_out(self, layout: _Layout, messages: Sequence[Message], *, asks: bool) -> None:
        for part in self._chat.parts(messages, asks=asks):
            is_trained = bool(part.weight) and (part.is_answer or self._trains_all)
            if not part.is_control:
                layout.add(part.text, is_trained=is_trained)
                continue
            for text, id_ in self._split(part.text):
                layout.add(text, is_trained=is_trained)
                if id_ is not None:
                    layout.add_control(id_, is_trained=is_trained)
                    is_trained = is_trained and self._trains_all  # blanks behind the end of an answer are not its words
        layout.end()

    def _split(self, text: str) -> list[tuple[str, int | None]]:
        """Return the texts of a control part, each with the control token behind it."""
        if text not in self._known:
            found: list[tuple[str, int | None]] = []
            start = 0
            for match in self._names.finditer(text):
                found.append((text[start : match.start()], self._control[match[0]]))
                start = match.end()
            self._known[text] = [*found, (text[start:], None)]
        return self._known[text]

    def _learned(self, layout: _Layout, encoded: Encoded) -> npt.NDArray[np.bool_]:
        """Return which ids of texts are learned: all that hold at least a byte of a learned part of their text."""
        ends = np.cumsum(self._tokenizer.bytes_per_id[encoded.ids], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])
        of_texts = starts[encoded.offsets].tolist()
        begins, stops = [], []
        for number, begin, stop in layout.learned:
            text, at = layout.texts[number], of_texts[number]
            size = of_texts[number + 1] - at
            begins.append(at + self._border(text, begin, size))
            stops.append(at + (size if stop == len(text) else self._border(text, stop, size)))
        steps = np.zeros(len(ends) + 1, dtype=np.int64)
        np.add.at(steps, np.searchsorted(ends, begins, side="right"), 1)
        np.add.at(steps, np.searchsorted(starts[:-1], stops, side="left"), -1)
        return np.cumsum(steps[:-1]) > 0

    def _border(self, text: str, at: int, size: int) -> int:
        """Return the bytes of the first `at` characters of a text, as its ids count them: `size` of all of it.

        A normalizer may put a blank first. If it does more than that, the beginning is encoded to see what it makes.
        """
        if not at:
            return 0
        more = size - _size(text)
        if more in (0, 1):
            return _size(text[:at]) + more
        return int(self._tokenizer.bytes_per_id[self._tokenizer.encode(text[:at])].sum())


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


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


def _roles(stream: str) -> list[str]:
    """Return the roles of a template that writes the name of any role, unless it writes what tools say otherwise."""
    return ["system", "user", "assistant", *([] if re.search("tool|ipython", stream, re.IGNORECASE) else ["tool"])]


def _chatml(stream: str, begin_of_text: str, end_of_text: str) -> ChatFormat | None:
    # A mark of what is learned may end before the line does.
    turn = re.search(rf"<\|im_start\|>{_ROLE}\n{_BORDER}*{_CONTENT}<\|im_end\|>{_BORDER}?(\n?)", stream)
    if turn is None:
        return None
    after = f"<|im_end|>{turn[2]}"
    given = re.search(rf"<\|im_start\|>system\n({_PLAIN}+?)<\|im_end\|>", stream)
    strips = turn[1] == _STRIPPED
    return ChatFormat(
        form="chatml",
        begin=_begin(stream, "<|im_start|>", begin_of_text),
        **{role: Turn(before=f"<|im_start|>{role}\n", after=after) for role in _roles(stream)},
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
    roles = _roles(stream)
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
