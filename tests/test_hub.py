"""`alm.hub` against a hub on loopback: what is pinned, what is waited out, what is refused and how that is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakehub import HOST, FakeHub

from alm import hub as alm_hub
from alm.errors import EXIT_USAGE, AlmError
from alm.hub import RetryPolicy, pin

FILES = {"train.jsonl": b'{"text": "x"}\n'}


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def policy(waits: list[float], told: list[str]) -> RetryPolicy:
    """Waits are noted instead of slept, without jitter."""
    return RetryPolicy(
        attempts=4, first_attempts=2, wait=waits.append, report=told.append, jitter=lambda: 1.0, timeout=60.0
    )


def refusal(dataset: str, *, policy: RetryPolicy, revision: str = "main") -> AlmError:
    with pytest.raises(AlmError) as caught:
        pin(dataset, revision=revision, policy=policy)
    return caught.value


# ---- what is pinned -----------------------------------------------------------------------------


def test_a_branch_is_pinned_to_the_commit_it_is_now(hub: FakeHub, policy: RetryPolicy) -> None:
    first = hub.add("a/b", FILES)
    assert pin("a/b", policy=policy).sha == first

    second = hub.add("a/b", {"train.jsonl": b'{"text": "y"}\n'})
    other = hub.add("a/b", {"train.jsonl": b'{"text": "z"}\n'}, branch="refs/convert/parquet")

    assert len({first, second, other}) == 3
    assert pin("a/b", policy=policy).sha == second
    assert pin("a/b", revision=first, policy=policy).sha == first
    assert pin("a/b", revision="refs/convert/parquet", policy=policy).sha == other


def test_the_licence_is_the_stated_one(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/stated", FILES, licence="odc-by")
    hub.add("a/several", FILES, licence=["mit", "cc0-1.0"])
    hub.add("a/silent", FILES)

    assert pin("a/stated", policy=policy).licence == "odc-by"
    assert pin("a/several", policy=policy).licence == "mit, cc0-1.0"
    assert pin("a/silent", policy=policy).licence is None


def test_a_reader_gets_through(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    private = hub.add("a/private", FILES, private=True, readers=("hf_reader",))
    gated = hub.add("a/gated", FILES, gated=True, readers=("hf_reader",))
    monkeypatch.setenv("HF_TOKEN", "hf_reader")

    assert pin("a/private", policy=policy).sha == private
    assert pin("a/gated", policy=policy).sha == gated


# ---- what is refused, and how that is said ------------------------------------------------------


def test_a_missing_dataset(hub: FakeHub, policy: RetryPolicy) -> None:
    error = refusal("a/missing", policy=policy)
    assert error.message == "`a/missing` is not on the hub, or is private and hidden from you"
    assert error.hint is not None
    assert f"{hub.url}/datasets/a/missing" in error.hint
    assert "`hf auth login`, or set HF_TOKEN" in error.hint


def test_a_private_dataset_of_others(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("a/private", FILES, private=True)
    assert "`hf auth login`" in str(refusal("a/private", policy=policy).hint)

    hub.tokens.add("hf_other")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    error = refusal("a/private", policy=policy)
    assert "private and hidden from you" in error.message
    assert "`hf auth whoami`" in str(error.hint)


def test_a_gated_dataset(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("a/gated", FILES, gated=True)
    error = refusal("a/gated", policy=policy)
    assert "you must log in and accept its terms to read it" in error.message
    assert "run `hf auth login`, or set HF_TOKEN" in str(error.hint)
    assert f"{hub.url}/datasets/a/gated" in str(error.hint)

    hub.tokens.add("hf_other")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    error = refusal("a/gated", policy=policy)
    assert "your account has not been granted access" in error.message
    assert f"open {hub.url}/datasets/a/gated and ask for access" in str(error.hint)


def test_a_bad_token_in_the_environment(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("a/public", FILES)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    error = refusal("a/public", policy=policy)
    assert "does not accept the token in HF_TOKEN: it is wrong, expired or revoked" in error.message
    assert "run `unset HF_TOKEN`: public data needs none" in str(error.hint)


def test_a_bad_stored_token(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    hub.add("a/public", FILES)
    (tmp_path / "token").write_text("hf_expired")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    error = refusal("a/public", policy=policy)
    assert "does not accept your stored token" in error.message
    assert "`hf auth login` for a new one, or `hf auth logout`" in str(error.hint)


def test_a_missing_revision(hub: FakeHub, policy: RetryPolicy) -> None:
    sha = hub.add("a/b", FILES)
    hub.add("a/b", FILES, branch="v1")
    error = refusal("a/b", revision="v2", policy=policy)
    assert error.message == "`a/b` has no revision `v2` (there are: main, v1)"
    assert "`revision: main`" in str(error.hint)
    assert error.exit_code == EXIT_USAGE
    assert pin("a/b", revision=sha, policy=policy).sha == sha


@pytest.mark.parametrize("dataset", ["wikitext", "a/b/c", "https://huggingface.co/datasets/a/wikitext", "", "a/"])
def test_a_name_without_a_namespace(hub: FakeHub, dataset: str, policy: RetryPolicy) -> None:
    error = refusal(dataset, policy=policy)
    assert "its name needs the form `namespace/name`" in error.message
    assert "hf datasets list --search" in str(error.hint)
    assert error.exit_code == EXIT_USAGE
    assert not hub.requests


def test_offline_mode(hub: FakeHub, policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub.add("a/b", FILES)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refusal("a/b", policy=policy)
    assert error.message == "`a/b` is on the hub, and offline mode is on (HF_HUB_OFFLINE)"
    assert error.hint == "run `unset HF_HUB_OFFLINE`"
    assert not hub.requests


def test_any_other_refusal_is_quoted(hub: FakeHub, policy: RetryPolicy) -> None:
    hub.add("a/b", FILES)
    hub.fault("/api/datasets/a/b", "status", status=451)
    error = refusal("a/b", policy=policy)
    assert error.message == "the hub refuses `a/b` with 451: ordered"


def test_refusals_are_not_repeated(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    hub.add("a/gated", FILES, gated=True)
    refusal("a/gated", policy=policy)
    refusal("a/missing", policy=policy)
    assert waits == []
    assert len(hub.requests) == 3  # the gated one is looked up, then tried


# ---- what is waited out -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_status_is_waited_out(
    hub: FakeHub, policy: RetryPolicy, waits: list[float], told: list[str], status: int
) -> None:
    sha = hub.add("a/b", FILES)
    hub.fault("/api/datasets/a/b", "status", status=status, times=2)
    assert pin("a/b", policy=policy).sha == sha
    assert waits == [1.0, 2.0]
    assert told[0].startswith(f"the hub answers {status} ")
    assert told[0].endswith("; trying again in 1 s")


def test_a_broken_connection_is_waited_out(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    sha = hub.add("a/b", FILES)
    hub.fault("/api/datasets/a/b", "reset")
    hub.fault("/api/datasets/a/b", "truncate")
    assert pin("a/b", policy=policy).sha == sha
    assert waits == [1.0, 2.0]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Date": "Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2026 07:29:30 GMT"}, 90.0),
        ({"Date": "Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2026 07:00:00 GMT"}, 0.0),
        ({"ratelimit": '"api";r=0;t=55', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}, 55.0),
        ({"ratelimit": '"api";r=12;t=55'}, 1.0),
        ({"Retry-After": "soon"}, 1.0),
    ],
)
def test_the_hub_says_how_long(
    hub: FakeHub, policy: RetryPolicy, waits: list[float], headers: dict[str, str], seconds: float
) -> None:
    hub.add("a/b", FILES)
    hub.fault("/api/datasets/a/b", "status", status=429, headers=headers)
    pin("a/b", policy=policy)
    assert waits == [seconds]


def test_a_pause_too_long_is_an_error(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    hub.add("a/b", FILES)
    hub.fault("/api/datasets/a/b", "status", status=429, headers={"Retry-After": "86400"})
    error = refusal("a/b", policy=policy)
    assert "429" in error.message
    assert "asks for a pause of 86400 s" in error.message
    assert "`hf auth login`" in str(error.hint)
    assert waits == []


def test_waits_grow_to_a_ceiling_and_have_jitter() -> None:
    waits: list[float] = []
    steady = RetryPolicy(wait=waits.append, jitter=lambda: 1.0, longest_wait=5.0)
    for attempt in (1, 2, 3, 4, 5):
        steady.pause(attempt, reason="x")
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]

    waits.clear()
    for jitter in (0.0, 0.5, 1.0):
        RetryPolicy(wait=waits.append, jitter=lambda jitter=jitter: jitter).pause(3, reason="x")
    assert waits == [2.0, 3.0, 4.0]


def test_patience_ends(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    hub.add("a/b", FILES)
    hub.fault("/api/datasets/a/b", "status", status=503, times=100)
    error = refusal("a/b", policy=policy)
    assert "answers 503 Service Unavailable for /api/datasets/a/b/revision/main (4 attempts)" in error.message
    assert "run the same command again later" in str(error.hint)
    assert len(waits) == 3


def test_a_hub_that_cannot_be_reached(
    hub: FakeHub, policy: RetryPolicy, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://{HOST}:1")
    error = refusal("a/b", policy=policy)
    assert f"the hub at http://{HOST}:1 cannot be reached" in error.message
    assert "(2 attempts)" in error.message  # it was never reached: not worth all the patience
    assert f"curl -I http://{HOST}:1" in str(error.hint)
    assert len(waits) == 1


def test_an_endpoint_that_is_no_address(policy: RetryPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "hub.example")
    error = refusal("a/b", policy=policy)
    assert "HF_ENDPOINT is not the address of a hub" in error.message
    assert error.hint == "run `unset HF_ENDPOINT`"


def test_a_certificate_that_cannot_be_verified(
    hub: FakeHub, policy: RetryPolicy, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import httpx

    def send(request: object, **options: object) -> None:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate in chain")

    alm_hub.connect(policy)
    monkeypatch.setattr(huggingface_hub.get_session(), "send", alm_hub._with_retries(send))
    error = refusal("a/b", policy=policy)
    assert "certificate cannot be verified" in error.message
    assert "SSL_CERT_FILE" in str(error.hint)
    assert waits == []


def test_a_listing_that_stalls_is_asked_for_again(hub: FakeHub, policy: RetryPolicy, told: list[str]) -> None:
    """The library asks for listings without any time-out."""
    from huggingface_hub import HfApi

    hub.add("a/b", {f"{n}.txt": b"x" for n in range(5)})
    hub.page_entries = 2
    hub.fault("/tree/", "stall", after=1)
    alm_hub.connect(replace(policy, timeout=1.0))
    listed = HfApi().list_repo_tree("a/b", repo_type="dataset", recursive=True)
    assert [entry.path for entry in listed] == [f"{n}.txt" for n in range(5)]
    assert len(told) == 1
    assert "timed out" in told[0]


def test_a_signed_address_that_has_run_out_is_replaced(hub: FakeHub, policy: RetryPolicy, waits: list[float]) -> None:
    import huggingface_hub

    sha = hub.add("a/b", {"large.bin": b"x" * 100_000})
    hub.fault("/_content/", "status", status=403)
    alm_hub.connect(policy)
    answer = huggingface_hub.get_session().get(f"{hub.url}/datasets/a/b/resolve/{sha}/large.bin")
    assert answer.content == b"x" * 100_000
    assert len(hub.asked("/resolve/")) == 2
    assert len(waits) == 1


@pytest.mark.parametrize("send", ["post", "elsewhere"])
def test_only_what_changes_nothing_at_the_hub_is_repeated(
    hub: FakeHub, policy: RetryPolicy, waits: list[float], send: str
) -> None:
    import huggingface_hub

    calls: dict[str, Callable[[], object]] = {
        "post": lambda: huggingface_hub.get_session().post(f"{hub.url}/api/datasets/a/b"),
        "elsewhere": lambda: huggingface_hub.get_session().get(f"{hub.content_url}/other"),
    }
    alm_hub.connect(policy)
    hub.fault("", "status", method=".*")
    calls[send]()
    assert len(hub.requests) == 1
    assert waits == []
