"""Files and folders given by path: their fields decide how rows are read, as flags would."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from cases import for_each
from pyarrow import parquet

from alm.config.load import load
from alm.corpus.config import CorpusConfig, values_for_paths
from alm.corpus.from_paths import RowChoice, choice_for, corpus_of_paths
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.sources import files
from alm.errors import ConfigError
from alm.events import Event, Noted

LONG = "It rained on the hills, and the river rose over the stones of the old bridge by the mill. "
TALK = [{"role": "user", "content": "Does it rain?"}, {"role": "assistant", "content": "It does."}]
SHARED = [{"from": "human", "value": "Does it rain?"}, {"from": "gpt", "value": "It does."}]
ROOT = {"text": "Does it rain?", "role": "prompter", "replies": [{"text": "It does.", "role": "assistant"}]}
FLAT = {"message_id": "a", "parent_id": None, "message_tree_id": "a", "text": "Does it rain?", "role": "prompter"}
RENDERED = "User: Does it rain?\n\nAssistant: It does."
Row = Mapping[str, Any]


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if ".json." in f"{path.name}.":
        data = json.dumps(rows, indent=1).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def made(*paths: Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Return each source, and what is said."""
    events: list[Event] = []
    config = corpus_of_paths([str(path) for path in paths], overrides=overrides, on_event=events.append)
    return config.model_dump()["sources"], [event.message for event in events if isinstance(event, Noted)]


def flags_in(line: str) -> list[str]:
    words = shlex.split(line.partition("(`")[2].removesuffix("`)"))
    assert words[::2] == ["--set"] * (len(words) // 2)
    return words[1::2]


@for_each(
    "row, choice",
    [
        ({"text": LONG, "messages": TALK}, RowChoice()),
        ({"text": None}, RowChoice()),
        ({"id": 1, "messages": TALK, "prompt": LONG, "answer": "no"}, RowChoice("messages")),
        ({"conversation": TALK}, RowChoice("messages")),
        ({"conversations": TALK}, RowChoice("messages", field="conversations")),
        ({"dialog": TALK, "title": "rain"}, RowChoice("messages", field="dialog")),
        ({"conversations": SHARED, "system": "Answer."}, RowChoice("sharegpt")),
        ({"conversation": SHARED}, RowChoice("sharegpt", field="conversation")),
        ({"messages": SHARED}, RowChoice("sharegpt", field="messages")),
        ({"instruction": "a", "input": "", "output": "b"}, RowChoice("alpaca")),
        ({"instruction": "a", "response": "b"}, RowChoice("alpaca", (("output", "response"),))),
        (
            {"instruction": "a", "context": "", "response": "b", "category": "c"},
            RowChoice("alpaca", (("input", "context"), ("output", "response"))),
        ),
        (
            {"prompt": "a", "completion": "b"},
            RowChoice("alpaca", (("instruction", "prompt"), ("output", "completion"))),
        ),
        ({"instruction": "a", "output": "b", "chosen": "b", "rejected": "c"}, RowChoice("alpaca")),
        ({"message_tree_id": "a", "prompt": ROOT}, RowChoice("oasst")),
        (FLAT, RowChoice("oasst")),
        ({"id": 7, "title": "The old bridge by the mill", "content": LONG}, RowChoice(field="content")),
        ({"Story": LONG, "meta": {"notes": LONG}, "stars": 3}, RowChoice(field="Story")),
        # What no field shows
        ({"article": LONG, "highlights": "It rained, and then the river rose."}, None),
        ({"question": "Does it rain?", "passages": [[LONG]]}, None),
        ({"instruction": "a", "instances": [{"input": "", "output": LONG}]}, None),
        ({"conversations": SHARED[:1], "chosen": SHARED[1], "rejected": SHARED[1]}, None),
        ({"prompt": TALK[:1], "completion": TALK[1:]}, None),
        ({"body": "rain"}, None),
        ({LONG: LONG, "1": "2"}, None),  # a table without a header
        ({"content": {"nested": LONG}}, None),
        ({"messages": ["a", "b"]}, None),
        ({"messages": [], "conversation": None}, None),
        ({}, None),
    ],
)
def test_fields_show_how_rows_are_read(row: Row, choice: RowChoice | None) -> None:
    found = choice_for([row])
    assert (found and found._replace(why="")) == choice


def test_the_first_row_that_shows_it_decides_and_any_row_may_show_that_a_field_is_not_alone() -> None:
    assert choice_for([{"messages": []}, {"messages": TALK}, {"text": LONG}]) == choice_for([{"messages": TALK}])
    assert choice_for([{"body": "Rain."}, {"body": LONG}]) == choice_for([{"body": LONG}])
    assert choice_for([{"body": LONG, "reply": ""}, {"body": LONG, "reply": LONG}]) is None


@pytest.mark.parametrize(
    "name", ["talks.jsonl", "talks.jsonl.gz", "talks.json", "talks.json.gz", "talks", "talks.parquet"]
)
def test_every_format_of_rows_is_looked_into(tmp_path: Path, name: str) -> None:
    rows = [{"id": 1, "messages": TALK}, {"id": 2, "messages": TALK[:1]}]
    path = tmp_path / name
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        write_rows(path, rows)
    sources, said = made(path)
    assert sources["talks"]["adapter"] == {"kind": "messages"}
    assert said == ["`talks`: rows with `messages` are read as conversations (`--set sources.talks.adapter=messages`)"]


def test_a_table_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "stories.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["n", "my story"], ["1", LONG], ["2", LONG]])
    sources, [said] = made(path)
    assert sources["stories"]["field"] == "my story"
    assert flags_in(said) == ['sources.stories.field="my story"']


@pytest.mark.parametrize(
    "row",
    [{"conversation": SHARED}, {"prompt": "Does it rain?", "context": "hills", "answer": "It does."}, {"null": LONG}],
)
def test_the_flags_that_are_named_make_the_same_text(tmp_path: Path, row: Row) -> None:
    path = write_rows(tmp_path / "in" / "rows.jsonl", [row] * 3)
    config = corpus_of_paths([str(path)])
    _, [said] = made(path)
    by_hand = load(CorpusConfig, [], base=values_for_paths([str(path)]), overrides=flags_in(said))
    assert by_hand == config
    assert corpus_of_paths([str(path)], overrides=flags_in(said)) == config
    [metadata] = prepare(config, out=tmp_path / "out")
    events: list[Event] = []
    assert prepare(by_hand, out=tmp_path / "out", on_event=events.append) == [metadata]
    assert any(isinstance(event, Noted) and "up to date" in event.message for event in events)


def test_what_the_user_sets_wins(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": TALK, "conversations": SHARED}])
    for override in ("adapter=sharegpt", "adapter.kind=sharegpt", "field=conversations", "adapter=text"):
        sources, said = made(path, overrides=[f"sources.rows.{override}"])
        assert said == []
        assert sources["rows"]["adapter"]["kind"] != "messages"
    sources, said = made(path, overrides=["sources.rows.format=text", "format=parquet"])
    assert (sources["rows"]["adapter"], said) == ({"kind": "text"}, [])
    sources, [_] = made(path, overrides=["sources.rows.limit=5"])
    assert (sources["rows"]["adapter"], sources["rows"]["limit"]) == ({"kind": "messages"}, 5)
    with pytest.raises(ConfigError, match="unknown key"):
        made(path, overrides=["sources.rows.adaptor=text"])


def test_standard_input_and_text_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_found", lambda _: pytest.fail("a file is opened"))
    for name in ("a.txt", "b.md.gz", "c.html", "d.py"):
        (tmp_path / name).write_text("rain")
    given = ["-", str(tmp_path), str(tmp_path / "a.txt")]
    assert corpus_of_paths(given) == load(CorpusConfig, [], base=values_for_paths(given))


def test_files_of_a_folder_that_need_other_choices_are_sources_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    write_rows(folder / "a.jsonl", [{"text": "A plain row."}])
    write_rows(folder / "b.jsonl", [{"messages": TALK}])
    write_rows(folder / "below" / "c[1].jsonl", [{"messages": [*TALK, *TALK]}])
    write_rows(folder / "d.json", [{"instruction": "Go.", "output": "Yes."}])
    write_rows(folder / "e.jsonl", [])
    (folder / "f.txt").write_text("Plain text.")
    sources, said = made(folder)
    assert [*sources] == ["mixed", "mixed-messages", "mixed-alpaca"]
    assert said == [
        "`mixed-messages`: in 2 files of `mixed`, rows with `messages` are read as conversations",
        "`mixed-alpaca`: in 1 file of `mixed`, rows with `instruction` and `output` are read as conversations",
    ]
    texts = {}
    config = corpus_of_paths([str(folder)], overrides=["validation_fraction=0"])
    for metadata in prepare(config, out=tmp_path / "out"):
        shards = [(tmp_path / "out" / shard.file).read_text() for shard in metadata.shards]
        texts[metadata.source] = sorted("".join(shards).split("\n<|endoftext|>\n")[:-1])
    assert texts == {
        "mixed": ["A plain row.", "Plain text."],
        "mixed-messages": [RENDERED, f"{RENDERED}\n\n{RENDERED}"],
        "mixed-alpaca": ["User: Go.\n\nAssistant: Yes."],
    }
    overrides = ["sources.mixed.exclude=d.json", "sources.mixed-messages.limit=1"]
    sources, _ = made(folder, overrides=overrides)
    assert [*sources] == ["mixed", "mixed-messages"]
    assert sources["mixed"]["exclude"] == ["d.json", "b.jsonl", "below/c[[]1].jsonl"]
    assert sources["mixed-messages"]["limit"] == 1


def test_the_first_file_of_those_that_are_numbered_decides(tmp_path: Path) -> None:
    for number in range(3):
        write_rows(tmp_path / "in" / f"part-{number}.jsonl", [{"messages": TALK}] if number else [])
    before = made(tmp_path / "in")
    assert before[0]["in"]["adapter"] == {"kind": "messages"}
    write_rows(tmp_path / "in" / "part-2.jsonl", [{"body": LONG}])
    write_rows(tmp_path / "in" / "part-20.jsonl", [{"text": LONG}])
    assert made(tmp_path / "in") == before


def test_what_cannot_be_looked_into_changes_nothing(tmp_path: Path) -> None:
    given = [tmp_path / "cut.jsonl.gz", tmp_path / "no.parquet", tmp_path / "bad.jsonl", tmp_path / "deep.json"]
    given[0].write_bytes(gzip.compress(b'{"messages": []}\n' * 9)[:-9])
    given[1].write_bytes(b"PAR1 and no table")
    given[2].write_bytes(b'{"a": \n[1, 2]\nnull\n"\xff"\n')
    given[3].write_text('[{"a": ' + "[" * 50_000)
    for path in (*given, tmp_path / "absent.jsonl", tmp_path / "absent"):
        asked = [str(path)]
        assert corpus_of_paths(asked) == load(CorpusConfig, [], base=values_for_paths(asked))


def test_the_settings_of_a_project_are_left_out_and_a_table_among_notes_is_not(tmp_path: Path) -> None:
    for name, content in {
        "code/a.py": "import this\n" * 200,
        "code/sub/package.json": '{"name": "a", "version": "1"}',
        "notes/a.txt": "a note\n",
        "notes/table.csv": "name,price\nbread,2\n" * 20,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    events: list[Event] = []
    found = corpus_of_paths([str(tmp_path / "code")], on_event=events.append)
    assert found.sources["code"].exclude == ("sub/package.json",)  # type: ignore[attr-defined]
    assert any("1 file with rows that hold no text" in str(event) for event in events)
    assert not corpus_of_paths([str(tmp_path / "notes")]).sources["notes"].exclude  # type: ignore[attr-defined]
    own = corpus_of_paths([str(tmp_path / "code")], overrides=["sources.code.exclude=[x]"])
    assert own.sources["code"].exclude == ("x",)  # type: ignore[attr-defined]
