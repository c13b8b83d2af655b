"""How the threads of PyTorch wait for work: briefly awake, then asleep, so that other programs get the processor.

By default they stay awake for as long as a small step lasts. On a machine with other work that costs several times the
processor time, and the step waits for threads that wait. The runtimes read the environment when they are loaded, so
`alm` sets it before PyTorch is imported; other processes inherit it. Results do not depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

# libgomp (PyTorch for Linux) counts turns of a loop, together about 0.1 ms. libomp and libiomp5 (macOS, Windows,
# conda) count milliseconds; 1 is what PyTorch's own launcher sets. Measurements: docs/benchmarks.md, "A busy machine".
_BRIEFLY = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_STANDARD = "OMP_WAIT_POLICY"


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables of all runtimes, unless the user has chosen a policy."""
    if _STANDARD not in environment:
        for name, value in _BRIEFLY.items():
            environment.setdefault(name, value)


def waiting(environment: Mapping[str, str] = os.environ) -> str:
    """Return the variables that decide how threads wait, as `NAME=value`."""
    return ", ".join(f"{name}={environment[name]}" for name in (_STANDARD, *_BRIEFLY) if name in environment)
