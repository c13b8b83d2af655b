"""A Unigram language model over pieces of words (Kudo 2018).

Each piece has a probability, and a word is spelled in the pieces with the highest product of probabilities. Common
characters are pieces; the rest is written as bytes (`<0x00>` to `<0xFF>`), so that any text can be encoded.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.errors import AlmError, ConfigError
from alm.events import Listener, Noted, ignore
from alm.tokenizers import alphabet, compiled
from alm.tokenizers.model import Fault, Json, NativeEncoder
from alm.tokenizers.models import _plain_unigram as plain
from alm.tokenizers.pretokenize import Pattern
from alm.tokenizers.special import BYTE_NAMES, SPECIALS, UNKNOWN
from alm.tokenizers.words import Words

TYPE = "Unigram"
KEYS = frozenset({"type", "unk_id", "vocab", "byte_fallback"})

LARGEST_VOCAB_SIZE = 1 << 20
ALWAYS = tuple(map(chr, range(0x20, 0x7F)))
"""Characters that are always pieces, so that the name of any token, when it stands in text, can be spelled in them."""

SMALLEST_VOCAB_SIZE = alphabet.FIRST_CHARACTER_ID + len(ALWAYS)

_NAMES = (*SPECIALS, UNKNOWN, *BYTE_NAMES)
_CHARACTERS_SHARE = 0.75
_DECIMALS = 8
"""Digits of scores in a file: few enough for any JSON reader to read exactly the written number."""
_LARGEST_SCORE = 1e100
"""Far above any logarithm, and so small that no sum overflows."""
_UNKNOWN_PENALTY = 10.0
_MARGIN = 1.0
"""Margin (natural logarithm) by which a token's name scores below its characters: far above rounding errors."""


class Config(BaseConfig):
    """Unigram. Any text can be encoded, and decodes to exactly the same text."""

    kind: Literal["unigram"] = "unigram"
    pattern: Pattern = Field("qwen2", description="How text is split into words before training and encoding.")
    character_coverage: float = Field(
        0.9995, gt=0, le=1, description="Share of the text whose characters get their own ids; the rest is bytes."
    )
    max_piece_length: int = Field(16, ge=1, le=31, description="Most characters in one token.")


def train(words: Words, *, config: Config, vocab_size: int, on_event: Listener = ignore) -> Model:
    """Learn a vocabulary of `vocab_size` tokens, or a smaller one if the text has no more pieces worth keeping.

    Raises `ConfigError` if `vocab_size` is not between `SMALLEST_VOCAB_SIZE` and `LARGEST_VOCAB_SIZE`.
    """
    if not SMALLEST_VOCAB_SIZE <= vocab_size <= LARGEST_VOCAB_SIZE:
        raise ConfigError(
            f"a Unigram vocabulary has {SMALLEST_VOCAB_SIZE:,} to {LARGEST_VOCAB_SIZE:,} tokens, not {vocab_size:,}",
            hint=f"use `--vocab-size 8192`, or any size from {SMALLEST_VOCAB_SIZE} up",
        )
    if find_spec("numba") is None:
        raise AlmError("Unigram training needs Numba, which is not installed", hint="use `--kind bpe`")
    from alm.tokenizers.models._unigram_fit import fit
    from alm.tokenizers.models._unigram_seeds import MOST_CHARACTERS, Text

    compiled.pays_off(sys.maxsize, on_event)  # only to report a compilation: training has no plain version
    room = vocab_size - alphabet.FIRST_CHARACTER_ID
    text = Text.of(words, _alphabet(words, config.character_coverage, room), most=MOST_CHARACTERS)
    if text.left_out:
        on_event(Noted(f"fitting the {len(words) - text.left_out:,} most common of {len(words):,} distinct words"))
    fitted = fit(text, size=room, longest=config.max_piece_length, on_event=on_event)
    return Model.of(fitted.pieces, fitted.scores.tolist())


def _alphabet(words: Words, share: float, room: int) -> list[str]:
    """Return the characters that become pieces, leaving part of the `room` to longer pieces if there is any."""
    most = max(0, int(room * _CHARACTERS_SHARE) - len(ALWAYS))
    return sorted({*ALWAYS, *alphabet.covering(words, share, most=most)})


@dataclass(frozen=True)
class Model:
    """Tokens by id, with their names in the file and their scores, natural logarithms of probabilities.

    `named` are the ids that no text encodes to: special tokens, the unknown token and bytes. `byte_ids` is by byte.
    """

    tokens: Sequence[bytes]
    names: Sequence[str]
    scores: Sequence[float]
    unknown_id: int
    byte_ids: Sequence[int]
    named: frozenset[int]
    kind: ClassVar[str] = "unigram"
    byte_level: ClassVar[bool] = False

    @classmethod
    def of(cls, pieces: Sequence[str], scores: Sequence[float]) -> Model:
        """Make the model of these pieces. They follow the names, the most likely first, ties by their bytes."""
        rounded = [
            (-round(score, _DECIMALS) + 0.0, piece.encode()) for piece, score in zip(pieces, scores, strict=True)
        ]
        rounded.sort()
        # Worse than any name spelled in the least likely characters, so that no name is ever recognized in text.
        worst = rounded[-1][0] + _MARGIN
        lowest = -round(worst * (1 + max(map(len, _NAMES))), _DECIMALS)
        first = len(SPECIALS) + 1
        names = [*_NAMES, *(piece.decode() for _, piece in rounded)]
        tokens = [
            *(name.encode() for name in _NAMES[:first]),
            *(bytes([byte]) for byte in range(256)),
            *(piece for _, piece in rounded),
        ]
        all_scores = [lowest] * len(_NAMES) + [0.0 - score for score, _ in rounded]
        named = frozenset(range(len(_NAMES)))
        return cls(tokens, names, all_scores, first - 1, range(first, first + 256), named)

    def written(self, specials: Mapping[str, int]) -> Sequence[str]:
        """Return the name of each token in `tokenizer.json`, by id."""
        return self.names

    def fragment(self, specials: Mapping[str, int]) -> Json:
        """Return the value of `model` in `tokenizer.json`. Its names already include `specials`."""
        assert all(self.names[id_] == name for name, id_ in specials.items())
        vocab = [[name, score] for name, score in zip(self.names, self.scores, strict=True)]
        return {"type": TYPE, "unk_id": self.unknown_id, "vocab": vocab, "byte_fallback": True}

    def word_encoder(self) -> Callable[[bytes], list[int]]:
        """Return a function in plain Python from a word (UTF-8) to its ids."""
        return plain.WordEncoder(self._pieces, self.scores, self._unknown_score, self.byte_ids).encode

    def native_encoder(self, pattern: str) -> NativeEncoder:
        """Return an encoder in compiled code for texts split by `pattern`."""
        from alm.tokenizers._kernels.unigram_encode import Encoder

        scores = np.array(self.scores, dtype=np.float64)
        byte_ids = np.array(self.byte_ids, dtype=np.int32)
        return Encoder(list(self._pieces.items()), scores, self._unknown_score, byte_ids, pattern)

    @functools.cached_property
    def _pieces(self) -> dict[bytes, int]:
        return {token: id_ for id_, token in enumerate(self.tokens) if id_ not in self.named}

    @property
    def _unknown_score(self) -> float:
        """Score of an unknown character, as in the `tokenizers` library: the minimum includes the names."""
        return min(self.scores) - _UNKNOWN_PENALTY


def read(
    fragment: Json,
    *,
    specials: Mapping[str, int],
    added: Mapping[str, int],
    byte_level: bool,
    blank_sign: str,
    fault: Fault,
) -> Model:
    """Read the model of a `tokenizer.json`. Raises the error that `fault` makes if `alm` does not support it."""
    if byte_level:
        raise fault("writes bytes as characters before a Unigram model, which `alm` does not support")
    if blank_sign:
        raise fault("leaves a text in one piece before a Unigram model, which `alm` does not support")
    if added:
        raise fault(f"looks for `{next(iter(added))}` in text before a Unigram model, which `alm` does not support")
    if fragment.get("byte_fallback") is not True:
        raise fault("does not set `model.byte_fallback`: some characters would be lost")
    names, scores = _vocabulary(fragment, fault)
    ids = {name: id_ for id_, name in enumerate(names)}
    if len(ids) < len(names):
        twice = next(name for id_, name in enumerate(names) if ids[name] != id_)
        raise fault(f"has the piece {_short(twice)} twice")
    unknown_id = fragment.get("unk_id")
    if type(unknown_id) is not int or not 0 <= unknown_id < len(names):
        raise fault("has no `model.unk_id` that is one of its pieces")
    for name in (*specials, *BYTE_NAMES):
        if name not in ids:
            raise fault(f"has no piece {_short(name)}")
        if ids[name] != specials.get(name, ids[name]):
            raise fault(f"gives `{name}` the ids {ids[name]} and {specials[name]}")
    byte_ids = [ids[name] for name in BYTE_NAMES]
    named = frozenset((*specials.values(), unknown_id, *byte_ids))
    _check_spelling(names, scores, named, fault)
    tokens = [name.encode() for name in names]
    for byte, id_ in enumerate(byte_ids):
        tokens[id_] = bytes([byte])
    return Model(tokens, names, scores, unknown_id, byte_ids, named)


def _vocabulary(fragment: Json, fault: Fault) -> tuple[list[str], list[float]]:
    vocab = fragment.get("vocab")
    if not isinstance(vocab, list) or not vocab:
        raise fault("has no `model.vocab`")
    if len(vocab) > LARGEST_VOCAB_SIZE:
        raise fault(f"has {len(vocab):,} tokens, more than {LARGEST_VOCAB_SIZE:,}")
    for number, entry in enumerate(vocab):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and entry[0]):
            raise fault(f"has a piece that is not text with a score: number {number}")
        if type(entry[1]) not in (int, float) or abs(entry[1]) > _LARGEST_SCORE:
            raise fault(f"gives {_short(entry[0])} a score that is not a number below 1e100: {_short(entry[1])}")
        if any("\ud800" <= character <= "\udfff" for character in entry[0]):
            raise fault(f"has a piece with half a surrogate pair: {_short(entry[0])}")
    return [name for name, _ in vocab], [float(score) for _, score in vocab]


def _check_spelling(names: Sequence[str], scores: Sequence[float], named: frozenset[int], fault: Fault) -> None:
    """Check that all pieces can be spelled in single characters, and that no name scores above its characters.

    The library finds names in text like any piece. It never takes one that scores worse, so both give the same ids.
    """
    characters = {name: scores[id_] for id_, name in enumerate(names) if len(name) == 1 and id_ not in named}
    for id_, name in enumerate(names):
        missing = next((character for character in name if character not in characters), None)
        if missing is not None:
            raise fault(f"has the piece {_short(name)}, and none for its character {_short(missing)}")
        if id_ in named and scores[id_] + _MARGIN > sum(characters[character] for character in name):
            raise fault(f"would find `{name}` in text: its score {scores[id_]} is not below that of its characters")


def _short(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)[:60]
