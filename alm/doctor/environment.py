"""Checks of a run's environment: libraries, disk space, memory, a folder for compiled code, threads."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from alm.config import presets
from alm.config.load import Part, load
from alm.doctor.check import Check, graded, judged, skipped
from alm.errors import quoted
from alm.formatting import size
from alm.model.count import count
from alm.tokenizers import compiled
from alm.training.config import MODEL_SECTIONS, RunConfig

LIBRARIES, DISK, MEMORY, FOLDER, THREADS = "libraries", "disk", "memory", "compiled code", "threads"
_PACKAGE = "a-lm"
_VOCAB_SIZE = 32_000
_BYTES_PER_PARAMETER = 12  # in a checkpoint: weights and two moments
_SMALLEST = "1m"

Installed = Callable[[str], str]


def requirements() -> list[str] | None:
    """Return the requirements of the installed package, including Python; None if it is not installed."""
    try:
        found = metadata.metadata(_PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    return [f"python{found['Requires-Python'] or ''}", *(found.get_all("Requires-Dist") or [])]


def libraries(wanted: Sequence[str] | None, installed: Installed = metadata.version) -> Check:
    """Whether every library is installed in a version that alm supports; `installed` gives the version of a name."""
    if wanted is None:
        return skipped(LIBRARIES, f"`{_PACKAGE}` is not installed: its requirements are unknown")
    needed = [one for one in map(Requirement, wanted) if one.marker is None or one.marker.evaluate({"extra": ""})]
    faults = {str(one): fault for one in needed if (fault := _fault(one, installed))}
    shown = [one.name for one in needed if one.name in ("python", "torch", "numpy")]
    return judged(
        LIBRARIES,
        holds=not faults,
        measured=", ".join(faults.values() if faults else (f"{name} {_version(name, installed)}" for name in shown)),
        wanted=", ".join(faults) or "the requirements in pyproject.toml",
        cause="alm was written for other versions, and tested with them",
        cure=_installing(list(faults)),
    )


def _installing(wanted: Sequence[str]) -> str:
    libraries = [one for one in wanted if not one.startswith("python")]
    pip = "pip install " + " ".join(f"'{one}'" for one in libraries)
    return (
        pip if len(libraries) == len(wanted) else "make an environment with another Python: `python3.12 -m venv .venv`"
    )


def _version(name: str, installed: Installed) -> str:
    return platform.python_version() if name == "python" else installed(name)


def _fault(one: Requirement, installed: Installed) -> str | None:
    try:
        version = _version(one.name, installed)
    except metadata.PackageNotFoundError:
        return f"{one.name} is not installed"
    # Builds of hardware vendors and nightly builds have pre-release versions, and are accepted.
    is_fine = one.specifier.contains(version, prereleases=True)
    return None if is_fine else f"{one.name} is {version}"


def preset(name: str) -> RunConfig:
    """Load the preset of a model with the default training and a common vocabulary size."""
    parts = [Part(presets.find(name), MODEL_SECTIONS), Part(presets.find("train"))]
    return load(RunConfig, parts, overrides=[f"model.vocab_size={_VOCAB_SIZE}"])


def disk(folder: Path, free: int) -> Check:
    """Whether `free` bytes hold the checkpoints of a default run, or at least one of the smallest model."""
    default, smallest = (_BYTES_PER_PARAMETER * count(preset(name).model).total for name in ("pico", _SMALLEST))
    needed = (preset("pico").training.keep_last + 1) * default
    return graded(
        DISK,
        holds=free >= 2 * smallest,
        is_good=free >= needed,
        measured=f"{size(free)} free in `{folder}`",
        wanted=f"{size(needed)}, for the checkpoints of a default run",
        cause=f"a default run keeps {preset('pico').training.keep_last} checkpoints of {size(default)}, and one "
        "more while it writes",
        cure=f"free some space (`df -h {quoted(folder)}`), use another folder with `--out`, or add "
        "`--set training.keep_last=1`",
    )


def memory(free: int | None, where: str) -> Check:
    """Whether `free` bytes hold a default run, or at least the smallest model in the smallest micro-batches."""
    if free is None:
        return skipped(MEMORY, "free memory is unknown on this system")
    default, smallest = needed_memory("pico"), needed_memory(_SMALLEST, micro_batch_size=1)
    return graded(
        MEMORY,
        holds=free >= smallest,
        is_good=free >= default,
        measured=f"{size(free)} free on {where}",
        wanted=f"{size(default)}, for a default run",
        cause=f"training `pico` in the default micro-batches takes {size(default)}",
        cure="alm pretrain --set training.micro_batch_size=2 --set training.gradient_accumulation=16"
        if free >= smallest
        else "end other programs, then run this again",
    )


def needed_memory(name: str, *, micro_batch_size: int | None = None) -> int:
    """Return the bytes that a process grows by when it trains this preset."""
    config = preset(name)
    sequences = micro_batch_size or config.training.micro_batch_size
    return count(config.model).memory(sequences, config.model.max_position_embeddings).of_process


def kernel_folder(folder: Path | None, *, has_numba: bool) -> Check:
    """Whether the tokenizer's compiled code can be kept in `folder`, which is None if no folder is writable."""
    if not has_numba:
        return skipped(FOLDER, "Numba is not installed: the tokenizer runs in plain Python, which is slower")
    return judged(
        FOLDER,
        holds=folder is not None,
        measured=f"kept in `{folder}`" if folder else "not kept",
        wanted="a writable folder",
        cause="the folder for the tokenizer's compiled code is not writable: every process compiles it again",
        cure="export NUMBA_CACHE_DIR=PATH, with a folder that you can write to",
    )


def found_kernel_folder() -> Check:
    """Check `kernel_folder` on this machine."""
    has_numba = importlib.util.find_spec("numba") is not None
    return kernel_folder(compiled.folder() if has_numba else None, has_numba=has_numba)


def threads(used: int, processors: int, *, waiting: str = "") -> Check:
    """Whether PyTorch's threads fit the processors that this process may use; `waiting` is how they wait for work."""
    is_too_many = used > processors
    return graded(
        THREADS,
        holds=not is_too_many,
        # Half the processors is one thread for each core, on machines that count a core as two processors.
        is_good=processors <= 2 * used and not is_too_many,
        measured=f"{used} on {processors} processors" + (f", waiting by {waiting}" if waiting else ""),
        wanted=f"{-(-processors // 2)} to {processors}",
        cause="threads wait for each other: there are more threads than processors"
        if is_too_many
        else "most processors are not used: check OMP_NUM_THREADS",
        cure=f"export OMP_NUM_THREADS={processors}",
    )


def free_space(folder: Path) -> int:
    """Return the free bytes on the disk of `folder`."""
    return shutil.disk_usage(folder).free
