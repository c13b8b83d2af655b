"""What starting costs: `alm --help` imports nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "numpy", "datasets", "pydantic", "rich", "yaml", "pyarrow", "huggingface_hub", "numba"]
PROBE = """
import json, sys
from alm.cli.main import main
try:
    main({arguments})
except SystemExit as end:
    assert end.code in (0, None), end.code
print(json.dumps([name for name in {heavy} if name in sys.modules]), file=sys.stderr)
"""


# Typer itself imports pydantic, where there is one, to read the parameters of a command.
BY_TYPER = ["pydantic"]


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], []),
        (["--version"], []),
        (["corpus", "--help"], BY_TYPER),
        (["corpus", "prepare", "--help"], BY_TYPER),
        (["pretrain", "--help"], BY_TYPER),
        (["plan", "--help"], BY_TYPER),
        (["sample", "-h"], BY_TYPER),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], allowed: list[str]) -> None:
    probe = PROBE.format(arguments=arguments, heavy=[name for name in HEAVY if name not in allowed])
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
    assert "alm" in done.stdout


def test_importing_alm_is_silent_and_light() -> None:
    probe = f"import sys, alm; print([n for n in {[*HEAVY, 'typer']} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


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


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--budget", "20"],
        ["plan", "--set", "model.d_modle=3"],
        ["plan", "--set", "optim.lrr=1"],
        ["plan", "--data", "nowhere"],
        ["pretrain", "--out", "nowhere", "--set", "training.max_step=3"],
        ["quickstart", "--budget", "soon"],
    ],
)
def test_what_is_mistyped_is_told_before_pytorch_is_imported(arguments: list[str]) -> None:
    probe = (
        "import sys\nfrom alm.cli.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit as end:\n    print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["1", "False"], ["2", "False"]), done.stderr
