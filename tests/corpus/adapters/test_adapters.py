"""Adapters: rows of every form that people publish become text, and a row of another form is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from cases import for_each

from alm import kinds
from alm.config.base import Config, OfKind
from alm.corpus.adapters import Talk, check, items, no_field
from alm.corpus.conversations import Message, render
from alm.corpus.document import Document, Dropped, Item
from alm.corpus.rows import Row
from alm.errors import ConfigError, InputError

HELLO = (Message("system", "Be kind."), Message("user", "Hi\nthere"), Message("assistant", "Hello!"))
TEXT = "System: Be kind.\n\nUser: Hi\nthere\n\nAssistant: Hello!"


def adapter(given: str | dict[str, str]) -> Config:
    return OfKind("alm.corpus.adapters").validate(given)


def rows(values: Iterable[Any]) -> Iterable[Row | Dropped]:
    return (v if isinstance(v, Dropped) else Row(v, f"r#{n}") for n, v in enumerate(values, 1))


def made(given: str | dict[str, str], *values: Any, **keys: Any) -> list[Item]:
    keys = {"field": "text", "on_bad_input": "stop", "max_document_bytes": 1 << 20, **keys}
    return list(items(iter(rows(values)), adapter=adapter(given), **keys))


def texts(given: str | dict[str, str], *values: Any, **keys: Any) -> list[str]:
    found = made(given, *values, **keys)
    return [item.text if isinstance(item, Document) else f"[{item.reason}]" for item in found]


def talks(given: str, *values: Any) -> list[tuple[Message, ...]]:
    config = adapter(given)
    found = kinds.module_of(config).conversations(config, iter(rows(values)), field="text", max_document_bytes=1 << 20)
    return [talk.conversation for talk in found if isinstance(talk, Talk)]


def test_a_conversation_is_written_out() -> None:
    assert render(HELLO) == TEXT
    assert render((Message("assistant", ""), Message("tool", "42"))) == "Tool: 42"


# ---- text ---------------------------------------------------------------------------------------


def test_the_field_is_the_text_and_dots_lead_into_objects() -> None:
    assert texts("text", {"text": "a"}, {"text": ""}) == ["a", ""]
    assert texts("text", {"a": {"b.c": 1, "b": {"c": "x"}}}, field="a.b.c") == ["x"]
    assert texts("text", {"a.b": "whole", "a": {"b": "x"}}, field="a.b") == ["whole"]
    assert kinds.module_of(adapter("text")).columns(adapter("text"), "a.b") == ("a.b", "a")
    assert made("text", {"text": "a"}, {"text": "b"})[1] == Document("b", "r#2")


def test_a_field_that_the_first_row_lacks_is_a_mistake_later_ones_are_counted() -> None:
    with pytest.raises(
        ConfigError, match=r"`r#1`: no field `text` \(did you mean `txt`\?\) \(there are: txt, n\)"
    ) as e:
        made("text", {"txt": "a", "n": 1})
    assert "sources.<name>.field" in str(e.value.hint)
    assert "sources.<name>.adapter" in str(e.value.hint)
    with pytest.raises(ConfigError, match="no field `a.b`"):
        made("text", {"a": {"c": "x"}}, field="a.b")
    assert texts("text", {"text": "a"}, {"n": 1}, {"text": None}, {"text": 5}, {"text": "b"}) == [
        "a",
        "[no_field]",
        "[not_text]",
        "[not_text]",
        "b",
    ]
    assert made("text", {"n": "é"}, on_bad_input="skip") == [Dropped("no_field", 11, 1, "r#1", '{"n": "é"}')]
    assert texts("text", {"n": 1}, begins=False) == ["[no_field]"]
    assert texts("text", Dropped("bad_json", 1), {"text": None}, {"n": 1}) == ["[bad_json]", "[not_text]", "[no_field]"]


def test_the_first_row_tells_whether_the_field_is_there() -> None:
    keys: dict[str, Any] = {"adapter": adapter("text"), "field": "text", "max_document_bytes": 100}
    assert check(iter(rows([Dropped("bad_json", 1), {"text": None}, {}])), **keys)
    assert not check(iter(rows([Dropped("bad_json", 1)])), **keys)
    with pytest.raises(ConfigError, match="`r#2`: no field"):
        check(iter(rows([Dropped("bad_json", 1), {"n": 1}])), **keys)


def test_a_text_that_is_too_long_is_left_out() -> None:
    assert texts("text", {"text": "é" * 50}, max_document_bytes=100) == ["é" * 50]
    (dropped,) = made("text", {"text": "é" * 50 + "x"}, max_document_bytes=100)
    assert dropped == Dropped("too_long", 101, 1, "r#1", "é" * 50 + "x")


# ---- conversations ------------------------------------------------------------------------------

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}, {"type": "text", "text": "there"}]},
    {"role": "assistant", "content": "Hello!", "name": "x"},
]
TURNS = [{"from": "human", "value": "Hi\nthere"}, {"from": "gpt", "value": "Hello!"}]
FORMS: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    ("messages", {"messages": MESSAGES}, {}),
    ("messages", {"conversation": MESSAGES}, {}),
    ("messages", {"chat": MESSAGES, "messages": 1}, {"field": "chat"}),
    ("sharegpt", {"conversations": [{"from": "system", "value": "Be kind."}, *TURNS]}, {}),
    ("sharegpt", {"conversations": TURNS, "system": "Be kind."}, {}),
    ("sharegpt", {"items": TURNS, "system": "Be kind."}, {"field": "items"}),
    ("alpaca", {"system": "Be kind.", "instruction": "Hi\nthere", "input": "", "output": "Hello!"}, {}),
    (
        {"kind": "alpaca", "instruction": "question", "output": "answer", "system": "s"},
        {"question": "Hi\nthere", "answer": "Hello!", "s": "Be kind."},
        {},
    ),
]


@for_each("given, row, keys", FORMS)
def test_every_form_gives_the_same_text(given: Any, row: dict[str, Any], keys: dict[str, str]) -> None:
    assert made(given, row, **keys) == [Document(TEXT, "r#1")]
    config = adapter(given)
    assert set(kinds.module_of(config).columns(config, keys.get("field", "text"))) & set(row)


def test_an_instruction_comes_with_its_input() -> None:
    row = {"instruction": "Translate.", "input": "oui", "output": "yes"}
    assert texts("alpaca", row) == ["User: Translate.\n\noui\n\nAssistant: yes"]
    assert talks("alpaca", row) == [(Message("user", "Translate.\n\noui"), Message("assistant", "yes"))]


def test_roles_have_one_name_each() -> None:
    given = ["developer", "Human", "prompter", "gpt", "bot", "function_call", "observation", "function"]
    turns = [{"from": role, "value": str(n)} for n, role in enumerate(given)]
    roles = ["system", "user", "user", "assistant", "assistant", "assistant", "tool", "tool"]
    assert talks("sharegpt", {"conversations": turns}) == [tuple(Message(r, str(n)) for n, r in enumerate(roles))]


@for_each(
    "given, row, message",
    [
        ("messages", {"messages": "Hi"}, "`messages` or `conversation` should hold a list of objects with `role`"),
        ("messages", {"messages": [{"from": "human", "value": "x"}]}, "should hold a list of objects with `role`"),
        (
            "messages",
            {"messages": [{"role": "ghost", "content": "x"}]},
            "a role must be one of system, .*, not 'ghost'",
        ),
        ("messages", {"messages": [{"role": "user", "content": 5}]}, "must be a text or a list of texts, not int"),
        ("sharegpt", {"conversations": [{"role": "user"}]}, "list of objects with `from` and `value`"),
        (
            "alpaca",
            {"instruction": "x", "response": "y"},
            r"field `output` should hold text \(there are: instruction, r",
        ),
        ("oasst", {"prompt": "x"}, "a tree should begin with a message"),
        ("oasst", {"prompt": {"text": "x", "role": "prompter", "replies": 5}}, "`replies` should hold a list"),
        ("oasst", {"message_tree_id": "t", "parent_id": "p", "text": "x", "role": "prompter"}, "a tree should begin"),
    ],
)
def test_a_row_of_another_form_is_told_or_counted(given: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"`r#1` is not what the adapter reads: .*{message}") as caught:
        made(given, row)
    assert "sources.<name>.adapter" in str(caught.value.hint)
    assert "sources.<name>.on_bad_input=skip" in str(caught.value.hint)
    assert texts(given, row, row, on_bad_input="skip") in (["[bad_shape]"] * 2, ["[bad_shape]"])


@pytest.mark.parametrize("given", ["messages", "sharegpt", "alpaca", "oasst"])
def test_a_row_without_the_field_is_a_mistake_of_the_configuration(given: str) -> None:
    with pytest.raises(ConfigError, match="no field"):
        made(given, {"text": "x"})
    assert texts(given, {"text": "x"}, on_bad_input="skip") == ["[no_field]"]


# ---- trees --------------------------------------------------------------------------------------


def node(text: str, role: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"text": text, "role": role, "replies": list(replies), **more}


TREE = node(
    "Q",
    "prompter",
    node("worse", "assistant", node("dead end", "prompter"), rank=1),
    node("gone", "assistant", rank=0, deleted=True),
    node("best", "assistant", node("more", "prompter", node("end", "assistant"), node("other", "assistant")), rank=0.0),
    node("unranked", "assistant", rank=None),
)
PATH = "User: Q\n\nAssistant: best\n\nUser: more\n\nAssistant: end"


def flat(tree: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The messages of a tree, depth first, as rows."""
    found: list[dict[str, Any]] = []

    def walk(message: dict[str, Any], parent: str | None) -> None:
        own = f"{name}-{len(found)}"
        rest = {key: value for key, value in message.items() if key != "replies"}
        found.append({"message_id": own, "parent_id": parent, "message_tree_id": name, **rest})
        for reply in message["replies"]:
            walk(reply, own)

    walk(tree, None)
    return found


def test_the_best_path_of_a_nested_tree_is_taken() -> None:
    assert made("oasst", {"prompt": TREE}, {"prompt": node("A", "prompter")}) == [
        Document(PATH, "r#1"),
        Document("User: A", "r#2"),
    ]


def test_flat_trees_are_grouped_and_named_by_their_first_row() -> None:
    first, second = flat(TREE, "a"), flat(node("A", "prompter", node("B", "assistant")), "b")
    assert made("oasst", *first, *second) == [Document(PATH, "r#1"), Document("User: A\n\nAssistant: B", "r#10")]
    assert made("oasst", *first[::-1])[0] == Document(PATH.replace("end", "other"), "r#1")
    bad = Dropped("bad_json", 3)
    assert made("oasst", *first[:2], bad, *first[2:], {"prompt": TREE}) == [
        bad,
        Document(PATH, "r#1"),
        Document(PATH, "r#11"),
    ]


def test_a_tree_that_is_its_own_parent_ends() -> None:
    loop = {"message_id": "a", "parent_id": None, "message_tree_id": "t", "text": "x", "role": "prompter"}
    assert texts("oasst", loop, {**loop, "parent_id": "a"}) == ["User: x\n\nUser: x"]


def test_a_flat_tree_that_is_too_large_is_left_out_without_being_held() -> None:
    big, small = flat(node("A" * 60, "prompter", *[node("B" * 60, "assistant")] * 9), "a"), flat(TREE, "b")
    found = made("oasst", *big, *small, max_document_bytes=1200)
    assert [(item.origin, getattr(item, "reason", "")) for item in found] == [("r#1", "too_long"), ("r#11", "")]
    assert isinstance(found[0], Dropped)
    assert found[0].bytes > 1200


def test_a_deep_tree_is_read_without_recursion() -> None:
    tree = node("0", "prompter")
    for n in range(1, 5000):
        tree = node(str(n), "assistant", tree)
    assert len(texts("oasst", {"prompt": tree})[0].split("\n\n")) == 5000


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"id": "a", "my body": "a long text", "n": 1}, "field='my body'`"), ({"n": 1}, "field=...`")],
)
def test_the_hint_names_the_field_with_the_longest_text(values: dict[str, Any], expected: str) -> None:
    rejected = no_field(Row(values, "r#1"), ("text",))
    assert expected in (rejected.error.hint or "")


@for_each(
    "given, message, lost",
    [
        ("messages", {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}, {"message.tool_calls": 1}),
        ("messages", {"role": "assistant", "content": "x", "reasoning_content": "y"}, {"message.reasoning_content": 1}),
        ("messages", {"role": "user", "content": "x", "tool_calls": None, "thinking": ""}, {}),
        (
            "messages",
            {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": "u"}]},
            {"message.content[image_url]": 1},
        ),
        ("sharegpt", {"from": "gpt", "value": "x", "thought": "y"}, {"message.thought": 1}),
    ],
)
def test_what_lies_beside_the_text_of_a_message_is_counted(given: str, message: Any, lost: dict[str, int]) -> None:
    key = "messages" if given == "messages" else "conversations"
    (found,) = made(given, {key: [message]})
    assert isinstance(found, Document)
    assert dict(found.lost) == lost


TALK = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Hello!"}]


@for_each(
    "given, row, lost",
    [
        ("messages", {"messages": TALK, "tools": [{"name": "f"}], "functions": "f"}, ["functions", "tools"]),
        ("messages", {"messages": TALK, "system": "Be kind.", "history": [["a", "b"]]}, ["history", "system"]),
        ("messages", {"messages": TALK, "tools": [], "system": "", "history": None, "functions": {}}, []),
        ("messages", {"messages": TALK, "id": "a-1", "score": 0.5, "source": "web", "tags": ["a", "b"]}, []),
        ("messages", {"messages": TALK, "prompt": "Hi there", "text": "<user> Hi there <bot> Hello!"}, []),
        ("messages", {"messages": TALK, "persona": "A sea captain.", "plan": [{"a": "go home"}]}, ["persona", "plan"]),
        ("sharegpt", {"conversations": [{"from": "gpt", "value": "x"}], "system": "s", "tools": "[t]"}, ["tools"]),
        ("alpaca", {"instruction": "a", "output": "b", "input": "", "history": [["c", "d"]]}, ["history"]),
    ],
)
def test_what_lies_beside_the_messages_of_a_row_is_counted(given: str, row: Any, lost: list[str]) -> None:
    (found,) = made(given, row)
    assert isinstance(found, Document)
    assert found.lost == tuple((f"row.{name}", 1) for name in lost)


def test_deep_fields_beside_messages_need_no_recursion() -> None:
    deep: Any = "a b"
    for _ in range(5000):
        deep = [deep]
    (found,) = made("messages", {"messages": TALK, "deep": deep})
    assert isinstance(found, Document)
    assert found.lost == (("row.deep", 1),)


def test_a_rank_that_is_no_number_does_not_win() -> None:
    replies = [{"text": text, "role": "assistant", "rank": rank} for text, rank in (("nan", float("nan")), ("best", 0))]
    row = {"prompt": {"text": "Hi", "role": "prompter", "replies": replies}}
    assert texts("oasst", row) == ["User: Hi\n\nAssistant: best"]
