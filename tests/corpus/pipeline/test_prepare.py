"""`alm corpus prepare`: bytes add up, documents come back, nothing is lost."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alm import artifacts
from alm.artifacts import HeldOut, HoldOut, SourceMetadata
from alm.config.load import load
from alm.corpus.config import CorpusConfig, values_for_paths
from alm.corpus.normalize import normalize
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import find, read_documents
from alm.corpus.records import MARK
from alm.errors import AlmError, ArtifactError, ConfigError, InputError
from alm.events import Event, Noted, Warned

TEXTS = {
    "a.txt": "first\n  indented\n",
    "b.md": f"second\r\n{MARK}\n",
    "deep/c.txt.gz": "dritte Größe\n",
    "d.rst": " \n",
}


def folder_of(root: Path, texts: dict[str, str] = TEXTS) -> Path:
    folder = root / "texts"
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def corpus(**sources: dict[str, object]) -> CorpusConfig:
    return load(CorpusConfig, [], base={"sources": sources, "validation_fraction": 0.2})


def text_source(folder: Path, **keys: object) -> dict[str, object]:
    return {"kind": "files", "paths": str(folder), "document": "file", **keys}


def files_in(folder: Path) -> dict[str, bytes]:
    """What was made, without the report, which holds times, and what is remembered between two runs."""
    found = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("_"))
    return {path.name: path.read_bytes() for path in found}


def read_back(out: Path) -> list[str]:
    return [document.text for document in read_documents(find([out]))]


def assert_adds_up(metadata: SourceMetadata) -> None:
    for tally in (metadata.documents, metadata.bytes):
        assert tally.input == tally.kept + sum(tally.dropped.values())
        assert tally.output == tally.kept + sum(tally.changed.values())


def test_documents_come_back_exactly_and_bytes_add_up(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    [metadata] = prepare(corpus(books=text_source(folder_of(tmp_path))), out=out)
    assert read_back(out) == [normalize(TEXTS[name]).text for name in ("a.txt", "b.md", "deep/c.txt.gz")]
    assert_adds_up(metadata)
    assert metadata.bytes.input == sum(len(text.encode()) for text in TEXTS.values())
    assert metadata.bytes.dropped == {"empty": 2}
    assert metadata.bytes.changed == {"line_ends": -1}
    assert metadata.documents.dropped == {"empty": 1}


def test_a_source_whose_files_were_removed_is_prepared_without_force(tmp_path: Path) -> None:
    """Also from other inputs, and the text that was held out before is held out again."""
    out, folder = tmp_path / "clean", folder_of(tmp_path)
    [before] = prepare(corpus(books=text_source(folder)), out=out)
    made = files_in(out)
    for path in out.glob("books-*"):
        path.unlink()
    assert prepare(corpus(books=text_source(folder)), out=out) == [before]
    assert files_in(out) == made
    for path in out.glob("books-*"):
        path.unlink()
    (folder / "a.txt").write_text("another first\n")
    [after] = prepare(corpus(books=text_source(folder)), out=out)
    assert "another first\n" in read_back(out)
    assert after.held == before.held


@pytest.mark.parametrize("count", range(2, 12))
def test_a_few_short_documents_hold_one_of_them_out(count: int, tmp_path: Path) -> None:
    """Each is larger than ten times the share, and none has a line to cut at."""
    texts = {f"{number}.txt": f"Text {number} of one line, " + "as short " * (3 + number) for number in range(count)}
    config = load(CorpusConfig, [], base={"sources": {"notes": text_source(folder_of(tmp_path, texts))}})
    events: list[Event] = []
    [metadata] = prepare(config, out=tmp_path / "clean", on_event=events.append)
    assert metadata.validation_documents == 1
    assert metadata.documents.output == count
    assert_adds_up(metadata)
    assert not any(isinstance(event, Warned) for event in events)
    again = prepare(config, out=tmp_path / "clean", force=True)
    assert again == [metadata]


@pytest.mark.parametrize("form", ["txt", "jsonl.zst", "parquet"])
def test_a_few_books_hold_pieces_of_each_out(form: str, tmp_path: Path) -> None:
    books = {
        f"{name}.txt": "\r\n\r\n".join([MARK, *(f"Paragraph {n} of {name}: {'word ' * 40}" for n in range(400))])
        for name in "abc"
    }
    source, out = text_source(folder_of(tmp_path, {**books, "note.txt": "short\n"})), tmp_path / "clean"
    config = load(CorpusConfig, [], base={"sources": {"shelf": source}, "validation_fraction": 0.05, "format": form})
    [metadata] = prepare(config, out=out)
    assert_adds_up(metadata)
    documents = list(read_documents(find([out])))
    for name, text in books.items():
        parts = [document for document in documents if f"/texts/{name}#part-" in document.origin]
        assert "".join(part.text for part in parts) == normalize(text).text
        assert [part.split for part in parts] == ["train", *["validation", "train"] * (len(parts) // 2)]
    held_out = [document for document in documents if document.split == "validation"]
    assert metadata.held_out == HeldOut(
        pieces=len(held_out), cut_documents=3, bytes=sum(len(document.text.encode()) for document in held_out)
    )
    assert metadata.documents.changed == {"held_out_part": len(documents) - 4}
    assert metadata.format_version == 2
    assert len({document.origin for document in documents}) == len(documents)
    made = files_in(out)
    assert prepare(config, out=out, force=True) == [metadata]
    assert files_in(out) == made


def test_metadata_without_pieces_is_as_it_was(tmp_path: Path) -> None:
    """An `alm` of version 1 reads it: `held` has no key that it does not know."""
    assert HoldOut(digest="a" * 64).model_dump(mode="json") == {"digest": "a" * 64, "cut": None}
    texts = {f"{n}.txt": f"text {n}\n" for n in range(200)}
    [metadata] = prepare(corpus(notes=text_source(folder_of(tmp_path, texts))), out=tmp_path / "clean")
    assert (metadata.format_version, metadata.held) == (1, None)


def test_another_share_cuts_again(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {n} of a book" for n in range(5000))
    source, out = text_source(folder_of(tmp_path, {"a.txt": text})), tmp_path / "clean"
    shares = []
    for fraction in (0.05, 0.1):
        config = load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": fraction})
        [metadata] = prepare(config, out=out, force=True)
        assert metadata.held_out is not None
        assert metadata.held_out.bytes is not None
        shares.append(metadata.held_out.bytes / metadata.bytes.output)
    assert shares == pytest.approx([0.05, 0.1], rel=0.5)
    assert shares[1] > 1.5 * shares[0]


def test_the_files_are_as_the_format_says(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    [metadata] = prepare(corpus(books=text_source(folder_of(tmp_path))), out=out)
    assert sorted(files_in(out)) == ["books-00000.jsonl", "books-00000.txt", "books.json"]
    expected = f"first\n  indented\n\n{MARK}\nsecond\n\\{MARK}\n\n{MARK}\ndritte Größe\n\n{MARK}\n"
    assert (out / "books-00000.txt").read_text(encoding="utf-8") == expected
    lines = [json.loads(line) for line in (out / "books-00000.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert [sorted(line) for line in lines] == [["cluster", "id", "origin", "sha256", "split"]] * 3
    assert len({line["id"] for line in lines}) == 3
    assert sum(line["split"] == "validation" for line in lines) == metadata.validation_documents == 1
    assert artifacts.damaged(out, metadata.payload()) == []
    assert all(not Path(file.path).is_absolute() for file in metadata.inputs)


def test_shards_are_cut_by_size_and_read_in_order(tmp_path: Path) -> None:
    texts = {f"{i:03d}.txt": f"document {i}\n" * 5 for i in range(40)}
    out = tmp_path / "clean"
    [metadata] = prepare(corpus(books=text_source(folder_of(tmp_path, texts))), out=out, unit_bytes=400)
    assert len(metadata.shards) > 5
    assert read_back(out) == list(texts.values())


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("line", ["one", "two", "  three"]),
        ("block", ["one\ntwo", "  three"]),
        ("file", ["one\ntwo\n\n\n  three\n"]),
    ],
)
def test_a_document_is_a_file_a_block_or_a_line(tmp_path: Path, unit: str, expected: list[str]) -> None:
    texts = {"a.txt": "one\r\ntwo\r\n\r\n \r\n  three\r\n".replace(" \r\n  three", "\r\n  three")}
    config = load(
        CorpusConfig,
        [],
        base={"sources": {"s": text_source(folder_of(tmp_path, texts), document=unit)}, "validation_fraction": 0},
    )
    [metadata] = prepare(config, out=tmp_path / "clean")
    assert read_back(tmp_path / "clean") == expected
    assert_adds_up(metadata)
    assert metadata.bytes.input == len(texts["a.txt"])


def test_json_lines_are_read_by_field(tmp_path: Path) -> None:
    lines = [{"body": "one"}, {"body": "two\nlines"}, {"body": None}, {"body": " "}]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    config = corpus(s={"kind": "files", "paths": str(tmp_path / "a.jsonl.gz"), "field": "body"})
    [metadata] = prepare(config, out=tmp_path / "clean")
    assert sorted(read_back(tmp_path / "clean")) == ["one", "two\nlines"]
    assert metadata.documents.dropped == {"empty": 1, "not_text": 1}
    assert_adds_up(metadata)


def test_limits_keep_the_first_documents_and_still_add_up(tmp_path: Path) -> None:
    texts = {f"{i}.txt": f"{i}" * 10 for i in range(9)}
    folder = folder_of(tmp_path, texts)
    [few] = prepare(corpus(s=text_source(folder, limit=3)), out=tmp_path / "few")
    [small] = prepare(corpus(s=text_source(folder, max_bytes=45)), out=tmp_path / "small")
    assert (few.documents.output, small.documents.output, small.bytes.output) == (3, 4, 40)
    [fewer] = prepare(corpus(s=text_source(folder, limit=3)), out=tmp_path / "fewer", limit=2)
    assert fewer.documents.output == 2
    for metadata in (few, small, fewer):
        assert_adds_up(metadata)


def test_paths_alone_make_sources_named_after_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (tmp_path / "my notes.jsonl").write_text('{"text": "note"}\n')
    config = load(CorpusConfig, [], base=values_for_paths([str(folder), str(tmp_path / "my notes.jsonl")]))
    assert {name: source.model_dump()["kind"] for name, source in config.sources.items()} == {
        "texts": "files",
        "my-notes": "files",
    }
    assert len(prepare(config, out=tmp_path / "clean")) == 2


def test_equal_names_are_numbered(tmp_path: Path) -> None:
    for name in ("x/a.txt", "y/a.txt", "z/a-00001.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("text")
    given = [str(tmp_path / name) for name in ("x/a.txt", "y/a.txt", "z/a-00001.txt")]
    assert list(values_for_paths(given)["sources"]) == ["a", "a-2", "a-3"]


def test_a_mixed_folder_is_one_source(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "notes.jsonl").write_text('{"text": "note"}\n')
    (folder / "table.csv").write_text("n,text\n1,cell\n")
    (folder / "page.html").write_text("<html><body><script>x</script><p>web page</p></body></html>")
    config = load(CorpusConfig, [], base=values_for_paths([str(folder)]), overrides=["sources.texts.filters=light"])
    [metadata] = prepare(config, out=tmp_path / "clean")
    assert {"note", "cell", "web page"} <= {text.strip() for text in read_back(tmp_path / "clean")}
    assert_adds_up(metadata)


def test_what_is_up_to_date_is_kept(tmp_path: Path) -> None:
    out, events = tmp_path / "clean", list[Event]()
    config = corpus(books=text_source(folder_of(tmp_path)))
    first = prepare(config, out=out)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(config, out=out, on_event=events.append) == first
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert any(isinstance(event, Noted) and "up to date" in event.message for event in events)


def test_other_inputs_or_another_configuration_are_refused_until_forced(tmp_path: Path) -> None:
    out, folder = tmp_path / "clean", folder_of(tmp_path)
    prepare(corpus(books=text_source(folder)), out=out)
    before = files_in(out)
    (folder / "a.txt").write_text("changed\n")
    with pytest.raises(ArtifactError, match="made from other inputs") as caught:
        prepare(corpus(books=text_source(folder)), out=out)
    assert "a.txt" in caught.value.message
    assert "--only books --force" in str(caught.value.hint)
    assert files_in(out) == before
    (folder / "a.txt").write_text(TEXTS["a.txt"])
    with pytest.raises(ArtifactError, match="source.document  file -> line"):
        prepare(corpus(books=text_source(folder, document="line")), out=out)
    prepare(corpus(books=text_source(folder, document="line")), out=out, force=True)
    assert files_in(out) != before


def test_forcing_removes_shards_that_are_no_longer_made(tmp_path: Path) -> None:
    texts = {f"{i}.txt": "x" * 100 for i in range(9)}
    folder, out = folder_of(tmp_path, texts), tmp_path / "clean"
    prepare(corpus(s=text_source(folder)), out=out, unit_bytes=100)
    [metadata] = prepare(corpus(s=text_source(folder, limit=2)), out=out, force=True)
    assert len(metadata.shards) == 1
    assert sorted(files_in(out)) == ["s-00000.jsonl", "s-00000.txt", "s.json"]


def test_a_failure_leaves_what_was_there_whole(tmp_path: Path) -> None:
    out, folder = tmp_path / "clean", folder_of(tmp_path)
    prepare(corpus(books=text_source(folder)), out=out)
    before = files_in(out)
    (folder / "e.txt").write_bytes(b"not utf-8: \xff")
    with pytest.raises(InputError, match="e.txt` is not UTF-8: byte 0xFF at offset 11"):
        prepare(corpus(books=text_source(folder)), out=out, force=True)
    assert files_in(out) == before


def test_a_named_encoding_is_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.txt": ""})
    (folder / "a.txt").write_bytes("café".encode("cp1252"))
    prepare(corpus(s=text_source(folder, encoding="cp1252")), out=tmp_path / "clean")
    assert read_back(tmp_path / "clean") == ["café"]


def test_not_utf8_is_told_in_every_unit(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"a.txt": ""})
    (folder / "a.txt").write_bytes(b"fine\n" * 50_000 + b"caf\xe9\n")
    for unit in ("line", "block"):
        with pytest.raises(InputError, match="byte 0xE9 at offset 250,003"):
            prepare(corpus(s=text_source(folder, document=unit)), out=tmp_path / "clean")


def test_bad_sources_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "other.jsonl").write_text('{"txt": "a"}\n')

    def fault(**source: object) -> AlmError:
        with pytest.raises(AlmError) as caught:
            prepare(corpus(s=source), out=tmp_path / "clean")
        assert caught.value.hint
        return caught.value

    assert "does not exist" in fault(kind="files", paths=str(tmp_path / "none")).message
    assert "holds text" in fault(kind="files", paths=str(tmp_path / "empty")).message
    assert "holds no text" in fault(kind="files", paths=str(tmp_path / "blank.txt")).message
    assert "a JSON list, but must be an object" in fault(kind="files", paths=str(tmp_path / "list.jsonl")).message
    assert "line 2 is not JSON" in fault(kind="files", paths=str(tmp_path / "broken.jsonl")).message
    assert "no field `text` (did you mean `txt`?)" in fault(kind="files", paths=str(tmp_path / "other.jsonl")).message
    assert "is not a text encoding" in fault(kind="files", paths=str(tmp_path / "blank.txt"), encoding="none").message
    assert [path.name for path in (tmp_path / "clean").iterdir()] == [".alm"]


def test_names_that_are_not_there_are_told(tmp_path: Path) -> None:
    config = corpus(books=text_source(folder_of(tmp_path)))
    with pytest.raises(ConfigError, match=r"no source is named `book` \(did you mean `books`\?\)"):
        prepare(config, out=tmp_path / "clean", only=["book"])
    with pytest.raises(ConfigError, match="no source is enabled"):
        prepare(corpus(books=text_source(tmp_path, enabled=False)), out=tmp_path / "clean")
    with pytest.raises(ConfigError, match="cannot begin a file name"):
        corpus(**{"a/b": text_source(tmp_path)})


def test_a_source_the_corpus_no_longer_names_is_told(tmp_path: Path) -> None:
    folder, events = folder_of(tmp_path), list[Event]()
    prepare(corpus(old=text_source(folder)), out=tmp_path / "clean")
    prepare(corpus(new=text_source(folder)), out=tmp_path / "clean", on_event=events.append)
    assert any(isinstance(event, Warned) and "`old`" in event.message for event in events)


def test_an_unfinished_corpus_is_not_read_as_foreign_text(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    prepare(corpus(books=text_source(folder_of(tmp_path))), out=out)
    (out / "books.json").unlink()
    with pytest.raises(ArtifactError, match="part of an unfinished corpus"):
        find([out])


def test_document_lines_that_do_not_fit_are_told(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    prepare(corpus(books=text_source(folder_of(tmp_path))), out=out)
    lines = (out / "books-00000.jsonl").read_text().split("\n")
    (out / "books-00000.jsonl").write_text("\n".join(lines[1:]))
    with pytest.raises(ArtifactError, match="has changed since it was written|do not hold the same documents"):
        read_back(out)


def test_a_shard_that_was_edited_is_told_when_it_is_read(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    prepare(corpus(books=text_source(folder_of(tmp_path))), out=out)
    shard = out / "books-00000.txt"
    shard.write_bytes(shard.read_bytes().replace(b"first", b"FIRST"))
    with pytest.raises(ArtifactError, match="books-00000.txt` has changed since it was written"):
        read_back(out)


def test_zstandard_is_read_by_line_too(tmp_path: Path) -> None:
    import pyarrow

    with pyarrow.CompressedOutputStream(pyarrow.OSFile(str(tmp_path / "a.jsonl.zst"), "wb"), "zstd") as file:
        file.write(b'{"text": "one"}\n{"text": "two"}\n')
    prepare(corpus(s={"kind": "files", "paths": str(tmp_path / "a.jsonl.zst")}), out=tmp_path / "clean")
    assert sorted(read_back(tmp_path / "clean")) == ["one", "two"]


def test_foreign_text_is_read_beside_a_corpus(tmp_path: Path) -> None:
    out = tmp_path / "clean"
    prepare(corpus(books=text_source(folder_of(tmp_path))), out=out)
    (out / "foreign.txt").write_text(f"one\n{MARK}\ntwo\n")
    found = [(d.source, d.text, d.split) for d in read_documents(find([out])) if d.source == "foreign"]
    assert found == [("foreign", "one", None), ("foreign", "two\n", None)]


def test_the_same_corpus_has_the_same_bytes(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    for name in ("one", "two"):
        prepare(corpus(books=text_source(folder)), out=tmp_path / name)
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("form", ["txt", "parquet"])
def test_a_stop_at_any_point_of_publishing_loses_nothing(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path / "in", {f"{n}.txt": f"text {n} " * 5 for n in range(3)})
    few = load(CorpusConfig, [], base={"sources": {"s": text_source(folder)}, "format": form})
    prepare(few, out=tmp_path / "undisturbed", unit_bytes=60)
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "before")
    (folder / "7.txt").write_text("text that came later")
    (folder / "0.txt").write_text("text that was changed")
    prepare(few, out=tmp_path / "undisturbed", unit_bytes=60, force=True)
    real = Path.replace
    reached = 0
    for stop in range(100):
        out = tmp_path / f"out{stop}"
        shutil.copytree(tmp_path / "before", out)
        left = iter(range(stop))

        def failing(self: Path, target: Path, left: Iterator[int] = left) -> Path:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(Path, "replace", failing)
        try:
            prepare(few, out=out, unit_bytes=60, force=True)
            reached = stop
        except KeyboardInterrupt:
            monkeypatch.setattr(Path, "replace", real)
            prepare(few, out=out, unit_bytes=60, force=True)
        monkeypatch.setattr(Path, "replace", real)
        assert files_in(out) == files_in(tmp_path / "undisturbed"), stop
        if reached:
            break
    assert reached > 5


def test_a_corpus_file_given_as_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sources: {tales: {kind: tales}}")
    with pytest.raises(InputError, match="is a corpus file, not text") as caught:
        values_for_paths([str(path)])
    assert f"alm corpus prepare --src {path}" in str(caught.value.hint)
    # YAML, or text, of another kind
    for text in ("sources: about springs\n", "sources: {rain: {depth: 3}}", "- a\n", "{", "a: b"):
        path.write_text(text)
        assert [source["paths"] for source in values_for_paths([str(path)])["sources"].values()] == [[str(path)]]


def test_what_readers_could_not_put_into_the_text_is_reported(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "given", {"a.html": "<meta charset=windows-1253><p>x</p>", "c.jsonl": '{"text": "\\ud800"}'}
    )
    (folder / "b.html").write_bytes(b"<meta charset=windows-1253><p>\xd2\xd2</p>")
    events: list[Event] = []
    prepare(corpus(web=text_source(folder, filters="light")), out=tmp_path / "clean", on_event=events.append)
    (said,) = [event.message for event in events if isinstance(event, Warned)]
    assert "characters that cannot be decoded, read as U+FFFD (3, first in" in said
    assert f"first in `{(folder / 'b.html').as_posix()}`" in said
    report = json.loads((tmp_path / "clean/_report.json").read_text())
    assert report["sources"][0]["lost"] == {"replaced_characters": 3}
    shown = report["sources"][0]["examples"]["replaced_characters"]
    assert [(each["origin"].rpartition("/")[2], each["detail"]) for each in shown] == [
        ("b.html", "2 times"),
        ("c.jsonl#1", "1 times"),
    ]


REJECTED = {
    '{"text": null, "body": "a text"}\n': "`--set sources.in.field=body`",
    '{"text": ["a"], "n": 3, "long body": "a text", "b": "t"}\n': "`--set sources.in.field='long body'`",
    '{"text": 3}\n': "`--set sources.in.field=...`",
    "x" * 90 + "\n": "`--set sources.in.on_bad_input=stop`",
    '{"text": "' + "long " * 400 + '"}\n': "`--set sources.in.max_document_bytes=4096`",
    '{"text": "two words"}\n': "`--set sources.in.filters=light`",
}


@pytest.mark.parametrize("text", list(REJECTED), ids=lambda text: text[:20])
def test_the_hint_is_for_the_reason_that_left_nothing(text: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {"in.jsonl": text})
    keys = {"on_bad_input": "skip", "max_document_bytes": 1024, "filters": [{"kind": "length", "min_words": 3}]}
    config = corpus(**{"in": text_source(folder / "in.jsonl", **keys) | {"document": "auto"}})
    with pytest.raises(InputError, match=r"no document of source `in` is left: 1 \w+ \(") as caught:
        prepare(config, out=tmp_path / "clean")
    assert REJECTED[text] in str(caught.value.hint)
    assert str(caught.value.hint).count("--set") == 1 + (".field=" in REJECTED[text])


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("is_list", [False, True])
def test_json_in_a_file_named_jsonl_is_read(indent: int | None, is_list: bool, tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": "two"}]
    text = json.dumps(rows, indent=indent) if is_list else "\n".join(json.dumps(row, indent=indent) for row in rows)
    folder = folder_of(tmp_path, {"in.jsonl": text})
    prepare(corpus(books={"kind": "files", "paths": str(folder)}), out=tmp_path / "clean")
    assert read_back(tmp_path / "clean") == ["one", "two"]
