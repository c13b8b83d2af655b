"""Training a byte-level BPE: alm against the `tokenizers` library, on the same text in memory, to the same merges.

python benchmarks/bench_tokenizer_train.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import paired
import texts
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import count_words
from alm.tokenizers.special import SPECIALS

VOCAB_SIZE = 16_000
ROUNDS = 6
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def ours(documents: list[str]) -> Tokenizer:
    """By alm: words counted, then merged."""
    return Tokenizer.from_merges(bpe.train(count_words(documents, "qwen2"), vocab_size=VOCAB_SIZE))


def theirs(documents: list[str]) -> tokenizers.Tokenizer:
    """By the library, with the settings that our files describe."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        min_frequency=0,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def main() -> None:
    """Check that both learn the same, then measure."""
    what, documents = texts.read()
    same = "equal files" if _file(ours(documents)) == theirs(documents).to_str(pretty=True) else "OTHER RESULTS"
    print(f"train a tokenizer: {what}, {VOCAB_SIZE:,} tokens, {same}", flush=True)
    paired.compare(
        {"alm": _later(ours, documents), "tokenizers": _later(theirs, documents)},
        rounds=ROUNDS,
        work=sum(len(text.encode()) for text in documents) / 1e6,
        unit="MB",
    )


def _file(tokenizer: Tokenizer) -> str:
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.json")
        return (Path(folder) / "tokenizer.json").read_text("utf-8")


def _later(train: Callable[[list[str]], object], documents: list[str]) -> paired.Program:
    return lambda: lambda: train(documents)


if __name__ == "__main__":
    main()
