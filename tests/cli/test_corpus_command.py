"""`alm corpus prepare` from the command line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def texts(folder: Path, count: int = 12) -> None:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"text number {number}\nand its second line\n")


def test_formats_shares_and_the_report(project: Path, run: Any) -> None:
    texts(project / "in")
    code, out, err = run("corpus", "prepare", "in", "--format", "parquet", "--workers", "1")
    assert code == 0, err
    assert "100.0%" in out
    assert "report: data/clean/_report.html" in err.replace("\\", "/")
    assert (project / "data/clean/in-00000.parquet").is_file()
    report = json.loads((project / "data/clean/_report.json").read_text())
    assert report["sources"][0]["documents"]["input"] == 12
    code, _, err = run("corpus", "prepare", "in", "--out", "part", "--num-shards", "2", "--shard-index", "1")
    assert code == 0, err
    assert "0 of 1 units are done" in err
    code, _, err = run("corpus", "prepare", "in", "--out", "part")
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["--num-shards", "2"], "must be used together"),
        (["--num-shards", "2", "--shard-index", "2"], "must be used together"),
        (["--engine", "processs"], "did you mean `processes`?"),
        (["--ray-address", "auto"], "--engine ray"),
        (["--workers", "none"], "not a number of workers"),
        (["--format", "csv"], "format"),
        (["--set", "sources.in.filters=[gopher]"], "did you mean"),
        (["--set", "sources.in.on_bad_input=ignore"], "on_bad_input"),
    ],
)
def test_bad_flags_are_told(project: Path, run: Any, words: list[str], phrase: str) -> None:
    texts(project / "in", 2)
    code, out, err = run("corpus", "prepare", "in", *words)
    assert (code, out) == (2, "")
    assert phrase in err
    assert not (project / "data").exists()


def test_a_dry_run_says_what_would_be_read(project: Path, run: Any) -> None:
    texts(project / "in")
    code, out, err = run("corpus", "prepare", "in", "--dry-run", "--json")
    assert code == 0, err
    plan = json.loads(out)["sources"]["in"]
    assert (plan["state"], plan["files"], plan["units"]) == ("to be made", 12, 1)
    assert not (project / "data").exists()


@pytest.mark.slow
def test_standard_input_is_a_source(project: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'{"text": "one"}\n{"text": "two"}\n'
    for _ in range(2):
        stdin = SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        code, _, err = run("corpus", "prepare", "-")
        assert code == 0, err
    assert "up to date" in err
    lines = (project / "data/clean/stdin-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["origin"] for line in lines] == ["stdin#1", "stdin#2"]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    code, _, err = run("corpus", "prepare", "-", "--out", "other")
    assert code == 1
    assert "is a terminal" in err
