"""Import of a model of the Hugging Face hub: which names are of the hub, and what is recorded of its commit."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alm.artifacts import HubCommit, ImportMetadata
from alm.errors import shell
from alm.events import Listener, ignore
from alm.export import importing
from alm.hub import NotFoundError, RetryPolicy, UnreachableError
from alm.hub.downloads import Downloaded, download_model
from alm.model.config import ModelConfig

_NAMED = re.compile(r"(?P<name>(?:\w[\w.-]*/)?\w[\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", flags=re.ASCII)
_FILES = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth", ".ckpt", ".zip")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub, as a command names it. `is_sure` is False if its name may be a mistyped path."""

    name: str
    revision: str
    is_sure: bool

    @property
    def folder(self) -> str:
        """The last part of its name."""
        return self.name.rpartition("/")[2]


def named(given: str) -> HubModel | None:
    """Return the model of the hub that `given` names, or None for a local path.

    What exists is local. `name@revision` is of the hub, and so is `namespace/name`, unless a folder `namespace` exists
    here or the name ends as a file of weights does: then a mistyped path is more likely.
    """
    found = _NAMED.fullmatch(given)
    if found is None or ".." in given or Path(given).exists():
        return None
    name, revision = found["name"], found["revision"]
    if revision is None and ("/" not in name or Path(name).parent.exists() or name.lower().endswith(_FILES)):
        return None
    return HubModel(name, revision or "main", is_sure=revision is not None)


def import_from_hub(
    model: HubModel,
    *,
    out: Path,
    force: bool = False,
    compare: bool = True,
    on_event: Listener = ignore,
    policy: RetryPolicy | None = None,
) -> ImportMetadata:
    """Download `model` into the hub's cache and import it as `import_model` does; its commit is recorded."""
    importing.refuse_run(out)
    with _path_doubted(model):
        found = download_model(model.name, revision=model.revision, check=_check, on_event=on_event, policy=policy)
    commit = _commit(model, found)
    redo = shell("alm", "import", "--from", "huggingface", f"{commit.name}@{commit.sha}", "--out", out)
    return importing.import_model(
        found.path, out=out, force=force, compare=compare, redo=redo, repository=commit, on_event=on_event
    )


def look(
    model: HubModel, *, out: Path, on_event: Listener = ignore, policy: RetryPolicy | None = None
) -> tuple[str, ModelConfig, HubCommit]:
    """Return architecture, configuration and commit of `model`, which can be imported; its weights are not fetched."""
    importing.refuse_run(out)
    with _path_doubted(model):
        found = download_model(
            model.name, revision=model.revision, check=_check, dry_run=True, on_event=on_event, policy=policy
        )
    return *importing.check_settings(found.path), _commit(model, found)


def _check(folder: Path) -> None:
    importing.check_settings(folder)


def _commit(model: HubModel, found: Downloaded) -> HubCommit:
    return HubCommit(name=model.name, revision=model.revision, sha=found.sha, licence=found.licence)


@contextlib.contextmanager
def _path_doubted(model: HubModel) -> Iterator[None]:
    """Add to errors about a model that is not found that no folder has its name either."""
    try:
        yield
    except (NotFoundError, UnreachableError) as error:
        if not model.is_sure:
            error.hint = f"{error.hint}. The folder `{model.name}` does not exist here"
        raise
