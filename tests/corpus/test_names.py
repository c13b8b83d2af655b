"""Names as a file system allows them: not UTF-8, with newlines, in loops, closed, or of folders."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from alm.artifacts import SourceMetadata
from alm.config.load import load
from alm.corpus.config import CorpusConfig, values_for_paths
from alm.corpus.paths import from_text
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import find, read_documents
from alm.errors import AlmError, ConfigError, InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
LATIN = "caf\udce9"


def _prepared(out: Path, *given: str, **keys: object) -> SourceMetadata:
    values = values_for_paths(list(given))
    for source in values["sources"].values():
        source.update(keys)
    [metadata] = prepare(load(CorpusConfig, [], base=values), out=out)
    return metadata


def _origins(out: Path) -> list[str]:
    """Read as UTF-8, by the strict rules of JSON."""
    lines = [line for path in sorted(out.glob("*-0*.jsonl")) for line in path.read_bytes().split(b"\n")[:-1]]
    return [Path(json.loads(line.decode())["origin"]).name for line in lines]


def test_names_that_are_not_utf8_are_read_and_their_origins_are_text(tmp_path: Path) -> None:
    folder = tmp_path / f"in {LATIN}"
    folder.mkdir()
    (folder / f"{LATIN}.txt").write_text("one\n")
    (folder / f"{LATIN}.jsonl").write_text('{"text": "two\\n"}\n')
    (folder / f"{LATIN}.txt.gz").write_bytes(gzip.compress(b"three\n"))
    (folder / f"{LATIN}.csv").write_text("text\nfour\n")
    (folder / f"{LATIN}.html").write_text("<html><body><p>five</p></body></html>")
    metadata = _prepared(tmp_path / "out", str(folder), filters="light")
    assert sorted(_origins(tmp_path / "out")) == [
        r"caf\xe9.csv#1",
        r"caf\xe9.html",
        r"caf\xe9.jsonl#1",
        r"caf\xe9.txt",
        r"caf\xe9.txt.gz",
    ]
    assert _prepared(tmp_path / "out", str(folder), filters="light") == metadata  # up to date
    assert {Path(file.path).parent.name for file in metadata.inputs} == {r"in caf\xe9"}


def test_a_file_whose_name_is_not_utf8_is_named_by_its_bytes_or_by_its_text(tmp_path: Path) -> None:
    (tmp_path / f"{LATIN}.txt").write_text("one\n")
    first = _prepared(tmp_path / "out", str(tmp_path / f"{LATIN}.txt"))
    assert first.source == "caf"
    assert _prepared(tmp_path / "out", str(tmp_path / r"caf\xe9.txt")) == first
    assert [document.text for document in read_documents(find([tmp_path / "out"]))] == ["one\n"]
    assert from_text(str(tmp_path / r"gone\xe9.txt")) == tmp_path / r"gone\xe9.txt"


def test_parquet_whose_name_is_not_utf8_is_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    plain = tmp_path / "plain.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", "two"]}), plain)
    plain.rename(tmp_path / f"{LATIN}.parquet")
    _prepared(tmp_path / "out", str(tmp_path / f"{LATIN}.parquet"))
    assert _origins(tmp_path / "out") == [r"caf\xe9.parquet#1", r"caf\xe9.parquet#2"]


def test_two_names_that_read_alike_are_refused(tmp_path: Path) -> None:
    for name in (f"{LATIN}.txt", r"caf\xe9.txt"):
        (tmp_path / name).write_text(name.encode("utf-8", "replace").decode())
    with pytest.raises(InputError, match="is the name of two files"):
        _prepared(tmp_path.parent / f"{tmp_path.name}-out", str(tmp_path))


def test_names_with_newlines_and_quotes_are_names(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ["a\nb.txt", "it's.txt", 'say "x".txt', "\x1b[31m.txt", "-n.txt"]
    for name in names:
        (folder / name).write_text(f"text of {names.index(name)}\n")
    _prepared(tmp_path / "out", str(folder))
    assert sorted(_origins(tmp_path / "out")) == sorted(names)


@pytest.mark.parametrize("path", ["a\0b", "texts\0", "\0"])
def test_a_path_with_a_nul_is_an_error_of_the_configuration(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="NUL"):
        load(CorpusConfig, [], base={"sources": {"s": {"kind": "files", "paths": [path]}}})
    with pytest.raises(InputError):
        find([path])


def test_loops_of_links_pipes_and_folders_named_like_files_are_errors_in_words(tmp_path: Path) -> None:
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "folder.txt").mkdir()
    for name in ("loop.txt", "pipe.txt", "folder.txt", "none.txt", "n" * 300, "~nobody-of-that-name/x"):
        with pytest.raises(AlmError) as caught:
            _prepared(tmp_path / "out", str(tmp_path / name) if not name.startswith("~") else name)
        assert caught.value.hint


def test_a_file_that_may_not_be_read_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = tmp_path / "closed.txt"
    closed.write_text("text\n")
    real = Path.open

    def refusing(self: Path, *arguments: object, **keys: object) -> object:
        if self.name == "closed.txt":
            raise PermissionError(13, os.strerror(13), str(self))
        return real(self, *arguments, **keys)  # type: ignore[call-overload] # whatever open takes

    monkeypatch.setattr(Path, "open", refusing)  # root may read everything
    with pytest.raises(AlmError, match="closed.txt"):
        _prepared(tmp_path / "out", str(closed))
