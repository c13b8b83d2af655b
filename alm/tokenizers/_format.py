"""Reads and writes `tokenizer.json`, the format of the `tokenizers` library, byte for byte as the library does.

A file must mean the same here as in the library. If it asks for anything that `alm` does not do, such as a normalizer
or another split, it is refused with the name of the setting, never half followed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from alm import files, kinds
from alm.errors import InputError, shell
from alm.tokenizers.model import Json, Model
from alm.tokenizers.pretokenize import PATTERNS, Pattern
from alm.tokenizers.special import END_OF_TEXT

_MODELS = "alm.tokenizers.models"
_MOST_BYTES = 1 << 28  # a vocabulary of a million tokens has 60 MB

_BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# The library's defaults: it writes these flags and ignores them when decoding.
_DECODER: Json = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
_FALLBACK_DECODER: Json = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
# Flags of an added token. With others, the library would find it in text or strip blanks around it.
_ADDED: Json = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_ADDED_KEYS = frozenset({"id", "content", *_ADDED})
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
_KEYS = frozenset({"version", "truncation", "padding", "added_tokens", *_STEPS})


@dataclass(frozen=True)
class Content:
    """Contents of a tokenizer file: the model, the special tokens (name to id) and the name of the split."""

    model: Model
    specials: dict[str, int]
    pattern: Pattern


def write(content: Content) -> str:
    """Return the text of the file, byte for byte what the library saves for the same tokenizer."""
    byte_level = content.model.byte_level
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id_, name) for name, id_ in content.specials.items()],
        "normalizer": None,
        "pre_tokenizer": _splitting(content.pattern, byte_level),
        "post_processor": None,
        "decoder": _DECODER if byte_level else _FALLBACK_DECODER,
        "model": content.model.fragment(content.specials),
    }
    return files.indented_json(document)


def _added_token(id_: int, name: str) -> Json:
    return {"id": id_, "content": name, **_ADDED}


def _splitting(pattern: Pattern, byte_level: bool) -> Json:
    if pattern == "smollm":  # what follows is GPT-2's pattern, which ByteLevel has of its own
        rest = _BYTES | {"use_regex": True} if byte_level else _splitting("gpt2", byte_level)
        return {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, rest]}
    split: Json = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTES]} if byte_level else split


def _forms() -> Iterator[tuple[Json, Pattern, bool]]:
    """Yield each way to write a split, with its name and whether bytes are the alphabet."""
    for pattern in PATTERNS:
        for byte_level in (True, False):
            yield _splitting(pattern, byte_level), pattern, byte_level
    yield _BYTES | {"use_regex": True}, "gpt2", True


def _comparable(pre_tokenizer: object) -> str:
    """Return a text that is equal for two that split alike. In JSON, 0 is not false."""

    def plain(part: Json) -> Json:
        # It moves only offsets, which `alm` does not have.
        return part | {"trim_offsets": True} if _is_byte_level(part) else part

    return json.dumps(json.loads(json.dumps(pre_tokenizer), object_hook=plain), sort_keys=True)


def read(path: Path, data: bytes) -> Content:
    """Return the contents of `data`, the bytes of `path`. Raises `InputError` if `alm` cannot use the tokenizer."""
    return _Reader(path).content(_parsed(path, data))


def load_bytes(path: Path) -> bytes:
    """Return the bytes of the tokenizer file at `path`. Raises `InputError` if there is none."""
    if path.is_dir():
        inside = path / "tokenizer.json"
        hint = f"name the file: `{inside}`" if inside.is_file() else f"run `{shell('ls', path)}` to see what is in it"
        raise InputError(f"`{path}` is a folder, a tokenizer.json is needed", hint=hint)
    if not path.exists():
        hint = f"run `{shell('alm', 'tokenizer', 'train', '--out', path)}`"
        raise InputError(f"no tokenizer found at `{path}`", hint=hint)
    return files.bounded_bytes(path, most=_MOST_BYTES)


def _parsed(path: Path, data: bytes) -> Json:
    try:
        document = files.parse_json(data, allow_surrogates=True)
    except ValueError as error:
        if _is_cut_off(data, error):
            raise InputError(
                f"`{path}` is cut off after {len(data):,} bytes",
                hint=f"run `{shell('alm', 'tokenizer', 'train', '--out', path, '--force')}`",
            ) from error
        hint = f"run `{shell('head', '-c', '200', path)}` to see what it is"
        raise InputError(f"`{path}` is not JSON: {error}", hint=hint) from error
    if not isinstance(document, dict):
        raise _refused(path, "does not hold a JSON object")
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


def _is_plain(post_processor: object) -> bool:
    """Whether it leaves ids unchanged: ByteLevel changes only offsets, and a template must add nothing."""
    if not isinstance(post_processor, dict):
        return post_processor is None
    if post_processor.get("type") == "TemplateProcessing":
        return post_processor.get("single") == [{"Sequence": {"id": "A", "type_id": 0}}]
    return _is_byte_level(post_processor)


def _is_byte_level(part: object) -> bool:
    """Whether the library would read this as ByteLevel. `use_regex` is new there, so it may be absent."""
    if not isinstance(part, dict) or not _BYTES.keys() - {"use_regex"} <= part.keys() <= _BYTES.keys():
        return False
    return part["type"] == "ByteLevel" and all(isinstance(part[key], bool) for key in part if key != "type")


class _Reader:
    """Turns a parsed file into its `Content`. Every error names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def content(self, document: Json) -> Content:
        module = self._module(document)
        self._check_keys(document, _KEYS)
        self._check_keys(document["model"], module.KEYS, "model.")
        self._check_whole(document)
        pattern, byte_level = self._split(document)
        self._check_decoder(document.get("decoder"), byte_level)
        specials = self._specials(document)
        model: Model = module.read(document["model"], specials=specials, byte_level=byte_level, fault=self._fault)
        return Content(model, specials, pattern)

    def _check_keys(self, part: Json, known: Set[str], where: str = "") -> None:
        """Refuse settings that may change ids in a way that `alm` does not know."""
        unknown = sorted(part.keys() - known)
        if unknown:
            raise self._fault(f"has `{where}{unknown[0][:60]}`, which `alm` does not know")

    def _check_whole(self, document: Json) -> None:
        """Refuse settings that would change ids before or after the model produces them."""
        plain = dict.fromkeys(("normalizer", "truncation", "padding")) | {"version": "1.0"}
        different = [key for key, value in plain.items() if document.get(key, value) != value]
        if not _is_plain(document.get("post_processor")):
            different.append("post_processor")
        if different:
            value = json.dumps(document[different[0]])[:60]
            raise self._fault(f"sets `{different[0]}` to {value}, which `alm` does not support")

    def _module(self, document: Json) -> ModuleType:
        """Return the module of the kind that reads this type of model."""
        if not isinstance(document.get("model"), dict):
            raise self._fault("has no `model`")
        modules = [kinds.load(_MODELS, kind) for kind in kinds.names(_MODELS)]
        for module in modules:
            if document["model"].get("type") == module.TYPE:
                return module
        types = " or ".join(module.TYPE for module in modules)
        raise self._fault(
            f"sets `model.type` to {json.dumps(document['model'].get('type'))[:60]}, which is not {types}"
        )

    def _split(self, document: Json) -> tuple[Pattern, bool]:
        pre_tokenizer = document.get("pre_tokenizer")
        for form, pattern, byte_level in _forms():
            if _comparable(form) == _comparable(pre_tokenizer):
                return pattern, byte_level
        written = json.dumps(pre_tokenizer, sort_keys=True)[:60]
        raise self._fault(f"sets `pre_tokenizer` to {written}, which is none of these splits: {', '.join(PATTERNS)}")

    def _check_decoder(self, decoder: object, byte_level: bool) -> None:
        if not (_is_byte_level(decoder) if byte_level else decoder == _FALLBACK_DECODER):
            raise self._fault(f"sets `decoder` to {json.dumps(decoder)[:60]}, which `alm` does not support")

    def _specials(self, document: Json) -> dict[str, int]:
        added = document.get("added_tokens") or []
        try:
            specials = {token["content"]: token["id"] for token in added}
        except (TypeError, KeyError) as error:
            raise self._fault("has an added token without `content` or `id`") from error
        for name in specials:
            if not isinstance(name, str) or not name:
                raise self._fault(f"has an added token whose `content` is not text: {json.dumps(name)}")
        for number, token in enumerate(added):
            self._check_keys(token, _ADDED_KEYS, f"added_tokens[{number}].")
            flags = [flag for flag, value in _ADDED.items() if token.get(flag) is not value]
            if flags:
                value = json.dumps(token.get(flags[0]))[:60]
                raise self._fault(f"sets `{flags[0]}` of `{token['content']}` to {value}, which `alm` does not support")
        if END_OF_TEXT not in specials:
            raise self._fault(f"has no `{END_OF_TEXT}` among its added tokens")
        return specials

    def _fault(self, fault: str) -> InputError:
        return _refused(self._path, fault)
