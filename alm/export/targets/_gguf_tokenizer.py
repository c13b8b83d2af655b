"""Our tokenizer in GGUF, so that llama.cpp gives the same ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alm.export.targets import _chat_template
from alm.tokenizers import alphabet
from alm.tokenizers.special import PADDING, TURN_END, TURN_START

if TYPE_CHECKING:
    import gguf

    from alm.tokenizers.file import Tokenizer

SPLITS = {"qwen2": "qwen2", "cl100k": "dbrx", "gpt2": "gpt-2"}
"""llama.cpp's names of our split patterns.

Not `llama-bpe` for cl100k: it splits as `dbrx` does, but takes a word that is a token without merging.
"""


def refusals(tokenizer: Tokenizer) -> list[str]:
    """List why llama.cpp would give other ids."""
    if tokenizer.kind != "bpe":
        return [
            f"the tokenizer is `{tokenizer.kind}`, and llama.cpp's has no byte fallback: it would lose characters that "
            "are in no token"
        ]
    if not tokenizer.is_byte_level:
        return [
            "the tokenizer's words are made of characters, and llama.cpp would merge them across words: only "
            "`byte_handling: bytes` gives the same ids"
        ]
    if tokenizer.pattern not in SPLITS:
        return [f"llama.cpp does not split text as `{tokenizer.pattern}` does"]
    return []


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, *, vocab_size: int) -> None:
    """Write tokens, merges and special ids. Ids from the tokenizer's size to `vocab_size` are the model's padding."""
    import gguf

    kinds = gguf.TokenType
    names, padding = token_names(tokenizer), range(tokenizer.vocab_size, vocab_size)
    controls = set(tokenizer.specials.values())
    types = [kinds.CONTROL if id_ in controls else kinds.NORMAL for id_ in range(tokenizer.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITS[tokenizer.pattern])
    # llama.cpp refuses two tokens with one name. Names of byte tokens have no blanks, so these are unique.
    writer.add_token_list([*names, *(f"[unused {id_}]" for id_ in padding)])
    writer.add_token_types([*types, *(kinds.UNUSED for _ in padding)])
    writer.add_token_merges([f"{names[left]} {names[right]}" for left, right in tokenizer.merge_pairs])
    if padding:
        # As in `alm sample`, llama.cpp then never chooses an id without text.
        writer.add_array("tokenizer.ggml.suppress_tokens", list(padding))
    _add_special_ids(writer, tokenizer)


def token_names(tokenizer: Tokenizer) -> list[str]:
    """Return the names of all tokens, by id: special ones unchanged, bytes as printable characters."""
    names = [alphabet.to_characters(tokenizer.token_bytes(id_)) for id_ in range(tokenizer.vocab_size)]
    for name, id_ in tokenizer.specials.items():
        names[id_] = name
    return names


def _add_special_ids(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """Write the special ids. As in `alm sample`, no token is put before a prompt."""
    end, specials = tokenizer.end_of_text_id, tokenizer.specials
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(specials.get(TURN_END, end))
    writer.add_pad_token_id(specials.get(PADDING, end))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if TURN_START in specials and TURN_END in specials:
        writer.add_chat_template(_chat_template.TEXT)
