"""The text that benchmarks read: the novels in ../shared where they are, else the built-in tales."""

from __future__ import annotations

import gzip
from pathlib import Path

NOVELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "prose"
TALES = 5000


def read() -> tuple[str, list[str]]:
    """What the text is, and its documents."""
    paths = sorted(NOVELS.glob("*.txt.gz"))
    if paths:
        texts = [gzip.decompress(path.read_bytes()).decode("utf-8") for path in paths]
        return f"{len(texts)} novels, {_megabytes(texts):.1f} MB", texts
    from alm.corpus.sources.tales.tell import tell

    texts = [tell(seed=0, index=index) for index in range(TALES)]
    return f"{len(texts):,} tales, {_megabytes(texts):.1f} MB", texts


def _megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6
