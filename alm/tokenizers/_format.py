"""Reads and writes `tokenizer.json`, the format of the `tokenizers` library, byte for byte as the library does.

A file must mean the same here as in the library. If it asks for anything that `alm` does not do, such as another
normalizer or split, it is refused with the name of the setting, never half followed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from alm import files, kinds
from alm.errors import InputError, shell
from alm.tokenizers.model import Json, Model
from alm.tokenizers.prepare import BLANK_SIGN, AddedToken, Normalizer, Preparation
from alm.tokenizers.pretokenize import PATTERNS, Pattern, Split
from alm.tokenizers.special import ENDS_OF_TEXT

_MODELS = "alm.tokenizers.models"
_MOST_BYTES = 1 << 28  # a vocabulary of a million tokens has 60 MB

_BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# The library's defaults: it writes these flags and ignores them when decoding.
_DECODER: Json = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
_FALLBACK: list[Json] = [{"type": "ByteFallback"}, {"type": "Fuse"}]
# SentencePiece's ways to write blanks. The library has old and new ones.
_PREPEND: Json = {"type": "Prepend", "prepend": BLANK_SIGN}
_TO_SIGNS: Json = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK_SIGN}
_TO_BLANKS: Json = {"type": "Replace", "pattern": {"String": BLANK_SIGN}, "content": " "}
_STRIP: Json = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_METASPACE: Json = {"type": "Metaspace", "replacement": BLANK_SIGN, "prepend_scheme": "first", "split": False}
_NORMALIZERS: dict[str, Normalizer] = {
    json.dumps(steps): normalizer
    for steps, normalizer in (
        ([], Normalizer()),
        ([{"type": "NFC"}], Normalizer("nfc")),
        ([_PREPEND, _TO_SIGNS], Normalizer("sentencepiece", "always")),
        ([_TO_SIGNS], Normalizer("sentencepiece")),
    )
}
# Flags of an added token.
_ADDED: Json = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
_ADDED_KEYS = frozenset({"id", "content", *_ADDED})
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model")
_KEYS = frozenset({"version", "truncation", "padding", "added_tokens", *_STEPS})


class NoEndOfTextError(InputError):
    """A file that does not say which token ends a text."""


@dataclass(frozen=True)
class Content:
    """Contents of a tokenizer file.

    `specials` are special tokens (name to id), `pattern` is the name of the split, `preparation` what comes before it.
    `begin_of_text_id` is put before a text by the file's template, if at all. With `strips_blank`, the first blank of a
    text is left out in decoding.
    """

    model: Model
    specials: dict[str, int]
    pattern: Split
    end_of_text_id: int
    begin_of_text_id: int | None = None
    preparation: Preparation = field(default_factory=Preparation)
    strips_blank: bool = False


def write(content: Content) -> str:
    """Return the text of the file of a tokenizer made here, byte for byte what the library saves for the same one."""
    byte_level, pattern = content.model.byte_level, cast(Pattern, content.pattern)
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(id_, name) for name, id_ in content.specials.items()],
        "normalizer": None,
        "pre_tokenizer": _splitting(pattern, byte_level),
        "post_processor": None,
        "decoder": _DECODER if byte_level else {"type": "Sequence", "decoders": _FALLBACK},
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

    def plain(part: object) -> object:
        if isinstance(part, list):
            return [plain(each) for each in part]
        if not isinstance(part, dict):
            return part
        # `trim_offsets` moves only offsets, which `alm` does not have.
        fixed = {"trim_offsets": True} if _is_byte_level(part) else {}
        return {key: plain(value) for key, value in part.items()} | fixed

    return json.dumps(plain(pre_tokenizer), sort_keys=True)


def read(path: Path, data: bytes, end_of_text: int | None = None) -> Content:
    """Return the contents of `data`, the bytes of `path`. Raises `InputError` if `alm` cannot use the tokenizer.

    `end_of_text` is the id that ends a text if the file does not say it.
    """
    return _Reader(path).content(_parsed(path, data), end_of_text)


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


def _is_byte_level(part: object) -> bool:
    """Whether the library would read this as ByteLevel. `use_regex` is new there, so it may be absent."""
    if not isinstance(part, dict) or not _BYTES.keys() - {"use_regex"} <= part.keys() <= _BYTES.keys():
        return False
    return part["type"] == "ByteLevel" and all(isinstance(part[key], bool) for key in part if key != "type")


def _steps(part: object, key: str) -> list[Json] | None:
    """Return the steps of a normalizer, decoder or post-processor, sequences flattened; None if it is none of these."""
    if part is None:
        return []
    if not isinstance(part, dict):
        return None
    if part.get("type") != "Sequence":
        return [part]
    inner = part.get(key)
    if not isinstance(inner, list) or not part.keys() <= {"type", key}:
        return None
    found: list[Json] = []
    for step in inner:
        steps = _steps(step, key) if step is not None else None
        if steps is None:
            return None
        found += steps
    return found


class _Reader:
    """Turns a parsed file into its `Content`. Every error names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def content(self, document: Json, end_of_text: int | None) -> Content:
        module = self._module(document)
        self._check_keys(document, _KEYS)
        self._check_keys(document["model"], module.KEYS, "model.")
        self._check_whole(document)
        normalizer = self._normalizer(document)
        pattern, byte_level = self._split(document, normalizer)
        strips_blank = self._strips_blank(document, byte_level, normalizer)
        preparation = Preparation(normalizer, self._added(document))
        specials = {token.content: token.id for token in preparation.added if token.special}
        model: Model = module.read(
            document["model"],
            specials=specials,
            added=preparation.found,
            byte_level=byte_level,
            blank_sign=BLANK_SIGN if normalizer.has_blanks else "",
            fault=self._fault,
        )
        changed = {token.id: preparation.text_of(token) for token in preparation.added if token.normalized}
        if changed:
            tokens = [changed.get(id_, "").encode() or token for id_, token in enumerate(model.tokens)]
            model = replace(cast(Any, model), tokens=tokens)  # Any: each kind is a dataclass
        post_processor = document.get("post_processor")
        begin, end = self._template(post_processor, specials)
        end = _named_end(post_processor, specials) if end is None else end
        end_id = self._end_of_text(specials, end, end_of_text)
        return Content(model, specials, pattern, end_id, begin, preparation, strips_blank)

    def _check_keys(self, part: Json, known: Set[str], where: str = "") -> None:
        """Refuse settings that may change ids in a way that `alm` does not know."""
        unknown = sorted(part.keys() - known)
        if unknown:
            raise self._fault(f"has `{where}{unknown[0][:60]}`, which `alm` does not know")

    def _check_whole(self, document: Json) -> None:
        """Refuse settings that would change ids after the model produces them."""
        plain = dict.fromkeys(("truncation", "padding")) | {"version": "1.0"}
        for key, value in plain.items():
            if document.get(key, value) != value:
                raise self._unsupported(key, document[key])

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

    def _normalizer(self, document: Json) -> Normalizer:
        """Return the normalizer, of which SentencePiece's may be written as a split."""
        found = _NORMALIZERS.get(json.dumps(_steps(document.get("normalizer"), "normalizers")))
        if found is None:
            raise self._unsupported(
                "normalizer", document["normalizer"], "; it follows NFC, and SentencePiece's blanks"
            )
        split = document.get("pre_tokenizer")
        if found.kind == "sentencepiece" and split is not None:
            raise self._unsupported("pre_tokenizer", split, " after SentencePiece's normalizer")
        if found.kind != "none" or not isinstance(split, dict) or split.get("type") != "Metaspace":
            return found
        scheme = split.get("prepend_scheme")
        if scheme not in ("first", "always", "never") or split != _METASPACE | {"prepend_scheme": scheme}:
            raise self._unsupported("pre_tokenizer", split, "; it follows a Metaspace whose `split` is false")
        return Normalizer("metaspace", scheme)

    def _split(self, document: Json, normalizer: Normalizer) -> tuple[Split, bool]:
        if normalizer.has_blanks:
            return "sentencepiece", False
        pre_tokenizer = document.get("pre_tokenizer")
        for form, pattern, byte_level in _forms():
            if _comparable(form) == _comparable(pre_tokenizer):
                return pattern, byte_level
        written = json.dumps(pre_tokenizer, sort_keys=True)[:60]
        raise self._fault(f"sets `pre_tokenizer` to {written}, which is none of these splits: {', '.join(PATTERNS)}")

    def _strips_blank(self, document: Json, byte_level: bool, normalizer: Normalizer) -> bool:
        """Return whether the decoder drops the first blank. Refuse a decoder that does not fit the rest."""
        decoder = document.get("decoder")
        steps = _steps(decoder, "decoders")
        if byte_level:
            fits = _is_byte_level(decoder)
        elif normalizer.has_blanks:
            fits = steps is not None and steps[:1] == [_TO_BLANKS] and steps[1:] in (_FALLBACK, [*_FALLBACK, _STRIP])
        else:
            fits = steps == _FALLBACK
        if not fits:
            raise self._unsupported("decoder", decoder)
        return steps is not None and steps[-1:] == [_STRIP]

    def _added(self, document: Json) -> tuple[AddedToken, ...]:
        """Return the added tokens. Of equal names, the last one counts."""
        found: dict[str, AddedToken] = {}
        listed = document.get("added_tokens") or []
        if not isinstance(listed, list):
            raise self._unsupported("added_tokens", listed)
        for number, token in enumerate(listed):
            if not isinstance(token, dict) or not {"content", "id"} <= token.keys():
                raise self._fault("has an added token without `content` or `id`")
            name = token["content"]
            if not isinstance(name, str) or not name:
                raise self._fault(f"has an added token whose `content` is not text: {json.dumps(name)}")
            self._check_keys(token, _ADDED_KEYS, f"added_tokens[{number}].")
            flags: dict[str, Any] = {flag: token.get(flag) for flag in _ADDED}  # Any: checked below
            odd = [flag for flag, value in flags.items() if not isinstance(value, bool)]
            if not odd and flags["single_word"] and not flags["special"]:
                odd = ["single_word"]
            if odd:
                value = json.dumps(flags[odd[0]])[:60]
                raise self._fault(f"sets `{odd[0]}` of `{name}` to {value}, which `alm` does not support")
            del flags["single_word"]
            found[name] = AddedToken(token["id"], name, **flags)
        return tuple(found.values())

    def _template(self, post_processor: object, specials: Mapping[str, int]) -> tuple[int | None, int | None]:
        """Return the ids that the file puts before and after a text for a model. Offsets, `alm` does not have."""
        steps = _steps(post_processor, "processors")
        templates = [step for step in steps or [] if not _is_byte_level(step)]
        if steps is None or len(templates) > 1:
            raise self._unsupported("post_processor", post_processor)
        if not templates:
            return None, None
        template = templates[0]
        names = _template_names(template, specials)
        ids = [None if name is None else specials.get(name) for name in names]
        if None in names and names.index(None) <= 1 and names[::-1].index(None) <= 1:
            at = names.index(None)
            if all((id_ is None) == (name is None) for name, id_ in zip(names, ids, strict=True)):
                return next(iter(ids[:at]), None), next(iter(ids[at + 1 :]), None)
        raise self._unsupported("post_processor", post_processor)

    def _end_of_text(self, specials: Mapping[str, int], of_template: int | None, given: int | None) -> int:
        """Return the id that ends a text: by a well-known name, by the file's template, or the `given` one."""
        by_name = [specials[name] for name in ENDS_OF_TEXT if name in specials]
        for id_ in (*by_name, of_template):
            if id_ is not None:
                return id_
        if given is None:
            names = ", ".join(f"`{name}`" for name in ENDS_OF_TEXT)
            error = self._fault(f"has none of {names} among its special tokens")
            raise NoEndOfTextError(error.message, hint=error.hint)
        if given not in specials.values():
            raise self._fault(f"has no special token with id {given}, which is said to end a text")
        return given

    def _unsupported(self, key: str, value: object, instead: str = "") -> InputError:
        return self._fault(f"sets `{key}` to {json.dumps(value)[:60]}, which `alm` does not support{instead}")

    def _fault(self, fault: str) -> InputError:
        return _refused(self._path, fault)


def with_end_of_text(data: bytes, id_: int) -> bytes:
    """Return the bytes of the same tokenizer with a template that names token `id_`, and does not put it anywhere.

    The library has no other place for the end of a text, and refuses unknown keys.
    """
    document: Json = files.parse_json(data, allow_surrogates=True)
    name = next((token["content"] for token in document["added_tokens"] if token["id"] == id_), None)
    steps = _steps(document.get("post_processor"), "processors") or []
    template = next((step for step in steps if step.get("type") == "TemplateProcessing"), None)
    if template is None:
        texts: list[Json] = [{"Sequence": {"id": part, "type_id": at}} for at, part in enumerate("AB")]
        template = {"type": "TemplateProcessing", "single": texts[:1], "pair": texts, "special_tokens": {}}
        steps = [*steps, template]
    if name is not None:
        template["special_tokens"][name] = {"id": name, "ids": [id_], "tokens": [name]}
    document["post_processor"] = steps[0] if len(steps) == 1 else {"type": "Sequence", "processors": steps}
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _named_end(post_processor: object, specials: Mapping[str, int]) -> int | None:
    """Return the id of the special token that a template names but does not use."""
    for step in _steps(post_processor, "processors") or []:
        used, listed = set(_template_names(step, specials)), step.get("special_tokens")
        if used and isinstance(listed, dict):
            return next((specials[name] for name in listed if name in specials and name not in used), None)
    return None


def _ids_of(token: object) -> object:
    return token.get("ids") if isinstance(token, dict) else None


def _template_names(template: Json, specials: Mapping[str, int]) -> list[str | None]:
    """Return the special tokens that a template puts around a text, and None for the text; [] if it does other things.

    The library takes the ids from the template, which must be those of the `specials` of these names.
    """
    single = template.get("single")
    if template.get("type") != "TemplateProcessing" or not isinstance(single, list):
        return []
    listed = template.get("special_tokens")
    names: list[str | None] = []
    for step in single:
        if not isinstance(step, dict):
            return []
        inner = step.get("SpecialToken")
        name = inner.get("id") if isinstance(inner, dict) else None
        if step == {"Sequence": {"id": "A", "type_id": 0}}:
            names.append(None)
        elif isinstance(name, str) and isinstance(listed, dict) and _ids_of(listed.get(name)) == [specials.get(name)]:
            names.append(name)
        else:
            return []
    return names if names.count(None) == 1 else []
