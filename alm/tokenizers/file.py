"""A tokenizer and its file: load, encode, decode, save."""

from __future__ import annotations

import codecs
import functools
import hashlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from alm import artifacts, files
from alm.artifacts import TokenizerMetadata
from alm.config.commands import command_of
from alm.errors import ArtifactError, InputError, shell
from alm.events import Listener, ignore
from alm.tokenizers import _format, compiled
from alm.tokenizers.model import Model, NativeEncoder
from alm.tokenizers.models import bpe
from alm.tokenizers.prepare import BLANK_SIGN, Normalizer
from alm.tokenizers.pretokenize import Pattern, Split, split_chunks
from alm.tokenizers.special import END_OF_TEXT, SPECIALS

_CACHED_WORDS = 1 << 18
_CACHED_CHARACTERS = 64
_LENIENT = "alm-surrogates-or-replace"

Ids = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Encoded:
    """The ids of several texts in one flat array: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


def metadata_path(tokenizer: Path) -> Path:
    """Return the path of the metadata: `tokenizer.meta.json` for `tokenizer.json`."""
    return tokenizer.with_name(f"{tokenizer.stem}.meta.json")


class Tokenizer:
    """Turns any text into ids and back. Special tokens are used by id only and never recognized in text.

    A file of another tool may have added tokens that are not special, such as `<think>`: these are found in text.
    """

    def __init__(self, content: _format.Content, data: bytes) -> None:
        self._content = content
        self._data = data
        self._idle: list[NativeEncoder] = []  # each thread that encodes takes one
        self._characters = 0  # encoded so far; compiled code is loaded once this is large enough to pay off

    @classmethod
    def load(cls, path: Path | str, *, end_of_text: int | None = None) -> Self:
        """Load the tokenizer from `path`. Raises `InputError` if it is missing, damaged or of an unsupported kind.

        `end_of_text` is the id that ends a text, for a file in which neither a name nor the template says it.
        """
        path = Path(path)
        files.ensure_published(path.parent)
        loaded = cls.read(path, _format.load_bytes(path), end_of_text=end_of_text)
        _check_promise(path, loaded.sha256)
        return loaded

    @classmethod
    def read(cls, path: Path, data: bytes, *, end_of_text: int | None = None) -> Self:
        """Make the tokenizer of `data`, the bytes of `path`. `end_of_text` as in `load`: the new file then says it."""
        try:
            return cls(_format.read(path, data), data)
        except _format.NoEndOfTextError:
            if end_of_text is None:
                raise
        content = _format.read(path, data, end_of_text)
        return cls(content, _format.with_end_of_text(data, end_of_text))

    @classmethod
    def of(cls, model: Model, *, pattern: Pattern = "qwen2") -> Self:
        """Make the tokenizer of a `model` that was trained on words split by `pattern`."""
        specials = {name: id_ for id_, name in enumerate(SPECIALS)}
        content = _format.Content(model, specials, pattern, specials[END_OF_TEXT])
        return cls(content, _format.write(content).encode())

    @classmethod
    def from_merges(cls, merges: Sequence[tuple[int, int]], *, pattern: Pattern = "qwen2") -> Self:
        """Make the byte-level BPE tokenizer of these `merges`, best first."""
        return cls.of(bpe.Model.of(merges), pattern=pattern)

    def __reduce__(self) -> tuple[type[Self], tuple[_format.Content, bytes]]:
        """Pickle the model only. Other processes load their own compiled code."""
        return type(self), (self._content, self._data)

    def save(self, path: Path | str) -> None:
        """Write the file. The same tokenizer always gives the same bytes."""
        files.write_text(Path(path), self._data.decode())

    @functools.cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the file's bytes."""
        return hashlib.sha256(self._data).hexdigest()

    @property
    def kind(self) -> str:
        """Kind of its model, such as `bpe`."""
        return self._content.model.kind

    @property
    def pattern(self) -> Split:
        """Name of the split."""
        return self._content.pattern

    @property
    def normalizer(self) -> Normalizer:
        """What is done to a text before it is split."""
        return self._content.preparation.normalizer

    @property
    def ignores_merges(self) -> bool:
        """Whether a word that is a token is taken as it is, without merging."""
        return getattr(self._content.model, "ignores_merges", False)

    @property
    def drops_first_blank(self) -> bool:
        """Whether the first blank of a text is left out in decoding, because encoding puts one there."""
        return self._content.strips_blank

    @property
    def is_byte_level(self) -> bool:
        """Whether its alphabet is bytes, rather than characters with bytes for the rare ones."""
        return self._content.model.byte_level

    @property
    def specials(self) -> Mapping[str, int]:
        """The special tokens and their ids."""
        return self._content.specials

    @property
    def found_in_text(self) -> Mapping[str, int]:
        """The added tokens that text encodes to, and their ids; none in a file that `alm` made."""
        return self._content.preparation.found

    @property
    def token_names(self) -> Sequence[str]:
        """Names of all tokens by id, as in the file."""
        names = list(self._content.model.written(self.specials))
        if self.normalizer.has_blanks:
            names = [name.replace(" ", BLANK_SIGN) for name in names]
        for token in self._content.preparation.added:
            names[token.id] = token.content
        return names

    @property
    def vocab_size(self) -> int:
        """Number of ids, including special tokens."""
        return len(self._content.model.tokens)

    @property
    def merges(self) -> int:
        """Number of merges."""
        return len(self.merge_pairs)

    @property
    def merge_pairs(self) -> list[tuple[int, int]]:
        """The ids of the two tokens of each merge, best first; empty if the kind has no merges."""
        merges: Sequence[tuple[int, int, int]] = getattr(self._content.model, "merges", ())
        return [(left, right) for left, right, _ in merges]

    @property
    def merged_ids(self) -> list[int]:
        """The id that each merge makes, in their order; several may make the same one."""
        merges: Sequence[tuple[int, int, int]] = getattr(self._content.model, "merges", ())
        return [made for _, _, made in merges]

    def with_merges(self, number: int) -> Tokenizer:
        """Return this tokenizer with its first `number` merges alone. Ids stay: those of later merges do not occur."""
        model = self._content.model
        assert isinstance(model, bpe.Model)
        dropped = {made for _, _, made in model.merges[number:]} - {made for _, _, made in model.merges[:number]}
        kept = replace(model, merges=model.merges[:number], special_ids=model.special_ids | dropped)
        return Tokenizer(replace(self._content, model=kept), self._data)

    @property
    def end_of_text_id(self) -> int:
        """Id of the token that ends every document."""
        return self._content.end_of_text_id

    @property
    def begin_of_text_id(self) -> int | None:
        """Id of the token that the file's template puts before a text, as Llama's; `encode` does not put it there."""
        return self._content.begin_of_text_id

    def special_id(self, name: str) -> int:
        """Return the id of a special token by its text. Raises `InputError` if there is none of that name."""
        if name not in self._content.specials:
            raise InputError(
                f"this tokenizer has no special token `{name}` (there are: {', '.join(self._content.specials)})",
                hint="run `alm tokenizer train --out artifacts/tokenizer.json` for one that has all of them",
            )
        return self._content.specials[name]

    @functools.cached_property
    def bytes_per_id(self) -> npt.NDArray[np.int32]:
        """Number of bytes of text for each id; 0 for a special token.

        They add up to the bytes of the normalized text, in which SentencePiece puts a blank first.
        """
        lengths = np.array([len(token) for token in self._content.model.tokens], dtype=np.int32)
        lengths[list(self._content.specials.values())] = 0
        return lengths

    def bytes_of(self, encoded: Encoded) -> npt.NDArray[np.int64]:
        """Return the bytes of each text as its ids count them (`bytes_per_id`): after normalization."""
        totals = _offsets(self.bytes_per_id[encoded.ids])
        return np.diff(totals[encoded.offsets])

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`. `decode` returns `text` again, exactly as the file's normalizer makes it."""
        if self._is_worth_compiling(len(text)):
            ids: list[int] = self._encoded_natively([text]).ids.tolist()
            return ids
        return array("i", self._encoded(text)).tolist()

    @functools.cached_property
    def literal(self) -> Tokenizer:
        """The same tokenizer, which finds no added tokens in text: for the messages of a chat."""
        preparation = self._content.preparation
        hidden = tuple(replace(token, special=True) for token in preparation.added)
        content = replace(self._content, preparation=replace(preparation, added=hidden))
        return Tokenizer(content, self._data)

    def prompt_ids(self, text: str) -> list[int]:
        """Return the ids of a text to continue, after the begin-of-text token if there is one."""
        begin = self.begin_of_text_id
        return [*([] if begin is None else [begin]), *self.encode(text)]

    def encode_batch(self, texts: Iterable[str], *, workers: int = 1, on_event: Listener = ignore) -> Encoded:
        """Return the ids of many texts, each encoded independently, with `workers` threads."""
        texts = texts if isinstance(texts, list) else list(texts)
        if not self._is_worth_compiling(sum(map(len, texts)), on_event):
            encoded = [self._encoded(text) for text in texts]
            # A bytearray, because an array over `bytes` would be read-only.
            flat = np.frombuffer(bytearray().join(encoded), dtype=np.int32)
            return Encoded(flat, _offsets([len(ids) // flat.itemsize for ids in encoded]))
        parts = _shared_out(texts, workers)
        if len(parts) == 1:
            return self._encoded_natively(texts)
        with ThreadPoolExecutor(len(parts)) as threads:
            return _in_one([*threads.map(self._encoded_natively, parts)])

    def expect(self, characters: int) -> None:
        """Announce the amount of text to come, so that compiled code is loaded at once if it pays off."""
        self._characters = max(self._characters, characters)

    def _is_worth_compiling(self, characters: int, on_event: Listener = ignore) -> bool:
        self._characters += characters
        return compiled.pays_off(self._characters, on_event)

    def _encoded_natively(self, texts: list[str]) -> Encoded:
        """Encode with compiled code, which caches words across calls."""
        preparation = self._content.preparation
        if preparation.changes_nothing:
            return self._parts_encoded_natively(texts)
        parts = [preparation.parts(text) for text in texts]
        encoded = self._parts_encoded_natively([part for of_text in parts for part in of_text if isinstance(part, str)])
        return _with_added(parts, encoded)

    def _parts_encoded_natively(self, parts: list[str]) -> Encoded:
        from alm.tokenizers._kernels.words import joined

        try:
            encoder = self._idle.pop()
        except IndexError:
            encoder = self._content.model.native_encoder(self.pattern)
        encoded = Encoded(*encoder.encode(*joined(parts)))
        self._idle.append(encoder)
        return encoded

    @functools.cached_property
    def _words(self) -> _WordIds:
        return _WordIds(self._content.model.word_encoder())

    def _encoded(self, text: str) -> bytes:
        """Return the ids of `text` as the bytes of an int32 array."""
        ids_of = self._words.__getitem__
        found = []
        for part in self._content.preparation.parts(text):
            if isinstance(part, int):
                found.append(array("i", [part]).tobytes())
            else:
                found += [b"".join(map(ids_of, words)) for words in split_chunks(part, self.pattern)]
        return b"".join(found)

    def decode(self, ids: Ids) -> str:
        """Return the text of `ids`. Invalid UTF-8 becomes U+FFFD; special tokens become their own text."""
        return self.decode_bytes(ids).decode("utf-8", _LENIENT)

    def decode_bytes(self, ids: Ids) -> bytes:
        """Return the bytes of `ids`. Raises `InputError` for an id outside the vocabulary."""
        listed: Sequence[int] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if len(listed) > 0:
            self._check(min(listed))
            self._check(max(listed))
        decoded = b"".join(map(self._content.model.tokens.__getitem__, listed))
        return decoded.removeprefix(b" ") if self.drops_first_blank else decoded

    def token_bytes(self, id_: int) -> bytes:
        """Return the bytes of one id; for a special token, its text. Raises `InputError` outside the vocabulary.

        A first blank is always there: whether it begins a text is not known here.
        """
        self._check(id_)
        return self._content.model.tokens[id_]

    def _check(self, id_: int) -> None:
        if not 0 <= id_ < self.vocab_size:
            raise InputError(
                f"id {id_} is not in this tokenizer, whose ids are 0 to {self.vocab_size - 1}",
                hint="use the tokenizer that the ids were made with: `alm info PATH` shows the sha256 of each",
            )


def _check_promise(path: Path, sha256: str) -> None:
    """Raise `ArtifactError` if the metadata beside the tokenizer `path` describes other bytes: one of them changed."""
    beside = metadata_path(path)
    if not beside.is_file():
        return
    again = shell("alm", "tokenizer", "train", "--out", path)
    hint = f"run `{again} --force`"
    metadata = artifacts.read(beside, TokenizerMetadata, hint=hint)
    if metadata.file.path == path.name and metadata.file.sha256 != sha256:
        redo = command_of(metadata.command, stage=("alm", "tokenizer", "train"), out=path, otherwise=again)
        raise ArtifactError(
            f"`{path}` has changed since it was written: `{beside}` describes other bytes", hint=f"run `{redo} --force`"
        )


class StreamDecoder:
    """Decodes ids one at a time and holds back the bytes of a character until it is complete.

    With `continues`, the ids continue a text, so that a first blank is kept.
    """

    def __init__(self, tokenizer: Tokenizer, *, continues: bool = False) -> None:
        self._tokenizer = tokenizer
        self._drops_first_blank = self._drops_blank = tokenizer.drops_first_blank and not continues
        self._decoder = codecs.getincrementaldecoder("utf-8")(_LENIENT)

    def feed(self, id_: int) -> str:
        """Return the characters that `id_` completes, often none."""
        token = self._tokenizer.token_bytes(id_)
        if self._drops_blank and token:
            token, self._drops_blank = token.removeprefix(b" "), False
        return self._decoder.decode(token)

    def finish(self) -> str:
        """Return what was held back, as U+FFFD, and reset the decoder."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._drops_blank = self._drops_first_blank
        return rest


class _WordIds(dict[str, bytes]):
    """Cache of words and their ids, as the bytes of an int32 array. It is emptied when it grows too large."""

    def __init__(self, encode: Callable[[bytes], list[int]]) -> None:
        self._encode = encode

    def __missing__(self, word: str) -> bytes:
        encoded = array("i", self._encode(word.encode("utf-8", "surrogatepass"))).tobytes()
        if len(word) <= _CACHED_CHARACTERS:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = encoded
        return encoded


def _offsets(counts: Ids) -> npt.NDArray[np.int64]:
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    offsets[1:] = np.cumsum(counts)
    return offsets


def _shared_out(texts: list[str], workers: int) -> list[list[str]]:
    """Divide `texts` into at most `workers` runs of about equally many characters."""
    ends = _offsets([len(text) for text in texts])
    wanted = ends[-1] * np.arange(1, workers) / workers
    cuts = [0, *np.searchsorted(ends, wanted).tolist(), len(texts)]
    return [texts[start:stop] for start, stop in pairwise(cuts) if start < stop] or [[]]


def _with_added(texts: Sequence[Sequence[str | int]], encoded: Encoded) -> Encoded:
    """Return the ids of texts: those of their parts, which `encoded` holds in order, with the ids between them."""
    counts = iter(np.diff(encoded.offsets).tolist())
    sizes = [[1 if isinstance(part, int) else next(counts) for part in parts] for parts in texts]
    offsets = _offsets([sum(of_parts) for of_parts in sizes])
    if all(isinstance(part, str) for parts in texts for part in parts):
        return Encoded(encoded.ids, offsets)
    ids = np.empty(int(offsets[-1]), dtype=np.int32)
    at = done = 0
    for part, size in zip(chain.from_iterable(texts), chain.from_iterable(sizes), strict=True):
        if isinstance(part, int):
            ids[at] = part
        else:
            ids[at : at + size] = encoded.ids[done : done + size]
            done += size
        at += size
    return Encoded(ids, offsets)


def _in_one(parts: list[Encoded]) -> Encoded:
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Encoded(np.concatenate([part.ids for part in parts]), _offsets(counts))


def _lenient(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode surrogates as they are, and replace any other invalid bytes."""
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


codecs.register_error(_LENIENT, _lenient)
