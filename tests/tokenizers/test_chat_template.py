"""A chat template in `transformers` finds the special tokens of our file as single ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alm.export.targets import _chat_template
from alm.tokenizers.chat_format import CHATML as CHATML_OF_OURS
from alm.tokenizers.chat_format import ConversationEncoder, recognised
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


STRANGE: list[list[dict[str, Any]]] = [
    [{"role": "system", "content": "Be kind."}, *TALK, {"role": "user", "content": "Bye"}],
    [{"role": "assistant", "content": "\n\n\nI begin\n\n"}, {"role": "user", "content": "\n"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": ""}, {"role": "assistant", "content": " b "}],
    [{"role": "user", "content": "a"}, {"role": "tool", "content": "42"}, {"role": "assistant", "content": "So é."}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}, *TALK],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "no", "weight": 0}, *TALK],
    [*TALK, {"role": "system", "content": "Now be brief."}, *TALK],
]


def test_the_exported_template_writes_the_ids_and_marks_what_is_learned(prose: list[str], tmp_path: Path) -> None:
    """As TRL asks for them: `return_assistant_tokens_mask` of the template for training."""
    words = Words.of(count_words(prose, "qwen2"))
    tokenizer = Tokenizer.of(bpe.train(words, config=bpe.Config(), vocab_size=600))
    tokenizer.save(tmp_path / "tokenizer.json")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )
    encoder = ConversationEncoder(CHATML_OF_OURS, tokenizer)
    for messages, found in zip(STRANGE, encoder.encode(STRANGE), strict=True):
        theirs = fast.apply_chat_template(
            messages,
            chat_template=_chat_template.TRAINING,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert found.ids.tolist() == theirs["input_ids"]
        assert found.is_trained.tolist() == [bool(mark) for mark in theirs["assistant_masks"]]
        plain = fast.apply_chat_template(messages, chat_template=_chat_template.TEXT, tokenize=True, return_dict=False)
        assert plain == theirs["input_ids"]


def test_our_template_is_recognised_as_our_format() -> None:
    for template in (_chat_template.TEXT, _chat_template.TRAINING):
        assert recognised(template, end_of_text="<|endoftext|>") == CHATML_OF_OURS
