"""`alm verify-resume`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands
from alm.errors import EXIT_TERMINATED

if TYPE_CHECKING:
    from alm.doctor.verify_resume import Verdict

app = Commands()


@app.command("verify-resume", examples=("alm verify-resume", "alm verify-resume --kills 50 --keep"))
def verify_resume(
    kills: Annotated[int, typer.Option("--kills", min=1, help="Number of times to kill the run.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Seed for the moments to kill at.")] = 0,
    data: Annotated[Path | None, typer.Option("--data", help="Packed data.  [default: built-in tales]")] = None,
    device: options.Device = "auto",
    nproc: Annotated[
        int,
        typer.Option(
            "--nproc", metavar="N", min=1, help="Number of ranks that train together.", rich_help_panel=options.RARE
        ),
    ] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Keep both runs, and print where they are.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Check that killing a run loses nothing.

    It kills a run repeatedly, damages its files, and compares the bits with an undisturbed run.
    """
    import shutil
    import tempfile

    from alm.doctor.verify_resume import verify_resume as verify
    from alm.errors import AlmError

    work = Path(tempfile.mkdtemp(prefix="alm-verify-resume-"))
    lost = False
    try:
        with ui.listening(quiet=quiet, as_json=json, verbose=verbose) as on_event, _ending_its_runs():
            found = verify(work, kills=kills, seed=seed, data=data, device_name=device, ranks=nproc, on_event=on_event)
        lost = not found.is_equal
    except AlmError:
        keep = True  # for the report of the failure
        raise
    finally:
        if keep or lost:
            ui.echo_err(f"both runs are in `{work}`")
        else:
            shutil.rmtree(work, ignore_errors=True)
    ui.show_result(_values(found), _lines(found), as_json=json)
    if lost:
        raise AlmError(
            f"{_differing(found)} of the killed run differ from the undisturbed one",
            hint=f"please report it, with the output of `alm device` and the files in `{work}`",
        )


@contextlib.contextmanager
def _ending_its_runs() -> Iterator[None]:
    """Make SIGTERM end this command as an error does, so that none of its runs outlives it."""

    def end(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _values(found: Verdict) -> dict[str, object]:
    sides = {"undisturbed": vars(found.undisturbed), "killed": vars(found.killed)}
    return {**vars(found), **sides, "is_equal": found.is_equal}


def _differing(found: Verdict) -> str:
    before, after = vars(found.undisturbed), vars(found.killed)
    return ", ".join(name for name in before if before[name] != after[name])


def _lines(found: Verdict) -> list[str]:
    before, after = found.undisturbed, found.killed
    rows = [
        ("", "undisturbed", "killed", ""),
        *(
            (name, str(old)[:16], str(new)[:16], "equal" if old == new else "DIFFERENT")
            for (name, old), new in zip(vars(before).items(), vars(after).values(), strict=True)
        ),
    ]
    kills = ", ".join(f"{number} while {moment}" for moment, number in found.kills.items())
    alone = f"; {found.of_one_rank} hit one rank of {found.ranks}, the others all" if found.ranks > 1 else ""
    damaged = ", ".join(f"{number} {kind}" for kind, number in found.damaged.items()) or "none"
    verdict = "nothing was lost" if found.is_equal else "SOMETHING WAS LOST"
    return [
        *ui.columns(rows),
        f"{sum(found.kills.values())} kills: {kills}; {found.half_written} left a checkpoint half-written{alone}",
        f"{sum(found.damaged.values())} damaged checkpoints: {damaged}",
        f"{verdict} ({found.seconds:.0f} s)",
    ]
