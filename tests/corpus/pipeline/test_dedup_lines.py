"""Lines that many earlier documents hold go from the later ones, however the documents lie in units."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from alm.corpus import report
from alm.corpus.config import CorpusConfig
from alm.corpus.dedup.lines import keys_of
from alm.corpus.pipeline import dedup_lines
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import find, read_documents


def expected(texts: list[str], least: int) -> list[str]:
    """The plain meaning: one document after the other, a dictionary of lines."""
    holders: dict[str, int] = {}
    seen: dict[str, str] = {}
    out = []
    for text in texts:
        if text in seen:
            out.append(seen[text])
            continue
        own = {line.strip(" \t") for line in text.split("\n")} - {""}
        gone = {line for line in own if holders.get(line, 0) >= least}
        seen[text] = "\n".join(line for line in text.split("\n") if line.strip(" \t") not in gone).strip("\n")
        out.append(seen[text])
        for line in own:
            holders[line] = holders.get(line, 0) + 1
    return out


def cleaned(folder: Path, texts: list[str], least: int, unit_bytes: int, **more: Any) -> list[str]:
    source = folder / "in"
    source.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts):
        (source / f"{number:04d}.txt").write_text(text, encoding="utf-8")
    deduplicate = {"lines": least, **more}
    config = CorpusConfig.model_validate(
        {
            "sources": {"s": {"kind": "files", "paths": [str(source)], "deduplicate": deduplicate}},
            "validation_fraction": 0.2 if len(texts) > 10 else 0.0,
        }
    )
    prepare(config, out=folder / "out", unit_bytes=unit_bytes)
    return [document.text for document in read_documents(find([folder / "out"]))]


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def random_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    pool = [f"menu {n}" for n in range(12)] + ["  Home", "Home\t", "ümlaut ©", "x" * 200]
    texts = []
    for number in range(count):
        if texts and draw.random() < 0.1:
            texts.append(draw.choice(texts))
            continue
        body = [draw.choice(pool) for _ in range(draw.randrange(1, 9))] + [f"own {number} {seed}"]
        draw.shuffle(body)
        texts.append("\n".join(body))
    return texts


def test_every_line_has_the_key_of_its_words() -> None:
    keys, numbers, index = keys_of(["a\n\n b\t\nlonger line", "", "\n", "b", "a\na"])
    assert numbers.tolist() == [0, 2, 3, 0, 0, 1]
    assert index.tolist() == [0, 0, 0, 3, 4, 4]
    assert keys[1] == keys[3]
    assert keys[0] == keys[4] == keys[5]
    assert len(set(keys.tolist())) == 3
    assert [len(part) for part in keys_of([])] == [0, 0, 0]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("least", "unit_bytes", "count"), [(2, 1, 25), (1, 400, 60), (5, 400, 60), *((n, 1 << 20, 60) for n in (1, 2, 5))]
)
def test_what_goes_is_what_earlier_documents_hold(
    tmp_path: Path, least: int, unit_bytes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup_lines, "_PAIRS_AT_ONCE", 50)  # several ranges of keys
    texts = random_texts(least, count)
    found = cleaned(tmp_path, texts, least, unit_bytes)
    wanted = list(dict.fromkeys(expected(texts, least)))  # equal ones go afterwards
    assert [text.strip("\n") for text in found] == wanted


@pytest.mark.slow
def test_texts_that_come_later_change_nothing_of_earlier_ones(tmp_path: Path) -> None:
    texts = random_texts(9, 50)
    first = cleaned(tmp_path, texts[:30], 2, 300)
    shards = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("s-*.txt")}
    every = cleaned(tmp_path, texts, 2, 300)
    assert every[: len(first)] == first
    assert all((tmp_path / "out" / name).read_bytes() == data for name, data in shards.items())
    anew = cleaned(tmp_path / "other", texts, 2, 300)
    assert anew == every


def test_units_are_cut_without_a_trace_and_the_sums_come_out(tmp_path: Path) -> None:
    texts = random_texts(4, 40)
    for unit_bytes, folder in ((100, "a"), (1 << 20, "b")):
        cleaned(tmp_path / folder, texts, 1, unit_bytes)
    read = [list(read_documents(find([tmp_path / folder / "out"]))) for folder in ("a", "b")]
    assert [(d.text, d.split) for d in read[0]] == [(d.text, d.split) for d in read[1]]
    found = report.read(tmp_path / "a" / "out")
    assert found is not None
    assert report.faults(found) == []
    assert found.sources[0].bytes.changed["repeated_lines"] < 0
    assert found.sources[0].examples["repeated_lines"]
    before = tree_of(tmp_path / "a" / "out")
    cleaned(tmp_path / "a", texts, 1, 100)
    assert tree_of(tmp_path / "a" / "out") == before


def test_a_text_of_nothing_but_repeated_lines_goes(tmp_path: Path) -> None:
    texts = ["Home\nAbout\n\nfirst text", "Home\n\nAbout", "About\n\n\nHome\n\nthird text\n\nAbout\n\nits end"]
    assert [text.strip("\n") for text in cleaned(tmp_path, texts, 1, 1 << 20)] == [texts[0], "third text\n\nits end"]


def test_near_copies_are_found_in_what_is_left(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(60))
    menus = ["\n".join(f"entry {n} of {m}" for n in range(60)) for m in range(2)]
    # The first two make both menus known; the rest share a body, under different menus.
    texts = [menus[0], menus[1], f"{menus[0]}\n{words} a", f"{menus[1]}\n{words} b"]
    assert len(cleaned(tmp_path / "lines", texts, 1, 1 << 20, near=True)) == 3
