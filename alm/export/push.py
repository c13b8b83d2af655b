"""The stage `alm push`: an export, and its files on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import ExportMetadata
from alm.events import Listener, Noted, Warned, ignore
from alm.export.config import TargetConfig
from alm.export.run import METADATA_NAME, export
from alm.hub import Patience
from alm.hub.models import Uploaded, full_name, upload


@dataclass(frozen=True)
class Pushed:
    """What was exported, to which folder, and where its files are on the hub."""

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
    patience: Patience | None = None,
    on_event: Listener = ignore,
) -> Pushed:
    """Export `checkpoint` as `export` does, into `out` or `exports/NAMESPACE-NAME`, and upload it to `repo`.

    The hub is asked who we are before the work begins. The model card calls the model `repo`, as those who load it do.
    """
    repo = full_name(repo, patience=patience)
    folder = out or Path("exports") / repo.replace("/", "-")
    config = config if config.title else config.model_copy(update={"title": repo})
    made = export(config, checkpoint=checkpoint, out=folder, force=force, compare=compare, redo=redo, on_event=on_event)
    files = [folder / file.path for file in made.files] + [folder / METADATA_NAME]
    message = f"{made.name}, step {made.step:,}, by alm {made.alm_version}"
    uploaded = upload(
        repo,
        files,
        is_public=is_public,
        message=message,
        warn=lambda warning, hint: on_event(Warned(warning, hint)),
        patience=patience,
    )
    if not uploaded.is_new:
        on_event(Noted(f"`{repo}` is up to date"))
    return Pushed(made, folder, uploaded)
