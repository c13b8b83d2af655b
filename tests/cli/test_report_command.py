"""`alm report` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import logged_row, scored_row, write_run


def test_a_page_in_the_run_and_one_here_for_several(tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(Path("runs/a"), [logged_row(1, 5.0), scored_row(1, 2.0)])
    write_run(Path("runs/b"), [logged_row(12, 4.0)], finished=True)
    code, out, err = run("report", "runs/a")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "a: not finished: at step 1 of 12, 2.000 ± 0.050 bits/byte on held-out text",
        f"wrote {Path('runs/a/report.html')}",
    ]
    assert Path("runs/a/report.html").is_file()
    code, out, _ = run("report", "runs/a", "runs/b", "--json")
    values = json.loads(out)
    assert (code, values["out"]) == (0, "report.html")
    assert [(one["name"], one["step"], one["finished"], one["bits_per_byte"]) for one in values["runs"]] == [
        ("a", 1, False, 2.0),
        ("b", 12, True, None),
    ]
    assert Path("report.html").is_file()


def test_a_file_of_someone_else_stays(tmp_path: Path, run: Any) -> None:
    folder = write_run(tmp_path / "run", [logged_row(1, 5.0)])
    page = tmp_path / "page.html"
    page.write_text("mine")
    code, out, err = run("report", str(folder), "--out", str(page))
    assert (code, out, page.read_text()) == (1, "", "mine")
    assert "Hint: name another file with `--out`, or add `--force`" in err
    assert run("report", str(folder), "--out", str(page), "--force")[0] == 0
    assert page.read_bytes().startswith(b"<!doctype html>")
    assert run("report")[0] == 1  # there is no run that it could take instead
    assert run("report", str(tmp_path))[0] == 1
