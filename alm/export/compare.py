"""Comparisons of this alm with another tool on the same model, and the differences they allow.

The other tool answers first, and a `Check` compares its answers with our network later: only one model is in memory
at a time. T tokens, S tokens of them that are scored, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alm.artifacts import Comparison
from alm.export.held_out import HeldOut, TokenLosses
from alm.export.source import Source
from alm.model.transformer import Transformer
from alm.version import __version__

# Allowed between two fp32 implementations that sum in different orders: as a share of the largest logit, and in bits
# per byte.
LOGITS_BAR = 1e-5
BITS_PER_BYTE_BAR = 1e-5

# Stands for a difference that is not finite: JSON has no infinity.
UNLIKE = 1e30

GREEDY_TOKENS = 48
LONG_PROMPT_TOKENS = 512
SCORED_TOKENS = 16
"""The scores of this many tokens at the end of a prompt are compared: those of 512 can take 300 MB."""

Check = Callable[[Transformer], Comparison]
"""Function that compares the answers of another tool, which it holds, with our network."""

PROMPTS = (
    "",
    "Once upon a time",
    'The old fox looked at the river and said: "',
    "def add(a, b):\n    return",
    "1 + 2 = ",
    "Größe 日本語 🚀",
)
"""Prompts to continue. An empty one begins a document."""

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
"""Texts on which tokenizers tend to differ."""


def prompts(source: Source) -> list[list[int]]:
    """Return the ids of the fixed prompts, none empty, and of a long random prompt; all leave room for an answer."""
    context = source.model.max_position_embeddings
    longest = max(context - GREEDY_TOKENS, 1)
    texts = [source.tokenizer.encode(text) or [source.tokenizer.end_of_text_id] for text in PROMPTS]
    generator = torch.Generator().manual_seed(0)
    size = (min(longest, LONG_PROMPT_TOKENS),)
    drawn: list[int] = torch.randint(source.tokenizer.vocab_size, size, generator=generator).tolist()
    return [ids[:longest] for ids in [*texts, drawn]]


def answer_tokens(source: Source, prompt: Sequence[int]) -> int:
    """Return the number of tokens to generate: they must fit after the prompt."""
    return min(GREEDY_TOKENS, source.model.max_position_embeddings - len(prompt))


@torch.inference_mode()
def logits_of(network: Transformer, ids: Sequence[int], *, last: int) -> Tensor:
    """Compute the scores (S, V) of the token after each of the `last` of `ids`, fp32."""
    return network.logits(network(torch.tensor([list(ids)]))[0, -last:]).float()


def worst_logit(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference of two (S, V) as a share of the largest of `ours`; `UNLIKE` if not finite."""
    worst = ((ours - theirs).abs().max() / ours.abs().max().clamp_min(1e-30)).item()
    return worst if math.isfinite(worst) else UNLIKE


def ids(source: Source, tool: str, encode: Callable[[str], list[int]]) -> Comparison:
    """Encode the hard texts, and texts with the tokenizer's own special tokens, with our tokenizer and theirs."""
    texts = [*HARD_TEXTS, *_with_specials(source)]
    different = [text for text in texts if encode(text) != source.tokenizer.encode(text)]
    detail = f"first: {different[0]!r}" if different else f"{len(texts)} hard texts"
    return Comparison(what="texts with other ids", tool=tool, difference=len(different), bar=0, detail=detail)


def _with_specials(source: Source) -> list[str]:
    """Put each special token amid text, where it is plain text; some tools would also strip the blanks beside it."""
    return [f"a {name} b{name}c" for name in source.tokenizer.specials]


def logits(source: Source, tool: str, theirs: Callable[[list[int], int], Tensor], *, bar: float = LOGITS_BAR) -> Check:
    """Compare the scores at the end of every prompt; `theirs` returns those (S, V) after the last S of some ids."""
    asked = [(prompt, theirs(prompt, SCORED_TOKENS)) for prompt in prompts(source)]

    def check(network: Transformer) -> Comparison:
        worst = max(worst_logit(logits_of(network, prompt, last=SCORED_TOKENS), found) for prompt, found in asked)
        tokens = sum(len(found) for _, found in asked)
        detail = f"largest difference as a share of the largest logit, {len(asked)} prompts, {tokens:,} tokens"
        return Comparison(what="logits", tool=tool, difference=worst, bar=bar, detail=detail)

    return check


def greedy(
    source: Source, tool: str, answer: Callable[[list[int], int], list[int]], *, bar: float = LOGITS_BAR
) -> Check:
    """Compare the greedy continuation of every prompt, token by token: each of theirs must be the best of ours.

    If two tokens are equally likely to us, as far as `bar` lets scores differ, either one is accepted, and the tokens
    after it are not compared.
    """
    asked = [(prompt, answer(prompt, answer_tokens(source, prompt))) for prompt in prompts(source)]

    def check(network: Transformer) -> Comparison:
        total = different = ties = 0
        for prompt, found in asked:
            expected = _expected(source, found, answer_tokens(source, prompt))
            at, is_tie = _first_difference(source, network, prompt, found[:expected], bar)
            total += len(found)
            ties += is_tie
            different += 0 if is_tie else expected - at
        parted = f", {ties} answers go apart where two tokens are as likely" if ties else ""
        what, detail = "tokens of greedy text that differ", f"{total:,} tokens{parted}"
        return Comparison(what=what, tool=tool, difference=different, bar=0, detail=detail)

    return check


def _expected(source: Source, found: Sequence[int], tokens: int) -> int:
    """Return how many ids an answer has that begins like `found`: `tokens`, or up to the end of the text."""
    end = source.tokenizer.end_of_text_id
    return found.index(end) + 1 if end in found else tokens


def _first_difference(
    source: Source, network: Transformer, prompt: list[int], found: list[int], bar: float
) -> tuple[int, bool]:
    """Return where our greedy text leaves `found`, perhaps at its end, and whether two tokens are as likely there."""
    scores = logits_of(network, [*prompt, *found], last=len(found) + 1)
    best = scores[:, : source.tokenizer.vocab_size].argmax(-1).tolist()
    for at, (ours, theirs) in enumerate(zip(best, found, strict=False)):
        if ours != theirs:
            gap = abs(scores[at, ours] - scores[at, theirs]).item()
            return at, gap <= 2 * bar * scores[at].abs().max().item()
    return len(found), False


def bits_per_byte(text: HeldOut, tool: str, theirs: TokenLosses, *, bar: float = BITS_PER_BYTE_BAR) -> Check:
    """Compare the score of held-out text."""
    found = text.bits_per_byte(theirs)

    def check(network: Transformer) -> Comparison:
        ours = text.bits_per_byte(scored_by(network))
        difference = abs(found - ours) if math.isfinite(found) else UNLIKE
        detail = f"{ours:.6f} here, {found:.6f} there"
        what = "bits per byte of held-out text"
        return Comparison(what=what, tool=tool, difference=difference, bar=bar, detail=detail)

    return check


def rounding(text: HeldOut, exact: Transformer, dtype: str) -> Check:
    """Measure the cost of writing numbers as `dtype`, in bits per byte: reported, never an error."""
    before = text.bits_per_byte(scored_by(exact))

    def check(rounded: Transformer) -> Comparison:
        after = text.bits_per_byte(scored_by(rounded))
        detail = f"{before:.6f} in fp32, {after:.6f} so"
        what = f"bits per byte that {dtype} costs"
        return Comparison(what=what, tool=f"alm {__version__}", difference=after - before, detail=detail)

    return check


def scored_by(network: Transformer) -> TokenLosses:
    """Return the function that computes losses with `network`."""
    return lambda inputs, targets: network.token_losses(network(inputs), targets)
