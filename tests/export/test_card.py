"""Model cards: whatever strangers' titles, licences, names and messages say, it stays text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import for_each
from markdown_it import MarkdownIt
from markdown_it.token import Token

from alm.artifacts import Comparison, FileRecord
from alm.export import card
from alm.export.config import TargetConfig
from alm.export.markdown import Markdown, code, fenced, inert, table
from alm.export.source import load_source
from alm.export.targets import gguf, huggingface, safetensors
from alm.training.run import run_folder
from alm.training.run.lineage import Lineage, Source

HOSTILE = [
    "[free](https://evil.example/)",
    "![](https://evil.example/pixel.png)",
    "<img src=x onerror=alert(1)><script>alert(1)</script>",
    "https://evil.example/ www.evil.example me@evil.example <https://evil.example>",
    "`` ` ``` `` [a](https://evil.example)",
    "```\n```\n# Forged\n\n[a](https://evil.example)\n",
    "a | b \\| c |\n| --- | --- |\n",
    "---\nlicense: mit\n---\n# Forged",
    'mit"\npipeline_tag: forged\ntags: [x]',
    "[x]: https://evil.example\n\n[x]",
    "\x1b]52;c;ZXZpbA==\x07\u202e\udce9\x9b31m",
    "*a* _b_ ~~c~~ $x$ &lt;b&gt; \\",
]
ACTIVE = {"link_open", "image", "html_inline", "html_block", "em_open", "strong_open", "s_open"}
MARKDOWN = MarkdownIt("commonmark").enable("table")


def tokens(page: str) -> list[Token]:
    """All tokens of a page, those within lines too."""
    return [inner for token in MARKDOWN.parse(page) for inner in (token, *(token.children or ()))]


def bare(page: str) -> str:
    """The text of a page outside code: what dialects make addresses of."""
    return "\n".join(token.content for token in tokens(page) if token.type == "text")


def is_inert(page: str) -> None:
    assert not {token.type for token in tokens(page)} & ACTIVE
    assert not re.search(r"://|www\.|@|evil|<|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", bare(page))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", page)


@for_each("text", HOSTILE)
def test_no_text_of_a_stranger_means_anything(text: str) -> None:
    is_inert(f"Before {inert(text)} and {code(text)} behind.")
    is_inert(f"# {inert(text)}")
    assert [t.type for t in tokens(fenced("python", text)) if t.type not in ("text", "paragraph")] == ["fence"]
    page = table((text, "b"), [(text, "2"), (Markdown(code(text)), text)])
    is_inert(page)
    cells = [t for t in tokens(page) if t.type in ("th_open", "td_open")]
    assert len(cells) == 6


@for_each("text", ["tales", "my-run_2", "cc-by-sa-4.0", 'My "Tales": the first', "user/model", "Größe 日本"])
def test_names_that_mean_nothing_are_written_as_they_are(text: str) -> None:
    assert inert(text) == text


def hostile_parts(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the card reads of a run says `text`."""
    source = Source(text, 1, 2, 3, 4, kind=text, licence=text, revision=text, is_clean_text_known=True)
    facts = (("data sha256", text), ("tokenizer sha256", text))
    monkeypatch.setattr(card, "trace", lambda *_: Lineage(facts, (source, source), ()))
    read = run_folder.read_metadata

    def read_metadata(folder: Path) -> Any:
        environment = dict.fromkeys(("device_name", "device", "ranks", "precision"), text)
        initial = FileRecord.model_construct(path=text, sha256=text)
        changes = {"alm_version": text, "environment": environment, "initial_weights": initial}
        return read(folder).model_copy(update=changes)

    monkeypatch.setattr(run_folder, "read_metadata", read_metadata)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("target", [huggingface.Config, gguf.Config, safetensors.Config])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_of_strangers_words_has_our_parts_alone(
    trained: Path, monkeypatch: pytest.MonkeyPatch, text: str, target: type[TargetConfig]
) -> None:
    source = load_source(trained / "ckpt-last.pt")
    hostile_parts(text, monkeypatch)
    compared = [Comparison(what=text, tool=text, difference=0.0, detail=text)]
    page = card.text(target(title=text, licence=text), source, compared, name=text)
    is_inert(page.partition("\n---\n")[2])
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", page, re.DOTALL).groups()  # type: ignore[union-attr]
    values = yaml.safe_load(head)
    assert list(values) == ["license", "pipeline_tag", "tags"]
    assert (values["license"], values["pipeline_tag"]) == (text, "text-generation")
    found = MARKDOWN.parse(body)
    levels = [token.tag for token in found if token.type == "heading_open"]
    assert levels == ["h1", *["h2"] * (len(levels) - 1)]
    titles = [found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open"]
    assert titles[1:] == ["Use", "Model", "Data", "Training", "Curve", "Compared"]
    assert [token.type for token in found].count("fence") == 1
    # What is read outside code is ours: it is the same with a harmless word for the stranger's.
    assert page.count("\n| ") == card.text(target(title="x", licence="x"), source, compared, name="x").count("\n| ")


@pytest.mark.parametrize("text", HOSTILE)
def test_faults_of_the_data_are_text(trained: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(card, "trace", lambda *_: Lineage((), (), (f"`{text}` is not here",)))
    source = load_source(trained / "ckpt-last.pt")
    is_inert(card.text(safetensors.Config(), source, None, name="x").partition("\n---\n")[2])


def test_a_program_in_a_card_reads_the_name_back(trained: Path) -> None:
    source = replace(load_source(trained / "ckpt-last.pt"), run=None)
    name = 'a"b\n```\u202e'
    page = card.text(safetensors.Config(), source, None, name=name)
    [program] = [token.content for token in MARKDOWN.parse(page) if token.type == "fence"]
    assert json.loads(program.split("load_file(")[1].rstrip(")\n")) == f"{name}/model.safetensors"
