"""Foreign text: `alm pack` and `alm tokenizer train` read it as `alm corpus prepare` does."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from alm.corpus.document import Document
from alm.corpus.formats import Reading, text
from alm.corpus.normalize import normalize
from alm.corpus.read import find, parts_of, read_documents, read_part, read_text
from alm.corpus.records import MARK

TEXTS = {
    "one": "a\nb\n",
    "windows": f"a\r\n{MARK}\r\nb\r\n",
    "escaped": f"a\n\\{MARK}\n{MARK}\nb",
    "blank": f"{MARK}\n\n{MARK}\na\r\nb\n{MARK}\n",
    "inside": f"a\r\nb\r\r\nc\rd\n\r{MARK}\r\n\r\ne\r\n\r\n{MARK}\n",
    "ends": f"a\r\n{MARK}",
    "no line": f"a {MARK}\nb",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig", "utf-16", "gz"])
def test_every_stage_reads_the_same_documents(tmp_path: Path, name: str, form: str) -> None:
    path = tmp_path / ("a.txt.gz" if form == "gz" else "a.txt")
    data = TEXTS[name].encode("utf-8" if form == "gz" else form)
    path.write_bytes(gzip.compress(data) if form == "gz" else data)
    read = text.read(path, (), Reading())
    prepared = [normalize(item.text).text for item in read if isinstance(item, Document)]
    (file,) = find([str(path)])
    assert [document.text for document in read_documents([file])] == prepared
    parts = list(parts_of(file, part_bytes=1))
    assert [document.text for part in parts for document in read_part(part)] == prepared


def test_a_prompt_is_read_as_a_corpus_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for data in (codecs.BOM_UTF8 + b"caf\xc3\xa9\r\nx", "café\rx".encode("utf-16")):
        path.write_bytes(data)
        assert read_text(path) == "café\nx"
