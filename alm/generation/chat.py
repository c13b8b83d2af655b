"""Conversations with a model: answers as they come, and what the model sees of a conversation that grows.

A `ChatModel` answers prompts in a turn format, and reads only what it has not read for the answer before. A
`Conversation` keeps the messages. Both serve one conversation at a time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alm.available import memory_bytes
from alm.errors import InputError
from alm.events import Listener, Noted, ignore
from alm.generation.chat_formats import stops_of
from alm.generation.completions import Finished, TextChunk, TextStream, banned_ids, seed_of, text_events
from alm.generation.config import ChatConfig
from alm.generation.engine import EndReason, Engine, Request, must_compile
from alm.generation.load import LoadedModel
from alm.model.config import ModelConfig
from alm.tokenizers.chat_format import ChatFormat

Answer = Generator[str, None, None]
"""Pieces of the text of an answer as it comes; closing it stops the answer."""

AnswerEnd = EndReason | Literal["interrupted"]
_MEMORY_SHARE = 2  # keys and values take at most one part in this many of the memory that is free
_FP32_BYTES = 4
_MANY_TOKENS = 512  # of a prompt: reading them takes so long that it is said


@dataclass(frozen=True)
class _Read:
    """What the model read and wrote for an answer: valid while it sees the same system text and first message."""

    system: str | None
    first: int
    ids: list[int]


@dataclass
class ChatMessage:
    """A message. `end` says how an answer ended; None for one that was not generated here."""

    role: str
    content: str
    end: AnswerEnd | None = None
    read: _Read | None = field(default=None, repr=False)

    @property
    def is_cut(self) -> bool:
        """Whether it is an answer that did not come to its own end."""
        return self.end not in (None, "stop")


@dataclass
class Reply:
    """Figures of an answer: tokens, and seconds to its first token and to its end.

    `prompt_tokens` are all that the model saw, of which it had read `kept_tokens` before; `left_out` are the turns that
    it no longer sees.
    """

    seed: int
    prompt_tokens: int
    kept_tokens: int
    left_out: int
    tokens: int = 0
    first_seconds: float = 0.0
    seconds: float = 0.0
    end: AnswerEnd = "interrupted"


class ChatModel:
    """A model that answers in a turn format, in at most `context` tokens, prompt included."""

    def __init__(
        self, loaded: LoadedModel, chat: ChatFormat, *, context: int | None = None, on_event: Listener = ignore
    ) -> None:
        """Use the model's own `context` where none is given, or less if its keys and values would not fit in memory."""
        config = loaded.model.config
        self.tokenizer, self.format = loaded.tokenizer, chat
        self.context = min(context or _context_that_fits(config), config.max_position_embeddings)
        if must_compile(loaded.model):
            on_event(Noted("compiling the generation kernels: some seconds, once on this machine"))
        self._engine = Engine(
            loaded.model,
            end_of_text_id=self.tokenizer.end_of_text_id,
            vocab_size=self.tokenizer.vocab_size,
            max_tokens=self.context,
            remembers=True,
        )
        # No control token belongs to an answer. One that is not the end of a turn is the beginning of another turn.
        self._end_ids = frozenset((*self.tokenizer.specials.values(), *chat.end_ids(self.tokenizer), *loaded.ends))

    def encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Return the ids of a conversation that asks for an answer."""
        values = [{"role": message.role, "content": message.content} for message in messages]
        return self.format.encode(self.tokenizer, values)

    def tail(self, message: ChatMessage) -> list[int] | None:
        """Return the ids from the end of an answer to the next answer, with `message` between them.

        None if a text encodes differently beside them, because no control token separates it.
        """
        empty = ChatMessage("user", "")
        before = self.encode([empty])
        both = self.encode([empty, ChatMessage("assistant", ""), message])
        begins_alike = both[: len(before)] == before and both[len(before) : len(before) + 1]
        return both[len(before) :] if begins_alike and both[len(before)] in self._end_ids else None

    def count(self, text: str) -> int:
        """Count the tokens of the text of a message."""
        return len(self.tokenizer.literal.encode(text))

    def kept(self, ids: Sequence[int]) -> int:
        """Count the first of `ids` that need not be read again."""
        return self._engine.remembered(ids)

    def answer(self, ids: Sequence[int], sampling: ChatConfig) -> Generator[TextChunk | Finished, None, None]:
        """Yield the answer to a prompt as it comes. Close the iterator to stop it."""
        stream = TextStream(self.tokenizer, (*sampling.stop, *stops_of(self.format)), continues=True)
        banned = banned_ids(self.tokenizer, sampling.bad_words)
        number = self._engine.add(Request(ids, sampling, banned, end_ids=self._end_ids))
        try:
            yield from text_events(self._engine, {number: stream})
        finally:
            self._engine.stop(number)

    def spells(self, ids: Sequence[int], text: str) -> bool:
        """Whether an answer of these `ids` is exactly this `text`."""
        stream = TextStream(self.tokenizer, (), continues=True)
        return "".join(map(stream.feed, ids)) + stream.finish() == text


class Conversation:
    """The messages of a conversation, and the part of it that the model sees."""

    def __init__(
        self, model: ChatModel, sampling: ChatConfig, *, system: str | None = None, on_event: Listener = ignore
    ) -> None:
        """Begin without messages. An event says when turns leave the context. InputError as for `set_system`."""
        self.model, self.sampling = model, sampling
        self.messages: list[ChatMessage] = []
        self.reply: Reply | None = None  # to the last question
        self.system: str | None = None
        self._first = 0  # of the messages that the model sees
        self._answers = 0
        self._on_event = on_event
        self.set_system(system)

    def set_system(self, text: str | None) -> None:
        """Replace the text of the system; without one, the format's own. InputError if the format has none."""
        self.model.encode([*_system(text), ChatMessage("user", "")])
        self.system = text

    def set_sampling(self, sampling: ChatConfig) -> None:
        """Replace the settings of the next answers; a new seed is that of the next one."""
        if sampling.seed != self.sampling.seed:
            self._answers = 0
        self.sampling = sampling

    def all(self) -> list[ChatMessage]:
        """Return all messages, the system's first."""
        return [*_system(self.system), *self.messages]

    def replace(self, messages: Sequence[ChatMessage]) -> None:
        """Continue from other messages, the system's first if they have one. InputError for an order without a turn."""
        self.model.encode(messages)
        has_system = bool(messages) and messages[0].role == "system"
        self.system = messages[0].content if has_system else None
        self.messages, self._first = list(messages[1 if has_system else 0 :]), 0

    def ask(self, text: str) -> Answer:
        """Add a message and yield the answer as it comes, which is a message from its first piece on.

        InputError, and no message, if `text` is longer than the context. Close the iterator to stop the answer.
        """
        message = ChatMessage("user", text)
        self._check_length(message)
        self.messages.append(message)
        return self._answer()

    def retry(self) -> Answer:
        """Answer the last message again. InputError if there is none."""
        asked = self._last_question()
        self._check_length(self.messages[asked])
        del self.messages[asked + 1 :]
        return self._answer()

    def edit(self, text: str) -> Answer:
        """Replace the last message of the user by `text`, and answer it. InputError as for `ask` and `retry`."""
        self._last_question()
        self._check_length(ChatMessage("user", text))
        self.undo()
        return self.ask(text)

    def undo(self) -> ChatMessage:
        """Remove the last message of the user and what follows it; return it. InputError if there is none."""
        asked = self._last_question()
        message = self.messages[asked]
        del self.messages[asked:]
        if self._first >= asked:  # all that is left had left the context
            self._first = 0
        return message

    def _last_question(self) -> int:
        found = [number for number, message in enumerate(self.messages) if message.role == "user"]
        if not found:
            raise InputError("the conversation has no message yet", hint="type one")
        return found[-1]

    def _check_length(self, message: ChatMessage) -> None:
        needed, context = len(self.model.encode([*_system(self.system), message])), self.model.context
        if needed >= context:
            tokens = self.model.count(message.content)
            beside = f"{needed - tokens:,} tokens of the system's text and of turns"
            raise InputError(
                f"the message has {tokens:,} tokens; with {beside} it does not fit in the context of {context:,}, "
                "answer included",
                hint=f"shorten it to less than {max(context - needed + tokens, 1):,} tokens, or send it in parts",
            )

    def _answer(self) -> Answer:
        started = time.perf_counter()
        ids = self._prompt()
        seed = seed_of(self.sampling, self._answers)
        self._answers += 1
        reply = self.reply = Reply(seed, len(ids), self.model.kept(ids), self._turns_left_out())
        if reply.prompt_tokens - reply.kept_tokens >= _MANY_TOKENS:
            self._on_event(Noted(f"reading {reply.prompt_tokens - reply.kept_tokens:,} tokens ..."))
        message = ChatMessage("assistant", "", end="interrupted")
        self.messages.append(message)
        written: list[int] = []
        events = self.model.answer(ids, self.sampling.model_copy(update={"seed": seed}))
        try:
            with contextlib.closing(events):
                for event in events:
                    reply.first_seconds = reply.first_seconds or time.perf_counter() - started
                    if isinstance(event, TextChunk):
                        written.append(event.token.id)
                    else:
                        reply.end = message.end = event.reason
                    strips = self.model.format.strips_answers and not message.content
                    text = event.text.lstrip() if strips else event.text
                    message.content += text
                    if text:
                        yield text
        finally:
            reply.tokens, reply.seconds = len(written), time.perf_counter() - started
            if self.model.spells(written, message.content):
                message.read = _Read(self.system, self._first, [*ids, *written])

    def _prompt(self) -> list[int]:
        """Return what the model sees: all of it, or its newer half once an answer would no longer fit."""
        ids, context = self._rendered(), self.model.context
        before = self._turns_left_out()
        if len(ids) + min(self.sampling.max_tokens, context // 4) > context:
            while len(ids) > context // 2 and self._leave_a_turn():
                ids = self._rendered()
        left = self._turns_left_out() - before
        if left:
            turns = "the oldest turn has" if left == 1 else f"the {left} oldest turns have"
            self._on_event(Noted(f"the context of {context:,} tokens is full: {turns} left what the model sees"))
        return ids

    def _rendered(self) -> list[int]:
        """Return the ids of what the model sees. Those of its last answer are the ones that it wrote."""
        seen = self.messages[self._first :]
        read = seen[-2].read if len(seen) > 1 else None
        if read is not None and (read.system, read.first) == (self.system, self._first):
            tail = self.model.tail(seen[-1])
            if tail is not None:
                return [*read.ids, *tail]
        return self.model.encode([*_system(self.system), *seen])

    def _turns(self) -> list[int]:
        """Return where turns begin: the messages of the user."""
        return [number for number, message in enumerate(self.messages) if message.role == "user"]

    def _turns_left_out(self) -> int:
        return sum(number < self._first for number in self._turns())

    def _leave_a_turn(self) -> bool:
        """Let the oldest turn leave what the model sees, unless it is the last one."""
        later = [number for number in self._turns() if number > self._first]
        if later:
            self._first = later[0]
        return bool(later)


def _system(text: str | None) -> list[ChatMessage]:
    return [] if text is None else [ChatMessage("system", text)]


def _context_that_fits(config: ModelConfig) -> int:
    """Return the tokens whose keys and values fit in memory; all positions of the model where that is unknown."""
    of_token = 2 * config.n_layers * config.n_kv_heads * config.head_width * _FP32_BYTES
    memory = memory_bytes()
    return config.max_position_embeddings if memory is None else max(memory // _MEMORY_SHARE // of_token, 256)
