"""`alm.hub.downloads` against a hub on loopback: what is fetched, resumed, verified, and refused first."""

from __future__ import annotations

import hashlib
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from fakehub import FakeHub

from alm.errors import EXIT_USAGE, AlmError, ConfigError, InputError
from alm.events import Event, Noted, Progressed, Warned
from alm.hub import RetryPolicy
from alm.hub import downloads as module
from alm.hub.downloads import Downloaded, download_model

SETTINGS = {"config.json": b"{}", "tokenizer.json": b"t" * 20_000, "generation_config.json": b"{}"}
WEIGHTS = bytes(range(256)) * 8000  # two chunks, over 1 MB
FILES = {**SETTINGS, "model.safetensors": WEIGHTS}
OTHER = {
    "README.md": b"x",
    "pytorch_model.bin": b"p" * 20_000,
    "model.fp16.safetensors": b"w",
    "modeling_x.py": b"x",
    "original/model.safetensors": b"o",
    "onnx/config.json": b"o",
}
REPO = "someone/tales"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()

Download = Callable[..., Downloaded]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def download(cache: Path, events: list[Event]) -> Download:
    """Waits take no time."""
    policy = RetryPolicy(attempts=3, first_attempts=2, wait=lambda seconds: None, timeout=60.0)

    def call(repo: str = REPO, **options: object) -> Downloaded:
        return download_model(repo, policy=policy, on_event=events.append, **options)  # type: ignore[arg-type]

    return call


@pytest.fixture
def go_offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    from huggingface_hub import constants

    def go() -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    return go


def refusal(download: Download, repo: str = REPO, **options: object) -> AlmError:
    with pytest.raises(AlmError) as caught:
        download(repo, **options)
    return caught.value


def said(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Noted)]


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# ---- what is fetched ----------------------------------------------------------------------------


def test_only_what_an_import_reads_is_fetched_and_its_size_said_first(
    hub: FakeHub, download: Download, cache: Path, events: list[Event]
) -> None:
    sha = hub.add(REPO, {**FILES, **OTHER}, kind="models", licence="apache-2.0")
    found = download()
    assert found == Downloaded(found.path, REPO, sha, "apache-2.0", sum(map(len, FILES.values())))
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == FILES
    assert found.path.is_relative_to(cache)
    assert events[0] == Noted(f"downloading 4 files, 2.1 MB, of {REPO} at {sha[:12]}")
    progress = [event for event in events if isinstance(event, Progressed) and "model" in event.task]
    assert progress[-1] == Progressed("download model.safetensors", len(WEIGHTS), len(WEIGHTS), "bytes")
    assert names_in(cache / "models--someone--tales" / "blobs") == {
        *(hashlib.sha256(data).hexdigest() for data in FILES.values() if len(data) > 10_240),
        hashlib.sha1(b"blob 2\0{}").hexdigest(),
    }


def test_a_second_time_nothing_is_downloaded(hub: FakeHub, download: Download, events: list[Event]) -> None:
    sha = hub.add(REPO, FILES, kind="models")
    first = download()
    hub.requests.clear()
    assert download() == first
    assert not hub.asked(r"/resolve/|/_content/", method="GET")
    assert said(events)[1] == f"{REPO} at {sha[:12]} is in the cache: 4 files, 2.1 MB"


def test_a_branch_that_moves_leaves_the_commit_as_it_is(hub: FakeHub, download: Download, events: list[Event]) -> None:
    old = hub.add(REPO, FILES, kind="models")

    def move(folder: Path) -> None:
        hub.add(REPO, {**FILES, "config.json": b"{ }", "model.safetensors": b"n" * 20_000}, kind="models")

    found = download(check=move)
    assert found.sha == old
    assert (found.path / "model.safetensors").read_bytes() == WEIGHTS
    events.clear()
    new = download()
    assert (new.path / "config.json").read_bytes() == b"{ }"
    assert said(events) == [f"downloading 2 files, 20.0 kB, of {REPO} at {new.sha[:12]} (2 more are in the cache)"]
    assert download(revision=old).path == found.path


def test_shards_and_a_name_without_a_namespace(hub: FakeHub, download: Download) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": bytes([n]) * 20_000 for n in (1, 2)}
    files = {**SETTINGS, **shards, "model.safetensors.index.json": b"{}"}
    hub.add("gpt2", files, kind="models", branch="v1")
    found = download("gpt2", revision="v1")
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == files


def test_the_check_comes_before_the_weights(hub: FakeHub, download: Download) -> None:
    hub.add(REPO, FILES, kind="models")

    def check(folder: Path) -> None:
        assert names_in(folder) == SETTINGS.keys()
        raise InputError("no such model")

    assert refusal(download, check=check).message == "no such model"
    assert not hub.asked("model.safetensors")


def test_a_dry_run_says_the_sizes_and_leaves_the_weights(hub: FakeHub, download: Download, events: list[Event]) -> None:
    sha = hub.add(REPO, FILES, kind="models")
    assert names_in(download(dry_run=True).path) == SETTINGS.keys()
    assert said(events) == [f"would download 4 files, 2.1 MB, of {REPO} at {sha[:12]}"]
    assert not hub.asked("model.safetensors")


def test_a_cache_without_links(hub: FakeHub, download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download, "are_symlinks_supported", lambda folder: False)
    hub.add(REPO, FILES, kind="models")
    found = download()
    assert not any(path.is_symlink() for path in found.path.iterdir())
    assert {path.name: path.read_bytes() for path in found.path.iterdir()} == FILES


# ---- what breaks, and continues -----------------------------------------------------------------


def test_a_cut_connection_is_resumed(hub: FakeHub, download: Download, events: list[Event]) -> None:
    hub.add(REPO, FILES, kind="models")
    hub.fault(DIGEST, "end", times=2)
    assert (download().path / "model.safetensors").read_bytes() == WEIGHTS
    starts = [int(request.headers["range"][6:-1]) for request in hub.asked(DIGEST, method="GET")]
    assert starts == [0, 1_024_000, 1_536_000]
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert len(warnings) == 2
    assert all(line.startswith("the download of `model.safetensors` broke: ") for line in warnings)


def test_a_later_start_continues(hub: FakeHub, download: Download, cache: Path, events: list[Event]) -> None:
    sha = hub.add(REPO, FILES, kind="models")
    hub.fault(DIGEST, "end")
    hub.fault(DIGEST, "reset", times=100)
    error = refusal(download)
    assert "broke a connection" in error.message or "times in a row" in error.message
    (partial,) = cache.rglob("*.incomplete")
    assert partial.stat().st_size == 1_024_000
    hub.faults.clear()
    hub.requests.clear()
    events.clear()
    assert (download().path / "model.safetensors").read_bytes() == WEIGHTS
    assert [request.headers["range"] for request in hub.asked(DIGEST, method="GET")] == ["bytes=1024000-"]
    assert said(events) == [f"downloading 1 file, 1.0 MB, of {REPO} at {sha[:12]} (3 more are in the cache)"]
    assert not list(cache.rglob("*.incomplete"))


def test_a_hub_that_ignores_ranges(
    hub: FakeHub, download: Download, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fakehub

    hub.add(REPO, FILES, kind="models")
    partial = cache / "models--someone--tales" / "blobs" / f"{DIGEST}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"old")
    monkeypatch.setattr(
        fakehub,
        "_ranged",
        lambda request, data, headers, etag="x": fakehub.Answer(200, data, {"ETag": etag, **headers}),
    )
    assert (download().path / "model.safetensors").read_bytes() == WEIGHTS


def test_other_bytes_than_stated_are_not_kept(hub: FakeHub, download: Download, cache: Path) -> None:
    hub.add(REPO, FILES, kind="models")
    partial = cache / "models--someone--tales" / "blobs" / f"{DIGEST}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"old")  # of another file
    error = refusal(download)
    assert "sent other bytes for `model.safetensors`" in error.message
    assert DIGEST in error.message
    assert not partial.exists()
    assert (download().path / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("is_offline", [False, True])
def test_a_damaged_file_of_the_cache(
    hub: FakeHub, download: Download, go_offline: Callable[[], None], name: str, is_offline: bool
) -> None:
    hub.add(REPO, FILES, kind="models")
    path = download().path / name
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    if is_offline:
        go_offline()
    error = refusal(download)
    assert f"`{path}` is damaged: " in error.message
    assert f"run `rm {path.resolve()}`, then" in str(error.hint)
    if not is_offline:
        path.resolve().unlink()
        assert (download().path / name).read_bytes() == FILES[name]


def test_a_full_disk(hub: FakeHub, download: Download, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, FILES, kind="models")
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2_000_000))
    error = refusal(download)
    assert error.message == (
        f"the download of `{REPO}` needs 2.1 MB, and the hub's cache `{cache}` has 2.0 MB of free space"
    )
    assert "HF_HOME" in str(error.hint)
    assert not hub.asked("/resolve/")
    assert download(dry_run=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(3_000_000))
    download()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0))
    download()


def test_two_downloads_at_once(hub: FakeHub, download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(REPO, FILES, kind="models")
    monkeypatch.setattr(module, "_stream", lambda *given: download())
    assert f"the download of `{REPO}` is being worked on by process" in refusal(download).message


# ---- without the hub ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["branch", "sha"])
def test_offline_the_cache_is_enough(
    hub: FakeHub, download: Download, go_offline: Callable[[], None], events: list[Event], by: str
) -> None:
    sha = hub.add(REPO, FILES, kind="models")
    first = download()
    hub.requests.clear()
    go_offline()
    found = download(revision={"branch": "main", "sha": sha}[by])
    assert (found.path, found.sha, found.bytes) == (first.path, sha, first.bytes)
    assert said(events)[1] == f"{REPO} at {sha[:12]} is in the cache: 4 files, 2.1 MB"
    assert not hub.requests


@pytest.mark.parametrize("revision", ["v2", "../x", "0" * 40, "main"])
def test_offline_without_it(hub: FakeHub, download: Download, go_offline: Callable[[], None], revision: str) -> None:
    hub.add(REPO, FILES, kind="models")
    download(dry_run=True)
    go_offline()
    error = refusal(download, revision=revision)
    assert error.message == f"`{REPO}` is on the hub, and offline mode is on (HF_HUB_OFFLINE)"
    assert error.hint == "run `unset HF_HUB_OFFLINE`"


def test_a_hub_that_cannot_be_reached(hub: FakeHub, download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.add(REPO, FILES, kind="models")
    endpoint = constants.ENDPOINT
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "HF_HUB_OFFLINE" not in str(refusal(download).hint)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    download()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    error = refusal(download)
    assert "cannot be reached" in error.message
    assert "set HF_HUB_OFFLINE=1" in str(error.hint)


# ---- what is refused ----------------------------------------------------------------------------


def test_a_missing_gated_or_private_model(hub: FakeHub, download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal(download, "a/missing")
    assert error.message == "`a/missing` is not on the hub, or is private and hidden from you"
    assert f"check the name at {hub.url}/a/missing;" in str(error.hint)
    hub.add("a/gated", FILES, kind="models", gated=True)
    hub.add("a/private", FILES, kind="models", private=True, readers=("hf_reader",))
    assert "private and hidden" in refusal(download, "a/private").message
    error = refusal(download, "a/gated")
    assert "you must log in and accept its terms" in error.message
    assert f"open {hub.url}/a/gated and accept the terms" in str(error.hint)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert "has not been granted access" in refusal(download, "a/gated").message
    assert not hub.asked("/resolve/")
    download("a/private")
    hub.models["a/gated"].readers.add("hf_reader")
    download("a/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "does not accept the token in HF_TOKEN" in refusal(download).message


def test_a_missing_revision(hub: FakeHub, download: Download) -> None:
    hub.add(REPO, FILES, kind="models")
    hub.add(REPO, FILES, kind="models", branch="v1")
    error = refusal(download, revision="v2")
    assert error.message == f"`{REPO}` has no revision `v2` (there are: main, v1)"
    assert f"name `{REPO}@main`, or the sha of a commit listed at {hub.url}/{REPO}/commits/main" in str(error.hint)
    assert error.exit_code == EXIT_USAGE


@pytest.mark.parametrize("name", ["a/b/c", "https://huggingface.co/a/b", "", "a/", "../b"])
def test_a_name_of_no_model(hub: FakeHub, download: Download, name: str) -> None:
    error = refusal(download, name)
    assert isinstance(error, ConfigError)
    assert "is not a model on the hub" in error.message
    assert "hf models list" in str(error.hint)
    assert not hub.requests


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        (
            {"README.md": b"x", "m-Q4_0.gguf": b"g", "m-Q8_0.gguf": b"g"},
            "has no `config.json`, which an import needs (it holds README.md, m-Q4_0.gguf, m-Q8_0.gguf)",
            "run `hf download someone/tales m-Q8_0.gguf --revision SHA --local-dir tales`, then "
            "`alm import --from gguf tales/m-Q8_0.gguf`",
        ),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"w"}, "no `config.json`", "merge_and_unload"),
        (
            {"model_index.json": b"{}", "unet/config.json": b"{}"},
            "(it holds model_index.json, unet/)",
            "/someone/tales",
        ),
        ({".gitattributes": b"x"}, "(it holds nothing)", "/someone/tales"),
        (
            {**SETTINGS, "pytorch_model.bin": b"p"},
            "has no `model.safetensors`, which an import needs (it holds config.json, generation_config.json, "
            "pytorch_model.bin, tokenizer.json); pickle files can run code, so alm does not read them",
            "then `alm import tales/`",
        ),
        ({**SETTINGS, "model-00001-of-00002.safetensors": b"w"}, "has no `model.safetensors`", "save_pretrained"),
        (
            {"config.json": b"{}", "model.safetensors": b"w", "tokenizer.model": b"s"},
            "has no `tokenizer.json`, which an import needs (it holds config.json, model.safetensors, tokenizer.model)",
            "from_pretrained('someone/tales', revision='SHA').save_pretrained('tales')",
        ),
    ],
)
def test_a_model_without_what_an_import_reads(
    hub: FakeHub, download: Download, files: dict[str, bytes], message: str, hint: str
) -> None:
    sha = hub.add(REPO, files, kind="models")
    error = refusal(download)
    assert message in error.message
    assert hint.replace("SHA", sha) in str(error.hint).replace("'\"'\"'", "'")
    assert not hub.asked("/resolve/")
