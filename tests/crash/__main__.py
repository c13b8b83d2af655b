"""The harness as a program: `python tests/crash --help`."""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # started by its folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from crash.program import main

main()
