"""Download of a model from the Hugging Face hub: at one commit, its size stated first, resumed, and verified.

The files are in the cache that all tools of the hub share, and `huggingface_hub` lays them out there. It restarts a
file whose download was interrupted, so large files are fetched here: a later start continues the partial file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alm import files, shown
from alm.errors import AlmError, InputError, shell
from alm.events import Listener, Noted, Progressed, Warned, ignore
from alm.files.lock import exclusive
from alm.formatting import size
from alm.hub import HubFile, Pinned, RetryPolicy, UnreachableError, checked_id, offline, page_of, pin, wrap_hub_errors

CONFIG_NAME, TOKENIZER_NAME = "config.json", "tokenizer.json"
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_BESIDE = (
    *("generation_config.json", "tokenizer_config.json", "chat_template.jinja"),
    *("special_tokens_map.json", "added_tokens.json", _INDEX),
)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_SHORT_SHA = 12
_MOST_LISTED = 8
_AGAIN = "run the same command again: it continues the download"

Check = Callable[[Path], None]
"""A callback that raises an `AlmError` if the settings and the tokenizer in a folder rule its weights out."""


@dataclass(frozen=True)
class Downloaded:
    """A model in the hub's cache: the folder of its commit, and the bytes of its files. `licence`: None if unknown."""

    path: Path
    repo: str
    sha: str
    licence: str | None
    bytes: int


def download_model(
    repo: str,
    *,
    revision: str = "main",
    check: Check = lambda folder: None,
    dry_run: bool = False,
    on_event: Listener = ignore,
    policy: RetryPolicy | None = None,
) -> Downloaded:
    """Download what an import reads of the model `repo` at the current commit of `revision`.

    The event of the sizes comes first, then the small files, `check`, and unless `dry_run` the weights. What the cache
    holds is not downloaded again; in offline mode it must hold everything. Raises `AlmError` for a model that cannot
    be read or imported, for a full disk, and for files that differ from what the hub states.
    """
    checked_id(repo, kind="model")
    if _is_offline():
        return _cached(repo, revision, check, on_event)
    policy = dataclasses.replace(policy or RetryPolicy(), report=lambda line: on_event(Warned(line)))
    with _cache_named(repo, revision):
        pinned = pin(repo, kind="model", revision=revision, policy=policy)
    needed = _needed(pinned)
    place = _Place.of(pinned.name, pinned.sha)
    on_event(Noted(_sizes(pinned, needed, place, dry_run=dry_run)))
    if not dry_run:
        _check_room(pinned, needed, place)
    settings = [file for file in needed if not _is_weights(file.name)]
    folder = _fetch_all(pinned, settings, place, policy, on_event)
    check(folder)
    if not dry_run:
        _fetch_all(pinned, needed, place, policy, on_event)
        place.write_ref(revision)
    return Downloaded(folder, repo, pinned.sha, pinned.licence, sum(file.bytes for file in needed))


def _is_offline() -> bool:
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


@dataclass(frozen=True)
class _Place:
    """The place of a model in the hub's cache, in the documented layout: `snapshots` has links to `blobs`."""

    folder: Path
    sha: str

    @classmethod
    def of(cls, repo: str, sha: str) -> _Place:
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
        return cls(cache / repo_folder_name(repo_id=repo, repo_type="model"), sha)

    @property
    def lock(self) -> Path:
        return self.folder.parent / ".locks" / self.folder.name / "alm-download.lock"

    def link(self, file: HubFile) -> Path:
        return self.folder / "snapshots" / self.sha / file.name

    def blob(self, file: HubFile) -> Path:
        return self.folder / "blobs" / str(file.sha256 or file.blob_id)

    def partial(self, file: HubFile) -> Path:
        return self.folder / "blobs" / f"{file.sha256}.incomplete"

    def has(self, file: HubFile) -> bool:
        return self.link(file).exists() or self.blob(file).exists()

    def missing_bytes(self, file: HubFile) -> int:
        return 0 if self.has(file) else max(file.bytes - _bytes_of(self.partial(file)), 0)

    def publish(self, file: HubFile) -> None:
        """Move a complete partial file to where the library looks for it."""
        from huggingface_hub.file_download import are_symlinks_supported

        # Without links the library would copy the blob.
        target = self.blob(file) if are_symlinks_supported(self.folder.parent) else self.link(file)
        with files.wrap_os_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self.partial(file).replace(target)

    def write_ref(self, revision: str) -> None:
        """Record the commit of a branch or tag, for offline mode."""
        if revision != self.sha:
            path = self.folder / "refs" / revision
            with files.wrap_os_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(path, self.sha)


def _bytes_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


# ---- what is needed ------------------------------------------------------------------------------


def _is_weights(name: str) -> bool:
    return name == _WHOLE or _SHARD.fullmatch(name) is not None


def _needed(pinned: Pinned) -> list[HubFile]:
    """Return the files that an import reads; `InputError` if one that it cannot do without is missing."""
    held = {file.name: file for file in pinned.files}
    weights = [_WHOLE] if _WHOLE in held else [name for name in held if _SHARD.fullmatch(name) and _INDEX in held]
    if CONFIG_NAME not in held:
        raise _lacks(pinned, f"`{CONFIG_NAME}`")
    if not weights:
        raise _lacks(pinned, f"`{_WHOLE}`")
    if TOKENIZER_NAME not in held:
        raise _lacks(pinned, f"`{TOKENIZER_NAME}`")
    return [held[name] for name in (CONFIG_NAME, TOKENIZER_NAME, *_BESIDE, *sorted(weights)) if name in held]


def _lacks(pinned: Pinned, what: str) -> InputError:
    names = [file.name for file in pinned.files if not file.name.startswith(".")]
    tops = sorted({f"{name.partition('/')[0]}/" if "/" in name else name for name in names})
    rest = f" and {len(tops) - _MOST_LISTED} more" if len(tops) > _MOST_LISTED else ""
    pickles = any(name.endswith(_PICKLES) for name in tops) and what == f"`{_WHOLE}`"
    why = "; pickle files can run code, so alm does not read them" if pickles else ""
    return InputError(
        f"`{pinned.name}` at {pinned.sha[:_SHORT_SHA]} has no {what}, which an import needs (it holds "
        f"{', '.join(tops[:_MOST_LISTED]) or 'nothing'}{rest}){why}",
        hint=_other_way(pinned, names),
    )


def _other_way(pinned: Pinned, names: list[str]) -> str:
    """Return what to do with a model whose files are not those of an import."""
    folder = pinned.name.rpartition("/")[2]
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        name = next((each for each in ggufs if "q8_0" in each.lower()), ggufs[0])
        fetch = shell("hf", "download", pinned.name, name, "--revision", pinned.sha, "--local-dir", folder)
        return f"run `{fetch}`, then `{shell('alm', 'import', '--from', 'gguf', f'{folder}/{name}')}`"
    if "adapter_config.json" in names:
        return "it is an adapter: `merge_and_unload` of peft makes a model of it and its base; import that folder"
    if CONFIG_NAME not in names:
        return f"name a model for transformers instead; {page_of(pinned.name, 'model')} describes this one"
    source = f"'{pinned.name}', revision='{pinned.sha}'"
    code = (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"[each.from_pretrained({source}).save_pretrained('{folder}') for each in (M, T)]"
    )
    return f"run `{shell('python', '-c', code)}` to convert it, then `{shell('alm', 'import', f'{folder}/')}`"


def _sizes(pinned: Pinned, needed: Sequence[HubFile], place: _Place, *, dry_run: bool) -> str:
    missing = [file for file in needed if not place.has(file)]
    there = len(needed) - len(missing)
    of = f"{pinned.name} at {pinned.sha[:_SHORT_SHA]}"
    if not missing:
        return f"{of} is in the cache: {_count(there)}, {size(sum(file.bytes for file in needed))}"
    rest = size(sum(place.missing_bytes(file) for file in missing))
    cached = f" ({there} more {'is' if there == 1 else 'are'} in the cache)" if there else ""
    return f"{'would download' if dry_run else 'downloading'} {_count(len(missing))}, {rest}, of {of}{cached}"


def _count(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"


def _check_room(pinned: Pinned, needed: Sequence[HubFile], place: _Place) -> None:
    there = next(path for path in (place.folder, *place.folder.parents) if path.exists())
    free, missing = shutil.disk_usage(there).free, sum(place.missing_bytes(file) for file in needed)
    if free < missing:
        raise AlmError(
            f"the download of `{pinned.name}` needs {size(missing)}, and the hub's cache `{place.folder.parent}` has "
            f"{size(free)} of free space",
            hint=f"run `{shell('df', '-h', there)}` and make room, or set HF_HOME to a folder on another disk",
        )


# ---- fetching -----------------------------------------------------------------------------------


def _fetch_all(
    pinned: Pinned, needed: Sequence[HubFile], place: _Place, policy: RetryPolicy, on_event: Listener
) -> Path:
    """Bring `needed` into the cache and verify them; return the folder of the commit."""
    from huggingface_hub import snapshot_download

    with (
        wrap_hub_errors(pinned.name, kind="model", revision=pinned.sha),
        exclusive(place.lock, what=f"the download of `{pinned.name}`"),
        _faults_explained(pinned.name),
    ):
        large = [file for file in needed if file.sha256 and not place.has(file)]
        for file in large:
            _fetch(pinned, file, place, policy, on_event)
        names = [file.name for file in needed]
        folder = Path(snapshot_download(pinned.name, revision=pinned.sha, allow_patterns=names, max_workers=1))
    for file in needed:
        if file not in large:
            _verify(folder / file.name, file)
    return folder


def _fetch(pinned: Pinned, file: HubFile, place: _Place, policy: RetryPolicy, on_event: Listener) -> None:
    """Bring one large file into the cache, from where an earlier start ended. New bytes reset the count of failures."""
    partial = place.partial(file)
    failures = 0
    while (begun := _bytes_of(partial)) < file.bytes:
        reason = _stream(pinned, file, partial, on_event)
        failures = 1 if _bytes_of(partial) > begun else failures + 1
        if reason is None:
            continue
        reason = f"the download of `{file.name}` broke: {reason}"
        if failures >= policy.attempts:
            raise AlmError(f"{reason} ({failures} times in a row)", hint=_AGAIN)
        policy.pause(failures, reason=reason)
    if found := _difference(partial, file):
        with files.wrap_os_errors(partial):
            partial.unlink()
        raise InputError(
            f"the hub sent other bytes for `{file.name}` of `{pinned.name}` than it states: {found}",
            hint="run the same command again: it downloads the file again",
        )
    place.publish(file)


def _stream(pinned: Pinned, file: HubFile, partial: Path, on_event: Listener) -> str | None:
    """Append to `partial` what is missing; return why that ended early, or None."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, httpx  # type: ignore[attr-defined]

    url = hf_hub_url(pinned.name, file.name, revision=pinned.sha)
    begun = _bytes_of(partial)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={begun}-"}
    try:
        with get_session().stream("GET", url, headers=headers) as response, _appended(partial) as sink:
            hf_raise_for_status(response)
            if response.status_code != 206:  # all of it, from the beginning
                sink.truncate(0)
            for chunk in response.iter_bytes():
                with files.wrap_os_errors(partial):
                    sink.write(chunk)
                on_event(Progressed(f"download {file.name}", min(sink.tell(), file.bytes), file.bytes, "bytes"))
    except HfHubHTTPError:
        raise
    except httpx.HTTPError as error:
        return shown.reason(error)
    return "it ended early" if _bytes_of(partial) < file.bytes else None


@contextlib.contextmanager
def _appended(path: Path) -> Iterator[BinaryIO]:
    with files.wrap_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        yield file


@contextlib.contextmanager
def _faults_explained(repo: str) -> Iterator[None]:
    """Turn faults of the network and the disk that the library passes on into an `AlmError`."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except HfHubHTTPError:
        raise
    except (OSError, httpx.HTTPError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise files.system_error(error) from error
        raise AlmError(f"the download of `{repo}` broke: {shown.reason(error)}", hint=_AGAIN) from error


# ---- verifying ----------------------------------------------------------------------------------


def _verify(path: Path, file: HubFile) -> None:
    """Raise `InputError` if a file of the cache is not the one that the hub has."""
    if found := _difference(path, file):
        raise InputError(
            f"`{path}` is damaged: {found}",
            hint=f"run `{shell('rm', path.resolve())}`, then the same command again: it downloads this file",
        )


def _difference(path: Path, file: HubFile) -> str | None:
    there = _bytes_of(path)
    if there != file.bytes:
        return f"it has {there:,} bytes, and the hub states {file.bytes:,}"
    if file.sha256 is not None:
        found = files.sha256(path)
        return None if found == file.sha256 else f"its SHA-256 is {found}, and the hub states {file.sha256}"
    if file.blob_id is not None and (found := _blob_id(path)) != file.blob_id:
        return f"git's hash of it is {found}, and the hub states {file.blob_id}"
    return None


def _blob_id(path: Path) -> str:
    """Compute git's hash of a file."""
    data = files.read_bytes(path)
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


# ---- without the hub ----------------------------------------------------------------------------


def _cached(repo: str, revision: str, check: Check, on_event: Listener) -> Downloaded:
    """Return the model as the cache has it. Its files are named by their hashes, and verified by these."""
    folder = _complete(repo, revision)
    if folder is None:
        raise offline(repo)
    held = []
    for path in sorted(folder.iterdir()):
        name = path.readlink().name if path.is_symlink() else ""
        sha256, blob_id = (name if re.fullmatch(form, name) else None for form in ("[0-9a-f]{64}", "[0-9a-f]{40}"))
        held.append(HubFile(path.name, _bytes_of(path), sha256, blob_id))
    pinned = Pinned(repo, folder.name, licence=None, files=tuple(held))
    needed = _needed(pinned)
    on_event(Noted(_sizes(pinned, needed, _Place.of(repo, folder.name), dry_run=False)))
    for file in needed:
        _verify(folder / file.name, file)
    check(folder)
    return Downloaded(folder, repo, folder.name, None, sum(file.bytes for file in needed))


def _complete(repo: str, revision: str) -> Path | None:
    """Return the folder in the cache that has `revision` with its settings, tokenizer and weights; None without."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    names = [CONFIG_NAME, TOKENIZER_NAME, *_BESIDE, _WHOLE, "model-*-of-*.safetensors"]
    if ".." in revision:  # it becomes part of a path
        return None
    try:
        found = snapshot_download(repo, revision=revision, allow_patterns=names, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    folder = Path(found)
    has_weights = (folder / _WHOLE).exists() or (folder / _INDEX).exists()
    return folder if has_weights and all((folder / name).exists() for name in names[:2]) else None


@contextlib.contextmanager
def _cache_named(repo: str, revision: str) -> Iterator[None]:
    """Add offline mode to the hint of an error about a hub that cannot be reached, if the cache has the model."""
    try:
        yield
    except UnreachableError as error:
        if _complete(repo, revision) is not None:
            error.hint = f"{error.hint}. The cache has this model: set HF_HUB_OFFLINE=1 to use it"
        raise
