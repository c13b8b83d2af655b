"""Files that were made in a staging folder, and how they get to where people look for them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from alm import artifacts, files
from alm.artifacts import Comparison, ExportMetadata, FileRecord, ImportMetadata
from alm.errors import AlmError, ArtifactError, shell


def records(folder: Path) -> tuple[FileRecord, ...]:
    """What lies in `folder`, but for hidden files: those are of work in progress."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    return tuple(artifacts.record(path, relative_to=folder) for path in visible)


def publish(
    stage: Path,
    out: Path,
    metadata: ExportMetadata | ImportMetadata,
    *,
    name: str,
    force: bool,
    vouching: Sequence[str] = (),
) -> None:
    """Move what lies in `stage` into `out`, `metadata` as `name` last; the files of what it replaces go.

    `vouching` is of `files.publish`.

    `ArtifactError` when a file of somebody else would be replaced and `force` is not given.
    """
    ours = _ours(out / name, type(metadata))
    foreign = [file.path for file in metadata.files if file.path not in ours and (out / file.path).exists()]
    if foreign and not force:
        raise ArtifactError(
            f"`{out / foreign[0]}` is there, and it is not the file that `{name}` promises",
            hint=f"add `{shell('--out', f'{out}-2')}`, or `--force` to replace it",
        )
    artifacts.write(stage / name, metadata)
    files.publish(stage, out, last=name, replaces=ours, vouching=vouching)


def _ours(path: Path, schema: type[ExportMetadata] | type[ImportMetadata]) -> list[str]:
    """The files that the metadata in `path` promises and that are as it says: a stranger's list proves nothing more."""
    with contextlib.suppress(AlmError):
        promised = artifacts.read(path, schema, hint="").payload()
        return [file.path for file in promised if not artifacts.damaged(path.parent, [file])]
    return []


def checked(comparisons: Sequence[Comparison], *, hint: str) -> list[Comparison]:
    """`comparisons`, when all are close; `ArtifactError` with those that are not, and `hint`."""
    far = [line(comparison) for comparison in comparisons if not comparison.is_close]
    if far:
        raise ArtifactError(
            "\n  ".join(["this is not the same model there as here, so nothing was kept:", *far]),
            hint=hint,
        )
    return list(comparisons)


def line(comparison: Comparison) -> str:
    """A comparison in one line."""
    bar = "" if comparison.bar is None else f", at most {comparison.bar:g}"
    detail = f" ({comparison.detail})" if comparison.detail else ""
    return f"{comparison.what}: {comparison.difference:.3g}{bar}, {comparison.tool}{detail}"
