"""The same laws on real text: the folder `shared/data` beside the checkout, where it is."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers

from alm.tokenizers.file import Tokenizer
from alm.tokenizers.models import bpe
from alm.tokenizers.pretokenize import Pattern, count_words, split
from alm.tokenizers.words import Words

DATA = Path(__file__).parents[3] / "shared" / "data"
BOOKS = ("se_lewis-carroll_*", "se_jane-austen_*", "tinyshakespeare*")
LEAST = 100_000  # characters of a text that each pattern and way reads
FILES = sorted(path for path in (DATA / "tokenizer").rglob("*.gz"))

pytestmark = [
    pytest.mark.usefixtures("way"),
    pytest.mark.shared,
    pytest.mark.skipif(not DATA.is_dir(), reason="no shared/data beside the checkout"),
]


def documents(path: Path) -> list[str]:
    """The text of `path`; for .jsonl each string in it."""
    text = gzip.decompress(path.read_bytes()).decode()
    if ".jsonl" not in path.name:
        return [text]
    records = [json.loads(line) for line in text.split("\n") if line]
    return [value for record in records for value in record.values() if isinstance(value, str)]


def share(texts: list[str], number: int) -> list[str]:
    """Return a part of `texts`, which eight numbers in a row find together; of a short text each finds all."""
    parts = min(8, max(1, sum(map(len, texts)) // LEAST))
    whole = texts if len(texts) > 1 else texts[0]
    part = whole[len(whole) * (number % parts) // parts : len(whole) * (number % parts + 1) // parts]
    return [part] if isinstance(part, str) else part


@pytest.fixture(scope="module")
def books() -> list[str]:
    return [text for name in BOOKS for path in sorted((DATA / "prose").glob(name)) for text in documents(path)]


@pytest.fixture(scope="module")
def trained(books: list[str], pattern: str, library_train: Callable[..., tokenizers.Tokenizer]) -> tokenizers.Tokenizer:
    return library_train(books, 8000, pattern=pattern)


@pytest.fixture(scope="module")
def tokenizer(books: list[str], pattern: Pattern) -> Tokenizer:
    words = Words.of(count_words(books, pattern))
    return Tokenizer.from_merges(bpe.learn_merges(words, bpe.base_tokens(), vocab_size=8000), pattern=pattern)


def test_there_is_something_to_read(books: list[str]) -> None:
    assert sum(map(len, books)) > 1_900_000
    assert len(FILES) >= 18


@pytest.mark.sampled(1)
def test_books_train_as_in_the_library(tokenizer: Tokenizer, trained: tokenizers.Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_text("utf-8") == trained.to_str(pretty=True)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_text_splits_and_encodes_as_in_the_library(
    path: Path,
    way: str,
    tokenizer: Tokenizer,
    trained: tokenizers.Tokenizer,
    pattern: Pattern,
    regexes: dict[str, str],
    library_words: Callable[[str], list[str]],
) -> None:
    trained.encode_special_tokens = True
    texts = share(documents(path), 2 * list(regexes).index(pattern) + (way == "plain"))
    for text, expected in zip(texts, trained.encode_batch(texts), strict=True):
        assert split(text, pattern) == library_words(text)
        ids = tokenizer.encode(text)
        assert ids == expected.ids
        assert tokenizer.decode(ids) == text
