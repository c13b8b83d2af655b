"""Files that were made in a staging folder, and how they get to where people look for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from alm import artifacts, files
from alm.artifacts import Comparison, ExportMetadata, FileRecord, ImportMetadata
from alm.errors import AlmError, ArtifactError


@contextlib.contextmanager
def staged(out: Path, label: str) -> Iterator[Path]:
    """`files.staging`; when nothing came of it, a folder `out` that was made for it goes again."""
    try:
        with files.staging(out, label) as stage:
            yield stage
    finally:
        with contextlib.suppress(OSError):  # it has something in it
            out.rmdir()


def records(folder: Path) -> tuple[FileRecord, ...]:
    """What lies in `folder`."""
    return tuple(artifacts.record(path, relative_to=folder) for path in sorted(folder.iterdir()))


def publish(stage: Path, out: Path, metadata: ExportMetadata | ImportMetadata, *, name: str, force: bool) -> None:
    """Move what lies in `stage` into `out`, `metadata` as `name` last; what it replaces goes.

    `ArtifactError` when a file of somebody else would be replaced and `force` is not given.
    """
    promised = _promised(out / name, type(metadata))
    foreign = [file.path for file in metadata.files if file.path not in promised and (out / file.path).exists()]
    if foreign and not force:
        raise ArtifactError(
            f"`{out / foreign[0]}` is there, and not of what `{name}` promises",
            hint=f"add `--out {out}-2`, or `--force` to replace it",
        )
    artifacts.write(stage / name, metadata)
    files.publish(stage, out, last=name, replaces=promised)


def _promised(path: Path, schema: type[ExportMetadata] | type[ImportMetadata]) -> list[str]:
    """The files of what is there now."""
    with contextlib.suppress(AlmError):
        return [file.path for file in artifacts.read(path, schema, hint="").files]
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
