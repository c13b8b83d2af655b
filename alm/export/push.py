"""The stage `alm push`: an export, then its upload to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alm import artifacts
from alm.artifacts import ExportMetadata
from alm.errors import ArtifactError
from alm.events import Listener, Noted, Warned, ignore
from alm.export.config import TargetConfig
from alm.export.run import export
from alm.hub import RetryPolicy
from alm.hub.models import Uploaded, full_name, upload


@dataclass(frozen=True)
class Pushed:
    """Result of a push: the export, its folder, and its files on the hub."""

    metadata: ExportMetadata
    out: Path
    uploaded: Uploaded


def push(
    config: TargetConfig,
    *,
    checkpoint: Path,
    repo: str,
    out: Path | None = None,
    is_public: bool = False,
    force: bool = False,
    compare: bool = True,
    redo: str = "alm push",
    policy: RetryPolicy | None = None,
    on_event: Listener = ignore,
) -> Pushed:
    """Export `checkpoint` as `export` does, into `out` or `exports/NAMESPACE--NAME-KIND`, and upload it to `repo`.

    The login is checked on the hub before the work begins. The metadata of the export is not uploaded: it has paths of
    this machine. Raises `ArtifactError` if a file has changed since it was exported.
    """
    repo = full_name(repo, policy=policy)
    folder = out or Path("exports") / f"{repo.replace('/', '--')}-{config.model_dump()['kind']}"
    config = config.model_copy(update={"repo": repo})
    made = export(config, checkpoint=checkpoint, out=folder, force=force, compare=compare, redo=redo, on_event=on_event)
    if faults := artifacts.damaged(folder, made.files):
        raise ArtifactError("\n  ".join(["not uploaded:", *faults]), hint="add `--force` to export it again")
    message = f"{made.name}, step {made.step:,}, by alm {made.alm_version}"
    uploaded = upload(
        repo,
        [file.path for file in made.files],
        folder=folder,
        is_public=is_public,
        message=message,
        warn=lambda warning, hint: on_event(Warned(warning, hint)),
        policy=policy,
    )
    if not uploaded.is_new:
        on_event(Noted(f"`{repo}` is up to date"))
    return Pushed(made, folder, uploaded)
