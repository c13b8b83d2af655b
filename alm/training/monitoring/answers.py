"""Questions for a run that is fine-tuned on conversations, and what its answers to them look like.

The rates are what people suffer from most after fine-tuning: answers that do not end, that repeat themselves, or in
which a turn of another role begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alm.data.order import permute
from alm.packing.shards import TokenStream
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


def held_out_questions(stream: TokenStream, tokenizer: Tokenizer) -> Iterator[Prompt]:
    """Yield the beginnings of packed conversations up to their first answer; the same ones every time."""
    for row in permute(np.arange(stream.sequences), size=stream.sequences, seed=_SEED, epoch=0):
        trained = np.flatnonzero(stream.mask(np.array([row]))[0] == 1)
        if len(trained) and 0 < trained[0] <= _LONGEST_QUESTION:
            ids = stream.tokens(int(row) * stream.stride, int(trained[0])).tolist()
            yield Prompt(tuple(ids), question(tokenizer.decode(ids), tokenizer))


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
