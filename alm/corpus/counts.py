"""Counts that must add up: text read, text dropped by reason, changes by cleaning, and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import Field

from alm.artifacts import Balance, HeldOut
from alm.config.base import Config
from alm.corpus.report import Example

EXAMPLES = 10
EXCERPT_CHARACTERS = 300
_OF_VALIDATION = ("validation_documents", "validation_pieces", "cut_documents")


class Counts(Config):
    """The counts of one unit, or the sum of several. All sizes are UTF-8 bytes."""

    documents_kept: int
    documents_dropped: dict[str, int]
    bytes_kept: int
    bytes_dropped: dict[str, int]
    bytes_changed: dict[str, int]
    documents_out: int
    bytes_out: int
    validation_documents: int
    validation_bytes: int | None = Field(default=None)  # None: counted by an earlier alm, which left it out
    validation_pieces: int = Field(default=0)  # those of the validation documents that are pieces of others
    cut_documents: int = Field(default=0)
    examples: dict[str, tuple[Example, ...]]
    lengths_in: dict[str, int]
    lengths_kept: dict[str, int]
    languages: dict[str, int]
    evaluation_hits: dict[str, int]
    seconds: dict[str, float]
    lost: dict[str, int] = Field(default={})  # see `Document.lost`

    @classmethod
    def summed(cls, all_counts: Iterable[Self]) -> Counts:
        """Add up counts, and keep the first examples of each reason."""
        total = RunningCounts()
        for counts in all_counts:
            total.add(counts)
        return total.frozen()

    def documents(self) -> Balance:
        """Return the balance of documents."""
        more = self.documents_out - self.documents_kept
        # A document that is cut, to hold out parts of it, becomes several.
        changed = {"held_out_part": more} if more else {}
        return _balance(self.documents_kept, self.documents_dropped, changed, self.documents_out)

    def held_out(self) -> HeldOut:
        """Return what is held out."""
        return HeldOut(
            documents=self.validation_documents - self.validation_pieces,
            pieces=self.validation_pieces,
            cut_documents=self.cut_documents,
            bytes=self.validation_bytes,
        )

    def bytes(self) -> Balance:
        """Return the balance of bytes."""
        return _balance(self.bytes_kept, self.bytes_dropped, self.bytes_changed, self.bytes_out)


def _balance(kept: int, dropped: dict[str, int], changed: dict[str, int], output: int) -> Balance:
    return Balance(input=kept + sum(dropped.values()), kept=kept, dropped=dropped, changed=changed, output=output)


class RunningCounts:
    """Mutable counts during a pass."""

    def __init__(self) -> None:
        self.documents_kept = self.bytes_kept = 0
        self.documents_out = self.bytes_out = self.validation_documents = 0
        self.validation_pieces = self.cut_documents = 0
        self.validation_bytes: int | None = 0
        self.documents_dropped: Counter[str] = Counter()
        self.bytes_dropped: Counter[str] = Counter()
        self.bytes_changed: Counter[str] = Counter()
        self.examples: dict[str, list[Example]] = {}
        self.lengths_in: Counter[int] = Counter()  # by number of binary digits, which is fast to compute
        self.lengths_kept: Counter[int] = Counter()
        self.languages: Counter[str] = Counter()
        self.evaluation_hits: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.lost: Counter[str] = Counter()

    def keep(self, bytes_before: int, changes: dict[str, int], *, bytes_out: int) -> None:
        """Count a document of `bytes_before` that stays, and has `bytes_out` after `changes` to its size."""
        self.documents_kept += 1
        self.documents_out += 1
        self.bytes_kept += bytes_before
        self.bytes_out += bytes_out
        self.lengths_in[bytes_before.bit_length()] += 1
        self.lengths_kept[bytes_before.bit_length()] += 1
        if changes:
            self.bytes_changed.update(changes)

    def drop(self, reason: str, *, documents: int, size: int) -> None:
        """Count `size` dropped bytes, and the complete `documents` among them."""
        self.bytes_dropped[reason] += size
        if documents:
            self.documents_dropped[reason] += documents
            self.lengths_in[size.bit_length()] += 1

    def hold_out(self, size: int) -> None:
        """Count a document of `size` bytes that stays as held out."""
        self.validation_documents += 1
        if self.validation_bytes is not None:
            self.validation_bytes += size

    def cut(self, sizes: Sequence[int], held_out: Sequence[int]) -> None:
        """Count a document that stays as cut into parts of these `sizes` in bytes, some of them `held_out`."""
        self.documents_out += len(sizes) - 1
        self.cut_documents += 1
        self.validation_pieces += len(held_out)
        for size in held_out:
            self.hold_out(size)

    def take_back(self, reason: str, bytes_before: int, changes: dict[str, int], *, bytes_out: int) -> None:
        """Count a document as dropped that was counted as kept before."""
        self.documents_kept -= 1
        self.documents_out -= 1
        self.bytes_kept -= bytes_before
        self.bytes_out -= bytes_out
        self.lengths_kept[bytes_before.bit_length()] -= 1
        self.bytes_changed.subtract(changes)
        self.documents_dropped[reason] += 1
        self.bytes_dropped[reason] += bytes_before

    def lose(self, lost: Iterable[tuple[str, int]], *, origin: str, text: str) -> None:
        """Count what a reader could not put into the text of a document, and add the document as an example."""
        for name, number in ((name, number) for name, number in lost if number):
            self.lost[name] += number
            self.show(name, origin=origin, text=text, detail=f"{number:,} times")

    def show(self, reason: str, *, origin: str, text: str, detail: str = "") -> None:
        """Add an example of `reason`, unless there are enough."""
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            excerpt = text[:EXCERPT_CHARACTERS].encode("utf-8", "replace").decode()
            shown.append(Example(origin=printable(origin), text=excerpt, detail=detail))

    def add(self, other: Counts) -> None:
        """Add the counts of `other`."""
        for name in ("documents_kept", "bytes_kept", "documents_out", "bytes_out", *_OF_VALIDATION):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.validation_bytes is None and other.validation_documents:
            self.validation_bytes = None
        elif self.validation_bytes is not None:
            self.validation_bytes += other.validation_bytes or 0
        for name in ("documents_dropped", "bytes_dropped", "bytes_changed", "languages", "evaluation_hits", "lost"):
            getattr(self, name).update(getattr(other, name))
        for name, spent in other.seconds.items():
            self.seconds[name] += spent
        self.lengths_in.update(_digits(other.lengths_in))
        self.lengths_kept.update(_digits(other.lengths_kept))
        for reason, examples in other.examples.items():
            shown = self.examples.setdefault(reason, [])
            shown += examples[: EXAMPLES - len(shown)]

    def frozen(self) -> Counts:
        """Return the counts, in an order that does not depend on the order of counting."""
        return Counts(
            documents_kept=self.documents_kept,
            documents_dropped=_sorted(self.documents_dropped),
            bytes_kept=self.bytes_kept,
            bytes_dropped=_sorted(self.bytes_dropped),
            bytes_changed=_sorted(self.bytes_changed),
            documents_out=self.documents_out,
            bytes_out=self.bytes_out,
            validation_documents=self.validation_documents,
            validation_bytes=self.validation_bytes,
            validation_pieces=self.validation_pieces,
            cut_documents=self.cut_documents,
            examples={reason: tuple(shown) for reason, shown in sorted(self.examples.items()) if shown},
            lengths_in=_bounds(self.lengths_in),
            lengths_kept=_bounds(self.lengths_kept),
            languages=_sorted(self.languages),
            evaluation_hits=_sorted(self.evaluation_hits),
            seconds={name: round(spent, 6) for name, spent in sorted(self.seconds.items())},
            lost=_sorted(self.lost),
        )


def printable(origin: str) -> str:
    """Replace characters of `origin` that UTF-8 cannot encode: undecodable bytes of a file name."""
    return origin if origin.isascii() else origin.encode("utf-8", "replace").decode()


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return {name: number for name, number in sorted(counter.items()) if number}


def _bounds(lengths: Counter[int]) -> dict[str, int]:
    """Return the counts by the lower bound of the lengths in bytes: 0, 1, 2, 4, 8 and so on."""
    return {str(1 << digits - 1 if digits else 0): lengths[digits] for digits in sorted(lengths) if lengths[digits]}


def _digits(bounds: dict[str, int]) -> dict[int, int]:
    return {int(bound).bit_length(): number for bound, number in bounds.items()}
