"""Options that several commands share: one name, one help, everywhere.

Help of a flag that stands for a configuration field is the field's description, word for word; it is
literal here so that `--help` imports nothing, and a test keeps the two equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alm import engines

Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there although it was made otherwise.")]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, cuda:N, mps or cpu.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one configuration key; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what libraries do, and show tracebacks.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="DURATION",
        help="Choose as many steps as can be done in so long, counted from the start of the command: 20m, 2h.",
        show_default=False,
    ),
]
Workers = Annotated[
    str, typer.Option("--workers", metavar="N", help="How many work at once: a number, or auto for all processors.")
]

Engine = Annotated[str, typer.Option("--engine", help="auto, serial, processes or ray.")]
RayAddress = Annotated[
    str | None, typer.Option("--ray-address", help="Ray cluster to use; absent starts Ray on this machine.")
]


_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def seconds(given: str, *, flag: str) -> float:
    """A duration like 90s, 55m, 1h30m or 1.5h in seconds; `ConfigError` naming `flag` for anything else."""
    import re

    from alm.errors import ConfigError

    number = r"\d+(?:\.\d+)?"
    parts = re.fullmatch("".join(rf"(?:({number}){unit})?" for unit in _UNITS), given)
    values = parts.groups() if parts else ()
    total = sum(float(value) * unit for value, unit in zip(values, _UNITS.values(), strict=bool(parts)) if value)
    if total > 0:
        return total
    reason = "has no unit" if re.fullmatch(number, given) and float(given) else "is no duration above zero"
    raise ConfigError(f"`{flag} {given}` {reason}", hint=f"write it like `{flag} 55m`, `{flag} 1h30m` or `{flag} 90s`")


def worker_count(given: str) -> int:
    """What `--workers` says; `ConfigError` when that is neither a positive number nor `auto`."""
    from alm.available import usable_processors
    from alm.errors import ConfigError

    if given == "auto":
        return usable_processors()
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"`--workers {given}` is no number of workers", hint="use `--workers auto`, or 1 and more")
    return int(given)


def chosen_engine(kind: str, workers: str, address: str | None) -> engines.Engine:
    """What `--engine`, `--workers` and `--ray-address` say; `ConfigError` when they do not fit."""
    from alm import engines, kinds
    from alm.config.base import did_you_mean
    from alm.errors import ConfigError

    known = ["auto", *kinds.names("alm.engines")]
    if kind not in known:
        raise ConfigError(f"no engine is named `{kind}`{did_you_mean(kind, known)} (there are: {', '.join(known)})")
    if address is not None and kind != "ray":
        raise ConfigError("`--ray-address` is for the engine ray", hint="add `--engine ray`")
    return engines.choose(kind, workers=worker_count(workers), address=address)


def check_budget(budget: str | None, overrides: list[str]) -> None:
    """`ConfigError` where steps are given that the budget is to choose."""
    from alm.errors import ConfigError

    if budget is not None and any(change.partition("=")[0].strip() == "training.max_steps" for change in overrides):
        raise ConfigError(
            "`--budget` chooses `training.max_steps`, which `--set` gives too", hint="leave out one of the two"
        )
