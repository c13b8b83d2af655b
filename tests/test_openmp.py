"""How OpenMP threads wait."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from alm import openmp


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "1"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
    ],
)
def test_what_a_user_has_set_stays(given: dict[str, str], expected: dict[str, str]) -> None:
    openmp.wait_briefly(given)
    assert given == expected
    assert openmp.waiting(given) == ", ".join(f"{name}={value}" for name, value in expected.items())


def test_it_is_set_before_pytorch_is_imported_and_inherited() -> None:
    probe = "import alm, sys, os; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_W", "GOMP", "KMP"))}
    done = subprocess.run([sys.executable, "-c", probe], env=unset, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "10000"]
