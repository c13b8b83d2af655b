"""From a staging folder to the output folder: made once, compared with another tool, and published together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from alm import artifacts, files
from alm.artifacts import Comparison, ExportMetadata, FileRecord, ImportMetadata, QuantizedMetadata
from alm.device import give_back_large_blocks
from alm.errors import AlmError, ArtifactError, shell
from alm.events import Listener, Noted, Warned
from alm.export.optional_tools import UnusableToolError

Made = TypeVar("Made", ExportMetadata, ImportMetadata, QuantizedMetadata)


def make_once(
    out: Path,
    *,
    name: str,
    label: str,
    what: str,
    made_before: Callable[[], Made | None],
    make: Callable[[Path], Made],
    force: bool,
    vouching: Sequence[str] = (),
    on_event: Listener,
) -> Made:
    """Return the metadata that `made_before` finds in `out`; otherwise `make` the files in a folder and publish them.

    The metadata becomes the file `name`; `label` and `what` as in `files.workspace`.
    """
    found = made_before()
    if found is None:
        with files.workspace(out, label, what=what) as stage:
            found = made_before()  # again: another process may have held the lock until now and made it
            if found is None:
                give_back_large_blocks()  # the other tool's model comes into the place of ours
                metadata = make(stage)
                publish(stage, out, metadata, name=name, force=force, vouching=vouching)
                return metadata
    files.sweep(out, label)
    on_event(Noted(f"`{out}` is up to date"))
    return found


def records(folder: Path) -> tuple[FileRecord, ...]:
    """Return the records of the files below `folder`, without hidden files, which belong to work in progress."""
    visible = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return tuple(artifacts.record(path, relative_to=folder) for path in visible)


def publish(
    stage: Path,
    out: Path,
    metadata: ExportMetadata | ImportMetadata | QuantizedMetadata,
    *,
    name: str,
    force: bool,
    vouching: Sequence[str] = (),
) -> None:
    """Move the files of `stage` into `out`, `metadata` as `name` last, and remove the files that it replaces.

    `vouching` as in `files.publish`. Raises `ArtifactError` if a file that alm did not make would be replaced, unless
    `force` is given.
    """
    ours = _ours(out / name, type(metadata))
    foreign = [file.path for file in metadata.files if file.path not in ours and (out / file.path).exists()]
    if foreign and not force:
        raise ArtifactError(
            f"`{out / foreign[0]}` exists, and it is not the file that `{name}` promises",
            hint=f"add `{shell('--out', f'{out}-2')}`, or `--force` to replace it",
        )
    artifacts.write(stage / name, metadata)
    files.publish(stage, out, last=name, replaces=ours, vouching=vouching)


def _ours(path: Path, schema: type[ExportMetadata | ImportMetadata | QuantizedMetadata]) -> list[str]:
    """List the files that the metadata in `path` promises and that match it: a stranger's list proves nothing more."""
    with contextlib.suppress(AlmError):
        promised = artifacts.read(path, schema, hint="").payload()
        return [file.path for file in promised if not artifacts.damaged(path.parent, [file])]
    return []


def compared(
    compare: Callable[[], list[Comparison]], *, hint: str, on_event: Listener
) -> tuple[Comparison, ...] | None:
    """Make the comparisons; None, with a warning, if the other tool cannot be used.

    Raises `ArtifactError` with those that are too far apart, and `hint`.
    """
    try:
        found = compare()
    except UnusableToolError as error:
        on_event(Warned(f"not compared: {error.message}", error.hint))
        return None
    far = [line(comparison) for comparison in found if not comparison.is_close]
    if far:
        raise ArtifactError(
            "\n  ".join(["the other tool computes different results, so nothing was kept:", *far]), hint=hint
        )
    return tuple(found)


def line(comparison: Comparison) -> str:
    """Describe a comparison in one line."""
    bar = "" if comparison.bar is None else f", at most {comparison.bar:g}"
    detail = f" ({comparison.detail})" if comparison.detail else ""
    return f"{comparison.what}: {comparison.difference:.3g}{bar}, {comparison.tool}{detail}"
