"""A tokenizer as GGUF has it, for llama.cpp to give the same ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alm.export.targets import _chat_template
from alm.tokenizers import alphabet
from alm.tokenizers.special import PADDING, TURN_END, TURN_START

if TYPE_CHECKING:
    import gguf

    from alm.tokenizers.file import Tokenizer

SPLITS = {"qwen2": "qwen2", "cl100k": "dbrx", "gpt2": "gpt-2"}
"""What llama.cpp calls our splits. `llama-bpe` splits as `dbrx`, but takes a word that is a token before any merge."""


def refusals(tokenizer: Tokenizer) -> list[str]:
    """Why llama.cpp would give other ids."""
    if tokenizer.kind != "bpe":
        return [
            f"the tokenizer is `{tokenizer.kind}`, and llama.cpp's has no bytes for what is in no token: it would lose "
            "characters"
        ]
    if not tokenizer.is_byte_level:
        return [
            "the tokenizer's words are made of characters, and llama.cpp would join them across words: only "
            "`byte_handling: bytes` comes out the same"
        ]
    if tokenizer.pattern not in SPLITS:
        return [f"llama.cpp does not split text as `{tokenizer.pattern}` does"]
    return []


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, *, vocab_size: int) -> None:
    """Tokens, merges and special ids. From the tokenizer's size up to `vocab_size` ids are padding of the model."""
    import gguf

    kinds = gguf.TokenType
    names, padding = token_names(tokenizer), range(tokenizer.vocab_size, vocab_size)
    controls = set(tokenizer.specials.values())
    types = [kinds.CONTROL if id_ in controls else kinds.NORMAL for id_ in range(tokenizer.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(SPLITS[tokenizer.pattern])
    # Two tokens of one name would stop llama.cpp: no token of bytes has a blank in its name.
    writer.add_token_list([*names, *(f"[unused {id_}]" for id_ in padding)])
    writer.add_token_types([*types, *(kinds.UNUSED for _ in padding)])
    writer.add_token_merges([f"{names[left]} {names[right]}" for left, right in tokenizer.merge_pairs])
    if padding:
        # As `alm sample`, llama.cpp then never says what has no text.
        writer.add_array("tokenizer.ggml.suppress_tokens", list(padding))
    _add_special_ids(writer, tokenizer)


def token_names(tokenizer: Tokenizer) -> list[str]:
    """The names of all tokens, by id: special ones as they are, bytes as characters that can be printed."""
    names = [alphabet.to_characters(tokenizer.token_bytes(id_)) for id_ in range(tokenizer.vocab_size)]
    for name, id_ in tokenizer.specials.items():
        names[id_] = name
    return names


def _add_special_ids(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    """A text begins with nothing, as in `alm sample`; a document ends with its token, and a turn with another."""
    end, specials = tokenizer.end_of_text_id, tokenizer.specials
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_eot_token_id(specials.get(TURN_END, end))
    writer.add_pad_token_id(specials.get(PADDING, end))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    if TURN_START in specials and TURN_END in specials:
        writer.add_chat_template(_chat_template.PLAIN)
