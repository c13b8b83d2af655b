"""Judges answers in dialogues about tales, by what the generator knows of each tale.

The cases are requests that no dialogue of any seed makes (`dialogues.tale` keeps their pairs of hero and trouble back),
and questions about tales that such a request would bring. A question has one right answer. A tale is right if its hero
and its trouble are those of the request, and a short version if it has those of the tale and at most half its length;
what else happens is not judged.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

from alm.corpus.conversations import Message
from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.dialogues import Tale, request, shorten, tale

CaseKind = Literal["tale", "question", "shorter"]
KINDS: tuple[CaseKind, ...] = (
    *("tale", "question", "tale", "tale", "shorter"),
    *("tale", "question", "tale", "question", "tale"),
)
"""The kinds of ten cases, in order."""

_NAMES = {name.text: name.kind.noun for name in cast.names()}
_PAIRS = [{name.text for name in pair} for pair in cast.pairs()]
_NAME = re.compile(rf"\b({'|'.join(_NAMES)})\b")
_OTHER_TURN = re.compile(r"<\|im_(?:start|end)\|>|^(?:user|assistant|system)\b:?", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """Messages that ask for an answer, and the `tale` that they are about. `right` is the right answer to a question,
    and a right short version."""

    kind: CaseKind
    messages: tuple[Message, ...]
    tale: Tale
    right: str | None = None


def cases(count: int, *, seed: int = 0) -> list[Case]:
    """Return this many cases. The same numbers give the same cases."""
    return [_case(KINDS[index % len(KINDS)], random.Random(f"judge/{seed}/{index}")) for index in range(count)]


def judge(case: Case, answer: str, *, has_ended: bool) -> tuple[str, ...]:
    """Return what is wrong with an answer: `end`, `role`, `hero`, `trouble` or `answer`; nothing if it is right.

    `has_ended` says whether the model ended it, and not a limit.
    """
    found = {"end": not has_ended, "role": bool(_OTHER_TURN.search(answer))}
    if case.kind == "tale":
        found |= {"hero": not _has_hero(case, answer), "trouble": not _has_trouble(case.tale, answer)}
    elif case.kind == "shorter":
        names = _NAME.findall(answer)
        found |= {
            "hero": names[:1] != [case.tale.hero],
            "trouble": case.tale.past not in answer or len(answer) > len(case.tale.text) / 2,
        }
    else:
        found["answer"] = answer.strip() != case.right
    return tuple(fault for fault, is_found in found.items() if is_found)


def _case(kind: CaseKind, numbers: random.Random) -> Case:
    made = tale(numbers.random, is_kept_back=True)
    asked = Message("user", request(made, "with_both"))
    if kind == "tale":
        return Case(kind, (asked,), made)
    before = (asked, Message("assistant", made.text))
    if kind == "shorter":
        return Case(kind, (*before, Message("user", shorten(made))), made, made.short)
    question = made.story.pick(made.questions)
    return Case(kind, (*before, Message("user", question.asked)), made, question.answer)


def _has_hero(case: Case, answer: str) -> bool:
    """Whether the first name is the requested one, or that of the requested kind, and no stranger follows."""
    names = _NAME.findall(answer)
    if not names or not any(pair.issuperset(names) for pair in _PAIRS):
        return False
    asked = _NAME.findall(case.messages[-1].content)
    return bool(names[0] == asked[0] if asked else _NAMES[names[0]] == case.tale.kind)


def _has_trouble(made: Tale, answer: str) -> bool:
    _, _, text = answer.lower().partition(".")  # the first sentence repeats the request
    return all(any(word in text for word in words) for words in made.shows)
