"""The questions that this alm and another tool are asked, and what may differ in their answers.

T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from alm.export.source import Source
from alm.model.transformer import Transformer

# fp32 on both sides, with sums in another order: as a share of the largest logit. The same in bits per byte.
LOGITS_BAR = 1e-5
BITS_PER_BYTE_BAR = 1e-5

GREEDY_TOKENS = 48
LONG_PROMPT_TOKENS = 512

PROMPTS = (
    "",
    "Once upon a time",
    'The old fox looked at the river and said: "',
    "def add(a, b):\n    return",
    "1 + 2 = ",
    "Größe 日本語 🚀",
)
"""What is continued. An empty one begins a document."""

HARD_TEXTS = (
    "",
    " ",
    "   three spaces before, three after   ",
    "tabs\tand\nnewlines\r\n\r\nand\n\n\nmore\n",
    "We've don't I'LL they'RE 'tis rock 'n' roll",
    "3.14 1,000,000 0x1F 2026-11-26 ½ ² ٣ 四",
    "Größe naïve café e\u0301 \ufb01 ﬀ ẞ İı",
    "日本語のテキスト 한국어 العربية עברית ไทย हिन्दी",
    "🚀 👨‍👩‍👧 🏳️‍🌈 e̸̢̛ z\u200dw\u200bn",
    "\u00a0nbsp \u2003em \u3000ideographic \u0085 \u2028",
    "def f(x):\n    if x > 0:\n\t\treturn {'a': [1, 2]}  # ok\n",
    "<|endoftext|> <|im_start|>user\n<|im_end|> <unk> <s> </s> <0x41> [PAD]",
    "http://example.com/a?b=c&d=%20 me@example.org #tag @name $1.00 50%",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "\x00\x01\x7f control, \u202eright to left\u202c",
)
"""Texts on which tokenizers come apart."""


def prompts(source: Source) -> list[list[int]]:
    """Ids of the fixed prompts, none empty, and of a long one of any ids; all leave room for an answer."""
    context = source.model.max_position_embeddings
    longest = max(context - GREEDY_TOKENS, 1)
    texts = [source.tokenizer.encode(text) or [source.tokenizer.end_of_text_id] for text in PROMPTS]
    generator = torch.Generator().manual_seed(0)
    size = (min(longest, LONG_PROMPT_TOKENS),)
    drawn: list[int] = torch.randint(source.tokenizer.vocab_size, size, generator=generator).tolist()
    return [ids[:longest] for ids in [*texts, drawn]]


def answer_tokens(source: Source, prompt: Sequence[int]) -> int:
    """How many tokens fit behind the prompt, and are asked for."""
    return min(GREEDY_TOKENS, source.model.max_position_embeddings - len(prompt))


@torch.inference_mode()
def logits_of(network: Transformer, ids: Sequence[int]) -> Tensor:
    """Scores (T, V) of what follows each of `ids`, fp32."""
    return network.logits(network(torch.tensor([list(ids)]))[0]).float()


@torch.inference_mode()
def greedy_ids(source: Source, network: Transformer, prompt: Sequence[int], tokens: int) -> list[int]:
    """The likeliest id after the prompt, and so on: `tokens` of them, or up to and with the end of the text."""
    cache = network.new_cache(max_tokens=len(prompt) + tokens)
    ids, found = torch.tensor([list(prompt)]), []
    for _ in range(tokens):
        best = int(network.logits(network(ids, cache)[0, -1])[: source.tokenizer.vocab_size].argmax())
        found.append(best)
        if best == source.tokenizer.end_of_text_id:
            break
        ids = torch.tensor([[best]])
    return found


def worst_logit(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two (T, V) as a share of the largest of `ours`; infinite where one is not finite."""
    worst = ((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-30)).item()
    return worst if math.isfinite(worst) else math.inf
