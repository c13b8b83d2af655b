"""`tokenizer.json`, the format of the `tokenizers` library: written as the library writes it, and read back.

What is read must mean here what it means there, so a file that asks for anything `alm` would not do
(a normalizer, another way to split) is refused by name rather than half followed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alm import files
from alm.errors import InputError
from alm.tokenizers import alphabet
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import PATTERNS
from alm.tokenizers.special import END_OF_TEXT

Json = dict[str, Any]  # Any: parsed JSON, checked key by key below

_BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# The library's defaults: it writes the two flags and, when decoding, looks at neither.
_DECODER: Json = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}

_ABSENT = (None, "")
_REQUIRED: dict[str, tuple[object, ...]] = {
    "normalizer": (None,),
    "model.dropout": (None, 0.0),
    "model.unk_token": (None,),
    "model.continuing_subword_prefix": _ABSENT,
    "model.end_of_word_suffix": _ABSENT,
    "model.byte_fallback": (None, False),
    "model.ignore_merges": (None, False),
    "decoder.type": ("ByteLevel",),
}


@dataclass(frozen=True)
class Content:
    """What a tokenizer file holds.

    `tokens` are bytes by id, a special token its own text; `specials` are name to id; a merge is
    (left id, right id, id of what they make), best first; `pattern` is a name in `PATTERNS`.
    """

    tokens: Sequence[bytes]
    specials: dict[str, int]
    merges: Sequence[tuple[int, int, int]]
    pattern: str


def write(content: Content) -> str:
    """The text of the file: byte for byte what the library saves for the same tokenizer."""
    written = [alphabet.to_characters(token) for token in content.tokens]
    for name, id_ in content.specials.items():
        written[id_] = name
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id_, name) for name, id_ in content.specials.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_split(content.pattern), _BYTES]},
        "post_processor": None,
        "decoder": _DECODER,
        "model": _model(written, [(left, right) for left, right, _ in content.merges]),
    }
    return json.dumps(document, ensure_ascii=False, indent=2)


def _added_token(id_: int, name: str) -> Json:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id_, "content": name, **flags}


def _split(pattern: str) -> Json:
    return {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}


def _model(written: Sequence[str], merges: Iterable[tuple[int, int]]) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: id_ for id_, token in enumerate(written)},
        "merges": [[written[left], written[right]] for left, right in merges],
    }


def read(path: Path, data: bytes) -> Content:
    """What `data`, the bytes of `path`, holds; `InputError` when it is no tokenizer of ours."""
    return _Reader(path).content(_parsed(path, data))


def load_bytes(path: Path) -> bytes:
    """The bytes of the tokenizer file at `path`; `InputError` when there is none."""
    if path.is_dir():
        inside = path / "tokenizer.json"
        hint = f"name the file: `{inside}`" if inside.is_file() else f"run `ls {path}` to see what is in it"
        raise InputError(f"`{path}` is a folder, a tokenizer.json is needed", hint=hint)
    if not path.exists():
        raise InputError(f"there is no tokenizer at `{path}`", hint=f"run `alm tokenizer train --out {path}`")
    return files.read_bytes(path)


def _parsed(path: Path, data: bytes) -> Json:
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if _is_cut_off(data, error):
            raise InputError(
                f"`{path}` is cut off after {len(data):,} bytes", hint=f"run `alm tokenizer train --out {path} --force`"
            ) from error
        raise InputError(
            f"`{path}` is not JSON: {error}", hint=f"run `head -c 200 {path}` to see what it is"
        ) from error
    if not isinstance(document, dict):
        raise _refused(path, "holds no JSON object")
    return document


def _is_cut_off(data: bytes, error: Exception) -> bool:
    data = data.strip()
    at_end = isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())
    return data[:1] in (b"{", b"") and (at_end or data[-1:] != b"}")


def _refused(path: Path, fault: str) -> InputError:
    return InputError(
        f"`{path}` is not a tokenizer that `alm` can use: it {fault}",
        hint="run `alm tokenizer train --out artifacts/tokenizer.json` to make one",
    )


def _at(document: Json, dotted: str) -> object:
    """The value at `a.b.c`, None where a step is missing or no mapping."""
    value: object = document
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


class _Reader:
    """Turns a parsed file into its `Content`; every refusal names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def content(self, document: Json) -> Content:
        self._check_settings(document)
        pattern = self._pattern(document)
        specials = self._specials(document)
        ids = self._ids(document, specials)
        merges = self._merges(document, ids)
        return Content(self._tokens(ids, specials), specials, merges, pattern)

    def _check_settings(self, document: Json) -> None:
        if not isinstance(document.get("model"), dict):
            raise self._fault("has no `model`")
        kind = _at(document, "model.type")
        if kind != "BPE":
            raise self._fault(f"has a model of type `{kind}`, not BPE")
        for key, allowed in _REQUIRED.items():
            value = _at(document, key)
            if value not in allowed:
                raise self._fault(f"sets `{key}` to {json.dumps(value)[:60]}, which `alm` does not follow")

    def _pattern(self, document: Json) -> str:
        steps = _at(document, "pre_tokenizer.pretokenizers")
        for name in PATTERNS:
            if steps == [_split(name), _BYTES]:
                return name
        raise self._fault(f"splits text in another way than: {', '.join(PATTERNS)}")

    def _specials(self, document: Json) -> dict[str, int]:
        added = document.get("added_tokens") or []
        try:
            specials = {token["content"]: token["id"] for token in added}
        except (TypeError, KeyError) as error:
            raise self._fault("has an added token without `content` or `id`") from error
        if not all(isinstance(name, str) for name in specials):
            raise self._fault("has an added token whose `content` is no text")
        if END_OF_TEXT not in specials:
            raise self._fault(f"has no `{END_OF_TEXT}` among its added tokens")
        return specials

    def _ids(self, document: Json, specials: dict[str, int]) -> dict[str, int]:
        vocab = _at(document, "model.vocab")
        if not isinstance(vocab, dict):
            raise self._fault("has no `model.vocab`")
        for name, id_ in specials.items():
            if vocab.get(name, id_) != id_:
                raise self._fault(f"gives `{name}` the ids {vocab[name]} and {id_}")
        ids = {**vocab, **specials}
        if not all(type(id_) is int for id_ in ids.values()):
            raise self._fault("has an id that is no whole number")
        if len(ids) > bpe.LARGEST_VOCAB_SIZE:
            raise self._fault(f"has {len(ids):,} tokens, more than {bpe.LARGEST_VOCAB_SIZE:,}")
        missing = set(range(len(ids))) - set(ids.values())
        if missing:
            raise self._fault(f"has {len(ids):,} tokens, none of them with id {min(missing)}")
        return ids

    def _tokens(self, ids: dict[str, int], specials: dict[str, int]) -> list[bytes]:
        tokens = [b""] * len(ids)
        for written, id_ in ids.items():
            try:
                tokens[id_] = written.encode() if written in specials else alphabet.to_bytes(written)
            except ValueError as error:
                raise self._fault(f"has a token that is not made of bytes: {json.dumps(written)}") from error
        for byte, character in enumerate(alphabet.characters()):
            if character not in ids or character in specials:
                raise self._fault(f"has no token for byte 0x{byte:02X}")
        return tokens

    def _merges(self, document: Json, ids: dict[str, int]) -> list[tuple[int, int, int]]:
        merges = _at(document, "model.merges")
        if not isinstance(merges, list):
            raise self._fault("has no `model.merges`")
        found = []
        for number, merge in enumerate(merges):
            if not (isinstance(merge, list) and len(merge) == 2 and all(isinstance(part, str) for part in merge)):
                raise self._fault(f"has a merge that is no pair of tokens: number {number}")
            left, right = merge
            for token in (left, right, left + right):
                if token not in ids:
                    raise self._fault(f"has merge number {number} of an unknown token: {json.dumps(token)}")
            found.append((ids[left], ids[right], ids[left + right]))
        return found

    def _fault(self, fault: str) -> InputError:
        return _refused(self._path, fault)
