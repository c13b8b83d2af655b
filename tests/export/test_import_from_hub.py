"""`alm import NAMESPACE/NAME` from a hub on loopback: which names are asked for there, and what is made."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fakehub import FakeHub

from alm.artifacts import ImportMetadata, read
from alm.checkpoint.load import load_checkpoint
from alm.cli.main import main
from alm.errors import AlmError, ArtifactError, InputError
from alm.events import Event, Noted
from alm.export.from_hub import HubModel, import_from_hub, named
from alm.export.importing import import_model
from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets import huggingface
from alm.hub import RetryPolicy
from alm.hub.downloads import download_model

from .conftest import Make, main_ok

REPO = "someone/tales-0.1B"
MODEL = HubModel(REPO, "main", is_sure=False)


@pytest.fixture
def theirs(checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of a small Llama, and a cache of the hub that is empty."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "made"
    export(huggingface.Config(), checkpoint=checkpoint_of(), out=made, compare=False)
    return {path.name: path.read_bytes() for path in made.iterdir() if path.is_file()}


def test_from_the_hub_to_a_checkpoint(
    hub: FakeHub, theirs: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    sha = hub.add(REPO, theirs, kind="models", licence="apache-2.0")
    main_ok(["import", REPO, "--dry-run"])
    written = capsys.readouterr()
    assert re.search(rf"would download 6 files, 1\d\d.\d kB, of {REPO} at {sha[:12]}", written.err)
    assert f"{REPO}: a llama that can be written to runs/tales-0.1B" in written.out
    assert not Path("runs/tales-0.1B").exists()
    assert not hub.asked("/resolve/.*model.safetensors")
    main_ok(["import", REPO, "--no-compare"])
    made = read(Path("runs/tales-0.1B/import.json"), ImportMetadata, hint="")
    assert made.repository is not None
    assert made.repository.model_dump() == {"name": REPO, "revision": "main", "sha": sha, "licence": "apache-2.0"}
    assert made.command == f"alm import --from huggingface {REPO}@{sha} --out runs/tales-0.1B"
    capsys.readouterr()
    main_ok(["info", "runs/tales-0.1B"])
    assert f"{REPO} at {sha}, licence apache-2.0" in capsys.readouterr().out
    before = load_source(Path("runs/tiny/ckpt-last.pt")).weights
    after = load_checkpoint(Path("runs/tales-0.1B/ckpt-last.pt")).model
    assert all(after[name].equal(value) for name, value in before.items())
    assert "model.safetensors" in {Path(file.path).name for file in made.inputs}


def test_once_it_is_there_it_is_kept(
    hub: FakeHub, theirs: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    out, events = tmp_path / "run", list[Event]()
    sha = hub.add(REPO, theirs, kind="models")
    made = import_from_hub(MODEL, out=out, compare=False)
    hub.requests.clear()
    assert import_from_hub(MODEL, out=out, compare=False, on_event=events.append) == made
    assert events[-1] == Noted(f"`{out}` is up to date")
    assert not hub.asked("/resolve/", method="GET")
    hub.add(REPO, {**theirs, "generation_config.json": b"{}"}, kind="models")
    with pytest.raises(ArtifactError, match="was made from other inputs"):
        import_from_hub(MODEL, out=out, compare=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    again = import_from_hub(HubModel(REPO, sha, is_sure=True), out=tmp_path / "again", compare=False)
    assert again.repository is not None
    assert again.repository.sha == sha
    assert not hub.requests


def test_a_file_that_several_repositories_share(hub: FakeHub, theirs: dict[str, bytes], tmp_path: Path) -> None:
    """`huggingface_hub` keeps what it fetched through Xet in a store of its own, which `blobs` link to."""
    hub.add(REPO, theirs, kind="models")
    weights = download_model(REPO).path / "model.safetensors"
    shared = tmp_path / "hub" / "blobs" / "ab" / "ab12"
    shared.parent.mkdir(parents=True)
    blob = weights.resolve()
    blob.rename(shared)
    blob.symlink_to(shared)
    import_from_hub(MODEL, out=tmp_path / "run", compare=False)
    shared.write_bytes(b"x")
    with pytest.raises(InputError, match="is damaged") as caught:
        import_from_hub(MODEL, out=tmp_path / "run", compare=False)
    assert f"run `rm {shared}`" in str(caught.value.hint)


def test_a_model_that_alm_does_not_have_costs_no_download(
    hub: FakeHub, theirs: dict[str, bytes], tmp_path: Path
) -> None:
    values = json.loads(theirs["config.json"])
    hub.add(REPO, {**theirs, "config.json": json.dumps({**values, "model_type": "mamba"}).encode()}, kind="models")
    with pytest.raises(InputError, match="cannot be imported:"):
        import_from_hub(MODEL, out=tmp_path / "run")
    assert not hub.asked("model.safetensors")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    hub.requests.clear()
    with pytest.raises(ArtifactError, match="holds a run"):
        import_from_hub(MODEL, out=tmp_path / "run", force=True)
    assert not hub.requests


def test_what_is_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "here" / "it").mkdir(parents=True)
    assert named("Qwen/Qwen2.5-0.5B") == HubModel("Qwen/Qwen2.5-0.5B", "main", is_sure=False)
    assert named("a/b@refs/pr/3") == HubModel("a/b", "refs/pr/3", is_sure=True)
    assert named("models/x@v1") == HubModel("models/x", "v1", is_sure=True)
    assert named("gpt2@main") == HubModel("gpt2", "main", is_sure=True)
    local = ["my-llama", "./my-llama", "./a/b", "../a/b", "models/x", "here/it", "a/b/", "a/b/c", "/a/b", "~/a"]
    local += ["a/b.gguf", "a/model.safetensors", "a/b@", "a/../b@x", "https://huggingface.co/a/b", "", "a b/c"]
    assert [given for given in local if named(given)] == []


@pytest.mark.parametrize(
    ("given", "command"),
    [
        ("./my-llama", "alm import my-llama@main"),
        ("models/x/y", "alm import namespace/name@main"),
        ("models/x", "alm import models/x@main"),
        ("/models/x", "alm import namespace/name@main"),
        ("../models", "alm import namespace/name@main"),
        ("https://huggingface.co/a/b/tree/main", "alm import a/b@main"),
    ],
)
def test_a_mistyped_path_is_not_asked_for(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert named(given) is None
    with pytest.raises(InputError, match="is not a folder") as caught:
        import_model(Path(given), out=tmp_path / "run")
    assert str(caught.value.hint).endswith(f"The hub was not asked: for its models, run `{command}`")
    assert not hub.requests


def test_a_gguf_file_that_is_not_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    with pytest.raises(InputError, match="is not a folder") as caught:
        import_model(tmp_path / "x.gguf", out=tmp_path / "run")
    assert f"`alm import --from gguf {tmp_path / 'x.gguf'}`" in str(caught.value.hint)


def test_a_name_that_is_nowhere(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = RetryPolicy(attempts=1, first_attempts=1)
    with pytest.raises(AlmError, match="`a/b` is not on the hub") as caught:
        import_from_hub(HubModel("a/b", "main", is_sure=False), out=tmp_path / "run", policy=policy)
    assert str(caught.value.hint).endswith("The folder `a/b` does not exist here")
    with pytest.raises(SystemExit):
        main(["import", "a/b@main", "--out", str(tmp_path / "run")])
    assert "either" not in capsys.readouterr().err
