"""Kind `files`: what is read of what lies there, in which form, and what becomes of what cannot be read."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from alm.corpus.document import Document, Dropped, Item, Part, utf8_bytes
from alm.corpus.paths import from_text
from alm.corpus.sources import files
from alm.corpus.sources.files import Config, inputs, survey
from alm.errors import AlmError, ConfigError, InputError
from alm.events import Event, Noted, Warned

ROWS = [{"text": f"é {n}", "n": n} for n in range(30)]
TEXTS = [f"é {n}" for n in range(30)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


def table(rows: list[dict[str, Any]] = ROWS, **keys: Any) -> bytes:
    import io

    import pyarrow
    from pyarrow.parquet import write_table

    file = io.BytesIO()
    write_table(pyarrow.Table.from_pylist(rows), file, **keys)
    return file.getvalue()


def zst(data: bytes) -> bytes:
    import pyarrow

    return bytes(pyarrow.compress(data, codec="zstd", asbytes=True))


PACKERS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zst, ".xz": lzma.compress}
FORMS: dict[str, bytes] = {
    ".jsonl": LINES,
    ".ndjson": "\ufeff".encode("utf-16-le") + LINES.decode().encode("utf-16-le"),
    ".json": json.dumps(ROWS, indent=1).encode(),
    ".csv": ("n;text\r\n" + "".join(f"{row['n']};{row['text']}\r\n" for row in ROWS)).encode(),
    ".tsv": ("text\tn\n" + "".join(f"{row['text']}\t{row['n']}\n" for row in ROWS)).encode(),
    ".parquet": table(row_group_size=7),
    ".txt": "\n<|endoftext|>\n".join(TEXTS).encode(),
}


def write(folder: Path, **contents: bytes | str) -> None:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def read(path: Path | list[Path], **keys: Any) -> list[Item]:
    config = Config(paths=[str(p) for p in path] if isinstance(path, list) else str(path), **keys)
    return list(files.read(config, survey(config).parts))


def texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Document)]


def drops(items: list[Item]) -> list[Dropped]:
    return [item for item in items if isinstance(item, Dropped) and item.reason != "separator"]


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


# ---- forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_packed_or_not(tmp_path: Path, form: str, packer: str) -> None:
    path = tmp_path / f"a{form}{packer}"
    path.write_bytes(PACKERS[packer](FORMS[form]))
    items = read(path)
    assert texts(items) == TEXTS
    assert [i.origin for i in items if isinstance(i, Document)] == [f"{path.as_posix()}#{n}" for n in range(1, 31)]
    (tmp_path / f"b{form}").write_bytes(PACKERS[packer](FORMS[form]))  # the name does not say that it is packed
    assert texts(read(tmp_path / f"b{form}")) == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", LINES, [LINES.decode()]),
        ("a.md", b"<html><p>x", ["<html><p>x"]),
        ("a.json", LINES, TEXTS),
        ("a.json", b'{"text": "x",\n "n": 1}', ["x"]),
        ("a", LINES, TEXTS),
        ("a.data", table(), TEXTS),
        ("a.txt", gzip.compress(table(), mtime=0), TEXTS),
        ("a.unknown", json.dumps(ROWS).encode(), TEXTS),
        ("a", b"<!-- x -->\n<!DOCTYPE HTML><p>x", ["x"]),
        ("a", b"# {x}\n[1] plain", ["# {x}\n[1] plain"]),
        ("a.py", b"x = 1\n", ["x = 1\n"]),
        ("a.TXT", b"a\x00b" + b"c" * 40, ["a\x00b" + "c" * 40]),
        ("a.txt", "x".encode("utf-16"), ["x"]),
        ("a", "x".encode("utf-32"), ["x"]),
    ],
)
def test_content_or_name_decides(tmp_path: Path, name: str, content: bytes, expected: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert texts(read(tmp_path / name)) == expected
    assert texts(read(tmp_path)) == expected  # found in a folder, just so


def test_pages_are_marked(tmp_path: Path) -> None:
    write(tmp_path, a_html="<p>x", b_txt="y")
    assert [(i.text, i.is_web) for i in read(tmp_path) if isinstance(i, Document)] == [("x", True), ("y", False)]


def test_what_is_asked_for_decides_for_named_files(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    for form, name in {".jsonl": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}.items():
        path.write_bytes(FORMS[form])
        assert texts(read(path, format=name)) == TEXTS
    path.with_suffix(".jsonl").write_bytes(LINES)
    assert texts(read(path.with_suffix(".jsonl"), format="text")) == [LINES.decode()]


def test_of_a_folder_what_has_the_form_that_is_asked_for_is_read(tmp_path: Path) -> None:
    write(
        tmp_path, README_md="# x", LICENSE="MIT", a_jsonl="{}", b_txt=LINES, c_json=LINES, d_csv="n", e_txt="x",
        f_html="x", g=table(), h_json="{}", i_bin="\0",
    )  # fmt: skip
    expected = {
        "jsonl": ["a.jsonl", "b.txt", "c.json"],
        "json": ["c.json", "h.json"],
        "csv": ["LICENSE", "b.txt", "d.csv", "e.txt"],
        "html": ["f.html"],
        "parquet": ["g"],
        "text": ["LICENSE", "README.md", "a.jsonl", "b.txt", "c.json", "d.csv", "e.txt", "f.html", "h.json"],
    }
    for name, found in expected.items():
        assert names(inputs(Config(paths=str(tmp_path), format=name)), tmp_path) == found
    heard: list[Event] = []
    survey(Config(paths=str(tmp_path), format="parquet"), on_event=heard.append)
    assert [type(event) for event in heard] == [Warned]
    assert "10 of the files found are not parquet and are left out: 1 .bin, 1 .csv" in str(heard[0])


# ---- finding ------------------------------------------------------------------------------------


def test_rubbish_in_a_folder_is_told_once_and_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        a_txt="x",
        p_png=b"\x89PNG\r\n",
        q_png=b"\x89PNG",
        r_pdf=b"%PDF-1.7\n%abc",
        bin__ls="\x7fELF\0",
        s="\0",
    )
    write(tmp_path, t_bin=b"\xff\xfe\x80\x00"[2:], u_txt="a\0" * 50, v_zip=b"PK\x03\x04", w_dat=b"caf\xe9")
    write(tmp_path / ".git", config="x")
    heard: list[Event] = []
    config = Config(paths=str(tmp_path))
    assert texts(list(files.read(config, survey(config, on_event=heard.append).parts))) == ["x"]
    assert heard == [
        Warned(
            "9 of the files found are not text and are left out: 1 .bin, 1 .dat, 1 .pdf, 2 .png, 1 .txt, 1 .zip, "
            "2 without suffix"
        ),
        Noted("1 hidden files and folders are left out"),
    ]
    for name in ("p.png", "r.pdf", "s", "u.txt", "w.dat"):
        with pytest.raises(InputError, match=f"{name}` is not text") as caught:
            inputs(Config(paths=[str(tmp_path), str(tmp_path / name)]))
        assert f"file {tmp_path / name}" in str(caught.value.hint)
    assert texts(read(tmp_path / "w.dat", encoding="latin-1")) == ["café"]
    assert texts(read(tmp_path / "u.txt", encoding="utf-16-le")) == ["a" * 50]


def test_patterns_choose_among_what_is_found(tmp_path: Path) -> None:
    write(tmp_path, a_txt="", sub__a_txt="", sub__b_md="", sub__deep__c_txt="")
    for keys, found in [
        ({"include": "*.txt"}, ["a.txt", "sub/a.txt", "sub/deep/c.txt"]),
        ({"exclude": ["sub/deep/*", "*.md"]}, ["a.txt", "sub/a.txt"]),
        ({"include": ["sub/*"], "exclude": ["c.*"]}, ["sub/a.txt", "sub/b.md"]),
    ]:
        assert names(inputs(Config(paths=str(tmp_path), **keys)), tmp_path) == found
    named = Config(paths=str(tmp_path / "a.txt"), exclude="*")
    assert names(inputs(named), tmp_path) == ["a.txt"]


def test_a_folder_without_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file in `.*empty` holds text"):
        inputs(Config(paths=str(tmp_path / "empty")))
    write(tmp_path, a_md="x")
    with pytest.raises(InputError, match="no file in `.*` is parquet"):
        inputs(Config(paths=str(tmp_path), format="parquet"))


def test_odd_names_come_with_origins_that_can_be_written(tmp_path: Path) -> None:
    for name in (b"new\nline.txt", b"caf\xe9.jsonl", b"caf\xe9.parquet", b"caf\xe9.zst", b"#1.csv"):
        data = {b".jsonl": LINES, b".parquet": table(), b".zst": zst(b"x"), b".csv": b"text\ny"}.get(name[-4:], b"z")
        data = LINES if name.endswith(b"jsonl") else table() if name.endswith(b"parquet") else data
        (tmp_path / os.fsdecode(name)).write_bytes(data)
    items = read(tmp_path)
    assert len(texts(items)) == 63
    origins = [item.origin.encode("utf-8", "replace") for item in items]
    assert len(set(origins)) == 63
    assert {from_text(part.name) for part in survey(Config(paths=str(tmp_path))).parts} == set(tmp_path.iterdir())


def test_paths_stay_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, sub__a_txt="x")
    monkeypatch.chdir(tmp_path)
    assert [item.origin for item in read(Path("./sub/"))] == ["sub/a.txt"]
    assert inputs(Config(paths="sub")) == [Path("sub/a.txt")]
    assert survey(Config(paths="sub", licence="MIT")).parts == (Part("sub/a.txt", 1),)
    assert survey(Config(paths="sub", licence="MIT")).licence == "MIT"


# ---- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [".jsonl", ".txt", ".parquet", ".csv", ".json"])
def test_parts_give_what_the_whole_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    path = tmp_path / f"a{form}"
    path.write_bytes(FORMS[form] + (b"\nnot json\n" if form == ".jsonl" else b""))
    config = Config(paths=str(path), document="line", on_bad_input="skip")
    whole = list(files.read(config, [Part(path.as_posix(), 1)]))
    monkeypatch.setattr(files, "PART_BYTES", 100)
    parts = survey(config).parts
    assert (len(parts) > 2) == (form in (".jsonl", ".txt", ".parquet"))
    assert [item for part in parts for item in files.read(config, [part])] == whole
    assert list(files.read(config, parts)) == whole


def test_a_later_part_may_begin_with_a_row_without_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a_jsonl=b'{"text": "a"}\n' + b'{"n": 1}\n' * 9)
    monkeypatch.setattr(files, "PART_BYTES", 10)
    items = read(tmp_path / "a.jsonl")
    assert [type(item) for item in items] == [Document] + [Dropped] * 9


def test_trees_are_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"message_tree_id": "t", "message_id": "a", "parent_id": None, "role": "prompter", "text": "Q"},
        {"message_tree_id": "t", "message_id": "b", "parent_id": "a", "role": "assistant", "text": "A", "rank": 0},
    ]
    monkeypatch.setattr(files, "PART_BYTES", 10)
    for name, data in {"a.jsonl": "\n".join(map(json.dumps, rows)).encode(), "a.parquet": table(rows)}.items():
        (tmp_path / name).write_bytes(data)
        assert texts(read(tmp_path / name, adapter="oasst")) == ["User: Q\n\nAssistant: A"]


def test_adapters_get_the_columns_that_they_need(tmp_path: Path) -> None:
    rows = [{"question": "Q", "answer": "A", "more": {"text": "T"}}]
    write(tmp_path, a_parquet=table(rows))
    alpaca = {"kind": "alpaca", "instruction": "question", "output": "answer"}
    assert texts(read(tmp_path, adapter=alpaca)) == ["User: Q\n\nAssistant: A"]
    assert texts(read(tmp_path, field="more.text")) == ["T"]


# ---- what cannot be read ------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, str, str]] = {
    "a.jsonl": (b'{"text": "a"}\n{"text": \n', "bad_json", "line 2 is not JSON"),
    "a.json": (b'[{"text": "a"}, {"text": nope}]', "bad_json", "row 2 is not JSON"),
    "a.csv": (b'text\na\n"b"c\n', "bad_csv", "line 3 cannot be read as CSV"),
    "a.txt": (b"caf\xe9", "bad_utf8", "byte 0xE9 at offset 3"),
    "a.html": (b"caf\xe9", "bad_utf8", "byte 0xE9 at offset 3"),
    "b.txt": ("x".encode("utf-16") + b"\x00\xd8", "bad_utf8", "is not utf-16"),
    "a.parquet": (table()[:-20], "damaged", "is damaged or not a Parquet file"),
    "a.txt.gz": (gzip.compress(b"x" * 999)[:-8], "damaged", "is damaged"),
    "a.txt.xz": (lzma.compress(os.urandom(999))[:-30], "damaged", "is damaged"),
    "a.txt.zst": (zst(os.urandom(999))[:-30], "damaged", "is damaged"),
    "a.jsonl.gz": (b"never packed", "damaged", "is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_stops_the_run_or_is_counted(tmp_path: Path, name: str) -> None:
    data, reason, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "z.txt").write_text("the last")
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path)
    assert name in caught.value.message
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)
    items = read(tmp_path, on_bad_input="skip")
    (dropped,) = drops(items)
    assert (dropped.reason, dropped.documents) == (reason, 1)
    assert dropped.bytes > 0
    assert dropped.origin.startswith((tmp_path / name).as_posix())
    assert texts(items)[-1] == "the last"


def test_a_bomb_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alm.files import packed as alm_files

    monkeypatch.setattr(alm_files, "_UNPACKED_BYTES", 1 << 20)
    monkeypatch.setattr(alm_files, "_UNPACKED_TIMES", 10)
    write(tmp_path, a_txt_gz=gzip.compress(b"0" * (64 << 20)), z_txt="the last")
    with pytest.raises(InputError, match="unpacks to more than 1,048,576 bytes"):
        read(tmp_path)
    items = read(tmp_path, on_bad_input="skip")
    assert texts(items) == ["the last"]
    assert [dropped.reason for dropped in drops(items)] == ["damaged"]


def test_a_file_that_vanishes_or_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a_txt="x", b_txt="y", c_jsonl=LINES)
    config = Config(paths=str(tmp_path))
    parts = survey(config).parts
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match="a.txt` does not exist"):
        list(files.read(config, parts))
    skipping = config.model_copy(update={"on_bad_input": "skip"})
    items = list(files.read(skipping, parts))
    assert drops(items) == [Dropped("unreadable", 1, 1, (tmp_path / "a.txt").as_posix())]
    assert texts(items) == ["y", *TEXTS]

    real = Path.open

    def refusing(self: Path, *args: Any, **keys: Any) -> Any:
        if self.name == "c.jsonl":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **keys)

    monkeypatch.setattr(Path, "open", refusing)  # root may read everything
    with pytest.raises(InputError, match="c.jsonl` cannot be read: permission denied"):
        list(files.read(config, survey(config).parts))
    assert names(inputs(config), tmp_path) == ["b.txt", "c.jsonl"]
    assert names(inputs(skipping), tmp_path) == ["b.txt"]
    items = list(files.read(skipping, survey(skipping).parts))
    assert (texts(items), [dropped.reason for dropped in drops(items)]) == (["y"], ["unreadable"])


def test_a_fault_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, a_txt="x")
    config = Config(paths=str(tmp_path))
    parts = survey(config).parts

    def failing(*args: Any, **keys: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("alm.corpus.formats.text.read", failing)
    with pytest.raises(InputError, match=r"a.txt` cannot be read: Input/output error"):
        list(files.read(config, parts))


@pytest.mark.parametrize("choice", ["stop", "skip"])
def test_a_field_that_the_first_row_lacks_is_found_before_anything_is_read(tmp_path: Path, choice: str) -> None:
    write(tmp_path, a_txt="x", b_jsonl=b"not json\n" + LINES, c_csv="text\nx\n")
    config = Config(paths=str(tmp_path), field="body", on_bad_input=choice)
    with pytest.raises(ConfigError, match=r"b.jsonl#2`: no field `body` \(there are: text, n\)"):
        survey(config)


def test_each_file_must_have_the_field_unless_bad_input_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, a_jsonl=LINES, b_csv="n\n1\n2\n")
    with pytest.raises(ConfigError, match="b.csv#1`: no field `text`") as caught:
        read(tmp_path)
    assert """--set sources.<name>.exclude='["*.csv"]'`""" in str(caught.value.hint)
    items = read(tmp_path, on_bad_input="skip")
    assert [dropped.reason for dropped in drops(items)] == ["no_field", "no_field"]
    assert not drops(read(tmp_path, exclude=["*.csv"]))


def test_files_without_the_field_can_be_left_out_of_a_folder_all_at_once(tmp_path: Path) -> None:
    write(tmp_path, a_json='{"version": 1}', b_jsonl=LINES, c_jsonl='{"n": 1}\n', d_txt="x")
    with pytest.raises(ConfigError, match="a.json#1`: no field `text`") as caught:
        survey(Config(paths=str(tmp_path)))
    assert str(caught.value.hint).endswith("""--set sources.<name>.exclude='["*.json", "c.jsonl"]'`""")
    with pytest.raises(ConfigError) as caught:
        survey(Config(paths=str(tmp_path), exclude="d.txt"))
    assert str(caught.value.hint).endswith('add ["*.json", "c.jsonl"] to its `exclude`')
    for paths in ([str(tmp_path / "a.json")], [str(tmp_path / "a.json"), str(tmp_path / "d.txt")]):
        with pytest.raises(ConfigError) as caught:
            survey(Config(paths=tuple(paths)))
        assert "exclude" not in str(caught.value.hint)


def test_an_encoding_that_nobody_knows_is_refused() -> None:
    for encoding in ("nonsense", "hex", "a\0b"):
        with pytest.raises(ValidationError, match="is not a text encoding that Python knows"):
            Config(paths="x", encoding=encoding)


# ---- size ---------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "form", ["line.txt", "line.jsonl", "line.json", "line.csv", "text.txt", "rows.json", "marks.txt"]
)
def test_memory_is_bounded_whatever_the_size_of_file_or_line(tmp_path: Path, form: str) -> None:
    size, longest = 16 << 20, 1 << 20
    block = ("abcd efgh\n" * 100).encode()
    row = json.dumps({"text": "x" * 900}).encode()
    data = {
        "line.txt": b"x" * size,
        "line.jsonl": b'{"text": "' + b"x" * size + b'"}',
        "line.json": b'[{"text": "' + b"x" * size + b'"}]',
        "line.csv": b'text\n"' + b"x" * size + b'"\n',
        "text.txt": block * (size // len(block)),
        "rows.json": b"[" + b",".join([row] * (size // len(row))) + b"]",
        "marks.txt": (block + b"<|endoftext|>\n") * (size // len(block)),
    }[form]
    path = tmp_path / form
    path.write_bytes(data)
    total = len(data)
    del data
    config = Config(paths=str(path), max_document_bytes=longest)
    parts = survey(config).parts
    tracemalloc.start()
    counted = documents = 0
    for item in files.read(config, parts):
        counted += utf8_bytes(item.text) if isinstance(item, Document) else item.bytes
        documents += isinstance(item, Document)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * longest
    assert counted > 0.9 * total
    assert (documents > 0) == (not form.startswith("line"))


def test_random_bytes_in_any_form_end_in_an_error_or_in_items(tmp_path: Path) -> None:
    random = Random(0)
    pieces = [
        b'{"text": "a"}',
        b"\n",
        b'"',
        b"\xff",
        b"[",
        b"]",
        b",",
        b"\\",
        b"<",
        b">",
        b"\0",
        b"<|endoftext|>\n",
        b"\r",
    ]
    for n in range(150):
        form = random.choice([*FORMS, ".html"]) + random.choice([*PACKERS])
        path = tmp_path / f"{n}{form}"
        path.write_bytes(b"".join(random.choices(pieces, k=40)))
        for choice in ("stop", "skip"):
            with contextlib.suppress(AlmError):
                read(path, on_bad_input=choice, max_document_bytes=1024)


def test_clean_text_of_ours_is_read_without_what_lies_beside_it(tmp_path: Path) -> None:
    from alm.corpus.config import CorpusConfig
    from alm.corpus.pipeline.prepare import prepare

    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.txt").write_text(f"document {number}\n\nwith a block\n")
    for form in ("txt", "jsonl.zst", "parquet"):
        source = {"kind": "files", "paths": [str(tmp_path / "in")]}
        config = CorpusConfig.model_validate({"sources": {"s": source}, "format": form, "validation_fraction": 0.4})
        prepare(config, out=tmp_path / form)
        again = Config(paths=(str(tmp_path / form),))
        texts = [item.text for item in items_of(again) if isinstance(item, Document)]
        assert "".join(texts) == "".join(f"document {n}\n\nwith a block\n" for n in range(3))


def test_what_was_read_before_the_damage_is_counted_once(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\ntwo\n" * 1000 + b"\xff\n")
    whole = items_of(Config(paths=(str(file),), on_bad_input="skip", document="line"))
    assert size_of(whole) == file.stat().st_size
    packed = tmp_path / "b.jsonl.gz"
    draw = Random(1)
    data = gzip.compress(b"".join(b'{"text": "%s"}\n' % draw.randbytes(5000).hex().encode() for _ in range(1000)), 1)
    packed.write_bytes(data[: len(data) // 2])
    cut = items_of(Config(paths=(str(packed),), on_bad_input="skip"))
    assert any(isinstance(item, Document) for item in cut)
    assert isinstance(cut[-1], Dropped)
    assert cut[-1].bytes == 0  # more had been read than the whole file has


def test_a_table_with_carriage_returns_alone_is_told(tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_bytes(b"text,n\rone,1\rtwo,2\r")
    with pytest.raises(InputError, match="carriage returns only") as raised:
        items_of(Config(paths=(str(file),)))
    assert raised.value.hint is not None
    assert r"tr '\r' '\n'" in raised.value.hint


def items_of(config: Config) -> list[Item]:
    return list(files.read(config, survey(config).parts))


DATE = "Mon Jan  1 00:00:00 2001"
WITHIN = {
    "web archives": "WARC/1.0\r\nWARC-Type: warcinfo\r\n",
    "mail": f"From a@b.org {DATE}\nReceived: by b\nSubject: Hi\n\nHi\n\nFrom c@b.org {DATE}\nTo: a\n",
    "subtitles": "1\n00:00:01,000 --> 00:00:02,000\nHi\n",
    "LaTeX": "% a paper\n\\documentclass[11pt]{article}\n",
    "BibTeX": "@article{knuth84,\n  title = {A}\n}\n",
    "notebooks": '{\n "cells": [{"cell_type": "code", "source": []}], "nbformat": 4}\n',
    "PostScript": "%!PS-Adobe-3.0\n",
    "feeds and drawings": '<?xml version="1.0"?>\n<rss version="2.0"><channel/></rss>\n',
    "keys and certificates": "-----BEGIN CERTIFICATE-----\nMII\n",
    "calendars and contacts": "BEGIN:VCALENDAR\r\nVERSION:2.0\r\n",
    "patches": "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n",
    "pointers of Git LFS": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}
MORE_MAIL = (
    "Return-Path: <a@b.org>\nSubject: Hi\n\nHi\n",
    "Received: from a by b\n\twith SMTP; 1 Jan\nSubject: Hi\n",
    "Message-ID: <1@b>\nDate: 1 Jan\n\nHi\n",
    f"From 0123abc {DATE}\nFrom: A <a@b.org>\n",
)
PROSE = (
    "From Monday on, from 12:30, it rained.\nNote: bring a coat.\n",
    "From: a friend\nTo: you\n\nDear you,\n",
    "Received: 3 May 2020\nAccepted: 4 June 2021\n\nWe show that\n",
    "X-Men: First Class\nDirector: M. Vaughn\n",
    "WARC/1.0 is a format.\n",
    "1\n00:00 was the time.\n",
    "\\documentclass is a command of LaTeX.\n",
    "@alice wrote: {hello, there}\n",
    "WEBVTTs are files.\n",
    "--- a line ---\n+++ another +++\n",
    "<rss> is an element.\n",
    "%!PS is how they begin.\n"[3:],
    "SUBJECT: mail\nMessage-ID: none\n",
)


def test_what_begins_like_no_prose_is_left_out_whatever_its_name(tmp_path: Path) -> None:
    for number, text in enumerate((*WITHIN.values(), *MORE_MAIL)):
        (tmp_path / f"{number:02}.txt").write_bytes(codecs.BOM_UTF8 * (number % 2) + text.encode())
    for number, text in enumerate(PROSE):
        (tmp_path / f"prose-{number}.txt").write_text(text)
    heard: list[Event] = []
    config = Config(paths=str(tmp_path))
    survey(config, on_event=heard.append)
    assert names(inputs(config), tmp_path) == sorted(f"prose-{number}.txt" for number in range(len(PROSE)))
    (event,) = heard
    assert isinstance(event, Warned)
    for kind in WITHIN:
        assert f"{5 if kind == 'mail' else 1} .txt that hold {kind}" in event.message
    for asked in (Config(paths=str(tmp_path), include="*"), Config(paths=str(tmp_path), format="text")):
        assert len(inputs(asked)) == len(WITHIN) + len(MORE_MAIL) + len(PROSE)
    assert len(inputs(Config(paths=str(tmp_path / "00.txt")))) == 1


def size_of(items: list[Item]) -> int:
    return sum(item.bytes if isinstance(item, Dropped) else utf8_bytes(item.text) for item in items)


NOT_PROSE = [
    *("a.warc", "a.wet.gz", "a.ipynb", "a.mbox", "a.eml", "a.srt", "a.vtt", "a.tex", "a.bib", "a.css", "a.svg"),
    *("a.md~", "#a.md#", "a.txt.bak", "a.txt.swp", "~$a.txt", "package-lock.json", "poetry.lock", "a.min.js"),
    *("page_files/a.js", "page_files/deep/a.txt", "page-Dateien/a.txt", "mbox", "a.log.1", "a.txt.bak2", "a.ttml"),
]


def test_files_that_are_not_prose_are_named_and_left_out_unless_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("a.txt", "a.py", "page.html", "my_files/a.js", *NOT_PROSE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b"{}") if name.endswith(".gz") else b"{}")
    heard: list[Event] = []
    config = Config(paths=str(tmp_path))
    survey(config, on_event=heard.append)
    assert names(inputs(config), tmp_path) == ["a.py", "a.txt", "my_files/a.js", "page.html"]
    (event,) = heard
    assert isinstance(event, Warned)
    assert "26 of the files found are not prose and are left out: 1 .bak, 1 .bib, 1 .css," in event.message
    assert "7 backups and locks, 3 of saved pages" in event.message
    assert len(inputs(Config(paths=str(tmp_path), include="*"))) == len(NOT_PROSE) + 4
    for name in NOT_PROSE:
        assert names(inputs(Config(paths=str(tmp_path / name))), tmp_path) == [name]
    assert names(inputs(Config(paths=str(tmp_path / "*.tex"))), tmp_path) == ["a.tex"]
    assert "a.tex" in names(inputs(Config(paths=str(tmp_path), format="text")), tmp_path)


def test_a_folder_without_prose_is_an_error_that_names_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, a_tex="x", b_tex="y")
    with pytest.raises(InputError, match=r"holds prose: 2 \.tex") as caught:
        survey(Config(paths=str(tmp_path)))
    assert "include='*'" in str(caught.value.hint)
    assert texts(read(tmp_path, include="*")) == ["x", "y"]


@pytest.mark.parametrize("encoding", ["windows-1252", "latin-1", "shift_jis"])
def test_an_encoding_is_for_files_that_are_not_utf8(tmp_path: Path, encoding: str) -> None:
    word = "日本" if encoding == "shift_jis" else "Café"
    line = f'{{"text": "{word}"}}\n'
    write(tmp_path, a_txt=word.encode(), b_txt=word.encode(encoding), c_txt=word.encode("utf-16"), d_txt="plain")
    write(tmp_path, e_jsonl=line.encode(), f_jsonl=line.encode(encoding), g_html=f"<p>{word}".encode())
    write(tmp_path, h_html=f"<p>{word}".encode(encoding), i=word.encode(), j_txt=b"\xef\xbb\xbf" + word.encode())
    assert texts(read(tmp_path, encoding=encoding)) == [word] * 3 + ["plain"] + [word] * 6


def test_utf8_in_parts_is_read_as_utf8_whatever_the_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 10)
    write(tmp_path, a_txt="é\n" * 20, b_txt="é\n".encode("latin-1") * 20)
    config = Config(paths=str(tmp_path), encoding="latin-1", document="line")
    parts = survey(config).parts
    assert [sum(part.name.endswith(end) for part in parts) for end in ("a.txt", "b.txt")] == [5, 1]
    assert texts(list(files.read(config, parts))) == ["é"] * 40


def test_the_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, a_txt="x", b_txt=b"caf\xe9", c_jsonl='{"text": "y"}\n{\n[1]\n{"text": "z"}', d_txt=b"\xff")
    config = Config(paths=str(tmp_path))
    with pytest.raises(InputError) as caught:
        list(files.read(config, survey(config).parts))
    said = caught.value.message.splitlines()
    assert [line.strip().split("` ")[0].rpartition("/")[2] for line in said] == ["b.txt", "c.jsonl", "c.jsonl", "d.txt"]
    assert "on_bad_input=skip" in str(caught.value.hint)
    write(tmp_path, p_png=b"\x89PNG", q_png=b"\x89PNG")
    with pytest.raises(InputError, match=r"(?s)p\.png` is not text.*q\.png` is not text"):
        inputs(Config(paths=[str(tmp_path / "p.png"), str(tmp_path / "q.png")]))
