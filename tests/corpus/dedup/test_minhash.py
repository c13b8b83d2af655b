"""MinHash signatures, and who is whose duplicate."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest
from cases import for_each

from alm.corpus.dedup import clusters
from alm.corpus.dedup.minhash import BANDS, Signer

PAIRS = 300


def pair(similarity: float, seed: int) -> tuple[str, str]:
    """Two texts whose sets of 5-grams have about that Jaccard similarity: one tail of both differs."""
    draw = random.Random(seed)
    common, own = round(400 * similarity / (2 - similarity) * 2), 400
    shared = [f"w{draw.randrange(10**9)}" for _ in range(common)]
    tails = [[f"t{draw.randrange(10**9)}" for _ in range(own * 2 - common)] for _ in range(2)]
    return " ".join(shared + tails[0][: own - common // 2]), " ".join(shared + tails[1][: own - common // 2])


def jaccard(first: str, second: str) -> float:
    sets = []
    for text in (first, second):
        words = text.split()
        sets.append({tuple(words[i : i + 5]) for i in range(len(words) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.sampled(1)
@pytest.mark.parametrize("similarity", [0.6, 0.8, 0.9])
def test_texts_meet_as_often_as_the_theory_says(similarity: float) -> None:
    signer = Signer()
    met = expected = 0.0
    for seed in range(PAIRS):
        texts = pair(similarity, seed)
        s = jaccard(*texts)
        expected += 1 - (1 - s**8) ** BANDS
        met += bool((signer.bands(texts[0]) == signer.bands(texts[1])).any())
    spread = (PAIRS * 0.25) ** 0.5
    assert abs(met - expected) < 4 * spread  # four standard deviations at most


def test_case_and_punctuation_do_not_count_but_order_does() -> None:
    signer = Signer()
    words = [f"word{n}" for n in range(50)]
    plain = signer.bands(" ".join(words))
    assert (signer.bands(", ".join(words).upper() + "!") == plain).all()
    assert (signer.bands(" ".join(words[::-1])) != plain).all()


def test_short_and_wordless_texts_have_signatures() -> None:
    signer = Signer()
    texts = ["", "one", "two words", "!!", "a b c d e", "\n", "😀", "一二三"]
    found = [signer.bands(text) for text in texts]
    assert all(bands.shape == (BANDS,) and bands.dtype == np.uint64 for bands in found)
    assert len({bands.tobytes() for bands in found[:5]}) == 5
    batch = signer.bands_of(texts)
    assert (batch == np.array(found)).all()


def test_signatures_are_the_same_in_every_process() -> None:
    program = (
        "from alm.corpus.dedup.minhash import Signer; "
        "print(*Signer().bands('the same words in every process of the world'))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("0", "1")
    }
    assert seen == {" ".join(map(str, Signer().bands("the same words in every process of the world"))) + "\n"}


def slow(digests: list[bytes], bands: dict[int, list[int]]) -> list[int]:
    """For each document the oldest of its cluster, in plain Python."""
    by_digest: dict[bytes, int] = {}
    by_key: dict[tuple[int, int], int] = {}
    parents = []
    for number, digest in enumerate(digests):
        earlier = [by_digest.setdefault(digest, number)]
        for place, key in enumerate(bands.get(number, ())):
            earlier.append(by_key.setdefault((place, key), number))
        parent = min(earlier)
        parents.append(parents[parent] if parent < number else number)
    return parents


@for_each("seed", range(40))
def test_duplicates_equal_a_slow_search_and_a_prefix_is_a_prefix(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.choice([0, 1, 2, 10, 60])
    digests = np.frombuffer(
        b"".join(
            bytes([draw.randrange(2)] * 7 + [draw.randrange(20)] + [0] * 7 + [draw.randrange(3)]) for _ in range(count)
        ),
        dtype=np.uint64,
    ).reshape(count, 2)
    compared = np.array([n for n in range(count) if draw.random() < 0.7], dtype=np.int64)
    keys = np.array([[draw.randrange(400) for _ in range(BANDS)] for _ in compared], dtype=np.uint64).reshape(-1, BANDS)
    first = clusters.first_equal_rows(digests)
    found = clusters.find(first, band=lambda number: keys[:, number], compared=compared)
    expected = slow([d.tobytes() for d in digests], {int(n): k.tolist() for n, k in zip(compared, keys, strict=True)})
    assert found.parent.tolist() == expected
    assert found.exact.tolist() == [d.tobytes() in {e.tobytes() for e in digests[:n]} for n, d in enumerate(digests)]
    assert ((found.exact | found.near) == (found.parent < np.arange(count))).all()
    half = count // 2
    inside = compared < half
    part = clusters.find(first[:half], band=lambda number: keys[inside, number], compared=compared[inside])
    assert part.parent.tolist() == expected[:half]
