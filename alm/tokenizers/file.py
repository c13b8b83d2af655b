"""A tokenizer as the file it lives in: load, encode, decode, save."""

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
from alm.errors import ArtifactError, InputError, shell
from alm.events import Listener, ignore
from alm.tokenizers import _format, compiled
from alm.tokenizers.model import Model, NativeEncoder
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import Pattern, split_pieces
from alm.tokenizers.special import END_OF_TEXT, SPECIALS

_CACHED_WORDS = 1 << 18
_CACHED_CHARACTERS = 64
_LENIENT = "alm-surrogates-or-replace"

Ids = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Encoded:
    """Texts as one flat run of ids: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


def metadata_path(tokenizer: Path) -> Path:
    """`tokenizer.meta.json` for `tokenizer.json`."""
    return tokenizer.with_name(f"{tokenizer.stem}.meta.json")


class Tokenizer:
    """Turns any text into ids and back. Text is never read for special tokens: they are used by id alone."""

    def __init__(self, content: _format.Content, data: bytes) -> None:
        self._content = content
        self._data = data
        self._idle: list[NativeEncoder] = []  # one is taken by each thread that encodes
        self._characters = 0  # encoded so far: compiled code is loaded once that much has been asked for

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The tokenizer in the file `path`; `InputError` when it is missing, damaged or of another make."""
        path = Path(path)
        files.ensure_published(path.parent)
        data = _format.load_bytes(path)
        loaded = cls(_format.read(path, data), data)
        _check_promise(path, loaded.sha256)
        return loaded

    @classmethod
    def of(cls, model: Model, *, pattern: Pattern = "qwen2") -> Self:
        """The tokenizer of a `model` that was trained on words split by `pattern`."""
        content = _format.Content(model, {name: id_ for id_, name in enumerate(SPECIALS)}, pattern)
        return cls(content, _format.write(content).encode())

    @classmethod
    def from_merges(cls, merges: Sequence[tuple[int, int]], *, pattern: Pattern = "qwen2") -> Self:
        """The byte-level BPE tokenizer of these `merges`, best first."""
        return cls.of(bpe.Model.of(merges), pattern=pattern)

    def __reduce__(self) -> tuple[type[Self], tuple[_format.Content, bytes]]:
        """Other processes get the model, and load their own compiled code."""
        return type(self), (self._content, self._data)

    def save(self, path: Path | str) -> None:
        """Write the file; the same tokenizer always gives the same bytes."""
        files.write_text(Path(path), self._data.decode())

    @functools.cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the bytes of the file."""
        return hashlib.sha256(self._data).hexdigest()

    @property
    def kind(self) -> str:
        """The kind of its model, `bpe` for example."""
        return self._content.model.kind

    @property
    def pattern(self) -> Pattern:
        """The name of the split."""
        return self._content.pattern

    @property
    def is_byte_level(self) -> bool:
        """Whether its words are made of bytes; otherwise of characters, with bytes for the rare ones."""
        return self._content.model.byte_level

    @property
    def specials(self) -> Mapping[str, int]:
        """The special tokens and their ids."""
        return self._content.specials

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included."""
        return len(self._content.model.tokens)

    @property
    def merges(self) -> int:
        """How many pairs of tokens are merged."""
        return len(self.merge_pairs)

    @property
    def merge_pairs(self) -> list[tuple[int, int]]:
        """The ids of the two tokens of each merge, best first; empty when the kind has no merges."""
        merges: Sequence[tuple[int, int, int]] = getattr(self._content.model, "merges", ())
        return [(left, right) for left, right, _ in merges]

    @property
    def end_of_text_id(self) -> int:
        """The id that ends every document."""
        return self._content.specials[END_OF_TEXT]

    def special_id(self, name: str) -> int:
        """The id of a special token, by its text; `InputError` when there is none of that name."""
        if name not in self._content.specials:
            raise InputError(
                f"this tokenizer has no special token `{name}` (there are: {', '.join(self._content.specials)})",
                hint="run `alm tokenizer train --out artifacts/tokenizer.json` for one that has all of them",
            )
        return self._content.specials[name]

    @functools.cached_property
    def bytes_per_id(self) -> npt.NDArray[np.int32]:
        """How many bytes of text each id stands for; a special token stands for none."""
        lengths = np.array([len(token) for token in self._content.model.tokens], dtype=np.int32)
        lengths[list(self._content.specials.values())] = 0
        return lengths

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; `decode` gives exactly `text` back."""
        if self._is_worth_compiling(len(text)):
            ids: list[int] = self._encoded_natively([text]).ids.tolist()
            return ids
        return array("i", self._encoded(text)).tolist()

    def encode_batch(self, texts: Iterable[str], *, workers: int = 1, on_event: Listener = ignore) -> Encoded:
        """The ids of many texts, each encoded on its own, by so many threads."""
        texts = texts if isinstance(texts, list) else list(texts)
        if not self._is_worth_compiling(sum(map(len, texts)), on_event):
            encoded = [self._encoded(text) for text in texts]
            # A bytearray, because an array over bytes would be read-only.
            flat = np.frombuffer(bytearray().join(encoded), dtype=np.int32)
            return Encoded(flat, _offsets([len(ids) // flat.itemsize for ids in encoded]))
        parts = _shared_out(texts, workers)
        if len(parts) == 1:
            return self._encoded_natively(texts)
        with ThreadPoolExecutor(len(parts)) as threads:
            return _in_one([*threads.map(self._encoded_natively, parts)])

    def expect(self, characters: int) -> None:
        """Say that so many will be encoded, so that compiled code is chosen at once where it pays."""
        self._characters = max(self._characters, characters)

    def _is_worth_compiling(self, characters: int, on_event: Listener = ignore) -> bool:
        self._characters += characters
        return compiled.pays_off(self._characters, on_event)

    def _encoded_natively(self, texts: list[str]) -> Encoded:
        """Encoded by compiled code, which remembers words from one call to the next."""
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
        """The ids of `text` as the bytes of an int32 array."""
        ids_of = self._words.__getitem__
        return b"".join([b"".join(map(ids_of, words)) for words in split_pieces(text, self.pattern)])

    def decode(self, ids: Ids) -> str:
        """The text of `ids`. Bytes that are no character become U+FFFD, special tokens their own text."""
        return self.decode_bytes(ids).decode("utf-8", _LENIENT)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of `ids`; `InputError` when one is not in the vocabulary."""
        listed: Sequence[int] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if len(listed) > 0:
            self._check(min(listed))
            self._check(max(listed))
        return b"".join(map(self._content.model.tokens.__getitem__, listed))

    def token_bytes(self, id_: int) -> bytes:
        """The bytes of one id, a special token its own text; `InputError` when it is not in the vocabulary."""
        self._check(id_)
        return self._content.model.tokens[id_]

    def _check(self, id_: int) -> None:
        if not 0 <= id_ < self.vocab_size:
            raise InputError(
                f"id {id_} is not in this tokenizer, whose ids are 0 to {self.vocab_size - 1}",
                hint="use the tokenizer that the ids were made with: `alm info PATH` shows the sha256 of each",
            )


def _check_promise(path: Path, sha256: str) -> None:
    """`ArtifactError` where metadata beside the tokenizer `path` is about other bytes: one of both was changed."""
    beside = metadata_path(path)
    if not beside.is_file():
        return
    again = shell("alm", "tokenizer", "train", "--out", path)
    hint = f"run `{again} --force`"
    metadata = artifacts.read(beside, TokenizerMetadata, hint=hint)
    if metadata.file.path == path.name and metadata.file.sha256 != sha256:
        redo = artifacts.command_of(metadata, stage=("alm", "tokenizer", "train"), out=path, otherwise=again)
        raise ArtifactError(
            f"`{path}` has changed since it was written: `{beside}` describes other bytes", hint=f"run `{redo} --force`"
        )


class StreamDecoder:
    """Decodes ids as they come, and holds back the bytes of a character until it is whole."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(_LENIENT)

    def feed(self, id_: int) -> str:
        """The characters that `id_` completes, often none."""
        return self._decoder.decode(self._tokenizer.token_bytes(id_))

    def finish(self) -> str:
        """What was held back, as U+FFFD; the decoder is as new afterwards."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


class _WordIds(dict[str, bytes]):
    """The ids of a word as the bytes of an int32 array, remembered; emptied when it has grown too large."""

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
    """`texts` in at most `workers` runs of about as many characters each."""
    ends = _offsets([len(text) for text in texts])
    wanted = ends[-1] * np.arange(1, workers) / workers
    cuts = [0, *np.searchsorted(ends, wanted).tolist(), len(texts)]
    return [texts[start:stop] for start, stop in pairwise(cuts) if start < stop] or [[]]


def _in_one(parts: list[Encoded]) -> Encoded:
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Encoded(np.concatenate([part.ids for part in parts]), _offsets(counts))


def _lenient(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode a surrogate as what it is, and replace any other bytes that are no character."""
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


codecs.register_error(_LENIENT, _lenient)
