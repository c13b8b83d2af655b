"""The chat template of an imported model is kept for exports and for runs that start from it, and never run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alm.artifacts import ImportMetadata, read
from alm.errors import InputError
from alm.events import Event, Noted, Warned
from alm.export import chat_template
from alm.export.importing import import_model
from alm.tokenizers.chat_format import ChatFormat

from .conftest import Make, main_ok

LLAMA3 = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
)
UNKNOWN = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{% endfor %}"


def theirs(checkpoint: Path, template: str, out: Path) -> Path:
    """A Hugging Face folder with this chat template."""
    main_ok(["export", "--checkpoint", str(checkpoint), "--out", str(out), "--no-compare", "--quiet"])
    (out / "chat_template.jinja").unlink()
    settings = json.loads((out / "tokenizer_config.json").read_text())
    (out / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    return out


@pytest.mark.parametrize(("template", "form"), [(LLAMA3, "llama3"), (UNKNOWN, None)])
def test_it_is_kept_and_recognised(
    template: str, form: str | None, checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, events = theirs(checkpoint_of(), template, tmp_path / "theirs"), list[Event]()
    made = import_model(folder, out=Path("runs/new"), compare=False, on_event=events.append)
    assert read(Path("runs/new/import.json"), ImportMetadata, hint="") == made
    assert Path("runs/new/chat_template.jinja").read_text() == template
    said = [event.message for event in events if isinstance(event, Noted | Warned)]
    if form is None:
        assert made.chat is None
        assert any("is of no form that alm knows (chatml, llama3, llama2, mistral, zephyr)" in each for each in said)
    else:
        assert ChatFormat.model_validate(made.chat).form == form
        assert f"its conversations have the turns of {form}" in said
    for kind in ("huggingface", "gguf"):
        out = tmp_path / kind
        words = ["export", "--checkpoint", "runs/new", "--to", kind, "--out", str(out), "--no-compare"]
        main_ok(words)
    assert Path("huggingface/chat_template.jinja").read_text() == template
    again = import_model(next(Path("gguf").glob("*.gguf")), kind="gguf", out=Path("runs/again"), compare=False)
    assert again.chat == made.chat
    assert Path("runs/again/chat_template.jinja").read_text() == template


def test_one_of_several_templates_is_taken() -> None:
    several = [{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}, "odd"]
    assert chat_template._chosen(several) == "b"
    assert chat_template._chosen(several[:1]) == "a"
    assert chat_template._chosen([]) is None
    assert chat_template._chosen([{"name": []}]) is None
    assert chat_template._chosen({"a": 1}) is None
    assert chat_template._token({"content": "</s>"}) == "</s>"
    assert chat_template._token(None) == ""


def test_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(InputError, match="not UTF-8"):
        chat_template.read_beside(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"x" * 1_000_000)
    with pytest.raises(InputError, match="more than 800,000 bytes"):
        chat_template.read_beside(tmp_path)
