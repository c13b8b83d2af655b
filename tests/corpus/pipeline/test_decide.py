"""Budget, duplicates and split, decided from hashes and sizes alone."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alm.artifacts import HoldOut
from alm.corpus.config import SourceConfig
from alm.corpus.dedup.minhash import BANDS
from alm.corpus.pipeline.decide import EXACT, KEPT, NEAR, OVER_BUDGET, Decisions, decide
from alm.corpus.pipeline.unit_store import UnitFiles


@dataclass
class Found:
    """What was decided about each unit, read back."""

    decisions: list[Decisions]
    hold_out: HoldOut | None
    duplicates: dict[str, int]
    originals: tuple[dict[int, str], ...]


def unit(folder: Path, number: int, texts: list[str], bands: list[list[int]] | None) -> UnitFiles:
    """`bands` are the keys of each text, all bands alike; texts without any are not compared."""
    files = UnitFiles(folder, number)
    files.digests.write_bytes(b"".join(sha256(text.encode()).digest() for text in texts))
    np.save(files.sizes, np.array([(len(text), len(text)) for text in texts], dtype=np.int64).reshape(-1, 2))
    origins = [f"{number}:{index}" for index in range(len(texts))]
    files.details.write_text(json.dumps({"origins": origins, "changes": {}}))
    if bands is not None:
        compared = [index for index, keys in enumerate(bands) if keys]
        np.save(files.compared, np.array(compared, dtype=np.int64))
        rows = np.array([bands[index] for index in compared], dtype=np.uint64).reshape(-1, BANDS)
        np.save(files.bands, np.ascontiguousarray(rows.T))
    return files


def decided(
    folder: Path,
    *texts: list[str],
    bands: list[list[list[int]]] | None = None,
    fraction: float = 0.0,
    hold_out: HoldOut | None = None,
    is_chosen: bool = False,
    **keys: Any,
) -> Found:
    keys["deduplicate"] = {"near": bands is not None, **keys.get("deduplicate", {})}
    source = SourceConfig.model_validate({"kind": "test", **keys})
    folder.mkdir(exist_ok=True)
    units = [unit(folder, number, some, bands and bands[number]) for number, some in enumerate(texts)]
    found = decide(source, units, validation_fraction=fraction, hold_out=hold_out, is_chosen=is_chosen, examples=10)
    decisions = [Decisions.read(files, key) for files, key in zip(units, found.decisions, strict=True)]
    return Found(decisions, found.hold_out, found.duplicates, found.originals)


def codes(found: Found) -> list[int]:
    return [int(code) for decisions in found.decisions for code in decisions.code]


def held_out(found: Found) -> list[bool]:
    return [bool(held) for decisions in found.decisions for held in decisions.is_held_out]


def keys_of(*numbers: int) -> list[int]:
    """Keys of a document: those given, and others that no document shares."""
    return [*numbers, *(hash((numbers, place)) % (1 << 60) for place in range(BANDS - len(numbers)))]


def test_near_copies_go_and_join_the_cluster_of_the_first(tmp_path: Path) -> None:
    texts = (["a", "b", "a2", "b"], ["a3", "plain", "plain"])
    bands = [[keys_of(1), keys_of(2), keys_of(1, 3), keys_of(2)], [keys_of(7, 3), [], []]]
    found = decided(tmp_path, *texts, bands=bands)
    assert codes(found) == [KEPT, KEPT, NEAR, EXACT, NEAR, KEPT, EXACT]
    assert found.decisions[1].cluster[0].tobytes() == sha256(b"a").digest()  # by way of a2, which is dropped
    assert found.duplicates == {"exact": 2, "near": 2, "clusters": 3, "largest_cluster": 3}
    kept = decided(tmp_path, *texts, bands=bands, deduplicate={"exact": False})
    assert codes(kept) == [KEPT, KEPT, NEAR, NEAR, NEAR, KEPT, KEPT]  # equal texts are much alike, where compared


def test_the_first_of_equal_texts_stays(tmp_path: Path) -> None:
    found = decided(tmp_path, ["a", "b", "a"], ["b", "c", "a"])
    assert codes(found) == [KEPT, KEPT, EXACT, EXACT, KEPT, EXACT]
    assert found.decisions[1].cluster[2].tobytes() == sha256(b"a").digest()
    assert found.duplicates == {"exact": 3, "near": 0, "clusters": 2, "largest_cluster": 3}
    assert found.originals == ({2: "0:0"}, {0: "0:1", 2: "0:0"})
    kept = decided(tmp_path, ["a", "a"], deduplicate={"exact": False})
    assert codes(kept) == [KEPT, KEPT]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({"limit": 2}, 2), ({"max_bytes": 25}, 2), ({"max_bytes": 30}, 3), ({"max_bytes": 1}, 1), ({}, 5)],
)
def test_the_budget_is_spent_in_order(tmp_path: Path, keys: dict[str, int], expected: int) -> None:
    texts = [f"{i}" * 10 for i in range(5)]
    assert codes(decided(tmp_path, texts[:2], texts[2:], **keys)) == [KEPT] * expected + [OVER_BUDGET] * (5 - expected)


def test_what_was_decided_stays_when_units_are_added(tmp_path: Path) -> None:
    draw = random.Random(3)
    units = [[f"text {draw.randrange(300)}" for _ in range(100)] for _ in range(6)]
    whole = decided(tmp_path, *units, fraction=0.1)
    for count in range(1, 6):
        part = decided(tmp_path, *units[:count], fraction=0.1)
        assert codes(part) == codes(whole)[: 100 * count]
        assert held_out(part) == held_out(whole)[: 100 * count]


def test_duplicates_that_stay_are_on_one_side(tmp_path: Path) -> None:
    texts = [f"text {i % 50}" for i in range(500)]
    found = decided(tmp_path, texts, fraction=0.2, deduplicate={"exact": False})
    sides: dict[str, set[bool]] = {}
    for text, held in zip(texts, held_out(found), strict=True):
        sides.setdefault(text, set()).add(held)
    assert all(len(side) == 1 for side in sides.values())
    assert {held for side in sides.values() for held in side} == {False, True}


def test_a_few_documents_hold_out_the_one_nearest_to_the_share(tmp_path: Path) -> None:
    texts = ["a" * 10, "b" * 990, "c" * 1000, "d" * 100, "d" * 100]
    tiny = decided(tmp_path, texts, fraction=0.001)  # so small that no hash falls below it
    assert held_out(tiny) == [True, False, False, False, False]
    assert tiny.hold_out == HoldOut(digest=sha256(b"a" * 10).hexdigest(), pieces=True)


def test_a_single_document_is_to_be_cut(tmp_path: Path) -> None:
    found = decided(tmp_path, [], ["only one"], fraction=0.05)
    assert [decisions.cut for decisions in found.decisions] == [None, (0, 0.05)]
    assert found.hold_out == HoldOut(digest=sha256(b"only one").hexdigest(), cut=0.05, pieces=True)


def test_what_was_held_out_by_size_stays_held_out(tmp_path: Path) -> None:
    before = decided(tmp_path, ["a" * 10, "b" * 900], fraction=0.001)
    more = decided(tmp_path, ["a" * 10, "b" * 900], ["c" * 1], fraction=0.001, hold_out=before.hold_out)
    assert held_out(more) == [*held_out(before), False]


# ---- pieces of long documents -------------------------------------------------------------------

BOOKS = [f"{name} " * 100_000 for name in ("one", "two", "three", "four", "five")]
MANY = [f"note {number} " * 10 for number in range(3000)]


def cut_documents(found: Found) -> list[bool]:
    return [bool(each) for decisions in found.decisions for each in decisions.has_pieces]


def test_of_a_few_books_each_gives_pieces_and_none_goes(tmp_path: Path) -> None:
    found = decided(tmp_path, BOOKS[:3], BOOKS[3:], fraction=0.01)
    assert cut_documents(found) == [True] * 5
    assert not any(held_out(found))
    assert found.hold_out == HoldOut(pieces=True)
    assert [decisions.share for decisions in found.decisions] == [0.01, 0.01]


def test_one_book_among_notes_gives_pieces_and_the_notes_are_chosen_by_hash(tmp_path: Path) -> None:
    alone = decided(tmp_path / "alone", MANY, fraction=0.011)
    assert alone.hold_out is None  # 3,000 documents of one size: 33 of them are held out
    found = decided(tmp_path / "both", [BOOKS[0], *MANY], fraction=0.011)
    assert cut_documents(found) == [True, *[False] * 3000]
    assert held_out(found)[1:] == held_out(alone)


def test_what_is_chosen_stays_when_a_source_grows(tmp_path: Path) -> None:
    few = decided(tmp_path / "few", BOOKS, fraction=0.01)
    grown = decided(tmp_path / "few", BOOKS, [f"book {n} " * 50_000 for n in range(3000)], fraction=0.01)
    assert grown.hold_out is None
    grown = decided(tmp_path / "few", BOOKS, MANY, fraction=0.01, hold_out=few.hold_out)
    assert cut_documents(grown)[:5] == cut_documents(few)
    # Prepared by an alm, or at a size, that held out whole documents.
    kept = decided(tmp_path / "many", BOOKS, MANY, fraction=0.01, is_chosen=True)
    assert not any(cut_documents(kept))


def test_a_long_document_with_less_than_a_piece_to_hold_out_gives_one_if_nothing_else_is(tmp_path: Path) -> None:
    found = decided(tmp_path, ["a" * 10_000, "b" * 50_000, "c"], fraction=0.000001)
    assert cut_documents(found) == [False, True, False]
    assert not any(held_out(found))
    again = decided(tmp_path, ["a" * 10_000, "b" * 50_000, "c"], fraction=0.000001, hold_out=found.hold_out)
    assert again.hold_out == found.hold_out
    assert cut_documents(again) == cut_documents(found)


def test_equal_documents_that_stay_lose_the_same_pieces(tmp_path: Path) -> None:
    found = decided(tmp_path, [BOOKS[0], BOOKS[1], BOOKS[0]], fraction=0.01, deduplicate={"exact": False})
    clusters = found.decisions[0].cluster
    assert cut_documents(found) == [True] * 3
    assert clusters[0].tobytes() == clusters[2].tobytes()  # from which the places of the pieces follow


CHATS = [f"chat {number}: " + "word " * (20 + number % 50) for number in range(317)]


def test_of_a_small_text_at_least_8_kb_but_at_most_a_tenth_is_held_out(tmp_path: Path) -> None:
    sizes = [len(text) for text in CHATS]
    found = decided(tmp_path, CHATS, fraction=0.01)  # by hash alone, 3 of them: less than a row
    held = sum(size for size, is_held in zip(sizes, held_out(found), strict=True) if is_held)
    assert held == pytest.approx(0.1 * sum(sizes), rel=0.05)
    long = decided(tmp_path / "long", ["a" * 400_000], fraction=0.01)
    assert long.decisions[0].share == 8192 / 400_000
    # A share that was asked for is kept.
    asked = decided(tmp_path / "asked", CHATS, fraction=0.02)
    assert sum(held_out(asked)) < 12


def test_a_small_text_that_grows_keeps_what_it_holds_out(tmp_path: Path) -> None:
    before = decided(tmp_path, CHATS, fraction=0.01)
    grown = decided(tmp_path, CHATS, MANY, fraction=0.01, hold_out=before.hold_out)
    assert held_out(grown)[:317] == held_out(before)
    assert HoldOut.model_validate_json(grown.hold_out.model_dump_json()) == before.hold_out  # type: ignore[union-attr]


def test_nothing_is_held_out_when_nothing_is_asked_for(tmp_path: Path) -> None:
    assert held_out(decided(tmp_path, ["a", "b", "c"])) == [False] * 3
    assert decided(tmp_path, [], []).decisions[0].code.size == 0
    books = decided(tmp_path, BOOKS)
    assert books.hold_out is None
    assert not any(held_out(books) + cut_documents(books))
