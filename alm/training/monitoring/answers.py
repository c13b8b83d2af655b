"""Questions for a run that is fine-tuned on conversations, and what its answers to them look like.

The rates are what people suffer from most after fine-tuning: answers that do not end, that repeat themselves, or in
which a turn of another role begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from alm.data.order import permute
from alm.packing.shards import TRAINED, TokenStream
from alm.tokenizers.chat_format import ChatFormat
from alm.tokenizers.file import Tokenizer

_SEED = 0
_ROLES = ("user", "assistant", "system", "tool")
_LONGEST_QUESTION = 192
# An answer loops if its end repeats: the most tokens of a period, the fewest repetitions, the fewest tokens in all.
_LONGEST_PERIOD, _FEWEST_TIMES, _FEWEST_TOKENS = 16, 3, 24


@dataclass(frozen=True)
class Prompt:
    """What is to be continued: its tokens, and their text."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Answer:
    """Tokens of an answer, without the one that ends it, and whether there was one."""

    ids: tuple[int, ...]
    has_ended: bool


@dataclass(frozen=True)
class Turns:
    """Tokens of a turn format: those that begin an answer, none if nothing but words does, and those that end one."""

    opening: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, chat: ChatFormat, tokenizer: Tokenizer) -> Self:
        """Read them off a conversation of one message."""
        asks, told = (chat.encode(tokenizer, [{"role": "user", "content": "x"}], asks=asks) for asks in (True, False))
        return cls(tuple(asks[len(told) :]), tuple(chat.end_ids(tokenizer)))


def held_out_questions(stream: TokenStream, tokenizer: Tokenizer, opening: Sequence[int]) -> Iterator[Prompt]:
    """Yield the beginnings of packed conversations up to their first answer; the same ones every time."""
    starts = stream.document_starts()
    for number in permute(np.arange(len(starts)), size=len(starts), seed=_SEED, epoch=0):
        start = int(starts[number])
        row, place = divmod(start, stream.stride)
        size = min(_LONGEST_QUESTION, stream.stride - place)
        ids = stream.tokens(start, size).tolist()
        end = _after(ids, opening)
        if end is None:  # the form has no such tokens: the first words that are learned are the answer
            learned = np.flatnonzero(stream.mask(np.array([row]))[0][place : place + size] == TRAINED)
            end = int(learned[0]) if not opening and len(learned) else 0
        is_own = number + 1 == len(starts) or start + end <= starts[number + 1]
        if end and is_own:
            yield Prompt(tuple(ids[:end]), question(tokenizer.decode(ids[:end]), tokenizer))


def _after(ids: Sequence[int], part: Sequence[int]) -> int | None:
    """Return the place after the first occurrence of `part` in `ids`, if it is not empty and occurs."""
    places = range(len(ids) - len(part) + 1) if part else ()
    return next((at + len(part) for at in places if tuple(ids[at : at + len(part)]) == tuple(part)), None)


def question(text: str, tokenizer: Tokenizer) -> str:
    """Return the last words of a person in the turns of `text`, or all of it where there are none.

    The turns of ChatML and its like are a control token, a role on a line of its own, words, and a control token.
    """
    for turn in reversed(re.split("|".join(map(re.escape, tokenizer.specials)), text)):
        role, _, words = turn.strip().partition("\n")
        if role in _ROLES and words.strip():
            return words.strip()
    return text


def rates(answers: Sequence[Answer], tokenizer: Tokenizer) -> dict[str, float]:
    """Return the shares of answers that end, that loop, and that hold a control token, so that another turn begins."""
    control = set(tokenizer.specials.values())
    return {
        "stop_rate": _share([answer.has_ended for answer in answers]),
        "loop_rate": _share([loops(answer.ids) for answer in answers]),
        "role_leak_rate": _share([not control.isdisjoint(answer.ids) for answer in answers]),
    }


def loops(ids: Sequence[int]) -> bool:
    """Whether the end of `ids` is a few tokens, repeated.

    >>> loops([5, 1, 2] + [7, 8] * 12), loops(list(range(40)))
    (True, False)
    """
    for period in range(1, _LONGEST_PERIOD + 1):
        length = max(_FEWEST_TIMES * period, _FEWEST_TOKENS)
        end = ids[-length:]
        if len(end) == length and all(
            token == end[place - period] for place, token in enumerate(end) if place >= period
        ):
            return True
    return False


def _share(found: Sequence[bool]) -> float:
    return round(sum(found) / max(len(found), 1), 4)
