"""Publishing the files of an export or import from the staging folder to the output folder."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from alm import artifacts, files
from alm.artifacts import Comparison, ExportMetadata, FileRecord, ImportMetadata
from alm.errors import AlmError, ArtifactError, shell


def records(folder: Path) -> tuple[FileRecord, ...]:
    """Return the records of the files in `folder`, without hidden files, which belong to work in progress."""
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


def _ours(path: Path, schema: type[ExportMetadata] | type[ImportMetadata]) -> list[str]:
    """List the files that the metadata in `path` promises and that match it: a stranger's list proves nothing more."""
    with contextlib.suppress(AlmError):
        promised = artifacts.read(path, schema, hint="").payload()
        return [file.path for file in promised if not artifacts.damaged(path.parent, [file])]
    return []


def checked(comparisons: Sequence[Comparison], *, hint: str) -> list[Comparison]:
    """Return `comparisons` if all are close; else raise `ArtifactError` with the others, and `hint`."""
    far = [line(comparison) for comparison in comparisons if not comparison.is_close]
    if far:
        raise ArtifactError(
            "\n  ".join(["the other tool computes different results, so nothing was kept:", *far]),
            hint=hint,
        )
    return list(comparisons)


def line(comparison: Comparison) -> str:
    """Describe a comparison in one line."""
    bar = "" if comparison.bar is None else f", at most {comparison.bar:g}"
    detail = f" ({comparison.detail})" if comparison.detail else ""
    return f"{comparison.what}: {comparison.difference:.3g}{bar}, {comparison.tool}{detail}"
