"""Encoding: alm against the `tokenizers` library, and tiktoken where it is installed, with one tokenizer.json.

Each call starts with empty caches and ends with plain ids in memory. The peers may use every core.

    python benchmarks/bench_tokenizer_encode.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import bench_tokenizer_train
import paired
import texts
import tokenizers

from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import SPECIALS

ROUNDS = 9
Encode = Callable[[list[str]], list[list[int]]]


def ours(path: Path) -> Encode:
    """By alm, one document after the other."""
    tokenizer = Tokenizer.load(path)

    def encode(documents: list[str]) -> list[list[int]]:
        return [tokenizer.encode(text) for text in documents]

    return encode


def by_tokenizers(path: Path) -> Encode:
    """By the library, without the offsets that only it can give."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True

    def encode(documents: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(documents)]

    return encode


def by_tiktoken(path: Path) -> Encode:
    """By tiktoken: the ranks of its merges are our ids."""
    import tiktoken

    tokenizer = Tokenizer.load(path)
    ranks = {tokenizer.token_bytes(id_): id_ for id_ in range(len(SPECIALS), tokenizer.vocab_size)}
    specials = {name: id_ for id_, name in enumerate(SPECIALS)}
    encoding = tiktoken.Encoding(
        "alm", pat_str=bench_tokenizer_train.QWEN2, mergeable_ranks=ranks, special_tokens=specials
    )

    def encode(documents: list[str]) -> list[list[int]]:
        return encoding.encode_ordinary_batch(documents, num_threads=os.cpu_count() or 1)

    return encode


def main() -> None:
    """Check that all give the same ids, then measure."""
    what, documents = texts.read()
    makers: dict[str, Callable[[Path], Encode]] = {"alm": ours, "tokenizers": by_tokenizers}
    try:
        import tiktoken  # noqa: F401

        makers["tiktoken"] = by_tiktoken
    except ImportError:
        print("tiktoken is not installed: left out")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        bench_tokenizer_train.ours(documents).save(path)
        expected = ours(path)(documents)
        other = [name for name, make in makers.items() if make(path)(documents) != expected]
        same = f"OTHER IDS from {', '.join(other)}" if other else "equal ids"
        print(f"encode: {what}, {sum(map(len, expected)):,} tokens, {same}", flush=True)
        paired.compare(
            {name: _program(make, path, documents) for name, make in makers.items()},
            rounds=ROUNDS,
            work=sum(len(text.encode()) for text in documents) / 1e6,
            unit="MB",
        )


def _program(make: Callable[[Path], Encode], path: Path, documents: list[str]) -> paired.Program:
    def set_up() -> Callable[[], object]:
        encode = make(path)
        return lambda: encode(documents)

    return set_up


if __name__ == "__main__":
    main()
