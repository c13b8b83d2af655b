"""A command line in this process, and a project to use it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import CHAIN, texts

from alm.cli.main import main


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with text in `my-texts`."""
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate(texts(120)):
        path = tmp_path / "my-texts" / f"{number:03d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def trained(project: Path, run: Any) -> Path:
    """The same after the whole chain."""
    for arguments in CHAIN:
        code, _, err = run(*arguments)
        assert code == 0, err
    return project
