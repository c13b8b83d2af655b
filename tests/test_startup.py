"""What starting costs: `alm --help` imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "numpy", "datasets", "pydantic", "rich", "yaml", "jinja2", "pyarrow", "huggingface_hub", "numba"]
# Each command runs in the process of those before it: what one imports shows in all later ones.
PROBE = """
import json, sys
from alm.cli.main import main
found = []
for arguments in {commands}:
    try:
        main(arguments)
    except SystemExit as end:
        found.append([end.code or 0, [name for name in {heavy} if name in sys.modules]])
print(json.dumps(found))
"""


def probed(commands: list[list[str]], heavy: list[str]) -> list[list[object]]:
    """The exit code of each command, and which of `heavy` were imported when it ended."""
    probe = PROBE.format(commands=commands, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    found: list[list[object]] = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(commands)
    return found


# Typer itself imports pydantic, where there is one, to read the parameters of a command.
BY_TYPER = ["pydantic"]


def test_help_imports_nothing_heavy() -> None:
    assert probed([["--version"], ["--help"]], HEAVY) == [[0, []]] * 2
    of_stages = [["corpus", "--help"], ["corpus", "prepare", "--help"], ["pretrain", "--help"], ["plan", "--help"]]
    heavy = [name for name in HEAVY if name not in BY_TYPER]
    assert probed([*of_stages, ["sample", "-h"]], heavy) == [[0, []]] * 5


def test_what_only_shows_a_run_needs_no_pytorch() -> None:
    nowhere = [["runs", "docs"], ["watch", "docs"], ["report", "docs"]]
    assert [imported for _, imported in probed(nowhere, ["torch"])] == [[]] * 3


def test_importing_alm_is_silent_and_light() -> None:
    probe = f"import sys, alm; print([n for n in {[*HEAVY, 'typer']} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.slow
def test_neither_training_nor_generating_imports_a_compiler() -> None:
    """It takes as long as all of PyTorch, and only a GPU may need it."""
    probe = "import sys, alm.training.pretrain, alm.generation.load; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_resolve() -> None:
    import alm

    for name in alm.__all__:
        assert getattr(alm, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = alm.nothing_of_ours


def test_what_is_mistyped_is_told_before_pytorch_is_imported() -> None:
    mistyped = [
        ["plan", "--budget", "20"],
        ["plan", "--set", "model.d_modle=3"],
        ["plan", "--set", "optim.lrr=1"],
        ["plan", "--data", "nowhere"],
        ["pretrain", "--out", "nowhere", "--set", "training.max_step=3"],
        ["quickstart", "--budget", "soon"],
    ]
    for command, (code, imported) in zip(mistyped, probed(mistyped, ["torch"]), strict=True):
        assert code in (1, 2), command
        assert imported == [], command
