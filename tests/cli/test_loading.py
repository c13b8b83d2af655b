"""The line that says that PyTorch is being loaded."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from alm.cli.loading import announced


@pytest.mark.parametrize(
    ("words", "is_said"),
    [
        (["sample"], True),
        (["sample", "--prompt", "quiet"], True),
        (["plan", "--quick"], True),
        *((["sample", word], False) for word in ("--json", "--quiet", "-q", "-vq")),
    ],
)
def test_it_is_said_once_and_not_to_scripts(
    words: list[str], is_said: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = [*sys.meta_path]
    with announced(words):
        for _ in range(2):
            importlib.util.find_spec("torch")
            assert importlib.util.find_spec("torchless") is None
    assert capsys.readouterr().err == ("loading PyTorch ...\n" if is_said else "")
    assert sys.meta_path == before


def test_the_other_ranks_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("RANK", "1")
    with announced(["pretrain"]):
        importlib.util.find_spec("torch")
    assert capsys.readouterr().err == ""
