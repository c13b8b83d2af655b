"""Checks that text survives a round trip through ids, and that compiled code gives the ids of plain Python."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from alm.doctor.check import REPORT, Check, crashed, judged, skipped
from alm.events import Listener, ignore
from alm.tokenizers import compiled
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe, unigram
from alm.tokenizers.pretokenize import split_chunks
from alm.tokenizers.probes import PROBES
from alm.tokenizers.words import Words

ROUND_TRIP, KERNELS = "text round trip", "compiled tokenizer"
HARD = (
    "Café, Cafe\u0301, naïve, ÅÅ\u212b",
    "",
    " ",
    "\r\n\t \n\n  indented\n",
    "\x00\x01\x7f\ufeff\u200b\u2028\ufffd",
    "<|endoftext|> and <0x0A> and \\<|im_end|>",
    "👩\u200d👩\u200d👧\u200d👦🏽🇧🇷",
    "नमस्ते กำ 한국어 مرحبا 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "a" * 300 + "1234567890" * 30,
    "\ud800 lone \udfff",
    *PROBES.values(),
)
"""Texts that often break tokenizers, and some text in each language."""
_VOCAB_SIZE = 700

Encode = Callable[[Sequence[str]], list[list[int]]]


def tokenizers() -> dict[str, Tokenizer]:
    """Train a small tokenizer of each kind, by name."""
    words = Words.of(
        Counter(word for text in PROBES.values() for piece in split_chunks(text, "qwen2") for word in piece)
    )
    few = Words.of(Counter(word for piece in split_chunks(PROBES["English"], "qwen2") for word in piece))
    fallback = bpe.Config(byte_handling="fallback")
    return {
        "bytes": Tokenizer.of(bpe.train(words, config=bpe.Config(), vocab_size=_VOCAB_SIZE)),
        "fallback": Tokenizer.of(bpe.train(few, config=fallback, vocab_size=_VOCAB_SIZE)),
        "unigram": Tokenizer.of(unigram.train(few, config=unigram.Config(), vocab_size=_VOCAB_SIZE)),
    }


def round_trip(tokenizers: dict[str, Tokenizer], texts: Sequence[str] = HARD) -> Check:
    """Whether each tokenizer decodes each text to itself."""
    with compiled.decided(use_kernels=False):
        broken = [
            (name, text)
            for name, tokenizer in tokenizers.items()
            for text in texts
            if tokenizer.decode(tokenizer.encode(text)) != text
        ]
    name, text = broken[0] if broken else ("", "")
    return judged(
        ROUND_TRIP,
        holds=not broken,
        measured=f"{len(texts) * len(tokenizers) - len(broken)} of {len(texts) * len(tokenizers)} do",
        wanted="every text, character for character",
        cause=f"the tokenizer `{name}` decodes {text[:20]!a} to another text",
        cure=f"do not pack text with it; {REPORT}",
    )


def same_ids(native: Encode, plain: Encode, texts: Sequence[str] = HARD) -> Check:
    """Whether both functions encode `texts` to the same ids."""
    pairs = zip(texts, native(texts), plain(texts), strict=True)
    different = [text for text, one, other in pairs if one != other]
    return judged(
        KERNELS,
        holds=not different,
        measured=f"{len(texts) - len(different)} of {len(texts)} texts have the ids of plain Python",
        wanted="all of them",
        cause=f"compiled code splits {different[0][:20] if different else ''!a} differently: a model would be trained "
        "on other ids than it is used with",
        cure=f"run `export ALM_KERNELS=never` to turn off the compiled code in {compiled.folder()}; {REPORT}",
    )


def kernels(tokenizers: Sequence[Tokenizer], *, on_event: Listener = ignore) -> Check:
    """Check `same_ids` of these tokenizers; their kernels are compiled now if needed."""
    if importlib.util.find_spec("numba") is None:
        return skipped(KERNELS, "Numba is not installed: the tokenizer runs in plain Python")
    from numba.core.errors import NumbaError

    native, plain = (
        partial(encoded, tokenizers, use_kernels=is_native, on_event=on_event) for is_native in (True, False)
    )
    try:
        return same_ids(native, plain)
    except NumbaError as error:  # derived from Exception, so that no caller would catch it
        return replace(
            crashed(KERNELS, error, torch.device("cpu")), cure="run `export ALM_KERNELS=never`, which is slower"
        )


def encoded(
    tokenizers: Sequence[Tokenizer], texts: Sequence[str], *, use_kernels: bool, on_event: Listener = ignore
) -> list[list[int]]:
    """Return, for each text, the ids of all `tokenizers`, one after the other."""
    with compiled.decided(use_kernels=use_kernels):
        found = [tokenizer.encode_batch(list(texts), on_event=on_event) for tokenizer in tokenizers]
    places = range(len(texts))
    return [[id_ for one in found for id_ in one.ids[one.offsets[at] : one.offsets[at + 1]].tolist()] for at in places]
