"""Kind `huggingface` against a hub on loopback: the rows are exact, whatever the network does."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakehub
import pytest
from fakehub import FakeHub

from alm.corpus.document import Document, Dropped, Items
from alm.corpus.sources import huggingface
from alm.corpus.sources.huggingface import inputs
from alm.errors import EXIT_USAGE, AlmError
from alm.events import Event, Listener, Warned, ignore
from alm.hub import RetryPolicy

PROGRAM_SECONDS = 60


@dataclass(frozen=True)
class Source:
    """All parts of a surveyed source."""

    items: Items
    revision: str | None
    licence: str | None


def Config(**keys: Any) -> huggingface.Config:
    """A configuration that reads the files in their order."""
    return huggingface.Config(**{"seed": None, **keys})


def open_source(config: huggingface.Config, *, policy: RetryPolicy, on_event: Listener = ignore) -> Source:
    found = huggingface.survey(config, policy=policy, on_event=on_event)
    items = huggingface.read(config, found.parts, revision=found.revision, policy=policy, on_event=on_event)
    return Source(items, found.revision, found.licence)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def policy(waits: list[float]) -> RetryPolicy:
    return RetryPolicy(attempts=3, wait=waits.append, jitter=lambda: 1.0, timeout=5.0)


def parquet(texts: Sequence[object], *, rows_per_group: int = 100, **columns: Sequence[object]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    file = io.BytesIO()
    table = pyarrow.table({"text": texts, **columns})
    write_table(table, file, row_group_size=rows_per_group, compression="none", use_dictionary=False)
    return file.getvalue()


def jsonl(*values: object) -> bytes:
    return b"".join(json.dumps({"text": value, "n": n}).encode() + b"\n" for n, value in enumerate(values))


def texts(source: Source) -> list[str]:
    return [item.text for item in source.items if isinstance(item, Document)]


def refusal(config: huggingface.Config, *, policy: RetryPolicy) -> AlmError:
    """The error that opening, or else reading, `config` ends in."""
    with pytest.raises(AlmError) as caught:
        list(open_source(config, policy=policy).items)
    return caught.value


# ---- what is read -------------------------------------------------------------------------------


def test_parquet_is_read_exactly(hub: FakeHub, policy: RetryPolicy) -> None:
    """Several files and row groups; a column that is not asked for may change its type between the files."""
    rows = [f"row {n}\n\té𐍈" for n in range(2500)]
    sha = hub.add(
        "a/b",
        {
            "data/train-00000-of-00002.parquet": parquet(rows[:1700], score=range(1700)),
            "data/train-00001-of-00002.parquet": parquet([*rows[1700:], None], score=["high"] * 801),
            "data/test-00000-of-00001.parquet": parquet(["held out"], score=[1]),
        },
        licence="odc-by",
    )
    source = open_source(Config(dataset="a/b"), policy=policy)
    place = f"a/b@{sha[:7]}/data/train-0000"

    assert source.revision == sha
    assert source.licence == "odc-by"
    assert list(source.items) == [
        *(Document(row, origin=f"{place}0-of-00002.parquet#{n}") for n, row in enumerate(rows[:1700])),
        *(Document(row, origin=f"{place}1-of-00002.parquet#{n}") for n, row in enumerate(rows[1700:])),
        Dropped("not_text", 14, documents=1, origin=f"{place}1-of-00002.parquet#800", excerpt='{"text": null}'),
    ]
    assert texts(open_source(Config(dataset="a/b", split="test"), policy=policy)) == ["held out"]


def test_json_lines_are_read_exactly(hub: FakeHub, policy: RetryPolicy) -> None:
    rows = ["one", "", " \n", "é𐍈", '{"not": an object', "<|endoftext|>"]
    hub.add("a/plain", {"train.jsonl": jsonl(*rows)})
    hub.add(
        "a/packed", {"train-1.jsonl.gz": gzip.compress(jsonl(*rows)), "train-2.jsonl.gz": gzip.compress(jsonl("z"))}
    )

    assert texts(open_source(Config(dataset="a/plain"), policy=policy)) == rows
    assert texts(open_source(Config(dataset="a/packed"), policy=policy)) == [*rows, "z"]


def test_a_value_that_is_no_text_is_dropped_and_counted(hub: FakeHub, policy: RetryPolicy) -> None:
    sha = hub.add("a/b", {"train.jsonl": jsonl("a", None, 3, {"k": 1}, ["x"], 'say "é"')})
    found = list(open_source(Config(dataset="a/b"), policy=policy).items)
    assert [item for item in found if isinstance(item, Document)] == [
        Document("a", origin=f"a/b@{sha[:7]}/train.jsonl#0"),
        Document('say "é"', origin=f"a/b@{sha[:7]}/train.jsonl#5"),
    ]
    assert [item.reason for item in found if isinstance(item, Dropped)] == ["not_text"] * 4


def test_another_field(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"train.csv": b"id,body\n1,hello\n2,world\n"})
    assert texts(open_source(Config(dataset="a/b", field="body"), policy=policy)) == ["hello", "world"]


def test_the_licence_of_the_configuration_wins(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"train.jsonl": jsonl("x")}, licence="other")
    assert open_source(Config(dataset="a/b", licence="CC0-1.0"), policy=policy).licence == "CC0-1.0"


def test_the_commit_stays_when_the_branch_moves(hub: FakeHub, policy: RetryPolicy) -> None:
    first = hub.add("a/b", {"train.jsonl": jsonl("old")})
    source = open_source(Config(dataset="a/b"), policy=policy)
    second = hub.add("a/b", {"train.jsonl": jsonl("new")})

    assert (source.revision, texts(source)) == (first, ["old"])
    again = open_source(Config(dataset="a/b"), policy=policy)
    assert (again.revision, texts(again)) == (second, ["new"])
    assert not hub.asked("/(resolve|tree)/main")
    assert texts(open_source(Config(dataset="a/b", revision=first), policy=policy)) == ["old"]


def test_a_named_configuration(hub: FakeHub, policy: RetryPolicy) -> None:
    card = (
        "---\nconfigs:\n" + "".join(f"- config_name: {c}\n  data_files: {c}/*.jsonl\n" for c in ("en", "de")) + "---\n"
    )
    hub.add("a/b", {"README.md": card.encode(), "en/x.jsonl": jsonl("hello"), "de/x.jsonl": jsonl("hallo")})
    assert texts(open_source(Config(dataset="a/b", name="de"), policy=policy)) == ["hallo"]

    error = refusal(Config(dataset="a/b", name="dee"), policy=policy)
    assert error.message == "`a/b` has no configuration `dee` (did you mean `de`?) (there are: en, de)"
    assert error.hint == "name another: `--set sources.<name>.name=en`"
    assert error.exit_code == EXIT_USAGE

    error = refusal(Config(dataset="a/b"), policy=policy)
    assert error.message == "`a/b` has several configurations: en, de"
    assert error.hint == "name one: `--set sources.<name>.name=en`"


def test_the_copy_that_the_hub_keeps_of_a_script(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"b.py": b"raise SystemExit"})
    files = {"en/train/0000.parquet": parquet(["hello"]), "de/train/0000.parquet": parquet(["hallo"])}
    hub.add("a/b", files, branch="refs/convert/parquet")

    error = refusal(Config(dataset="a/b"), policy=policy)
    assert "is a program (a dataset script), and `datasets` no longer runs those" in error.message
    assert "revision=refs/convert/parquet" in str(error.hint)
    copy = Config(dataset="a/b", name="de", revision="refs/convert/parquet")
    assert texts(open_source(copy, policy=policy)) == ["hallo"]


def test_a_folder_of_the_same_name_is_not_read(
    hub: FakeHub, policy: RetryPolicy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "train.jsonl").write_bytes(jsonl("here"))
    monkeypatch.chdir(tmp_path)
    hub.add("a/b", {"train.jsonl": jsonl("there")})
    assert texts(open_source(Config(dataset="a/b"), policy=policy)) == ["there"]


def test_progress_bars_of_the_libraries_are_off(hub: FakeHub, policy: RetryPolicy) -> None:
    import datasets
    import huggingface_hub.utils

    hub.add("a/b", {"train.jsonl": jsonl("x")})
    open_source(Config(dataset="a/b"), policy=policy)
    assert datasets.are_progress_bars_disabled()
    assert huggingface_hub.utils.are_progress_bars_disabled()


def test_no_files_of_this_machine() -> None:
    assert inputs(Config(dataset="a/b")) == []


# ---- what is refused ----------------------------------------------------------------------------


def test_a_missing_split(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"train.jsonl": jsonl("x"), "test.jsonl": jsonl("y")})
    error = refusal(Config(dataset="a/b", split="tran"), policy=policy)
    assert error.message == "`a/b` has no split `tran` (did you mean `train`?) (there are: train, test)"
    assert error.hint == "name another: `--set sources.<name>.split=train`"
    assert error.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.parquet", parquet(["x"], title=["t"])),
        ("train.jsonl", b'{"text": "x", "title": "t"}\n'),
        ("train.csv", b"text,title\nx,t\n"),
    ],
)
def test_a_missing_field(hub: FakeHub, policy: RetryPolicy, name: str, data: bytes) -> None:
    hub.add("a/b", {name: data})
    error = refusal(Config(dataset="a/b", field="txt"), policy=policy)
    assert "no field `txt` (did you mean `text`?) (there are: text, title)" in error.message
    assert "--set sources.<name>.field=" in str(error.hint)


def test_a_field_that_holds_no_text(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"train.parquet": parquet(["x"], n=[1], tags=[["t"]])})
    error = refusal(Config(dataset="a/b", field="n"), policy=policy)
    assert error.message == "field `n` of `a/b` holds int64, not text (fields with text: text)"
    error = refusal(Config(dataset="a/b", field="tags"), policy=policy)
    assert error.message == "field `tags` of `a/b` holds List, not text (fields with text: text)"


def test_a_dataset_without_data(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"README.md": b"# soon\n"})
    error = refusal(Config(dataset="a/b"), policy=policy)
    assert "`a/b` holds no data files that can be read" in error.message
    assert "hf datasets list a/b" in str(error.hint)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("train.parquet", b"PAR1, as it happens, is not all there is to it"),
        ("train.jsonl", b'{"text": "x"}\n{"text": "\\ud800"}\n'),
        ("train.jsonl", b'{"text": "x"}\n{"text": \n'),
        ("train.jsonl.gz", gzip.compress(jsonl("x" * 1000), mtime=0)[:-20]),
    ],
)
def test_a_damaged_file(hub: FakeHub, policy: RetryPolicy, name: str, data: bytes) -> None:
    hub.add("a/b", {name: data})
    error = refusal(Config(dataset="a/b"), policy=policy)
    assert "a file of `a/b` cannot be read: " in error.message
    assert "\n" not in error.message


def test_a_refusal_of_the_hub(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {"train.jsonl": jsonl("x")}, gated=True)
    assert "`a/b` is gated" in refusal(Config(dataset="a/b"), policy=policy).message


def test_a_dataset_without_a_namespace() -> None:
    with pytest.raises(ValueError, match=r"needs the form `namespace/name`; run `hf datasets list --search wikitext`"):
        Config(dataset="wikitext")


def test_offline_mode_of_datasets(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    hub.add("a/b", {"train.jsonl": jsonl("x")})
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    error = refusal(Config(dataset="a/b"), policy=policy)
    assert str(error.hint).startswith("run `unset HF_DATASETS_OFFLINE`")
    assert "`alm corpus prepare my-texts/`" in str(error.hint)
    assert "`alm corpus prepare --src tales`" in str(error.hint)


def test_another_revision_in_the_cache_is_no_answer(hub: FakeHub, policy: RetryPolicy) -> None:
    """`datasets` by itself would read what it finds there when the hub fails, whatever its revision."""
    import datasets

    hub.add("a/cached", {"train.jsonl": jsonl("old")})
    assert datasets.load_dataset("a/cached", split="train")["text"][:] == ["old"]
    hub.add("a/cached", {"train.jsonl": jsonl("new")})
    hub.fault("README.md", "status", status=503, times=100)

    assert datasets.load_dataset("a/cached", split="train", streaming=False)["text"][:] == ["old"]
    error = refusal(Config(dataset="a/cached"), policy=policy)
    assert "the hub answers 503" in error.message


# ---- a bad network ------------------------------------------------------------------------------

ROWS = [f"row {n} " + "x" * 1000 for n in range(300)]
DATA = {
    "parquet": {f"train-{n}.parquet": parquet(ROWS[n * 100 : n * 100 + 100]) for n in range(3)},
    "jsonl": {f"train-{n}.jsonl": jsonl(*ROWS[n * 100 : n * 100 + 100]) for n in range(3)},
    "list": {
        f"train-{n}.json": json.dumps([{"text": row} for row in ROWS[n * 100 : n * 100 + 100]]).encode()
        for n in range(3)
    },
    "packed": {f"train-{n}.jsonl.gz": gzip.compress(jsonl(*ROWS[n * 100 : n * 100 + 100]), 0) for n in range(3)},
}


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 503, "times": 2},
        {"action": "status", "status": 429, "headers": {"Retry-After": "3"}},
        {"action": "status", "status": 403},
        {"action": "status", "status": 404},
        {"action": "reset"},
        {"action": "truncate"},
    ],
    ids=lambda fault: "-".join(str(fault[key]) for key in ("action", "status") if key in fault),
)
@pytest.mark.parametrize("form", DATA)
def test_a_fault_while_reading_loses_and_repeats_nothing(
    hub: FakeHub, policy: RetryPolicy, waits: list[float], form: str, fault: dict[str, Any]
) -> None:
    hub.add("a/b", DATA[form])
    source = open_source(Config(dataset="a/b"), policy=policy)
    ordered = hub.fault("/_content/", after=1, **fault)
    assert texts(source) == ROWS
    assert ordered.seen > 1
    assert len(waits) == fault.get("times", 1)


@pytest.mark.parametrize("path", ["README.md", "/tree/", "/revision/", "/resolve/.*parquet"])
def test_a_fault_while_opening_is_waited_out(hub: FakeHub, policy: RetryPolicy, waits: list[float], path: str) -> None:
    hub.add("a/b", {"README.md": b"# b\n", **DATA["parquet"]})
    hub.fault(path, "status", status=503, times=2)
    assert texts(open_source(Config(dataset="a/b"), policy=policy)) == ROWS
    assert waits == [1.0, 2.0]


def test_a_stream_that_breaks_inside_a_file_starts_again_at_that_file(
    hub: FakeHub, policy: RetryPolicy, waits: list[float]
) -> None:
    """The file is longer than what is fetched at once. New rows renew the patience, which is for three faults."""
    rows = [f"{n} " + "x" * 5000 for n in range(4000)]
    files = {"train-0.jsonl": jsonl("first"), "train-1.jsonl": jsonl(*rows)}
    hub.add("a/b", files)
    told: list[Event] = []
    source = open_source(Config(dataset="a/b"), policy=policy, on_event=told.append)
    long_file = hashlib.sha256(files["train-1.jsonl"]).hexdigest()
    hub.fault(long_file, "status", status=404, times=2)
    read = [next(source.items) for _ in range(1001)]
    hub.fault(long_file, "status", status=404)
    asked_first = len(hub.asked("train-0.jsonl"))

    assert [item.text for item in read if isinstance(item, Document)] == ["first", *rows[:1000]]
    assert texts(source) == rows[1000:]
    assert waits == [1.0, 2.0, 1.0]
    assert len(hub.asked("train-0.jsonl")) == asked_first
    assert all(isinstance(event, Warned) and event.message.startswith("the stream of `a/b` broke: ") for event in told)
    assert len(told) == len(waits)


def test_patience_ends_while_reading(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    hub.add("a/b", DATA["parquet"])
    source = open_source(Config(dataset="a/b"), policy=policy)
    hub.fault("/_content/", "status", status=404, times=100)
    with pytest.raises(AlmError, match=r"the stream of `a/b` broke: .* \(3 times in a row\)"):
        list(source.items)
    assert waits == [1.0, 2.0]


def test_patience_with_requests_is_not_multiplied(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    """The retries of `huggingface_hub` and of `datasets` do not come on top of ours."""
    hub.add("a/b", DATA["parquet"])
    source = open_source(Config(dataset="a/b"), policy=policy)
    fault = hub.fault("/_content/", "status", status=503, times=100)
    with pytest.raises(AlmError, match=r"the hub answers 503 .* \(3 attempts\)"):
        list(source.items)
    assert waits == [1.0, 2.0]
    assert fault.seen == 3


def test_access_withdrawn_while_reading(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    hub.add("a/b", DATA["jsonl"])
    source = open_source(Config(dataset="a/b"), policy=policy)
    next(source.items)
    hub.repositories["a/b"].private = True
    with pytest.raises(AlmError, match="private and hidden from you"):
        list(source.items)
    assert waits == []


# ---- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", DATA)
def test_closing_ends_the_download(hub: FakeHub, policy: RetryPolicy, form: str) -> None:
    hub.add("a/b", DATA[form])
    source = open_source(Config(dataset="a/b"), policy=policy)
    assert isinstance(next(source.items), Document)
    asked = len(hub.requests)
    source.items.close()
    assert list(source.items) == []
    assert len(hub.requests) == asked
    assert not hub.asked(r"/resolve/.*/train-2\.")[1:]  # opening may look at the form of each file, no more
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hf-")]


PROGRAM = """
from alm.corpus.sources.huggingface import Config, read, survey
from alm.errors import InputError

config = Config(dataset="a/b", seed=None)
found = survey(config)
items = read(config, found.parts, revision=found.revision)
print(*(next(items).text for _ in range(3)))
try:
    survey(Config(dataset="a/damaged"))
except InputError:
    print("refused")
"""


@pytest.mark.slow
def test_a_program_that_stops_reading_ends_in_silence(hub: FakeHub, tmp_path: Path) -> None:
    """In a process of its own: no thread holds it back, and the libraries print no progress, warning or error."""
    files = {f"train-{n:02}.parquet": parquet([f"row {n}"]) for n in range(20)}
    hub.add("a/b", {"README.md": b"a card without metadata\n", **files})
    hub.add("a/damaged", {"train.parquet": b"damaged"})
    environment = {**os.environ, **fakehub.environment(hub, str(tmp_path))}
    environment["PYTHONPATH"] = str(Path(huggingface.__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", PROGRAM],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PROGRAM_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "row 0 row 1 row 2\nrefused\n", "")


# ---- parts, order, adapters ---------------------------------------------------------------------


def test_a_large_file_is_read_in_parts(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"row {n} " + "x" * 50 for n in range(1000)]
    hub.add("a/b", {"train.parquet": parquet(rows)})
    monkeypatch.setattr("alm.corpus.sources.huggingface.PART_BYTES", 12_000)
    config = Config(dataset="a/b")
    found = huggingface.survey(config, policy=policy)
    assert len(found.parts) > 4
    read = [list(huggingface.read(config, [part], revision=found.revision, policy=policy)) for part in found.parts]
    documents = [item for items in read for item in items if isinstance(item, Document)]
    assert [document.text for document in documents] == rows
    assert len({document.origin for document in documents}) == len(rows)


def test_the_order_of_files_is_shuffled_by_the_seed(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", {f"train-{n:02d}.jsonl": jsonl(f"file {n}") for n in range(12)})
    given = texts(open_source(Config(dataset="a/b"), policy=policy))
    first = texts(open_source(Config(dataset="a/b", seed=1), policy=policy))
    second = texts(open_source(Config(dataset="a/b", seed=1), policy=policy))
    assert given == [f"file {n}" for n in range(12)]
    assert first == second != given
    assert sorted(first) == sorted(given)


def test_conversations_are_read_through_an_adapter(hub: FakeHub, policy: RetryPolicy) -> None:
    talk = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    hub.add("a/b", {"train.jsonl": json.dumps({"messages": talk, "id": 1}).encode() + b"\n"})
    source = open_source(Config(dataset="a/b", adapter="messages"), policy=policy)
    assert texts(source) == ["User: Hello?\n\nAssistant: Hi."]


def test_what_was_begun_at_a_commit_goes_on_at_it(hub: FakeHub, tmp_path: Path) -> None:
    """A killed preparation, whose branch has moved since, and which is not up to date until it is whole."""
    from alm.config.load import load
    from alm.corpus.config import CorpusConfig
    from alm.corpus.pipeline.prepare import prepare
    from alm.corpus.read import find, read_documents

    hub.add("a/b", {f"train-{n}.jsonl": jsonl(*(f"old {n} {i}" for i in range(5))) for n in range(4)})
    source = {"kind": "huggingface", "dataset": "a/b", "seed": None}
    config = load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": 0.1})
    assert prepare(config, out=tmp_path / "out", unit_bytes=1, share=(0, 2)) == []
    hub.add("a/b", {"train-0.jsonl": jsonl("new")})
    [metadata] = prepare(config, out=tmp_path / "out", unit_bytes=1)
    assert metadata.documents.output == 20
    assert {d.text.split()[0] for d in read_documents(find([tmp_path / "out"]))} == {"old"}
    before = len(hub.requests)
    assert prepare(config, out=tmp_path / "out", unit_bytes=1) == [metadata]
    assert len(hub.requests) == before


def test_json_of_several_types_is_read_whatever_its_numbers_are() -> None:
    import pyarrow as pa

    given = ['{"id": 184467440737095516160}', "[1e999, NaN]", '"\\ud800"', "[" * 200 + "]" * 200, None]
    column = pa.chunked_array([pa.array(given, type=pa.json_(pa.string()))])
    assert repr(huggingface._decoded(column)) == repr([None if value is None else json.loads(value) for value in given])
