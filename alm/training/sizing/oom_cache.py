"""Limits of micro-batches that did not fit into a device's memory, remembered for the next run on it.

They are in `memory.json` in the user's cache folder. A limit is for a device, a shape of model and a length of
sequences, and applies while no more memory is free than there was.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from alm import device as devices
from alm.device import available_bytes
from alm.errors import AlmError
from alm.events import Listener, Warned
from alm.files import read_json, write_text
from alm.training.config import RunConfig
from alm.training.sizing.memory import describe_curve, split_step

NAME = "memory.json"
_MOST_BYTES = 1 << 20
# Try again once this many times the memory of then is free.
CLEARLY_MORE = 1.2


def cache_folder(environment: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Path:
    """Return the folder of `alm` among the user's caches, by the convention of the platform."""
    if platform == "win32":
        base = Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "alm"


def key(config: RunConfig, device: torch.device, *, seq_len: int, vocab_size: int) -> str:
    """Return the key of a limit, readable except for the model's shape, which is a hash."""
    known = config.model.model_dump(mode="json")
    shape = {**known, "vocab_size": vocab_size if known["vocab_size"] == "auto" else known["vocab_size"]}
    digest = sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    kind = getattr(config.optim, "kind", "")
    return f"{name}, {devices.memory_bytes(device)} bytes / model {digest} / {seq_len} tokens / {kind}"


def remember(key: str, *, failed: int, free_bytes: int | None) -> None:
    """Record that micro-batches of `failed` sequences did not fit into `free_bytes`, if there is a cache folder."""
    values = _read()
    values[key] = {"failed": failed, "free_bytes": free_bytes}
    with contextlib.suppress(AlmError, OSError):
        path = cache_folder() / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(values, indent=1) + "\n")


def limit_micro_batch(
    config: RunConfig, device: torch.device, *, seq_len: int, vocab_size: int, ranks: int = 1, on_event: Listener
) -> RunConfig:
    """Return `config` with smaller micro-batches, and warn, if its own are known not to fit."""
    found = _read().get(key(config, device, seq_len=seq_len, vocab_size=vocab_size))
    failed, free_then = (found.get(name) for name in ("failed", "free_bytes")) if isinstance(found, dict) else (0, None)
    training = config.training
    if not isinstance(failed, int) or not 1 < failed <= training.micro_batch_size:
        return config
    free_now = available_bytes(device)
    if isinstance(free_then, int) and free_now is not None and free_now > CLEARLY_MORE * free_then:
        return config
    smaller = split_step(training, most=failed // 2, ranks=ranks)
    if smaller is None:
        return config
    on_event(
        Warned(
            f"micro-batches of {failed} sequences did not fit here before: {smaller.gradient_accumulation} of "
            f"{smaller.micro_batch_size} make a step: {describe_curve(config)}",
            f"`--set training.micro_batch_size={smaller.micro_batch_size}` has the same effect; the limit is stored in "
            f"{cache_folder() / NAME}",
        )
    )
    return config.model_copy(update={"training": smaller})


def _read() -> dict[str, Any]:  # Any: JSON that others may have written
    """Return all limits; none if the file is missing or damaged."""
    try:
        values = read_json(cache_folder() / NAME, most=_MOST_BYTES)
    except AlmError:
        return {}
    return values if isinstance(values, dict) else {}
