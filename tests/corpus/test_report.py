"""The drop report: sums are checked, and no text of a user becomes markup."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from alm.artifacts import Balance
from alm.config.load import load
from alm.corpus import report
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.report import CorpusReport, Example, Lengths, SourceReport
from alm.errors import ArtifactError


def corpus(root: Path) -> CorpusConfig:
    """A text to prepare."""
    (root / "mine.txt").write_text("a text\n")
    return load(CorpusConfig, [], base={"sources": {"s": {"kind": "files", "paths": str(root / "mine.txt")}}})


@pytest.mark.parametrize("name", ["_report.html", "_report.json"])
@pytest.mark.parametrize("kind", ["a page", "a folder"])
def test_a_report_of_others_is_not_written_over(tmp_path: Path, name: str, kind: str) -> None:
    config, out = corpus(tmp_path), tmp_path / "out"
    precious = out / name
    out.mkdir()
    precious.mkdir() if kind == "a folder" else precious.write_text('<html>mine</html> {"format": "mine"}')
    with pytest.raises(ArtifactError, match="did not write it") as caught:
        prepare(config, out=out)
    assert [path.name for path in out.iterdir()] == [name]  # before the work begins
    words = shlex.split(str(caught.value.hint).split("`")[1])
    assert words == ["mv", "-n", str(precious), f"{precious}.aside"]
    precious.rename(words[-1])
    prepare(config, out=out)
    assert precious.is_file()


def test_our_own_report_is_written_again_and_with_force_any(tmp_path: Path) -> None:
    config, out = corpus(tmp_path), tmp_path / "out"
    prepare(config, out=out)
    for changed in ({"validation_fraction": 0.0}, {"validation_fraction": 0.3}):
        prepare(config.model_copy(update=changed), out=out, force=True)
    (tmp_path / "more.txt").write_text("more\n")
    more = {"kind": "files", "paths": str(tmp_path / "more.txt")}
    prepare(load(CorpusConfig, [], base={"sources": {"more": more}}), out=out)
    assert "more" in (out / "_report.html").read_text()
    (out / "_report.html").write_text("of a stranger")
    (out / "_report.json").write_text("{}")
    prepare(config, out=out, force=True)
    assert "<title>Corpus report</title>" in (out / "_report.html").read_text()


HOSTILE = "</title><script>alert(1)</script></style><img src=x onerror=y> & \u202e \x00 \ud800 \"'"
VOID = {"meta", "line", "rect", "br"}


def source(**changes: Any) -> SourceReport:
    values = {
        "source": "s",
        "kind": "files",
        "revision": HOSTILE,
        "licence": HOSTILE,
        "units": 2,
        "shards": 2,
        "documents": Balance(input=10, kept=7, dropped={"empty": 1, HOSTILE: 2}, changed={}, output=7),
        "bytes": Balance(input=100, kept=70, dropped={"empty": 10, HOSTILE: 20}, changed={"nfc": -3}, output=67),
        "validation_documents": 1,
        "examples": {HOSTILE: (Example(origin=HOSTILE, text=HOSTILE, detail=HOSTILE),)},
        "lengths": Lengths(input={"0": 1, "8": 6, "64": 3}, kept={"8": 5, "64": 2}),
        "languages": {"en": 7},
        "duplicates": {"exact": 0, "near": 0, "clusters": 0, "largest_cluster": 1},
        "evaluation_hits": {HOSTILE: 1},
        "filters": {},
        "seconds": {"read_and_write": 0.5, "normalize": 0.0},
    }
    return SourceReport.model_validate({**values, **changes})


class Tags(HTMLParser):
    """Collects tags and sees to it that they are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [name for name, _ in attrs if name in ("src", "href", "style")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_no_text_becomes_markup_and_nothing_is_fetched() -> None:
    page = report.html(CorpusReport(sources=(source(),)))
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert not tags.seen & {"script", "img", "link", "iframe"}
    assert page.encode("utf-8").decode() == page
    assert "\u202e" not in page
    assert not tags.addresses
    assert "url(" not in page
    assert "@import" not in page
    assert report.html(CorpusReport(sources=(source(),))) == page


def test_charts_are_whole_and_to_scale() -> None:
    page = report.html(CorpusReport(sources=(source(),)))
    [svg] = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    root = ElementTree.fromstring(svg)
    heights = [float(rect.attrib["height"]) for rect in root.iter() if rect.attrib.get("class") == "first"]
    assert len(heights) == 8  # 0, 1, 2, 4, and so on to 64
    assert heights[4] == max(heights) == 170.0
    assert heights[7] == 85.0
    assert heights[1] == 0.0


def test_sums_that_do_not_come_out_are_told() -> None:
    good = CorpusReport(sources=(source(),))
    assert report.faults(good) == []
    assert "✓" in report.html(good)
    wrong = source(bytes=Balance(input=101, kept=70, dropped={"empty": 30}, changed={}, output=71))
    bad = CorpusReport(sources=(wrong,))
    assert len(report.faults(bad)) == 2
    assert "✗" in report.html(bad)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sizes = Balance(input=10, kept=10, dropped={}, changed={}, output=10)
    plain = source(revision=None, licence=None, examples={}, evaluation_hits={}, documents=sizes, bytes=sizes)
    found = CorpusReport(sources=(plain,))
    assert report.read(tmp_path) is None
    report.write(found, tmp_path)
    assert report.read(tmp_path) == found
    assert report.html(CorpusReport(sources=())).startswith("<!doctype html>")
