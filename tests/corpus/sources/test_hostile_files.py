"""Whatever lies in a folder: it is read, or told with its place, or skipped and counted; never lost in silence."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
from pathlib import Path
from typing import Any

import pytest

from alm.config.load import load
from alm.corpus.config import CorpusConfig
from alm.corpus.document import Document, Dropped
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import find, read_documents
from alm.corpus.sources import files
from alm.errors import AlmError


def items(folder: Path, **keys: Any) -> list[Document | Dropped]:
    config = files.Config(paths=str(folder), **keys)
    found = files.survey(config)
    return list(files.read(config, found.parts))


def texts(folder: Path, **keys: Any) -> list[str]:
    return [item.text for item in items(folder, **keys) if isinstance(item, Document)]


def reasons(folder: Path, **keys: Any) -> list[str]:
    return [item.reason for item in items(folder, **keys) if isinstance(item, Dropped)]


def parquet(values: list[str]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    file = io.BytesIO()
    write_table(pyarrow.table({"id": list(range(len(values))), "text": values}), file, row_group_size=2)
    return file.getvalue()


def test_every_form_is_read_packed_or_not(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"jsonl {n}"}) + "\n" for n in range(2)).encode()
    table = parquet(["parquet 0", "parquet 1", "parquet 2"])
    given = {
        "a.txt": b"plain",
        "b.py": b"code = 1",
        "c.jsonl": rows,
        "d.json": json.dumps([{"text": "json 0"}, {"text": "json 1"}]).encode(),
        "e.csv": b'id,text\n1,"cell, with comma"\n2,"two\nlines"\n',
        "f.tsv": b"id\ttext\n1\ttab\n",
        "g.html": b"<html><head><style>x</style></head><body><p>One &amp; two</p><p>three</p></body></html>",
        "h.parquet": table,
        "i.txt.gz": gzip.compress(b"in gzip"),
        "j.jsonl.xz": lzma.compress(rows),
        "k.txt": gzip.compress(b"gzip in disguise"),
        "l.data": table,
    }
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
    found = items(tmp_path)
    assert [item.reason for item in found if isinstance(item, Dropped)] == []
    by_file: dict[str, list[str]] = {}
    for item in found:
        assert isinstance(item, Document)
        by_file.setdefault(Path(item.origin.partition("#")[0]).name, []).append(item.text)
    assert by_file["a.txt"] == ["plain"]
    assert by_file["c.jsonl"] == by_file["j.jsonl.xz"] == ["jsonl 0", "jsonl 1"]
    assert by_file["d.json"] == ["json 0", "json 1"]
    assert by_file["e.csv"] == ["cell, with comma", "two\nlines"]
    assert by_file["f.tsv"] == ["tab"]
    assert "One & two" in by_file["g.html"][0]
    assert "x" not in by_file["g.html"][0]
    assert by_file["h.parquet"] == by_file["l.data"] == ["parquet 0", "parquet 1", "parquet 2"]
    assert by_file["i.txt.gz"] == ["in gzip"]
    assert by_file["k.txt"] == ["gzip in disguise"]
    assert [item.is_web for item in found if isinstance(item, Document) and "g.html" in item.origin] == [True]


@pytest.mark.parametrize(
    ("name", "data", "reason", "kept"),
    [
        ("bad.jsonl", b'{"text": "one"}\n{"text": broken}\n{"text": "three"}\n', "bad_json", ["one", "three"]),
        ("latin.txt", "Größe\n".encode("latin-1") * 9, "bad_utf8", []),
        ("cut.parquet", parquet(["x"] * 9)[:-40], "damaged", []),
        ("cut.txt.gz", gzip.compress(os.urandom(9000).hex().encode())[:-900], "damaged", []),
    ],
)
def test_bad_input_is_told_with_its_place_or_skipped(
    tmp_path: Path, name: str, data: bytes, reason: str, kept: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AlmError) as caught:
        items(tmp_path)
    assert name in caught.value.message
    if name == "bad.jsonl":
        assert "2" in caught.value.message
    assert "on_bad_input=skip" in str(caught.value.hint)
    assert reason in reasons(tmp_path, on_bad_input="skip")
    assert [text for text in texts(tmp_path, on_bad_input="skip") if len(text) < 99] == kept


def test_a_broken_quote_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,good\n2,"never ends\n3,x\n')
    with pytest.raises(AlmError, match="a.csv"):
        items(tmp_path)
    assert texts(tmp_path, on_bad_input="skip")[0] == "good"


def test_long_lines_are_skipped_and_long_texts_are_cut_between_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x" * 9000}) + "\n" + json.dumps({"text": "short"}) + "\n")
    (tmp_path / "b.txt").write_text("y" * 9000)
    (tmp_path / "c.txt").write_text("\n".join(f"line {n}" for n in range(500)))
    found = items(tmp_path, max_document_bytes=2048)
    assert [item.reason for item in found if isinstance(item, Dropped)] == ["too_long", "too_long"]
    lines = [item.text for item in found if isinstance(item, Document)]
    assert lines[0] == "short"
    assert all(len(text) <= 2048 for text in lines)
    assert "".join(lines[1:]).replace("\n", "") == "".join(f"line {n}" for n in range(500))


def test_strange_names_links_and_characters(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "new\nline.txt").write_text("strange name")
    (folder / "a.jsonl").write_bytes(b'{"text": "lone \\ud800 and \\u0000 nul"}\n')
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (folder / ".hidden").write_text("hidden")
    config = load(CorpusConfig, [], base={"sources": {"s": {"kind": "files", "paths": str(folder)}}})
    [metadata] = prepare(config, out=tmp_path / "out")
    documents = list(read_documents(find([tmp_path / "out"])))
    assert sorted(d.text for d in documents) == ["lone \ufffd and  nul", "strange name"]
    assert metadata.bytes.input == metadata.bytes.kept
    assert metadata.bytes.output == metadata.bytes.kept + sum(metadata.bytes.changed.values())


def test_a_file_in_parts_gives_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"row {n} é"}) + "\n" for n in range(300)))
    (tmp_path / "b.parquet").write_bytes(parquet([f"cell {n}" for n in range(300)]))
    whole = items(tmp_path)
    monkeypatch.setattr("alm.corpus.sources.files.PART_BYTES", 900)
    config = files.Config(paths=str(tmp_path))
    parts = files.survey(config).parts
    assert len(parts) > 8
    assert list(files.read(config, parts)) == whole
    assert [item for part in parts for item in files.read(config, [part])] == whole
