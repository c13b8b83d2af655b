"""`alm tokenizer` beyond training: pieces, comparison, export, and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from alm.config import presets
from alm.tokenizers import vocabulary
from alm.tokenizers.file import Tokenizer

Run = Any
SERIAL = ["--workers", "1"]  # starting workers takes longer than these texts


@pytest.fixture(scope="module")
def first_artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs it keeps a copy of the artifacts."""
    return tmp_path_factory.mktemp("tokenizer") / "artifacts"


@pytest.fixture
def tokenizer(project: Path, run: Run, first_artifacts: Path) -> Path:
    """A tokenizer of 400 tokens, trained by two workers once for all tests."""
    artifacts = project / "artifacts"
    if first_artifacts.exists():
        shutil.copytree(first_artifacts, artifacts)
    else:
        code, _, err = run("tokenizer", "train", "--input", "my-texts", "--vocab-size", "400", "--workers", "2")
        assert code == 0, err
        shutil.copytree(artifacts, first_artifacts)
    return artifacts / "tokenizer.json"


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("kind", "settings"),
    [("unigram", []), ("bpe", ["model.byte_handling=fallback"]), ("bpe", ["model.pattern=cl100k"])],
)
def test_every_kind_trains_encodes_and_packs(kind: str, settings: list[str], project: Path, run: Run) -> None:
    flags = [word for setting in settings for word in ("--set", setting)]
    train = ["tokenizer", "train", "--input", "my-texts", "--kind", kind, "--vocab-size", "420", *flags, *SERIAL]
    assert run(*train)[0] == 0
    text = "Café 😀 don't\x00 <0x41>"
    code, out, _ = run("tokenizer", "encode", text)
    assert code == 0
    assert run("tokenizer", "decode", out)[1] == text
    assert run("pack", "--in", "my-texts", "--seq-len", "16", *SERIAL)[0] == 0
    assert run("info", "artifacts/tokenizer.json")[0] == 0
    code, _, err = run(*train)
    assert (code, "up to date" in err) == (0, True)


def test_pieces_are_parted_where_no_terminal_is(tokenizer: Path, run: Run) -> None:
    code, out, err = run("tokenizer", "encode", "--show", "é the\n[b]\x1b[31m")
    assert code == 0
    assert out.replace("|", "") == "<0xC3><0xA9> the⏎\n[b]<0x1B>[31m\n"
    tokens = len(Tokenizer.load(tokenizer).encode("é the\n[b]\x1b[31m"))
    assert out.count("|") == tokens - 1
    assert err == f"{tokens} tokens, 15 bytes, {15 / tokens:.2f} bytes per token\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("no_color", [True, False])
def test_pieces_are_coloured_on_a_terminal(no_color: bool, tokenizer: Path) -> None:
    outer, inner = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLORTERM")}
    settings |= {"TERM": "xterm-256color", **({"NO_COLOR": "1"} if no_color else {})}
    command = [
        sys.executable,
        "-m",
        "alm",
        "tokenizer",
        "encode",
        "--show",
        "the [red]cat",
        "--tokenizer",
        str(tokenizer),
    ]
    subprocess.run(command, stdout=inner, stderr=subprocess.DEVNULL, env=settings, check=True)
    os.close(inner)
    shown = os.read(outer, 10_000).decode()
    os.close(outer)
    assert ("\x1b[" in shown) is not no_color
    assert ("|" in shown) is no_color
    assert "[" in shown  # user text is no markup


def test_comparison_of_two_on_given_text(tokenizer: Path, run: Run) -> None:
    assert (
        run(
            "tokenizer", "train", "--input", "my-texts", "--vocab-size", "300", "--out", "small/tokenizer.json", *SERIAL
        )[0]
        == 0
    )
    files = ["artifacts/tokenizer.json", "small/tokenizer.json"]
    code, out, _ = run("tokenizer", "compare", *files, "--text", "my-texts/001.txt", "--json")
    assert code == 0
    text = Path("my-texts/001.txt").read_text("utf-8")
    for path, found in zip(files, json.loads(out)["tokenizers"], strict=True):
        loaded = Tokenizer.load(path)
        assert (found["name"], found["vocab_size"]) == (path, loaded.vocab_size)
        ratio = round(len(text.encode()) / len(loaded.encode(text)), 4)
        assert found["bytes_per_token"] == {"001": ratio}
        assert found["total_bytes_per_token"] == ratio
    code, out, err = run("tokenizer", "compare", *files)
    assert code == 0
    assert "English" in out
    assert "*" in out
    assert "--model pico" in err


def test_an_empty_text_is_no_text_to_compare_on(tokenizer: Path, run: Run) -> None:
    Path("empty.txt").touch()
    code, _, err = run("tokenizer", "compare", str(tokenizer), "--text", "empty.txt")
    assert (code, "the text is empty" in err) == (1, True)


def test_advice_names_a_size_and_why(tokenizer: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_SIZES", (280, 300))
    advised = ["tokenizer", "compare", "--text", "my-texts", "--model", "nano"]
    code, out, _ = run(*advised)
    assert code == 0
    advice = json.loads(run(*advised, "--json")[1])["advice"]
    assert f"For `nano`, {advice['vocab_size']} tokens" in out
    assert "docs/vocabulary.md" in out
    size = Tokenizer.load(tokenizer).vocab_size
    assert [choice["vocab_size"] for choice in advice["choices"]] == [280, *([300] if size > 300 else []), size]
    assert advice["left_out"] == []
    Path("models/mine").mkdir(parents=True)
    shutil.copy(presets.find("nano"), "models/mine/config.yaml")
    of_run = json.loads(run(*advised[:-1], "models/mine", "artifacts", "--json")[1])["advice"]["choices"]
    assert [{**choice, "tokenizer": "tokenizer.json"} for choice in of_run] == advice["choices"]
    code, _, err = run("tokenizer", "compare", "--model", "nano")
    assert (code, "--text data/clean" in err) == (2, True)
    assert run("tokenizer", "compare", "--text", "my-texts", "--model", "nanoo")[0] == 2


def test_what_a_tokenizer_does_not_have_is_left_out_by_name(tokenizer: Path, run: Run) -> None:
    """Of a Unigram model there are no smaller vocabularies; of a foreign one, `alm` knows no tokens."""
    train = ("tokenizer", "train", "--input", "my-texts", "--kind", "unigram", "--vocab-size", "600", *SERIAL)
    assert run(*train, "--out", "uni/tokenizer.json")[0] == 0
    foreign = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    Path("words").mkdir()
    foreign.save("words/tokenizer.json")
    compare = ["tokenizer", "compare", "--text", "my-texts", "--model", "nano"]
    code, out, err = run(*compare, "uni", "words", "artifacts/tokenizer.json")
    assert code == 0, err
    assert "`words` is left out: `alm` cannot train with it." in out
    assert "Smaller vocabularies of `uni` are left out: they would need another training." in out
    assert "For `nano`, " in out
    code, out, _ = run(*compare, "uni", "--json")
    advice = json.loads(out)["advice"]
    assert (code, advice["vocab_size"], len(advice["choices"])) == (0, None, 1)
    assert "No advice: there is only one" in run(*compare, "uni")[1]
    assert "No advice: there is only one" in run(*compare, "words")[1]


@pytest.mark.usefixtures("tokenizer")
def test_export_for_tiktoken(run: Run) -> None:
    code, out, err = run("tokenizer", "export", "--to", "tiktoken", "--out", "words")
    assert code == 0
    assert out.split() == ["words/words.tiktoken", "words/words.py"]
    assert "the same ids" in err
    code, _, err = run("tokenizer", "export", "--to", "gguf", "--out", "words")
    assert (code, "--to tiktoken" in err) == (2, True)


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5"])
def test_workers_are_a_number_or_auto(workers: str, project: Path, run: Run) -> None:
    code, _, err = run("tokenizer", "train", "--input", "my-texts", f"--workers={workers}")
    assert code == 2
    assert f"`--workers {workers}` is not a number of workers" in err
    assert not (project / "artifacts").exists()
