"""The pages agree with the program, with each other, and with the examples in the code."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard
from urllib.parse import unquote

import pytest
import typer
from cases import for_each
from sources import nodes_of

from alm.cli.main import app
from alm.config.load import load
from alm.config.yaml_files import parse_yaml
from alm.corpus.config import CorpusConfig
from alm.training.config import RunConfig

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("C*.md"), *(ROOT / "docs").rglob("*.md")])
WITH_EXAMPLES = sorted(path for path in (ROOT / "alm").rglob("*.py") if ">>> " in path.read_text("utf-8"))
GENERATED = {"docs/cli.md", "docs/config.md"}
# A page whose commands a person types; history may name what is gone.
WITH_COMMANDS = [
    page for page in PAGES if page.relative_to(ROOT).as_posix() not in GENERATED and page.name != "CHANGELOG.md"
]
README_LINES, README_WORDS = 250, 25
PICTURE_BYTES = 150_000
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and typing look a module up by its name
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh_whatever_the_terminal(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "40", "TERM": "xterm-256color", "FORCE_COLOR": "1", "LC_ALL": "C"}.items():
        monkeypatch.setenv(name, value)
    for path, text in generate.pages().items():
        assert path.read_text("utf-8") == text, f"{path.name} is stale: run `{generate.COMMAND}`"


def test_stale_pages_are_named_then_written(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "cli.md"
    monkeypatch.setattr(generate, "pages", lambda: {page: "new é\n"})
    assert generate.main(["--check"]) == 1
    assert f"{page} is stale" in capsys.readouterr().err
    assert not page.exists()
    assert generate.main([]) == 0
    assert page.read_bytes() == "new é\n".encode()
    assert generate.main(["--check"]) == 0


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page; a heading that comes again gets a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if (f"{anchor}-{n}" if n else anchor) not in found)
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Relative links of a page that lead nowhere."""
    for link in LINK.findall(FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8"))
        ):
            yield link


@for_each("page", PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_planted_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# It's `one`\n## Two\n## Two\n")
    links = "[x](b.md) [x](b.md#its-one) [x](b.md#two-1) [x](#here) [x](https://x.y/z.md)"
    broken = ["c.md", "b.md#three", "b.md#two-2", "#there"]
    page = tmp_path / "a.md"
    page.write_text(f"# Here\n{links}\n```\n[x](in-code.md)\n```\n" + " ".join(f"[x]({link})" for link in broken))
    assert list(broken_links(page)) == broken


@for_each("path", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0


def test_readme_is_short_and_shows_its_pictures() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert text.count("\n") <= README_LINES
    assert len(pictures) == 2
    assert all(0 < (ROOT / picture).stat().st_size < PICTURE_BYTES for picture in pictures)


def sentences(text: str) -> list[str]:
    """The sentences of a page outside code, tables and link targets, a cell or an item of a list as one of its own."""
    text = re.sub(r"\]\([^)]*\)", "]", FENCE.sub("", text))
    blocks = re.split(r"\n\n|\n(?=[-|#])|\|", text)
    return [found for block in blocks for found in re.split(r"(?<=[.?!:;])[*]*\s+", " ".join(block.split()))]


def test_no_sentence_of_readme_is_long() -> None:
    found = sentences((ROOT / "README.md").read_text("utf-8"))
    assert len(found) > 40
    assert [sentence for sentence in found if len(sentence.split()) > README_WORDS] == []


def test_every_page_is_named_by_readme_or_the_reference() -> None:
    named = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in (ROOT / "README.md", ROOT / "docs/reference.md")
        for link in LINK.findall(page.read_text("utf-8"))
    }
    assert set(PAGES) - named == {ROOT / "README.md"}


# ---- commands ----------------------------------------------------------------------------------------------


def commands_on(page: Path) -> Iterator[str]:
    """The commands of `alm` on a page, one by one: those in code blocks for a shell, and those within a line."""
    text = page.read_text("utf-8")
    shell = re.findall(r"^```(?:console|bash)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text))
    for line in [*"\n".join(shell).split("\n"), *spans]:
        line = re.sub(r"\s+#\s.*| [|>] .*", "", line)
        for command in re.split(r" && |; ", line):
            command = re.sub(r"^(?:[A-Z_]+=\S+ )+|^(?:srun |\.venv/bin/)", "", command)
            # `...` and words in capitals stand for something.
            if re.match(r"alm [a-z-]", command) and not re.search(r"\.\.\.| [A-Z]+\b", command):
                yield command


COMMANDS = [(page.name, command) for page in WITH_COMMANDS for command in dict.fromkeys(commands_on(page))]
PROGRAM = typer.main.get_command(app)


@for_each("given", COMMANDS)
def test_commands_on_the_pages_are_accepted(given: tuple[str, str]) -> None:
    accept(given[1])


def accept(command: str) -> None:
    """Fail unless names, flags and the types of their values are right; a run's settings are for its configuration."""
    words = [word for word in shlex.split(command)[1:] if word != "--help"]
    found: Any = PROGRAM
    while words and hasattr(found, "commands"):
        assert words[0] in found.commands, command
        found = found.commands[words.pop(0)]
    if not words:  # only the command is named
        return
    if words[-1].startswith("--"):  # only a flag is named
        assert any(words[-1] in option.opts for option in found.get_params(typer.Context(found))), command
        return
    values = found.make_context(command, [*words], resilient_parsing=False).params
    overrides = next((values[name] for name in ("overrides", "set_", "set") if values.get(name)), None) or []
    if command.startswith(("alm pretrain", "alm plan")):
        assert overrides or "--set" not in command
        load(RunConfig, [], overrides=overrides)


def test_pages_have_commands_and_planted_mistakes_are_found(tmp_path: Path) -> None:
    assert len(COMMANDS) > 80
    page = tmp_path / "a.md"
    page.write_text("Run `alm pack --nothing 1`, `alm X`:\n```console\nX=1 alm pretrain --nproc two | cat  # ok\n```\n")
    found = list(commands_on(page))
    assert found == ["alm pretrain --nproc two", "alm pack --nothing 1"]
    for command in [*found, "alm pretrain --set optim.rate=1", "alm nothing"]:
        with pytest.raises(Exception):  # noqa: B017 - the vendored classes of Typer may not be imported
            accept(command)


def test_the_sources_file_on_the_page_is_one() -> None:
    text = (ROOT / "docs/your-own-text.md").read_text("utf-8")
    files = [found for found in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "sources:" in found]
    assert len(files) == 1
    assert len(CorpusConfig.model_validate(parse_yaml(files[0])).sources) == 3


@pytest.mark.slow
def test_the_example_in_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/python.md", "exec"), {})
    assert (tmp_path / "runs/first/ckpt-last.pt").is_file()


# ---- messages ----------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return " ".join(text.replace("`", "").split())


def is_text(node: ast.AST) -> TypeGuard[ast.Constant]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@cache
def templates() -> list[str]:
    """Every text in the code, with a NUL for each value that is put in."""
    found: list[str] = []
    for path in (ROOT / "alm").rglob("*.py"):
        nodes = nodes_of(path.read_text("utf-8"))
        docstrings = {node.value.value for node in nodes if isinstance(node, ast.Expr) and is_text(node.value)}
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append(plain("".join(map(str, parts))))
            elif is_text(node) and node.value not in docstrings:
                found.append(plain(node.value))
    return found


def is_said(message: str) -> bool:
    """Whether the code has every part of this message; `...`, numbers and single capitals stand for values."""
    parts = [plain(part) for part in re.split(r"\.\.\.|\b[A-Z]\b|\b0x\w+|\d[\d,]*", message)]
    return all(any(part in template for template in templates()) for part in parts if len(part) > 1)


OF_THE_SYSTEM = ("Killed", "No space left on device")
MESSAGES = re.findall(
    r"`([^`]+)`",
    "".join(re.findall(r"^\| (`.*?) \| ", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE)),
)


@for_each("message", [message for message in MESSAGES if message not in OF_THE_SYSTEM])
def test_messages_in_troubleshooting_are_those_of_the_program(message: str) -> None:
    assert is_said(message)


def test_messages_were_found_and_others_are_not_said() -> None:
    assert len(MESSAGES) > 20
    assert not is_said("... was started on other datums than ...")
