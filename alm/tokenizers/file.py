"""A tokenizer as the file it lives in: load, encode, decode, save."""

from __future__ import annotations

import codecs
import functools
import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from alm import files
from alm.errors import InputError
from alm.tokenizers import _format
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import split_pieces
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


class Tokenizer:
    """Turns any text into ids and back. Text is never read for special tokens: they are used by id alone."""

    def __init__(self, content: _format.Content, data: bytes) -> None:
        self._content = content
        self._data = data
        byte_ids = _byte_ids(content)
        self._words = _WordIds(bpe.WordEncoder(byte_ids, content.merges))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """The tokenizer in the file `path`; `InputError` when it is missing, damaged or of another make."""
        path = Path(path)
        data = _format.load_bytes(path)
        return cls(_format.read(path, data), data)

    @classmethod
    def from_merges(cls, merges: Sequence[bpe.Merge], *, pattern: str = "qwen2") -> Self:
        """The tokenizer that `bpe.train` made the `merges` of, on words split by `pattern`."""
        tokens = bpe.all_tokens(merges)
        ids = {token: id_ for id_, token in enumerate(tokens)}
        made = [(left, right, ids[tokens[left] + tokens[right]]) for left, right in merges]
        specials = {name: id_ for id_, name in enumerate(SPECIALS)}
        content = _format.Content(tokens=tokens, specials=specials, merges=made, pattern=pattern)
        return cls(content, _format.write(content).encode())

    def save(self, path: Path | str) -> None:
        """Write the file; the same tokenizer always gives the same bytes."""
        files.write_text(Path(path), self._data.decode())

    @functools.cached_property
    def sha256(self) -> str:
        """Hex SHA-256 of the bytes of the file."""
        return hashlib.sha256(self._data).hexdigest()

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included."""
        return len(self._content.tokens)

    @property
    def merges(self) -> int:
        """How many pairs of tokens are merged."""
        return len(self._content.merges)

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
        lengths = np.array([len(token) for token in self._content.tokens], dtype=np.int32)
        lengths[list(self._content.specials.values())] = 0
        return lengths

    def encode(self, text: str) -> list[int]:
        """The ids of `text`; `decode` gives exactly `text` back."""
        return array("i", self._encoded(text)).tolist()

    def encode_batch(self, texts: Iterable[str]) -> Encoded:
        """The ids of many texts, each encoded on its own."""
        encoded = [self._encoded(text) for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        offsets[1:] = np.cumsum([len(ids) // np.dtype(np.int32).itemsize for ids in encoded])
        # A bytearray, because an array over bytes would be read-only.
        return Encoded(ids=np.frombuffer(bytearray().join(encoded), dtype=np.int32), offsets=offsets)

    def _encoded(self, text: str) -> bytes:
        """The ids of `text` as the bytes of an int32 array."""
        pattern, ids_of = self._content.pattern, self._words.__getitem__
        return b"".join([b"".join(map(ids_of, words)) for words in split_pieces(text, pattern)])

    def decode(self, ids: Ids) -> str:
        """The text of `ids`. Bytes that are no character become U+FFFD, special tokens their own text."""
        return self.decode_bytes(ids).decode("utf-8", _LENIENT)

    def decode_bytes(self, ids: Ids) -> bytes:
        """The bytes of `ids`; `InputError` when one is not in the vocabulary."""
        listed: Sequence[int] = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if len(listed) > 0:
            self._check(min(listed))
            self._check(max(listed))
        return b"".join(map(self._content.tokens.__getitem__, listed))

    def token_bytes(self, id_: int) -> bytes:
        """The bytes of one id, a special token its own text; `InputError` when it is not in the vocabulary."""
        self._check(id_)
        return self._content.tokens[id_]

    def _check(self, id_: int) -> None:
        if not 0 <= id_ < self.vocab_size:
            raise InputError(
                f"id {id_} is not in this tokenizer, whose ids are 0 to {self.vocab_size - 1}",
                hint="use the tokenizer that the ids were made with: `alm info PATH` shows the sha256 of each",
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

    def __init__(self, encoder: bpe.WordEncoder) -> None:
        self._encoder = encoder

    def __missing__(self, word: str) -> bytes:
        ids = self._encoder.encode(word.encode("utf-8", "surrogatepass"))
        encoded = array("i", ids).tobytes()
        if len(word) <= _CACHED_CHARACTERS:
            if len(self) >= _CACHED_WORDS:
                self.clear()
            self[word] = encoded
        return encoded


def _byte_ids(content: _format.Content) -> list[int]:
    """The id of each byte, by its value."""
    specials = set(content.specials.values())
    ids = {token: id_ for id_, token in enumerate(content.tokens) if len(token) == 1 and id_ not in specials}
    return [ids[bytes([byte])] for byte in range(256)]


def _lenient(error: UnicodeError) -> tuple[str | bytes, int]:
    """Decode a surrogate as what it is, and replace any other bytes that are no character."""
    try:
        return codecs.lookup_error("surrogatepass")(error)
    except UnicodeError:
        return codecs.lookup_error("replace")(error)


codecs.register_error(_LENIENT, _lenient)
