"""The pages agree with the program, with each other, and with the examples in the code."""

from __future__ import annotations

import doctest
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("C*.md"), *(ROOT / "docs").rglob("*.md")])
WITH_EXAMPLES = sorted(path for path in (ROOT / "alm").rglob("*.py") if ">>> " in path.read_text("utf-8"))
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_planted_broken_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# It's `one`\n## Two\n## Two\n")
    links = "[x](b.md) [x](b.md#its-one) [x](b.md#two-1) [x](#here) [x](https://x.y/z.md)"
    broken = ["c.md", "b.md#three", "b.md#two-2", "#there"]
    page = tmp_path / "a.md"
    page.write_text(f"# Here\n{links}\n```\n[x](in-code.md)\n```\n" + " ".join(f"[x]({link})" for link in broken))
    assert list(broken_links(page)) == broken


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples_in_docstrings_are_true(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
