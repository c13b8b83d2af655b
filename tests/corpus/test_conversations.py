"""Conversations keep their roles in a clean corpus, and their text is what it was without them."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from alm import artifacts
from alm.artifacts import SourceMetadata
from alm.corpus.config import CorpusConfig
from alm.corpus.conversations import ROLES, Message, from_rows, from_text, render, to_json, turns_of
from alm.corpus.normalize import normalize
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.read import CleanDocument, find, read_documents
from alm.corpus.split import VALIDATION
from alm.errors import InputError

# Texts that read like turns, like the mark of a record, or need cleaning.
HARD = ("", "hi", "\n\nUser: no\n\n", "a\n<|endoftext|>\n\\<|endoftext|>", "\ufeffx\r\ny\x07", "e\u0301", "\u0301", " ")


def conversations(number: int, seed: int = 0) -> list[list[dict[str, Any]]]:
    random = Random(seed)
    found = []
    for index in range(number):
        turns = [(random.choice(ROLES), random.choice((*HARD, f"word {index} " * 9))) for _ in range(4)]
        found.append([{"role": role, "content": text} for role, text in [*turns, ("assistant", f"answer {index}")]])
    return found


def write(path: Path, given: list[list[dict[str, Any]]]) -> Path:
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in given))
    return path


def prepared(root: Path, given: list[list[dict[str, Any]]], form: str = "txt", **keys: Any) -> list[CleanDocument]:
    path = write(root / "chat.jsonl", given)
    source = {"kind": "files", "paths": [str(path)], "adapter": "messages", "deduplicate": {"exact": False}, **keys}
    config = CorpusConfig.model_validate({"sources": {"chat": source}, "format": form})
    prepare(config, out=root / "clean")
    return list(read_documents(find([root / "clean"])))


def metadata(root: Path) -> SourceMetadata:
    return artifacts.read(root / "clean" / "chat.json", SourceMetadata, hint="")


def cleaned(messages: list[dict[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(m["role"], normalize(m["content"]).text, m.get("weight", 1)) for m in messages)


def test_text_and_turns_make_the_conversation_again() -> None:
    for messages in conversations(300):
        made = tuple(Message(m["role"], m["content"], n % 2) for n, m in enumerate(messages))
        assert from_text(render(made), turns_of(made)) == made
        assert from_rows(json.loads(to_json(made))) == made


@pytest.mark.parametrize("form", ["txt", "jsonl.zst", "parquet"])
def test_prepared_conversations_are_read_back_with_their_roles(tmp_path: Path, form: str) -> None:
    given = conversations(80)
    given[3][-1]["weight"] = 0
    found = prepared(tmp_path, given, form)
    assert [document.conversation() for document in found] == list(map(cleaned, given))
    assert [document.text for document in found] == [render(cleaned(messages)) for messages in given]
    assert metadata(tmp_path).conversations == len(given)
    assert all(file.has_messages for file in find([tmp_path / "clean"]))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["txt", "jsonl.zst", "parquet"])
def test_datasets_reads_the_messages(tmp_path: Path, form: str) -> None:
    from datasets import load_dataset

    given = conversations(20)
    given[9][-1]["weight"] = 0
    prepared(tmp_path, given, form)
    ending = "jsonl" if form == "txt" else form  # the document lines of a text
    file = str(tmp_path / "clean" / f"chat-00000.{ending}")
    builder = "parquet" if form == "parquet" else "json"
    rows = load_dataset(builder, data_files=[file], split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["messages"][:] == [[message._asdict() for message in cleaned(messages)] for messages in given]


def test_the_lengths_of_cleaned_texts_add_up(tmp_path: Path) -> None:
    prepared(tmp_path, [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "\x07"}]] * 2)
    found = metadata(tmp_path).bytes
    assert found.input == 2 * len("User: hi\n\nAssistant: \x07")
    assert found.output == 2 * len("User: hi")
    assert found.changed == {"controls": -2, "messages": -2 * len("\n\nAssistant: ")}


def test_filters_change_messages_and_no_roles(tmp_path: Path) -> None:
    given = [[{"role": "user", "content": "to a@b.org"}, {"role": "assistant", "content": f"sent {n}"}] for n in "ab"]
    found = prepared(tmp_path, given, filters=["mask"])
    assert [d.conversation() for d in found] == [
        (Message("user", "to email@example.com"), Message("assistant", f"sent {n}")) for n in "ab"
    ]
    assert found[0].text == "User: to email@example.com\n\nAssistant: sent a"


def test_conversations_are_held_out_whole_and_keep_their_lines(tmp_path: Path) -> None:
    """Pieces of a long text are held out where there are few, and lines that repeat can be removed."""
    given = conversations(12)
    for messages in given:
        messages.insert(0, {"role": "user", "content": "a line that all hold\n" * 600})
    found = prepared(tmp_path, given, deduplicate={"exact": False, "lines": 2})
    assert [document.conversation() for document in found] == list(map(cleaned, given))
    assert 0 < sum(document.split == VALIDATION for document in found) < 12


def test_a_single_conversation_is_kept_whole(tmp_path: Path) -> None:
    given = conversations(1)
    assert [document.conversation() for document in prepared(tmp_path, given)] == list(map(cleaned, given))
    assert metadata(tmp_path).validation_documents == 0


@pytest.mark.parametrize("text", ["conversation", "document"])
def test_the_only_short_text_is_never_all_held_out(tmp_path: Path, text: str) -> None:
    for number in range(8):  # by their hashes, half of these would be held out
        path = write(tmp_path / f"{number}.jsonl", [[{"role": "assistant", "content": f"a\n{number}\n\nb\n"}]])
        rows = {"adapter": "messages"} if text == "conversation" else {"format": "text"}
        sources = {f"s{number}": {"kind": "files", "paths": [str(path)], **rows}}
        config = CorpusConfig.model_validate({"sources": sources, "validation_fraction": 0.5})
        prepare(config, out=tmp_path / f"clean{number}")
        assert {d.split for d in read_documents(find([tmp_path / f"clean{number}"]))} >= {"train"}


def test_a_message_of_a_megabyte_is_a_message(tmp_path: Path) -> None:
    given = [[{"role": "user", "content": "long " * 210_000}, {"role": "assistant", "content": "yes"}]] * 2
    assert [document.conversation() for document in prepared(tmp_path, given)] == list(map(cleaned, given))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "narrator", "content": "x"}, "not 'narrator'"),
        ({"role": None, "content": "x"}, "not None"),
        ({"role": "user", "content": 5}, "not int"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "a list of texts"),
        ({"role": "assistant", "content": "x", "weight": 0.5}, "must be 0 or 1, not 0.5"),
        ({"role": "assistant", "content": "x", "weight": "1"}, "must be 0 or 1, not '1'"),
    ],
)
def test_a_message_that_cannot_be_kept_is_named_by_line(tmp_path: Path, message: dict[str, Any], said: str) -> None:
    given = [[{"role": "assistant", "content": "fine"}], [message]]
    with pytest.raises(InputError, match=r"chat\.jsonl#2.*") as error:
        prepared(tmp_path, given)
    assert said in error.value.message
    found = prepared(tmp_path, given, on_bad_input="skip")
    assert [document.text for document in found] == ["Assistant: fine"]
    assert metadata(tmp_path).documents.dropped == {"bad_shape": 1}


def test_contents_of_all_forms_are_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, "b", {"type": "image_url", "image_url": {}}]
    given = [
        [{"role": "user", "content": parts}, {"role": "assistant", "content": None}, {"role": "tool", "content": "c"}]
    ]
    assert prepared(tmp_path, given)[0].conversation() == (
        Message("user", "a\nb"),
        Message("assistant", ""),
        Message("tool", "c"),
    )


def test_a_corpus_without_conversations_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("User: no\n\nAssistant: conversation")
    source = {"kind": "files", "paths": [str(tmp_path / "a.txt")]}
    prepare(CorpusConfig.model_validate({"sources": {"chat": source}}), out=tmp_path / "clean")
    line = json.loads((tmp_path / "clean" / "chat-00000.jsonl").read_text().splitlines()[0])
    assert list(line) == ["id", "sha256", "cluster", "split", "origin"]
    assert metadata(tmp_path).conversations == 0
    assert not list((tmp_path / "clean" / ".alm" / "chat").glob("*.turns.json"))
