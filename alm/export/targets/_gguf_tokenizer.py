"""Our tokenizer in GGUF, so that llama.cpp gives the same ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from alm.export.from_gguf_tokenizer import OWN_NORMALIZER, SPLITS, parts_of
from alm.export.targets import _chat_template
from alm.tokenizers.special import PADDING, UNKNOWN

if TYPE_CHECKING:
    import gguf

    from alm.tokenizers.file import Tokenizer


def refusals(tokenizer: Tokenizer) -> list[str]:
    """List why llama.cpp would give other ids."""
    if tokenizer.kind != "bpe":
        return [
            f"the tokenizer is `{tokenizer.kind}`, and llama.cpp's has no byte fallback: it would lose characters that "
            "are in no token"
        ]
    if tokenizer.normalizer.has_blanks:
        return _sentence_piece_refusals(tokenizer)
    if not tokenizer.is_byte_level:
        return [
            "the tokenizer's words are made of characters, and llama.cpp would merge them across words: only "
            "`byte_handling: bytes` gives the same ids"
        ]
    if _split_name(tokenizer) is None:
        merging = " and takes words that are tokens without merging" if tokenizer.ignores_merges else ""
        return [f"llama.cpp does not split text as `{tokenizer.pattern}` does{merging}"]
    return []


def _split_name(tokenizer: Tokenizer) -> str | None:
    """Return llama.cpp's name of the split; None if it has none."""
    wanted = (tokenizer.pattern, tokenizer.ignores_merges)
    return next((name for name, split in SPLITS.items() if split == wanted), None)


def _sentence_piece_refusals(tokenizer: Tokenizer) -> list[str]:
    found = []
    if tokenizer.normalizer.kind == "metaspace" and tokenizer.normalizer.prefix != "never":
        found.append("the tokenizer puts no blank before a text that begins with one, and llama.cpp would")
    if tokenizer.ignores_merges:
        found.append("the tokenizer takes words that are tokens without merging, and llama.cpp would merge them")
    if not found and not _follows_scores(tokenizer):
        found.append("llama.cpp merges any two tokens that make a token, the best token first; the tokenizer does not")
    return found


def _follows_scores(tokenizer: Tokenizer) -> bool:
    """Whether the merges are all pairs that make a token, and those of each token follow each other."""
    names = tokenizer.token_names
    made = [(names[left] + names[right], left) for left, right in tokenizer.merge_pairs]
    groups = [(token, sorted(len(names[left]) for _, left in group)) for token, group in groupby(made, lambda m: m[0])]
    ids = {name: id_ for id_, name in enumerate(names) if id_ in _ordinary(tokenizer)}
    every = {token: parts for token in ids if (parts := [len(left) for left, _ in parts_of(token, ids)])}
    return len(groups) == len(every) and all(every.get(token) == parts for token, parts in groups)


def _ordinary(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids of tokens that text is merged to: no special one, and no byte of a character without a token."""
    bytes_ = {id_ for id_, name in enumerate(tokenizer.token_names) if _is_byte(tokenizer, name)}
    return frozenset(range(tokenizer.vocab_size)) - bytes_ - set(tokenizer.specials.values())


def _is_byte(tokenizer: Tokenizer, name: str) -> bool:
    return tokenizer.normalizer.has_blanks and len(name) == 6 and name.startswith("<0x") and name.endswith(">")


def add_tokenizer(
    writer: gguf.GGUFWriter,
    tokenizer: Tokenizer,
    *,
    ends: Sequence[int],
    vocab_size: int,
    chat_template: str | None = None,
) -> None:
    """Write tokens, merges and special ids; `ends` end a text or an answer.

    Ids from the tokenizer's size to `vocab_size` are the model's padding.
    """
    import gguf

    padding = range(tokenizer.vocab_size, vocab_size)
    names = [*tokenizer.token_names, *(f"[unused {id_}]" for id_ in padding)]
    # llama.cpp refuses two tokens with one name. Names of byte tokens have no blanks, so these are unique.
    types = [*_types(tokenizer), *(gguf.TokenType.UNUSED for _ in padding)]
    split = _split_name(tokenizer)
    writer.add_tokenizer_model("gpt2" if split else "llama")
    writer.add_tokenizer_pre(split or "default")
    writer.add_token_list(names)
    if split:
        writer.add_token_types(types)
        writer.add_token_merges([f"{names[left]} {names[right]}" for left, right in tokenizer.merge_pairs])
    else:
        writer.add_token_scores(_scores(tokenizer, len(names)))
        writer.add_token_types(types)
        writer.add_add_space_prefix(tokenizer.normalizer.prefix != "never")
    if tokenizer.normalizer.kind == "nfc":
        writer.add_string(OWN_NORMALIZER, "NFC")
    if padding:
        # As in `alm sample`, llama.cpp then never chooses an id without text.
        writer.add_array("tokenizer.ggml.suppress_tokens", list(padding))
    _add_special_ids(writer, tokenizer, ends)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    elif _chat_template.has_turns(tokenizer):
        writer.add_chat_template(_chat_template.TEXT)


def _types(tokenizer: Tokenizer) -> Iterator[gguf.TokenType]:
    """Yield the type of each token by id."""
    import gguf

    kinds, controls, found = gguf.TokenType, set(tokenizer.specials.values()), set(tokenizer.found_in_text.values())
    for id_, name in enumerate(tokenizer.token_names):
        if id_ in controls:
            is_unknown = tokenizer.normalizer.has_blanks and name == UNKNOWN
            yield kinds.UNKNOWN if is_unknown else kinds.CONTROL
        elif id_ in found:
            yield kinds.USER_DEFINED
        else:
            yield kinds.BYTE if _is_byte(tokenizer, name) else kinds.NORMAL


def _scores(tokenizer: Tokenizer, count: int) -> list[float]:
    """Return a score for each of `count` tokens, higher for one that is merged earlier."""
    names = tokenizer.token_names
    ids = {name: id_ for id_, name in enumerate(names)}
    made = dict.fromkeys(ids[names[left] + names[right]] for left, right in tokenizer.merge_pairs)
    ranks = {id_: rank for rank, id_ in enumerate(made)}
    return [-float(ranks.get(id_, len(ranks))) for id_ in range(count)]


def _add_special_ids(writer: gguf.GGUFWriter, tokenizer: Tokenizer, ends: Sequence[int]) -> None:
    """Write the special ids. As in `alm sample`, no token is put before a prompt, unless the tokenizer's file does.

    The format has three keys for ids that end a text.
    """
    end, begin, specials = tokenizer.end_of_text_id, tokenizer.begin_of_text_id, tokenizer.specials
    others = [id_ for id_ in ends if id_ != end]
    writer.add_bos_token_id(end if begin is None else begin)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(others[0] if others else end)
    if len(others) > 1:
        writer.add_eom_token_id(others[1])
    writer.add_pad_token_id(specials.get(PADDING, end))
    writer.add_add_bos_token(begin is not None)
    writer.add_add_eos_token(False)
