"""Conversations as rows: what their turns are, and how one that is too long for a row is shortened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alm.config.base import Config
from alm.corpus.conversations import Conversation
from alm.corpus.read import CleanDocument, CleanFile
from alm.errors import AlmError, ArtifactError, ConfigError, InputError
from alm.packing.config import PackConfig
from alm.tokenizers.chat_format import ChatFormat, ConversationEncoder, EncodedConversation, beside, default_for
from alm.tokenizers.file import Tokenizer

Reason = Literal["too_long", "no_answer", "no_turn"]
MEANINGS = {
    "too_long": "the system's message and the last turn do not fit into a row",
    "no_answer": "there is nothing to learn in them",
    "no_turn": "the turn format lacks one of their roles",
}


class Turns(Config):
    """How conversations become tokens: rows have at most `seq_len` + 1 of them."""

    chat: ChatFormat
    train_on: Literal["assistant", "all"]
    seq_len: int


def turns_for(
    config: PackConfig, tokenizer: Tokenizer, path: Path, files: Sequence[CleanFile], chat: ChatFormat | None
) -> Turns | None:
    """Return how to pack the conversations in `files`; None if they are packed as text.

    `chat` is the turn format, by default that of the model beside the tokenizer `path`, or else ChatML. Raises
    `ArtifactError` for text without roles.
    """
    if config.documents == "text":
        return None
    if config.documents == "auto":
        try:
            chat = beside(path, tokenizer) if files and all(file.has_messages for file in files) else None
        except AlmError:
            chat = None
        return None if chat is None else Turns(chat=chat, train_on=config.train_on, seq_len=config.seq_len)
    if config.mode != "auto":
        raise ConfigError(
            f"the mode {config.mode} is for text: conversations have rows of their own", hint="leave out `--mode`"
        )
    for file in files:
        if not file.has_messages:
            again = f"`{file.command} --force`" if file.command else "`alm corpus prepare`, from rows with messages"
            raise ArtifactError(
                f"`{file.path}` holds documents without roles: it cannot be packed as conversations",
                hint=f"prepare it with {again}, or leave it out; corpora of earlier versions have no roles",
            )
    chat = chat or beside(path, tokenizer) or default_for(tokenizer)
    return Turns(chat=chat, train_on=config.train_on, seq_len=config.seq_len)


@dataclass(frozen=True)
class Fitted:
    """An encoded conversation that fits into a row, and the number of messages that it lost for that."""

    encoded: EncodedConversation
    dropped: int


class Fitter:
    """Encodes conversations. One that is too long loses turns from its beginning, not the message of the system."""

    def __init__(self, turns: Turns, tokenizer: Tokenizer) -> None:
        self._encoder = ConversationEncoder(turns.chat, tokenizer, train_on=turns.train_on)
        self._most = turns.seq_len + 1

    def expect(self, characters: int) -> None:
        """Announce the amount of text to come, as `Tokenizer.expect`."""
        self._encoder.expect(characters)

    def fit(self, documents: Sequence[CleanDocument]) -> list[Fitted | Reason]:
        """Encode each document, or return why it is left out."""
        conversations = [_conversation(document) for document in documents]
        try:
            encoded = self._encode(conversations)
        except InputError:  # one has a role without a turn: each is encoded alone
            return [self._fit_alone(conversation) for conversation in conversations]
        return [self._fitted(*both) for both in zip(conversations, encoded, strict=True)]

    def _encode(self, conversations: Sequence[Conversation]) -> list[EncodedConversation]:
        return self._encoder.encode([[message._asdict() for message in each] for each in conversations])

    def _fit_alone(self, conversation: Conversation) -> Fitted | Reason:
        try:
            return self._fitted(conversation, self._encode([conversation])[0])
        except InputError:
            return "no_turn"

    def _fitted(self, conversation: Conversation, encoded: EncodedConversation) -> Fitted | Reason:
        if not encoded.is_trained.any():
            return "no_answer"
        if len(encoded.ids) <= self._most:
            return Fitted(encoded, 0)
        return self._shortened(conversation)

    def _shortened(self, conversation: Conversation) -> Fitted | Reason:
        """Leave out the fewest turns, the first ones, so that the rest fits. It begins with a message of the user."""
        system = conversation[:1] if conversation[0].role == "system" else ()
        begins = [
            number
            for number, message in enumerate(conversation)
            if number > len(system) and message.role == "user" and conversation[number - 1].role != "user"
        ]
        found: Fitted | None = None
        low, high = 0, len(begins)
        while low < high:  # the later it begins, the shorter it is
            middle = (low + high) // 2
            begin = begins[middle]
            encoded = self._encode([(*system, *conversation[begin:])])[0]
            if len(encoded.ids) <= self._most:
                found, high = Fitted(encoded, begin - len(system)), middle
            else:
                low = middle + 1
        if found is None:
            return "too_long"
        return found if found.encoded.is_trained.any() else "no_answer"


def _conversation(document: CleanDocument) -> Conversation:
    conversation = document.conversation()
    assert conversation is not None  # `turns_for` has asked the metadata
    return conversation
