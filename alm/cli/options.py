"""Options that several commands share, with the same name and help everywhere; those of fields are in `fields.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli.help import RARE as RARE

if TYPE_CHECKING:
    from alm import engines

Out = Annotated[Path, typer.Option("--out", help="Where to write the result.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite output made with other settings.")]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, cuda:N, mps or cpu.", rich_help_panel=RARE)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one configuration key; repeatable.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.", rich_help_panel=RARE)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only warnings and errors on stderr.", rich_help_panel=RARE)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show log messages of libraries, and tracebacks.", rich_help_panel=RARE)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="DURATION",
        help="Train for this much time, counted from the start of the command: 20m, 2h.",
    ),
]
Nproc = Annotated[
    int,
    typer.Option(
        "--nproc", metavar="N", min=1, help="Train on N devices of this machine at once.", rich_help_panel=RARE
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option("--epochs", help="Passes over the conversations.  [default: 2 to 5, by their number]"),
]
Lora = Annotated[
    int | None,
    typer.Option(
        "--lora", metavar="RANK", min=1, help="Train adapters of this rank and leave the weights: less memory."
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers", metavar="N", help="Number of workers: a number, or auto for all processors.", rich_help_panel=RARE
    ),
]

Engine = Annotated[str, typer.Option("--engine", help="auto, serial, processes or ray.", rich_help_panel=RARE)]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", help="Ray cluster to use; without it, Ray is started on this machine.", rich_help_panel=RARE
    ),
]


# What `alm pretrain` and `alm plan` take without flags; with `--init`, rates at which a model keeps what it knows.
DEFAULT_MODEL, DEFAULT_TRAIN, DEFAULT_DATA = "pico", "train", Path("data/packed")
CONTINUED_TRAIN = "continue"

_UNITS = {"w|weeks?": 604800, "d|days?": 86400, "h|hrs?|hours?": 3600, "m|mn|mins?|minutes?": 60, "s|secs?|seconds?": 1}
_LONGEST_SECONDS = 100 * 366 * 86400


def seconds(given: str | None, *, flag: str) -> float | None:
    """Convert a duration like 90s, 5min, 1h30m or 2 hours to seconds; `ConfigError` naming `flag` for anything else."""
    import re

    from alm.errors import ConfigError, quoted

    if given is None:
        return None
    number = r"(\d*\.?\d+|\d+\.)"
    parts = re.fullmatch(
        "".join(rf"(?:{number}\s*(?:{unit})(?:[\s,]|and)*)?" for unit in _UNITS),
        " ".join(given.lower().split()),
        re.ASCII,
    )
    values = parts.groups() if parts else ()
    total = sum(float(value) * unit for value, unit in zip(values, _UNITS.values(), strict=bool(parts)) if value)
    if 0 < total <= _LONGEST_SECONDS:
        return total
    if total > 0:
        reason = "is longer than a hundred years"
    elif re.fullmatch(number, given) and float(given):
        reason = "has no unit"
    else:
        reason = "is not above zero" if (parts and given.strip()) or given == "0" else "is not a duration"
    raise ConfigError(
        f"`{flag} {quoted(given)}` {reason}", hint=f"write it like `{flag} 55m`, `{flag} 1h30m` or `{flag} 90s`"
    )


def duration(seconds: float) -> str:
    """Write a number of seconds, rounded up to a whole one, as the options read it: 90s, 20m, 2h."""
    whole = math.ceil(seconds)
    for unit, length in (("h", 3600), ("m", 60)):
        if whole % length == 0:
            return f"{whole // length}{unit}"
    return f"{whole}s"


def worker_count(given: str) -> int:
    """The number of workers that `--workers` asks for; `ConfigError` unless it is a positive number or `auto`."""
    from alm.available import usable_processors
    from alm.errors import ConfigError

    if given == "auto":
        return usable_processors()
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(
            f"`--workers {given}` is not a number of workers", hint="use `--workers auto`, or a number from 1"
        )
    return int(given)


def chosen_engine(kind: str, workers: str, address: str | None) -> engines.Engine:
    """The engine that `--engine`, `--workers` and `--ray-address` choose; `ConfigError` if they do not fit together."""
    from alm import engines, kinds
    from alm.config.base import did_you_mean
    from alm.errors import ConfigError

    known = ["auto", *kinds.names("alm.engines")]
    if kind not in known:
        raise ConfigError(f"unknown engine `{kind}`{did_you_mean(kind, known)} (there are: {', '.join(known)})")
    if address is not None and kind != "ray":
        raise ConfigError("`--ray-address` works only with the engine ray", hint="add `--engine ray`")
    return engines.choose(kind, workers=worker_count(workers), address=address)


def check_budget(budget: str | None, overrides: list[str]) -> None:
    """Raise `ConfigError` if `overrides` set the steps that the budget chooses."""
    from alm.errors import ConfigError

    if budget is not None and sets_steps(overrides):
        raise ConfigError(
            "`--budget` chooses `training.max_steps`, which `--set` sets too", hint="leave out one of the two"
        )


_SIZES = frozenset(f"model.{name}" for name in ("d_model", "n_layers", "n_heads", "n_kv_heads", "ffn_hidden_size"))


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.partition("=")[0].strip()


def sets_model(overrides: list[str]) -> bool:
    """Whether `overrides` set the size of the model, so that none is chosen."""
    return any(key_of(change) in _SIZES for change in overrides)


def sets_steps(overrides: list[str]) -> bool:
    """Whether `overrides` set the number of steps."""
    return any(key_of(change) == "training.max_steps" for change in overrides)


def set_flags(overrides: list[str]) -> list[str]:
    """The words that repeat these overrides on a command line."""
    return [word for override in overrides for word in ("--set", override)]
