"""A chat template in `transformers` finds the special tokens of our file as single ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe, unigram
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.words import Words

transformers = pytest.importorskip("transformers")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [{"role": "user", "content": "Hi, it's me."}, {"role": "assistant", "content": "Hello!"}]


@pytest.mark.parametrize("kind", ["bytes", "fallback", "unigram"])
def test_roles_and_turns(kind: str, prose: list[str], tmp_path: Path) -> None:
    words = Words.of(count_words(prose, "qwen2"))
    if kind == "unigram":
        tokenizer = Tokenizer.of(unigram.train(words, config=unigram.Config(), vocab_size=600))
    else:
        config = bpe.Config.model_validate({"byte_handling": kind})
        tokenizer = Tokenizer.of(bpe.train(words, config=config, vocab_size=600))
    tokenizer.save(tmp_path / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    fast.chat_template = CHATML
    expected = [
        *(1, *tokenizer.encode("user\nHi, it's me."), 2, *tokenizer.encode("\n")),
        *(1, *tokenizer.encode("assistant\nHello!"), 2, *tokenizer.encode("\n")),
        *(1, *tokenizer.encode("assistant\n")),
    ]
    for one in (fast, _saved_and_loaded(fast, tmp_path / "saved")):
        found = one.apply_chat_template(TALK, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert found == expected
        assert one.eos_token_id == 0
        assert one.decode(expected) == one.apply_chat_template(TALK, add_generation_prompt=True, tokenize=False)


def _saved_and_loaded(fast: object, folder: Path) -> object:
    fast.save_pretrained(folder)  # type: ignore[attr-defined] # of a library without types
    return transformers.AutoTokenizer.from_pretrained(folder)
