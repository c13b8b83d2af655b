"""`alm push` against a hub on loopback: what arrives, who may read it, what is sent twice, and what refusals say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakehub import HOST, FakeHub, Repository

from alm.cli.main import main
from alm.errors import AlmError, ConfigError
from alm.events import Event, Noted, Warned
from alm.export.push import Pushed
from alm.export.push import push as stage
from alm.export.targets import safetensors
from alm.hub import RetryPolicy

from .conftest import Make, main_ok

REPO = "me/tales"
UPLOADS = r"/_upload/"
COMMITS = r"/commit/"

Push = Callable[..., Pushed]


@pytest.fixture
def logged_in(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub.sign_up("hf_mine", "me", organizations=("club",))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    return hub


@pytest.fixture
def push(checkpoint_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Push:
    """The stage with a plain export, which needs no other tool, and with little policy."""
    monkeypatch.chdir(tmp_path)
    checkpoint = checkpoint_of()
    policy = RetryPolicy(attempts=2, first_attempts=2, wait=lambda seconds: None, timeout=5.0)

    def call(repo: str = REPO, *, licence: str | None = "mit", title: str | None = None, **options: Any) -> Pushed:
        config = safetensors.Config(licence=licence, title=title)
        return stage(config, checkpoint=checkpoint, repo=repo, policy=policy, **options)

    return call


def held(hub: FakeHub, model: str = REPO) -> dict[str, bytes]:
    repository = hub.models[model]
    return repository.commits[repository.branches["main"]]


def test_every_file_arrives_and_only_its_owner_can_read_it(logged_in: FakeHub, push: Push) -> None:
    made = push()
    assert made.out == Path("exports/me--tales-safetensors")
    files = {path.name: path.read_bytes() for path in made.out.iterdir()}
    del files["export.json"]  # it has paths of this machine in it
    assert held(logged_in) == {**files, ".gitattributes": b"*.safetensors filter=lfs\n"}
    assert logged_in.models[REPO].private
    assert (made.uploaded.is_private, made.uploaded.is_new) == (True, True)
    assert made.uploaded.url == f"{logged_in.url}/{REPO}"
    assert made.uploaded.sha == logged_in.models[REPO].branches["main"]
    # Large files go to the content network, small ones into the one commit.
    large = {name for name, data in files.items() if len(data) > 10_240 or name.endswith(".safetensors")}
    assert large == {"model.safetensors", "tokenizer.json"} & large
    assert len(logged_in.asked(UPLOADS, method="PUT")) == len(large)
    (commit,) = logged_in.asked(COMMITS, method="POST")
    summary = json.loads(commit.body.splitlines()[0])["value"]["summary"]
    assert summary.startswith("tiny, step 7, by alm ")
    assert f'load_file(hf_hub_download("{REPO}", "model.safetensors"))' in files["README.md"].decode()


def test_public_only_when_asked(logged_in: FakeHub, push: Push) -> None:
    assert not push(is_public=True).uploaded.is_private
    assert not logged_in.models[REPO].private
    with pytest.raises(AlmError, match="`me/tales` is public on the hub") as caught:
        push()
    assert "--public" in str(caught.value.hint)
    assert len(logged_in.asked(COMMITS, method="POST")) == 1


def test_what_is_private_there_stays_private(logged_in: FakeHub, push: Push) -> None:
    push()
    events: list[Event] = []
    push(is_public=True, on_event=events.append)
    assert logged_in.models[REPO].private
    assert Warned(f"`{REPO}` is private on the hub, and stays private", f"{logged_in.url}/{REPO}/settings") in events


def test_what_the_hub_has_is_not_sent_again(logged_in: FakeHub, push: Push) -> None:
    first, events = push(), list[Event]()
    sent = len(logged_in.asked(UPLOADS, method="PUT"))
    again = push(on_event=events.append)
    assert (again.uploaded.is_new, again.uploaded.sha) == (False, first.uploaded.sha)
    assert events == [Noted("`exports/me--tales-safetensors` is up to date"), Noted("`me/tales` is up to date")]
    assert len(logged_in.asked(UPLOADS, method="PUT")) == sent
    assert len(logged_in.asked(COMMITS, method="POST")) == 1


def test_only_what_changed_is_sent(logged_in: FakeHub, push: Push) -> None:
    push()
    sent = len(logged_in.asked(UPLOADS, method="PUT"))
    logged_in.models[REPO].commits[logged_in.models[REPO].branches["main"]]["mine.txt"] = b"mine"
    made = push(licence="cc0-1.0", force=True)
    assert made.uploaded.is_new
    assert len(logged_in.asked(UPLOADS, method="PUT")) == sent
    _, *operations = [json.loads(line) for line in logged_in.asked(COMMITS, method="POST")[-1].body.splitlines()]
    assert {operation["value"]["path"] for operation in operations} == {"README.md"}
    assert held(logged_in)["mine.txt"] == b"mine"


def test_what_was_changed_since_it_was_exported_is_not_sent(logged_in: FakeHub, push: Push) -> None:
    card = push().out / "README.md"
    card.write_bytes(card.read_bytes().replace(b"alm", b"mla"))
    with pytest.raises(AlmError, match=r"README.md` has changed") as caught:
        push()
    assert "--force" in str(caught.value.hint)
    assert len(logged_in.asked(COMMITS, method="POST")) == 1


def test_a_title_is_no_address(logged_in: FakeHub, push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    made = push(title='My "Tales"')
    card = (made.out / "README.md").read_text("utf-8")
    assert '# My "Tales"' in card
    assert f'hf_hub_download("{REPO}", ' in card


def test_a_name_without_a_namespace_is_ours(logged_in: FakeHub, push: Push) -> None:
    assert push("tales").uploaded.repo == REPO
    assert push("club/tales").uploaded.repo == "club/tales"
    assert set(logged_in.models) == {REPO, "club/tales"}


# ---- refusals --------------------------------------------------------------------------------------------------


def refusal(push: Push, *arguments: Any, **options: Any) -> AlmError:
    with pytest.raises(AlmError) as caught:
        push(*arguments, **options)
    return caught.value


def test_without_a_token_nothing_is_even_exported(hub: FakeHub, push: Push) -> None:
    error = refusal(push)
    assert error.message == "`me/tales` cannot be written: there is no token for the hub"
    assert "hf auth login" in str(error.hint)
    assert not Path("exports").exists()
    assert hub.requests == []


def test_a_wrong_token(hub: FakeHub, push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    error = refusal(push)
    assert "does not accept the token in HF_TOKEN" in error.message
    assert not Path("exports").exists()


def test_a_token_that_may_only_read(hub: FakeHub, push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.sign_up("hf_reader", "me", role="read")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    error = refusal(push)
    assert error.message.startswith("your account or its token may not write to `me/tales`: You don't have the rights")
    assert "hf auth whoami" in str(error.hint)


def test_a_namespace_of_others(logged_in: FakeHub, push: Push) -> None:
    assert "may not write to `others/tales`" in refusal(push, "others/tales").message
    logged_in.models["others/tales"] = Repository(private=False, commits={"0" * 40: {}}, branches={"main": "0" * 40})
    assert "may not write to `others/tales`" in refusal(push, "others/tales", is_public=True).message
    assert held(logged_in, "others/tales") == {}


@pytest.mark.parametrize("name", ["a/b/c", "me/ta les", "-x", "me/.."])
def test_no_name(logged_in: FakeHub, push: Push, name: str) -> None:
    error = refusal(push, name)
    assert isinstance(error, ConfigError)
    assert f"`{name}` is not a valid name on the hub" in error.message


def test_a_hub_that_cannot_be_reached(logged_in: FakeHub, push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://{HOST}:1")
    assert f"the hub at http://{HOST}:1 cannot be reached" in refusal(push).message


def test_offline(logged_in: FakeHub, push: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline mode is on (HF_HUB_OFFLINE)" in refusal(push).message


@pytest.mark.parametrize(
    ("path", "method", "status", "message"),
    [
        ("/api/repos/create", "POST", 402, "the hub refuses `me/tales` with 402"),
        (COMMITS, "POST", 500, "the hub refuses `me/tales` with 500"),
        (UPLOADS, "PUT", 403, "your account or its token may not write"),
    ],
)
def test_a_hub_that_refuses_in_the_middle(
    logged_in: FakeHub, push: Push, path: str, method: str, status: int, message: str
) -> None:
    logged_in.fault(path, "status", method=method, status=status)
    assert message in refusal(push).message
    assert push().uploaded.is_new  # the same once more, and it is there
    assert "model.safetensors" in held(logged_in)


def test_a_connection_that_breaks(logged_in: FakeHub, push: Push) -> None:
    logged_in.fault(COMMITS, "reset", method="POST")
    error = refusal(push)
    assert "the hub broke a connection" in error.message
    assert "files that the hub has already are not sent again" in str(error.hint)
    sent = len(logged_in.asked(UPLOADS, method="PUT"))
    push()
    assert len(logged_in.asked(UPLOADS, method="PUT")) == sent


def test_what_the_hub_says_of_the_card(logged_in: FakeHub, push: Push) -> None:
    events: list[Event] = []
    push(licence=None, on_event=events.append)
    assert any(isinstance(event, Warned) and "no license is stated" in event.message for event in events)
    error = refusal(push, licence="do what you like", force=True)
    assert 'Invalid metadata in README.md. - "license" must be one of a list' in error.message


# ---- the command -----------------------------------------------------------------------------------------------


def test_the_command(
    logged_in: FakeHub,
    checkpoint_of: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint_of()
    words = ["push", "--repo", "tales", "--to", "safetensors", "--set", "licence=mit"]
    main_ok([*words, "--dry-run"])
    assert logged_in.requests == []
    capsys.readouterr()
    main_ok([*words, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["repo"], told["is_private"], told["is_new"]) == (REPO, True, True)
    main_ok(words)
    out, err = capsys.readouterr()
    assert out.startswith(f"{logged_in.url}/{REPO}: private, commit ")
    assert "`me/tales` is up to date" in err


def test_never_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["push", "--to", "safetensors"])
    assert ending.value.code == 2
    assert "`alm push` needs `--repo`" in capsys.readouterr().err
