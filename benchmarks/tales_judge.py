"""Consistency rules of the tales: the characters, their kinds, and the referents of pronouns.

The rules follow from the generation of tales (`alm.corpus.sources.tales`), and no tale breaks one. They ignore the
events of a text. A pronoun in speech may refer to anyone, so pronouns are only checked in narration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from alm.corpus.sources.tales import cast
from alm.corpus.sources.tales.cast import HE, SHE, Pronouns
from alm.corpus.sources.tales.data import shared_tables


@dataclass(frozen=True)
class Fault:
    """A rule that a text breaks, and the words that break it."""

    rule: str
    where: str


def _one_of(words: Iterable[str]) -> str:
    return rf"\b({'|'.join(words)})\b"


_PRONOUNS = {name.text: name.pronouns for name in cast.names()}
_KINDS = {name.text: name.kind.noun for name in cast.names()}
_PAIRS = [{name.text for name in pair} for pair in cast.pairs()]
_OWNERS = {form: own for own in (HE, SHE) for form in (own.he, own.him, own.his, own.himself)}
_NAME = re.compile(_one_of(_PRONOUNS))
_PRONOUN = re.compile(_one_of(_OWNERS), re.IGNORECASE)
_NAME_OR_PRONOUN = re.compile(rf"{_NAME.pattern}|{_PRONOUN.pattern}", re.IGNORECASE)
_KIND = re.compile(_one_of(sorted(set(_KINDS.values()))))
_TRAIT = re.compile(rf"(?:{_NAME.pattern}|\b([Hh]e|[Ss]he)\b) was an? [a-z]+ {_KIND.pattern} who\b")
_ELDER = re.compile(rf"\b(his|her) {_one_of(elder.split()[-1] for elder in shared_tables()['elders'])}", re.IGNORECASE)
_SENTENCE = re.compile(r'[^.!?\n]+[.!?]+"?')
_SPEECH = re.compile(r'"[^"\n]*([^"\n])(?:"|$)')
_NOBODY = rf"(?:(?!\b(?i:{'|'.join([*_PRONOUNS, *_OWNERS])})\b)[^,\"])*"  # words other than names and pronouns
_SUBJECT = re.compile(rf"\s*(?:{_NOBODY}, |If |At bedtime |That night )?(?:{_NAME.pattern}|\b([Hh]e|[Ss]he)\b)")
_NEWCOMER = "newcomer"  # introduced before the name is given
_NOBODY_KNEW = "Nobody knew where"  # the next `he` is the newcomer, too
_GIVEN = re.compile(r"\s+gave (him|her)\b")  # the pronoun is the other character


def judge(text: str) -> tuple[Fault, ...]:
    """Return the faults of a text, at most one for each rule. Text after the last complete sentence is ignored."""
    told = text[: max((found.end() for found in _SENTENCE.finditer(text)), default=0)]
    found = ((name, next(rule(told), None)) for name, rule in RULES.items())
    return tuple(Fault(name, where.strip()) for name, where in found if where is not None)


def _sentences(text: str) -> list[str]:
    return [found[0] for found in _SENTENCE.finditer(text)]


def _narration(text: str) -> list[str]:
    """Return the sentences without speech. The last mark of a speech stays, as it may end a sentence."""
    return _sentences(_SPEECH.sub(r'"\1"', text))


def _cast(text: str) -> Iterator[str]:
    """Rule: there are one or two names, and two are those of friends."""
    names = list(dict.fromkeys(_NAME.findall(text)))
    if not names:
        yield "no character has a name"
    elif not any(pair.issuperset(names) for pair in _PAIRS):
        yield ", ".join(names)


def _introduced(text: str) -> Iterator[str]:
    """Rule: the first sentence with a name states the character's kind, unless the character was a newcomer before."""
    for name, first in _first_sentences(text).items():
        has_come = _NEWCOMER in text.partition(name)[0]
        if not _KIND.search(first) and not has_come:
            yield first


def _kind(text: str) -> Iterator[str]:
    """Rule: a name belongs to the same kind of character in every tale."""
    firsts = _first_sentences(text)
    for name, first in firsts.items():
        if set(_KIND.findall(first)) - {_KINDS[name]}:
            yield first
    kinds = {_PRONOUNS[name]: _KINDS[name] for name in firsts}
    for found in _TRAIT.finditer(text):
        pronouns = _PRONOUNS[found[1]] if found[1] else _OWNERS[found[2].lower()]
        if kinds.get(pronouns) != found[3]:
            yield found[0]


def _first_sentences(text: str) -> dict[str, str]:
    firsts: dict[str, str] = {}
    for sentence in _sentences(text):
        for name in _NAME.findall(sentence):
            firsts.setdefault(name, sentence)
    return firsts


def _known(text: str) -> Iterator[str]:
    """Rule: a character with the same pronoun has been named before the pronoun."""
    named: set[Pronouns] = set()
    for sentence in _narration(text):
        for found in _NAME_OR_PRONOUN.finditer(sentence):
            if found[0] in _PRONOUNS:
                named.add(_PRONOUNS[found[0]])
            elif _OWNERS[found[0].lower()] not in named and _NOBODY_KNEW not in sentence:
                yield sentence


def _own(text: str) -> Iterator[str]:
    """Rule: the first pronoun after a sentence's subject, up to the next name, is the subject's own."""
    for sentence in _narration(text):
        subject = _SUBJECT.match(sentence)
        if subject is None or _GIVEN.match(sentence, subject.end()):
            continue
        following = _NAME.split(sentence[subject.end() :])[0]
        pronoun = _PRONOUN.search(following)
        own = _PRONOUNS[subject[1]] if subject[1] else _OWNERS[subject[2].lower()]
        if pronoun and _OWNERS[pronoun[1].lower()] != own:
            yield sentence


def _elder(text: str) -> Iterator[str]:
    """Rule: there is at most one elder, the hero's."""
    hero = _NAME.search(text)
    elders = [found for sentence in _narration(text) for found in _ELDER.finditer(sentence)]
    for found in elders:
        if hero is None or _OWNERS[found[1].lower()] != _PRONOUNS[hero[0]] or found[2] != elders[0][2]:
            yield found[0]


RULES: dict[str, Callable[[str], Iterator[str]]] = {
    "cast": _cast,
    "introduced": _introduced,
    "kind": _kind,
    "known": _known,
    "own": _own,
    "elder": _elder,
}
"""Each rule yields the passages that break it, in the order of the text."""
