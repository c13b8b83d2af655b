"""The tokenizer in a GGUF file as the `tokenizer.json` that its family has on the hub.

alm then reads that text with the checks of every such file, so that a setting is followed or refused in one place.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from alm.errors import InputError
from alm.export.from_gguf_header import Header, damaged
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.pretokenize import PATTERNS, Pattern

Json = dict[str, Any]  # Any: JSON

_KEYS = "tokenizer.ggml."
OWN_NORMALIZER = "alm.tokenizer.normalizer"
"""The key with which alm's own files name the normalizer: llama.cpp has none for byte-level BPE."""

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_MOST_CHARACTERS = 1024  # of a token: merges are recovered from all of its parts
_SHOWN = 60


class _Split(NamedTuple):
    """A split of ours, and whether a word that is a token is taken without merging."""

    pattern: Pattern
    ignore_merges: bool = False


SPLITS: dict[str, _Split] = {
    "smollm": _Split("smollm"),
    "gpt-2": _Split("gpt2"),
    "qwen2": _Split("qwen2"),
    "deepseek-r1-qwen": _Split("qwen2"),
    "dbrx": _Split("cl100k"),
    "smaug-bpe": _Split("cl100k"),
    "llama-bpe": _Split("cl100k", ignore_merges=True),
    "llama3": _Split("cl100k", ignore_merges=True),
    "llama-v3": _Split("cl100k", ignore_merges=True),
}
"""Splits by llama.cpp's names. Of several that are the same, alm writes the first."""
_NORMALIZING = ("qwen2", "qwen3")  # families whose tokenizer.json composes characters
_BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_SPACE = "▁"


def read(header: Header) -> Tokenizer:
    """Return the tokenizer in a file; `InputError` if it is damaged, or alm does not follow it."""
    data = json.dumps(_Vocabulary(header).document(), ensure_ascii=False).encode("utf-8", "surrogatepass")
    end = header.settings.get(f"{_KEYS}eos_token_id")
    return Tokenizer.read(header.path, data, end_of_text=end if type(end) is int else None)


class _Vocabulary:
    """Tokens of a file with their types, without the unused ones at the end, which only pad the model's tables."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._tokens: list[str] = self._listed("tokens", str)
        types = self._setting("token_type") and self._listed("token_type", int)
        self._types: list[int] = types or [_NORMAL] * len(self._tokens)
        if not self._tokens or len(self._types) != len(self._tokens):
            raise self._fault(f"it has {len(self._tokens):,} tokens and {len(self._types):,} types of them")
        longest = max(self._tokens, key=len)
        if len(longest) > _MOST_CHARACTERS:
            raise self._fault(f"a token has {len(longest):,} characters, more than {_MOST_CHARACTERS:,}")
        while len(self._tokens) > 1 and self._types[-1] == _UNUSED:
            self._tokens.pop()
            self._types.pop()
        if len(set(self._tokens)) < len(self._tokens):
            raise self._fault("two of its tokens have the same name")

    def document(self) -> Json:
        """Build `tokenizer.json`."""
        kind = self._setting("model")
        if kind == "gpt2":
            return self._byte_level()
        if kind == "llama":
            return self._sentence_pieces()
        raise self._refused(f"its model is `{str(kind)[:_SHOWN]}`, and alm reads gpt2 (byte-level BPE) and llama")

    def _setting(self, name: str) -> Any:  # Any: as in Header
        return self._header.settings.get(_KEYS + name)

    def _listed(self, name: str, kind: type) -> list[Any]:  # Any: `kind`
        found = self._setting(name)
        if not isinstance(found, list) or not all(type(one) is kind for one in found):
            raise self._fault(f"it has no list `{_KEYS}{name}`")
        return found

    def _fault(self, reason: str) -> InputError:
        return damaged(self._header.path, reason)

    def _refused(self, reason: str) -> InputError:
        return InputError(
            f"`{self._header.path}` has a tokenizer that alm does not follow: {reason}",
            hint="import the model's Hugging Face folder: `alm import --help` says which tokenizers alm follows",
        )

    def _byte_level(self) -> Json:
        name = self._setting("pre")
        split = SPLITS.get(name) if isinstance(name, str) else None
        if split is None:
            raise self._refused(f"its split is `{str(name)[:_SHOWN]}`, and alm has {', '.join(SPLITS)}")
        merges = [merge.split(" ") for merge in self._listed("merges", str)]
        fragment = {"byte_fallback": False, "ignore_merges": split.ignore_merges, "fuse_unk": False, "unk_token": None}
        return {
            "normalizer": self._normalizer(),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _steps(split.pattern)},
            "post_processor": self._beginning(adds=split.ignore_merges),
            "decoder": _BYTES | {"add_prefix_space": True, "use_regex": True},
            **self._model(fragment, merges),
        }

    def _normalizer(self) -> Json | None:
        """Return the normalizer that alm wrote beside the tokens, or that of the family, which GGUF cannot hold."""
        settings = self._header.settings
        is_ours = "alm.tokenizer_sha256" in settings
        usual = "" if is_ours or settings.get("general.architecture") not in _NORMALIZING else "NFC"
        name = settings.get(OWN_NORMALIZER, usual)
        return {"type": name} if name else None

    def _sentence_pieces(self) -> Json:
        if self._setting("precompiled_charsmap"):
            raise self._refused("it replaces characters by a table, `precompiled_charsmap`")
        scores = self._listed("scores", float)
        if len(scores) < len(self._tokens):
            raise self._fault(f"it has {len(self._tokens):,} tokens and {len(scores):,} scores of them")
        is_prefixed = self._setting("add_space_prefix") is not False
        replaced: Json = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        back: Json = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
        stripped: list[Json] = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if is_prefixed else []
        prepended: Json = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replaced]}
        unknown = next((self._tokens[id_] for id_, kind in enumerate(self._types) if kind == _UNKNOWN), None)
        fragment = {"byte_fallback": True, "ignore_merges": False, "fuse_unk": True, "unk_token": unknown}
        return {
            "normalizer": prepended if is_prefixed else replaced,
            "pre_tokenizer": None,
            "post_processor": self._beginning(adds=True),
            "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *stripped]},
            **self._model(fragment, list(self._merges(scores))),
        }

    def _merges(self, scores: Sequence[float]) -> Iterator[list[str]]:
        """Recover the merges, best first: every pair of tokens that makes a token, by its score, as `transformers`."""
        ids = {token: id_ for id_, token in enumerate(self._tokens) if self._types[id_] in (_NORMAL, _USER_DEFINED)}
        found = []
        for token, id_ in ids.items():
            pairs = sorted(parts_of(token, ids), key=lambda pair: (ids[pair[0]], ids[pair[1]]))
            found += [(scores[id_], len(left), len(right), left, right) for left, right in pairs]
        found.sort(key=lambda merge: merge[:3], reverse=True)
        return ([left, right] for *_, left, right in found)

    def _model(self, fragment: Json, merges: list[list[str]]) -> Json:
        plain = {"dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
        vocab = {token: id_ for id_, token in enumerate(self._tokens)}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [self._added(id_) for id_ in self._added_ids()],
            "model": {"type": "BPE", **plain, **fragment, "vocab": vocab, "merges": merges},
        }

    def _added_ids(self) -> list[int]:
        """List the ids of tokens that no merge makes. Old files mark some of those only by their use."""
        given = (self._setting(f"{name}_token_id") for name in ("bos", "eos", "eot", "padding"))
        named = {id_ for id_ in given if isinstance(id_, int)}
        kinds = (_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED)
        return [id_ for id_, kind in enumerate(self._types) if kind in kinds or id_ in named]

    def _added(self, id_: int) -> Json:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return {"id": id_, "content": self._tokens[id_], **flags, "special": self._types[id_] != _USER_DEFINED}

    def _beginning(self, *, adds: bool) -> Json | None:
        """Return the step that puts the beginning of a text before it; `adds` if the file does not say whether."""
        is_added, id_ = self._setting("add_bos_token"), self._setting("bos_token_id")
        if not (adds if is_added is None else is_added) or type(id_) is not int or id_ >= len(self._tokens):
            return None
        name, text = self._tokens[id_], {"Sequence": {"id": "A", "type_id": 0}}
        single: list[Json] = [{"SpecialToken": {"id": name, "type_id": 0}}, text]
        second: list[Json] = [{"SpecialToken": {"id": name, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
        tokens = {name: {"id": name, "ids": [id_], "tokens": [name]}}
        return {"type": "TemplateProcessing", "single": single, "pair": single + second, "special_tokens": tokens}


def parts_of(token: str, known: Collection[str]) -> list[tuple[str, str]]:
    """Return the pairs of `known` tokens that make `token`, the shortest first part first."""
    cuts = ((token[:at], token[at:]) for at in range(1, len(token)))
    return [(left, right) for left, right in cuts if left in known and right in known]


def _steps(pattern: Pattern) -> list[Json]:
    """Return the steps of a split before and at the conversion to bytes."""
    if pattern == "smollm":
        return [{"type": "Digits", "individual_digits": True}, _BYTES | {"use_regex": True}]
    regex: Json = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return [regex, _BYTES]
