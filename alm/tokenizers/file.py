"""A tokenizer and its file: load, encode, decode, save."""

from __future__ import annotations

import codecs
import functools
import hashlib
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
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
from alm.tokenizers.pretokenize import Pattern, split_chunks
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
    """Turns any text into ids and back. Special tokens are used by id only and never recognized in text."""

    def __init__(self, content: _format.Content, data: bytes) -> None:
        self._content = content
        self._data = data
        self._idle: list[NativeEncoder] = []  # each thread that encodes takes one
        self._characters = 0  # encoded so far; compiled code is loaded once this is large enough to pay off

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Load the tokenizer from `path`. Raises `InputError` if it is missing, damaged or of an unsupported kind."""
        path = Path(path)
        files.ensure_published(path.parent)
        data = _format.load_bytes(path)
        loaded = cls(_format.read(path, data), data)
        _check_promise(path, loaded.sha256)
        return loaded

    @classmethod
    def of(cls, model: Model, *, pattern: Pattern = "qwen2") -> Self:
        """Make the tokenizer of a `model` that was trained on words split by `pattern`."""
        content = _format.Content(model, {name: id_ for id_, name in enumerate(SPECIALS)}, pattern)
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
    def pattern(self) -> Pattern:
        """Name of the split."""
        return self._content.pattern

    @property
    def is_byte_level(self) -> bool:
        """Whether its alphabet is bytes, rather than characters with bytes for the rare ones."""
        return self._content.model.byte_level

    @property
    def specials(self) -> Mapping[str, int]:
        """The special tokens and their ids."""
        return self._content.specials

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
    def end_of_text_id(self) -> int:
        """Id of the token that ends every document."""
        return self._content.specials[END_OF_TEXT]

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
        """Number of bytes of text for each id; 0 for a special token."""
        lengths = np.array([len(token) for token in self._content.model.tokens], dtype=np.int32)
        lengths[list(self._content.specials.values())] = 0
        return lengths

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`. `decode` returns exactly `text` again."""
        if self._is_worth_compiling(len(text)):
            ids: list[int] = self._encoded_natively([text]).ids.tolist()
            return ids
        return array("i", self._encoded(text)).tolist()

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
        from alm.tokenizers._kernels.words import joined

        try:
            encoder = self._idle.pop()
        except IndexError:
            encoder = self._content.model.native_encoder(self.pattern)
        encoded = Encoded(*encoder.encode(*joined(texts)))
        self._idle.append(encoder)
        return encoded

    @functools.cached_property
    def _words(self) -> _WordIds:
        return _WordIds(self._content.model.word_encoder())

    def _encoded(self, text: str) -> bytes:
        """Return the ids of `text` as the bytes of an int32 array."""
        ids_of = self._words.__getitem__
        return b"".join([b"".join(map(ids_of, words)) for words in split_chunks(text, self.pattern)])

    def decode(self, ids: Ids) -> str:
        """Return the text of `ids`. Invalid UTF-8 becomes U+FFFD; special tokens become their own text."""
        return self.decode_bytes(ids).decode("utf-8", _LENIENT)

    def decode_bytes(self, ids: Ids) -> bytes:
        """Return the bytes of `ids`. Raises `InputError` for an id outside the vocabulary."""
        listed: Sequence[int] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if len(listed) > 0:
            self._check(min(listed))
            self._check(max(listed))
        return b"".join(map(self._content.model.tokens.__getitem__, listed))

    def token_bytes(self, id_: int) -> bytes:
        """Return the bytes of one id; for a special token, its text. Raises `InputError` outside the vocabulary."""
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
    """Decodes ids one at a time and holds back the bytes of a character until it is complete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(_LENIENT)

    def feed(self, id_: int) -> str:
        """Return the characters that `id_` completes, often none."""
        return self._decoder.decode(self._tokenizer.token_bytes(id_))

    def finish(self) -> str:
        """Return what was held back, as U+FFFD, and reset the decoder."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
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
