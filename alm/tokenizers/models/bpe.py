"""Byte pair encoding (Sennrich et al. 2016, section 3.2) over bytes (Radford et al. 2019, section 2.2) or characters.

Over bytes, every text starts as a sequence of the 256 bytes. Over characters, the common ones are the alphabet, and the
rest is written as bytes (`<0x00>` to `<0xFF>`), which never merge.
"""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.errors import ConfigError
from alm.events import Listener, Progressed, ignore
from alm.tokenizers import alphabet, compiled
from alm.tokenizers.model import Fault, Json, NativeEncoder
from alm.tokenizers.models import _plain_bpe as plain
from alm.tokenizers.models._plain_bpe import LARGEST_VOCAB_SIZE, Merge
from alm.tokenizers.pretokenize import Pattern
from alm.tokenizers.special import BYTE_NAMES, SPECIALS, UNKNOWN
from alm.tokenizers.words import Words

TYPE = "BPE"

_ABSENT = (None, "")
_PLAIN = (None, False)
_ZERO = (None, 0, 0.0)
_ANY = (None, False, True)
_SETTINGS: dict[str, tuple[tuple[object, ...], tuple[object, ...]]] = {
    "dropout": (_ZERO, _ZERO),
    "continuing_subword_prefix": (_ABSENT, _ABSENT),
    "end_of_word_suffix": (_ABSENT, _ABSENT),
    "fuse_unk": (_ANY, _ANY),  # no character is unknown
    "byte_fallback": (_PLAIN, (True,)),
    "ignore_merges": (_ANY, _PLAIN),
}
"""Settings of a file that `alm` follows, with their allowed values: over bytes, and over characters."""

KEYS = frozenset({"type", "unk_token", *_SETTINGS, "vocab", "merges"})
_COMMON = string.printable.encode()
"""Bytes without which no text can be written. SmolLM has no tokens for some others, and drops them, as the library."""
_TRAINING_COST = 20
"""Bytes of text that can be counted in the time that plain training takes for one byte of distinct words."""


class Config(BaseConfig):
    """Byte pair encoding. Any text can be encoded, and decodes to exactly the same text."""

    kind: Literal["bpe"] = "bpe"
    pattern: Pattern = Field("qwen2", description="How text is split into words before training and encoding.")
    byte_handling: Literal["bytes", "fallback"] = Field(
        "bytes", description="Alphabet of the words: bytes, or characters with bytes for the rare ones."
    )
    character_coverage: float = Field(
        0.9995, gt=0, le=1, description="Share of the text whose characters get their own ids, with byte fallback."
    )


def train(words: Words, *, config: Config, vocab_size: int, on_event: Listener = ignore) -> Model:
    """Learn a vocabulary of `vocab_size` tokens, or a smaller one if no pair is left to join.

    Raises `ConfigError` if `vocab_size` cannot hold the base tokens or exceeds `LARGEST_VOCAB_SIZE`.
    """
    byte_level = config.byte_handling == "bytes"
    smallest = alphabet.FIRST_MERGE_ID if byte_level else alphabet.FIRST_CHARACTER_ID
    if not smallest <= vocab_size <= LARGEST_VOCAB_SIZE:
        raise ConfigError(
            f"a BPE vocabulary has {smallest:,} to {LARGEST_VOCAB_SIZE:,} tokens, not {vocab_size:,}",
            hint=f"use `--vocab-size 8192`, or any size from {smallest} up",
        )
    characters: list[str] = []
    if not byte_level:
        characters = alphabet.covering(words, config.character_coverage, most=vocab_size - smallest)
    tokens = base_tokens() if byte_level else [*fallback_tokens(), *(character.encode() for character in characters)]

    merges = learn_merges(words, tokens, byte_level=byte_level, vocab_size=vocab_size, on_event=on_event)
    return Model.of(merges, tokens, byte_level=byte_level)


def learn_merges(
    words: Words,
    tokens: Sequence[bytes],
    *,
    byte_level: bool = True,
    vocab_size: int,
    on_event: Listener = ignore,
) -> list[Merge]:
    """Learn the merges, best first, with compiled code or plain Python, whichever is faster. Both learn the same."""

    def report(done: int, total: int) -> None:
        on_event(Progressed(task="merges", done=done, total=total, unit="merges"))

    ids = _Ids.of(tokens, byte_level=byte_level)
    if compiled.pays_off(int(words.offsets[-1]) * _TRAINING_COST, on_event):
        from alm.tokenizers._kernels.bpe_train import merge

        return merge(words, ids.wall_table(), _names(tokens, byte_level), vocab_size=vocab_size, report=report)
    split = ((symbols, count) for word, count in words for symbols in ids.runs_of(word))
    return plain.merge(split, _names(tokens, byte_level), vocab_size=vocab_size, report=report)


def _names(tokens: Sequence[bytes], byte_level: bool) -> list[bytes]:
    """Return the text that each token spells in a word; for a fallback byte its name, as in the library."""
    if byte_level:
        return list(tokens)
    first = len(SPECIALS) + 1
    names = [name.encode() for name in BYTE_NAMES]
    return [*tokens[:first], *names, *tokens[first + len(names) :]]


def base_tokens() -> list[bytes]:
    """Return the tokens before the first merge of bytes, by id: the special tokens and the 256 bytes."""
    return [special.encode() for special in SPECIALS] + [bytes([byte]) for byte in alphabet.in_id_order()]


def fallback_tokens() -> list[bytes]:
    """Return the tokens before the first character: the special tokens, the unknown token and the 256 bytes."""
    return [name.encode() for name in (*SPECIALS, UNKNOWN)] + [bytes([byte]) for byte in range(256)]


def all_tokens(merges: Iterable[Merge], base: Sequence[bytes] | None = None) -> list[bytes]:
    """Return the bytes of every token by id, as numbered in training; for a special token, its text."""
    tokens = list(base_tokens() if base is None else base)
    known = set(tokens)
    for left, right in merges:
        joined = tokens[left] + tokens[right]
        if joined not in known:
            known.add(joined)
            tokens.append(joined)
    return tokens


_TRAINED_SPECIALS = frozenset(range(len(SPECIALS)))
_TRAINED_BYTES = tuple(range(len(SPECIALS) + 1, alphabet.FIRST_CHARACTER_ID))


@dataclass(frozen=True)
class Model:
    """Tokens by id, and merges as (left id, right id, id of the result), best first.

    No word encodes to `special_ids`. `byte_ids` are the tokens of the 256 bytes if characters are the alphabet. With
    `ignores_merges`, a word that is a token is taken as it is.
    """

    tokens: Sequence[bytes]
    merges: Sequence[tuple[int, int, int]]
    byte_level: bool = True
    special_ids: frozenset[int] = _TRAINED_SPECIALS
    byte_ids: Sequence[int] = _TRAINED_BYTES
    ignores_merges: bool = False
    kind: ClassVar[str] = "bpe"

    @classmethod
    def of(cls, merges: Sequence[Merge], base: Sequence[bytes] | None = None, *, byte_level: bool = True) -> Model:
        """Make the model of the `merges` that training learned, starting from the tokens `base`."""
        base = base_tokens() if base is None else base
        names = all_tokens(merges, _names(base, byte_level))
        ids = {name: id_ for id_, name in enumerate(names)}
        made = [(left, right, ids[names[left] + names[right]]) for left, right in merges]
        return cls([*base, *names[len(base) :]], made, byte_level)

    def fragment(self, specials: Mapping[str, int]) -> Json:
        """Return the value of `model` in `tokenizer.json`."""
        written = self.written(specials)
        return {
            "type": TYPE,
            "dropout": None,
            "unk_token": None if self.byte_level else UNKNOWN,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": not self.byte_level,
            "byte_fallback": not self.byte_level,
            "ignore_merges": self.ignores_merges,
            "vocab": {token: id_ for id_, token in enumerate(written)},
            "merges": [[written[left], written[right]] for left, right, _ in self.merges],
        }

    def written(self, specials: Mapping[str, int]) -> list[str]:
        """Return the name of each token in `tokenizer.json`, by id."""
        if self.byte_level:
            written = [alphabet.to_characters(token) for token in self.tokens]
        else:
            written = [token.decode("utf-8", "replace") for token in self.tokens]
            for name, id_ in zip(BYTE_NAMES, self.byte_ids, strict=True):
                written[id_] = name
        for name, id_ in specials.items():
            written[id_] = name
        return written

    def word_encoder(self) -> Callable[[bytes], list[int]]:
        """Return a function in plain Python from a word (UTF-8) to its ids."""
        return plain.WordEncoder(self._ids.symbols_of, self.merges, self._taken_whole).encode

    def native_encoder(self, pattern: str) -> NativeEncoder:
        """Return an encoder in compiled code for texts split by `pattern`."""
        from alm.tokenizers._kernels.bpe_encode import Encoder

        merges = np.array(self.merges, dtype=np.int32).reshape(-1, 3)
        return Encoder(merges, self._ids.by_byte, self._ids.character_table(), pattern, self._taken_whole)

    @property
    def _taken_whole(self) -> dict[bytes, int]:
        """Words that are not merged, and their ids."""
        if not self.ignores_merges:
            return {}
        return {token: id_ for id_, token in enumerate(self.tokens) if id_ not in self.special_ids}

    @functools.cached_property
    def _ids(self) -> _Ids:
        return _Ids.of(self.tokens, byte_level=self.byte_level, special_ids=self.special_ids, byte_ids=self.byte_ids)


@dataclass(frozen=True)
class _Ids:
    """Initial ids of words: of each byte by its value, and of each character if characters are the alphabet.

    A byte whose id is -1 has no token and is dropped.
    """

    by_byte: npt.NDArray[np.int32]
    characters: Mapping[str, int] | None

    @classmethod
    def of(
        cls,
        tokens: Sequence[bytes],
        *,
        byte_level: bool,
        special_ids: frozenset[int] = _TRAINED_SPECIALS,
        byte_ids: Sequence[int] = _TRAINED_BYTES,
    ) -> _Ids:
        ordinary = [(token, id_) for id_, token in enumerate(tokens) if id_ not in special_ids]
        if byte_level:
            ids = {token: id_ for token, id_ in ordinary if len(token) == 1}
            return cls(np.array([ids.get(bytes([byte]), -1) for byte in range(256)], dtype=np.int32), None)
        of_bytes = frozenset(byte_ids)
        decoded = ((token.decode("utf-8", "surrogatepass"), id_) for token, id_ in ordinary if id_ not in of_bytes)
        characters = {text: id_ for text, id_ in decoded if len(text) == 1}
        return cls(np.array(byte_ids, dtype=np.int32), characters)

    def symbols_of(self, word: bytes) -> str:
        """Return the word as a string whose code points are its ids."""
        if self.characters is None:
            return word.decode("latin-1").translate(self._translation)
        found = []
        for character in word.decode("utf-8", "surrogatepass"):
            id_ = self.characters.get(character)
            encoded = character.encode("utf-8", "surrogatepass") if id_ is None else b""
            found += [id_] if id_ is not None else [int(self.by_byte[byte]) for byte in encoded]
        return "".join(map(chr, found))

    def runs_of(self, word: bytes) -> list[str]:
        """Return the parts of a word that training can join. Characters written as bytes separate them."""
        if self.characters is None:
            return [word.decode("latin-1").translate(self._translation)]
        runs = [""]
        for character in word.decode("utf-8", "surrogatepass"):
            id_ = self.characters.get(character)
            if id_ is None:
                runs.append("")
            else:
                runs[-1] += chr(id_)
        return [run for run in runs if run]

    def wall_table(self) -> npt.NDArray[np.int32]:
        """Return ids by byte, or by code point with -1 for characters that are written as bytes."""
        return self.by_byte if self.characters is None else self.character_table()

    def character_table(self) -> npt.NDArray[np.int32]:
        """Return ids by code point, -1 for none; empty if bytes are the alphabet."""
        if self.characters is None:
            return np.zeros(0, dtype=np.int32)
        table = np.full(0x110000, -1, dtype=np.int32)
        for character, id_ in self.characters.items():
            table[ord(character)] = id_
        return table

    @functools.cached_property
    def _translation(self) -> dict[int, int | None]:
        return {byte: None if id_ < 0 else id_ for byte, id_ in enumerate(self.by_byte.tolist())}


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
    _check_settings(fragment, byte_level, fault)
    vocab, ids = _vocabulary(fragment, {**added, **specials}, fault)
    # No word encodes to these. A token that is not made of the characters of bytes only an added one can be.
    outside = {name for name in added if name not in vocab or (byte_level and not alphabet.is_spelled(name))}
    tokens = (
        _byte_level_tokens(ids, {*specials, *outside}, fault)
        if byte_level
        else _fallback_tokens(ids, {*specials, *added}, blank_sign, fault)
    )
    unknown = _unknown(fragment, ids, byte_level, fault)
    named = {*specials} if byte_level else {*specials, unknown, *BYTE_NAMES}
    merges = _merges(fragment, ids, named, fault)
    if blank_sign:
        _check_blanks([tokens[made] for _, _, made in merges], fault)
    return Model(
        tokens,
        merges,
        byte_level,
        special_ids=frozenset(ids[name] for name in (*specials, *outside)),
        byte_ids=_TRAINED_BYTES if byte_level else [ids[name] for name in BYTE_NAMES],
        ignores_merges=fragment.get("ignore_merges") is True,
    )


def _unknown(fragment: Json, ids: Mapping[str, int], byte_level: bool, fault: Fault) -> str:
    """Return the name of the unknown token, which no text needs, as all bytes have tokens; "" for none."""
    unknown = fragment.get("unk_token")
    if unknown is None:
        return ""
    if byte_level or not isinstance(unknown, str):
        raise fault(f"sets `model.unk_token` to {_short(unknown)}, which `alm` does not support")
    if unknown not in ids:
        raise fault(f"sets `model.unk_token` to {_short(unknown)}, which is not one of its tokens")
    return unknown


def _check_blanks(made: Iterable[bytes], fault: Fault) -> None:
    """Check that no merge reaches from another character into a blank: only then, a text can be cut before blanks."""
    for token in made:
        if b" " in token.lstrip(b" "):
            raise fault(f"merges across a blank, to {_short(token.decode('utf-8', 'replace'))}: `alm` would cut there")


def _check_settings(fragment: Json, byte_level: bool, fault: Fault) -> None:
    for key, (over_bytes, over_characters) in _SETTINGS.items():
        value = fragment.get(key)
        allowed = over_bytes if byte_level else over_characters
        if json.dumps(value) not in map(json.dumps, allowed):  # in JSON, 0 is not false
            raise fault(f"sets `model.{key}` to {_short(value)}, which `alm` does not support")


def _short(value: object) -> str:
    return json.dumps(value)[:60]


def _vocabulary(fragment: Json, added: Mapping[str, int], fault: Fault) -> tuple[dict[str, int], dict[str, int]]:
    """Return the vocabulary of the model, and that with the `added` tokens."""
    vocab = fragment.get("vocab")
    if not isinstance(vocab, dict):
        raise fault("has no `model.vocab`")
    for name, id_ in added.items():
        if vocab.get(name, id_) != id_:
            raise fault(f"gives `{name}` the ids {vocab[name]} and {id_}")
    ids = {**vocab, **added}
    if not all(type(id_) is int for id_ in ids.values()):
        raise fault("has an id that is not a whole number")
    if len(ids) > LARGEST_VOCAB_SIZE:
        raise fault(f"has {len(ids):,} tokens, more than {LARGEST_VOCAB_SIZE:,}")
    missing = set(range(len(ids))) - set(ids.values())
    if missing:
        raise fault(f"has {len(ids):,} tokens, none of them with id {min(missing)}")
    return vocab, ids


def _byte_level_tokens(ids: Mapping[str, int], texts: Set[str], fault: Fault) -> list[bytes]:
    """Return the bytes of each token. Those in `texts` are not written as bytes in the file."""
    tokens = [b""] * len(ids)
    for written, id_ in ids.items():
        try:
            tokens[id_] = written.encode() if written in texts else alphabet.to_bytes(written)
        except ValueError as error:
            raise fault(f"has a token that is not made of bytes: {_short(written)}") from error
    for byte, character in enumerate(alphabet.characters()):
        is_common = bytes([byte]) in _COMMON
        if character in texts or (is_common and character not in ids):
            raise fault(f"has no token for byte 0x{byte:02X}")
    return tokens


def _fallback_tokens(ids: Mapping[str, int], named: Set[str], blank_sign: str, fault: Fault) -> list[bytes]:
    """Return the bytes of each token, with a blank for each `blank_sign`. Those in `named` may have both."""
    tokens = [b""] * len(ids)
    for written, id_ in ids.items():
        if blank_sign and " " in written and written not in named:
            raise fault(f"has the token {_short(written)} with a blank, although it writes blanks as {blank_sign}")
        text = written.replace(blank_sign, " ") if blank_sign else written
        tokens[id_] = text.encode("utf-8", "surrogatepass")
    for byte, name in enumerate(BYTE_NAMES):
        if name not in ids:
            raise fault(f"has no token for byte 0x{byte:02X}")
        tokens[ids[name]] = bytes([byte])
    return tokens


def _merges(fragment: Json, ids: Mapping[str, int], named: Set[str], fault: Fault) -> list[tuple[int, int, int]]:
    """Return the merges as ids. None may hold one of `named`. Of equal merges the last counts, as in the library."""
    merges = fragment.get("merges")
    if not isinstance(merges, list):
        raise fault("has no `model.merges`")
    found: dict[tuple[int, int], int] = {}
    for number, merge in enumerate(merges):
        if isinstance(merge, str) and merge.startswith("#version"):
            continue
        pair = merge.split(" ") if isinstance(merge, str) else merge  # text until version 0.20 of the library
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise fault(f"has a `model.merges[{number}]` that is not a pair of tokens: {_short(merge)}")
        left, right = pair
        for token in (left, right, left + right):
            if token not in ids:
                raise fault(f"has a `model.merges[{number}]` of an unknown token: {_short(token)}")
            if token in named:
                raise fault(f"has a `model.merges[{number}]` with {_short(token)}, which is a special token or a byte")
        found.pop((ids[left], ids[right]), None)
        found[ids[left], ids[right]] = ids[left + right]
    return [(left, right, made) for (left, right), made in found.items()]
