"""A corpus of more units than a process may have files open."""

from __future__ import annotations

import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from alm.corpus.config import SourceConfig
from alm.corpus.dedup.minhash import BANDS
from alm.corpus.pipeline.decide import NEAR, Decisions, decide
from alm.corpus.pipeline.dedup_lines import find_repeated_lines
from alm.corpus.pipeline.unit_store import UnitFiles

UNITS = 100
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")


def units(folder: Path) -> list[UnitFiles]:
    """Units of one document each: all nearly the same, with one line in common."""
    found = [UnitFiles(folder, number) for number in range(UNITS)]
    for number, files in enumerate(found):
        files.digests.write_bytes(sha256(str(number).encode()).digest())
        files.details.write_text('{"origins": ["a"], "changes": {}}')
        np.save(files.sizes, np.array([[4, 4]], dtype=np.int64))
        np.save(files.compared, np.array([0], dtype=np.int64))
        np.save(files.bands, np.full((BANDS, 1), 7, dtype=np.uint64))
        np.save(files.line_keys, np.array([7, 1000 + number], dtype=np.uint64))
        np.save(files.line_documents, np.array([0, 0], dtype=np.uint32))
    return found


@pytest.mark.slow
def test_duplicates_among_many_units_are_found(tmp_path: Path, few_files: Callable[[int], None]) -> None:
    made = units(tmp_path)
    few_files(20)
    source = SourceConfig.model_validate({"kind": "test", "deduplicate": {"near": True}})
    found = decide(source, made, validation_fraction=0.5, hold_out=None, examples=10)
    decisions = [Decisions.read(files, key) for files, key in zip(made, found.decisions, strict=True)]
    assert [int(each.code[0]) == NEAR for each in decisions] == [False] + [True] * (UNITS - 1)


def test_lines_that_many_units_hold_are_found(tmp_path: Path, few_files: Callable[[int], None]) -> None:
    made = units(tmp_path)
    few_files(20)
    find_repeated_lines(made, least=3, merges=True)
    assert [len(files.repeated.read_bytes()) > 0 for files in made] == [False] * 3 + [True] * (UNITS - 3)
