"""Reliable access to the Hugging Face hub: time-outs, retries, and error messages that explain refusals.

`huggingface_hub` has one HTTP client in a process. `connect` adds retries to it, so that all requests through
that library, including those of `datasets`, get the same time-outs and retries. A fault that outlasts them raises an
`AlmError`, which no retry loop further up catches.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

from alm.errors import AlmError, ConfigError, shell

if TYPE_CHECKING:
    import httpx2 as httpx
    from huggingface_hub import DatasetInfo, ModelInfo
    from huggingface_hub.errors import HfHubHTTPError

_PASSING_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
TOKENS_PAGE = "https://huggingface.co/settings/tokens"

Kind = Literal["dataset", "model"]
"""What a repository on the hub holds."""

_IDS: dict[Kind, re.Pattern[str]] = {  # models of the hub's first years have no namespace
    "dataset": re.compile(r"\w[\w.-]*/\w[\w.-]*", flags=re.ASCII),
    "model": re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", flags=re.ASCII),
}


class UnreachableError(AlmError):
    """The hub cannot be reached from this machine, or may not be: offline mode is on."""


class NotFoundError(AlmError):
    """The hub has no such repository, or hides it."""


@dataclass(frozen=True)
class RetryPolicy:
    """Limits on retries after network faults. All times are in seconds.

    A hub that was never reached gets only `first_attempts`, because the likely cause is this machine's network.
    `wait` sleeps, and `report` receives one line before each wait.
    """

    attempts: int = 8
    first_attempts: int = 4
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked_wait: float = 900.0
    timeout: float = 30.0
    wait: Callable[[float], None] = time.sleep
    report: Callable[[str], None] = lambda line: None
    jitter: Callable[[], float] = random.random

    def pause(self, attempt: int, *, reason: str, asked: float | None = None) -> None:
        """Wait after failure number `attempt`: as long as the hub `asked`, else longer each time, with jitter."""
        seconds = asked
        if seconds is None:  # the jitter keeps many processes from retrying at the same moment
            seconds = min(self.longest_wait, self.first_wait * 2 ** (attempt - 1)) * (1 + self.jitter()) / 2
        self.report(f"{reason}; trying again in {seconds:.0f} s")
        self.wait(seconds)


@dataclass(frozen=True)
class HubFile:
    """A file of a commit. `sha256` is of its bytes if they are kept apart (LFS); otherwise git's `blob_id` is."""

    name: str
    bytes: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True)
class Pinned:
    """A repository at one commit, so that later changes to its branches have no effect. A model has its `files`."""

    name: str
    sha: str
    licence: str | None
    files: tuple[HubFile, ...] = ()


_policy: RetryPolicy | None = None


def connect(policy: RetryPolicy) -> None:
    """Apply `policy` to all further requests of this process to the hub."""
    global _policy
    if _policy is None:
        from huggingface_hub import logging as its_logging
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        its_logging.set_verbosity(logging.CRITICAL)
        set_client_factory(_retrying_client)
    _policy = policy


def make_ready(name: str, policy: RetryPolicy) -> None:
    """Call `connect` if the hub may be used; raise an `AlmError` about `name` otherwise."""
    from huggingface_hub import constants, is_offline_mode

    if is_offline_mode():
        raise offline(name)
    if not constants.ENDPOINT.startswith(("http://", "https://")):
        raise AlmError(
            f"HF_ENDPOINT is not the address of a hub: `{constants.ENDPOINT}`", hint="run `unset HF_ENDPOINT`"
        )
    connect(policy)


def pin(name: str, *, kind: Kind = "dataset", revision: str = "main", policy: RetryPolicy | None = None) -> Pinned:
    """Return the current commit of `revision` of the repository `name`. Raises `AlmError` if it cannot be read."""
    from huggingface_hub import HfApi

    checked_id(name, kind=kind)
    make_ready(name, policy or RetryPolicy())
    api = HfApi()
    with wrap_hub_errors(name, kind=kind, revision=revision):
        info: DatasetInfo | ModelInfo
        if kind == "model":
            info = api.model_info(name, revision=revision, files_metadata=True)
        else:
            info = api.dataset_info(name, revision=revision)
        if info.gated:  # the description of a gated repository is public, its files are not
            api.auth_check(name, repo_type=kind)
    assert info.sha is not None, name
    return Pinned(name, sha=info.sha, licence=_licence(info), files=tuple(_files(info)) if kind == "model" else ())


def checked_id(name: str, *, kind: Kind = "dataset") -> str:
    """Return `name` if it has the form of a repository's; raise `ConfigError` otherwise."""
    if _IDS[kind].fullmatch(name):
        return name
    last = name.rstrip("/").rpartition("/")[2]
    raise ConfigError(
        f"`{name}` is not a {kind} on the hub: its name needs the form `namespace/name`",
        hint=f"run `{shell('hf', f'{kind}s', 'list', '--search', last)}` to find its namespace",
    )


def stream_faults() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading a file of the hub raises when its stream breaks."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    return OSError, httpx.HTTPError


def _files(info: DatasetInfo | ModelInfo) -> Iterator[HubFile]:
    for file in info.siblings or ():
        yield HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)


def _licence(info: DatasetInfo | ModelInfo) -> str | None:
    stated = info.card_data.get("license") if info.card_data else None
    if isinstance(stated, list):
        return ", ".join(map(str, stated))
    return stated if isinstance(stated, str) else None


# ---- the client with retries ---------------------------------------------------------------------


def _retrying_client() -> httpx.Client:
    # Wrap the library's own client: its hooks preserve offline mode and proxy settings.
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    setattr(client, "send", _with_retries(client.send))  # noqa: B010 (a method may not be assigned to, for mypy)
    return client


def _with_retries(send: Callable[..., httpx.Response]) -> Callable[..., httpx.Response]:
    """Wrap `send` with time-outs, and with retries for requests to the hub that change nothing there."""
    was_reached = False

    def send_with_retries(request: httpx.Request, **options: Any) -> httpx.Response:
        nonlocal was_reached
        assert _policy is not None
        _end_in_time(request, _policy.timeout)
        if not _is_repeatable(request):
            return send(request, **options)
        attempt = 1
        while isinstance(outcome := _try(send, request, options), _Fault):
            was_reached = was_reached or outcome.is_reached
            allowed = _policy.attempts if was_reached else _policy.first_attempts
            if attempt >= allowed or (outcome.asked or 0) > _policy.longest_asked_wait:
                raise outcome.error(attempt) from outcome.cause
            _policy.pause(attempt, reason=outcome.reason, asked=outcome.asked)
            attempt += 1
        was_reached = True
        return outcome

    return send_with_retries


def _end_in_time(request: httpx.Request, seconds: float) -> None:
    """Give a time-out to every part of `request` that has none: the library lists files without any."""
    given = request.extensions.get("timeout", {})
    parts = ("connect", "read", "write", "pool")
    request.extensions["timeout"] = {part: seconds if given.get(part) is None else given[part] for part in parts}


def _is_repeatable(request: httpx.Request) -> bool:
    return _is_at_hub(request.url) and (request.method in ("GET", "HEAD") or "/paths-info/" in request.url.path)


def _is_at_hub(url: httpx.URL) -> bool:
    from huggingface_hub import constants

    return str(url).startswith(constants.ENDPOINT + "/")


@dataclass(frozen=True)
class _Fault:
    """A request that failed, perhaps temporarily. `asked` is the wait that the hub asks for, in seconds."""

    reason: str
    hint: str
    asked: float | None = None
    is_reached: bool = False
    cause: Exception | None = None

    def error(self, attempts: int) -> AlmError:
        wait = f", and asks for a pause of {self.asked:.0f} s" if self.asked else ""
        kind = AlmError if self.is_reached else UnreachableError
        return kind(f"{self.reason} ({attempts} attempts{wait})", hint=self.hint)


def _try(
    send: Callable[..., httpx.Response], request: httpx.Request, options: dict[str, Any]
) -> httpx.Response | _Fault:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # a name for whichever version it uses

    try:
        response = send(request, **options)
    except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise _untrusted(error) from error
        return _silence(error, is_reached=not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout))
    # The content network answers 403 to an expired signed address; another request to the hub gives a fresh one.
    if response.status_code in _PASSING_STATUSES or (response.status_code == 403 and not _is_at_hub(response.url)):
        response.close()
        return _refusal(response)
    return response


def _untrusted(error: Exception) -> AlmError:
    return UnreachableError(
        f"the hub's certificate cannot be verified: {error}",
        hint="behind a proxy that replaces it, run `export SSL_CERT_FILE=` with the path of the proxy's certificate",
    )


def _silence(error: Exception, *, is_reached: bool) -> _Fault:
    from huggingface_hub import constants

    what = "broke a connection" if is_reached else "cannot be reached"
    hint = f"run `curl -I {constants.ENDPOINT}` to check whether it responds; behind a proxy, set HTTPS_PROXY"
    reason = f"the hub at {constants.ENDPOINT} {what}: {error or type(error).__name__}"
    return _Fault(reason, hint=hint, is_reached=is_reached, cause=error)


def _refusal(response: httpx.Response) -> _Fault:
    status = response.status_code
    hint = "run the same command again later; https://status.huggingface.co shows the hub's status"
    if status == 429:
        hint = "run `hf auth login` for higher request limits; or run the same command again later"
    reason = f"the hub answers {status} {response.reason_phrase} for {response.request.url.path}"
    return _Fault(reason, hint=hint, asked=_asked_wait(response), is_reached=True)


def _asked_wait(response: httpx.Response) -> float | None:
    """Return the seconds that the response asks to wait, or None. A date is compared with the response's own clock."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    after = response.headers.get("Retry-After", "").strip()
    if after.isdigit():
        return float(after)
    if after:
        try:
            now = parsedate_to_datetime(response.headers["Date"])
            return max(0.0, (parsedate_to_datetime(after) - now).total_seconds())
        except (KeyError, ValueError, TypeError):
            return None
    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


# ---- refusals -----------------------------------------------------------------------------------


@contextlib.contextmanager
def wrap_hub_errors(name: str, *, kind: Kind = "dataset", revision: str) -> Iterator[None]:
    """Turn exceptions of `huggingface_hub` about `name` into an `AlmError` with a hint that resolves it."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise _explained(error, name, kind, revision) from error
    except errors.OfflineModeIsEnabled as error:
        raise offline(name) from error
    except errors.HFValidationError as error:
        raise ConfigError(
            f"`{name}` is not a {kind} on the hub: {error}", hint=f"run `{shell('hf', f'{kind}s', 'list')}`"
        ) from error


def _explained(error: HfHubHTTPError, name: str, kind: Kind, revision: str) -> AlmError:
    from huggingface_hub import errors

    status = error.response.status_code
    page = page_of(name, kind)
    has_token = "authorization" in error.response.request.headers
    if isinstance(error, errors.GatedRepoError):
        return _gated(name, page, has_token=has_token)
    if status == 401 and has_token:
        return bad_token(name)
    if isinstance(error, errors.RevisionNotFoundError):
        return _no_revision(name, kind, revision)
    if isinstance(error, errors.RepositoryNotFoundError):
        return _not_found(name, page, has_token=has_token)
    said = error.server_message or error.response.reason_phrase
    return AlmError(f"the hub refuses `{name}` with {status}: {said}", hint=f"open {page}")


def page_of(name: str, kind: Kind) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{name}" if kind == "dataset" else f"{constants.ENDPOINT}/{name}"


def _gated(name: str, page: str, *, has_token: bool) -> AlmError:
    if has_token:
        return AlmError(
            f"`{name}` is gated, and your account has not been granted access",
            hint=f"open {page} and ask for access; `hf auth whoami` shows your account",
        )
    return AlmError(
        f"`{name}` is gated: you must log in and accept its terms to read it",
        hint=f"open {page} and accept the terms, then run `hf auth login`, or set HF_TOKEN",
    )


def bad_token(name: str, *, is_write: bool = False) -> AlmError:
    """Return the error for a token that the hub does not accept when it is asked for `name`, to write to it or not."""
    variable = next((each for each in _TOKEN_VARIABLES if os.environ.get(each)), None)
    if variable is None:
        token, hint = "your stored token", "run `hf auth login` for a new one"
        hint += "" if is_write else ", or `hf auth logout`: public data needs no token"
    elif is_write:
        token, hint = f"the token in {variable}", f"set {variable} to a token with write access: {TOKENS_PAGE}"
    else:
        token = f"the token in {variable}"
        hint = f"run `unset {variable}`: public data needs none; or create one at {TOKENS_PAGE}"
    message = f"the hub does not accept {token}: it is wrong, expired or revoked (asked for `{name}`)"
    return AlmError(message, hint=hint)


def _not_found(name: str, page: str, *, has_token: bool) -> AlmError:
    hint = f"check the name at {page}; if it is private, run `hf auth login`, or set HF_TOKEN"
    if has_token:
        hint = f"check the name at {page}; `hf auth whoami` shows the account that needs access"
    return NotFoundError(f"`{name}` is not on the hub, or is private and hidden from you", hint=hint)


def _no_revision(name: str, kind: Kind, revision: str) -> AlmError:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    known = ""
    with contextlib.suppress(HfHubHTTPError):
        refs = HfApi().list_repo_refs(name, repo_type=kind)
        known = f" (there are: {', '.join(ref.name for ref in [*refs.branches, *refs.tags])})"
    main = "set `revision: main`" if kind == "dataset" else f"name `{name}@main`"
    return ConfigError(
        f"`{name}` has no revision `{revision}`{known}",
        hint=f"{main}, or the sha of a commit listed at {page_of(name, kind)}/commits/main",
    )


def offline(name: str) -> UnreachableError:
    """Return the error for a request for a dataset or model while the hub's libraries are in offline mode."""
    named = [each for each in _OFFLINE_VARIABLES if os.environ.get(each)] or [_OFFLINE_VARIABLES[0]]
    return UnreachableError(
        f"`{name}` is on the hub, and offline mode is on ({', '.join(named)})", hint=f"run `unset {' '.join(named)}`"
    )
