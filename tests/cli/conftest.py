"""A command line in this process, and a project to use it in."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def after_the_chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs it keeps a copy of `trained`."""
    return tmp_path_factory.mktemp("chain") / "project"


@pytest.fixture
def trained(project: Path, run: Any, after_the_chain: Path) -> Path:
    """The same after the whole chain, which runs once in a session: each test has a copy."""
    if after_the_chain.exists():
        shutil.copytree(after_the_chain, project, dirs_exist_ok=True)
        return project
    for arguments in CHAIN:
        code, _, err = run(*arguments)
        assert code == 0, err
    shutil.copytree(project, after_the_chain)
    return project
