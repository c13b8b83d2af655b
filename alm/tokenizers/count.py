"""Counts the distinct words of clean text, which training learns from."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from alm.corpus.read import CleanFile, read_documents
from alm.errors import InputError
from alm.events import Listener, Progressed
from alm.tokenizers import compiled
from alm.tokenizers.pretokenize import Pattern, chunks, count_words
from alm.tokenizers.words import Words

_BATCH_CHARACTERS = 1 << 22
_UNPACKED = 3  # a compressed file unpacks to about this multiple of its size


@dataclass(frozen=True)
class Counted:
    """The words of a text, and its numbers of documents and bytes."""

    words: Words
    documents: int
    bytes: int


def count(files: Sequence[CleanFile], pattern: Pattern, *, workers: int, on_event: Listener) -> Counted:
    """Count the words of all documents, with `workers` threads if that pays. Raises `InputError` for an empty text."""
    text = _CountedText(files, on_event)
    natively = compiled.pays_off(_size(files), on_event)
    words = count_texts(text.batches(), pattern, workers=workers, natively=natively)
    if len(words) == 0:
        raise InputError("the text is empty: there is nothing to train on", hint="run `alm corpus prepare` first")
    return Counted(words, text.documents, text.bytes)


def count_texts(batches: Iterable[list[str]], pattern: Pattern, *, workers: int = 1, natively: bool = True) -> Words:
    """Count the words of batches of texts, with `workers` threads of compiled code or in plain Python."""
    return _count_compiled(batches, pattern, workers) if natively else _count_plain(batches, pattern)


def _size(files: Sequence[CleanFile]) -> int:
    """Estimate the bytes of text."""
    return sum(file.path.stat().st_size * (1 if file.path.suffix == ".txt" else _UNPACKED) for file in files)


class _CountedText:
    """The documents of all files, which are counted as they are read."""

    def __init__(self, files: Sequence[CleanFile], on_event: Listener) -> None:
        self.documents = 0
        self.bytes = 0
        self._files = files
        self._on_event = on_event

    def batches(self) -> Iterator[list[str]]:
        """Yield the text in batches of similar size. A long document is cut between words."""
        batch: list[str] = []
        characters = 0
        for document in read_documents(self._files):
            self.documents += 1
            for chunk in chunks(document.text):
                self.bytes += len(chunk) if chunk.isascii() else len(chunk.encode("utf-8"))
                batch.append(chunk)
                characters += len(chunk)
                if characters >= _BATCH_CHARACTERS:
                    yield batch
                    self._on_event(Progressed("counting words", self.documents, None, "documents"))
                    batch, characters = [], 0
        yield batch
        self._on_event(Progressed("counting words", self.documents, None, "documents"))


def _count_plain(batches: Iterable[list[str]], pattern: Pattern) -> Words:
    counts: Counter[str] = Counter()
    for batch in batches:
        count_words(batch, pattern, counts)
    return Words.of(counts)


def _count_compiled(batches: Iterable[list[str]], pattern: Pattern, workers: int) -> Words:
    from alm.tokenizers._kernels.words import WordCounter, joined

    counters = [WordCounter(pattern) for _ in range(workers)]
    idle: SimpleQueue[WordCounter] = SimpleQueue()
    for counter in counters:
        idle.put(counter)

    def feed(batch: list[str]) -> None:
        counter = idle.get()
        counter.feed(*joined(batch))
        idle.put(counter)

    if workers == 1:
        for batch in batches:
            feed(batch)
    else:
        _in_threads(feed, batches, workers)
    for other in counters[1:]:
        counters[0].add(other)
    return counters[0].words()


def _in_threads(feed: Callable[[list[str]], None], batches: Iterable[list[str]], workers: int) -> None:
    """Feed all batches to `workers` threads, with at most one waiting batch per worker."""
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        for batch in batches:
            if len(pending) >= 2 * workers:
                pending.popleft().result()
            pending.append(threads.submit(feed, batch))
        for future in pending:
            future.result()
