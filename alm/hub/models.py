"""Upload of a model to the Hugging Face hub: in one commit, and private unless requested otherwise."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alm.errors import AlmError, ConfigError
from alm.hub import TOKENS_PAGE, RetryPolicy, bad_token, make_ready

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

Warn = Callable[[str, str | None], None]
"""A callback for a warning and its hint."""

_AGAIN = "run the same command again: files that the hub has already are not sent again"


@dataclass(frozen=True)
class Uploaded:
    """The place of the uploaded files. `is_new` is False if the hub had all of them already."""

    repo: str
    url: str
    sha: str
    is_private: bool
    is_new: bool


def full_name(repo: str, *, policy: RetryPolicy | None = None) -> str:
    """Return `repo` with a namespace, by default that of the account. Raises `AlmError` without a valid login."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    make_ready(repo, policy or RetryPolicy())
    with _wrap_hub_errors(repo):
        validate_repo_id(repo)
        if get_token() is None:
            raise AlmError(
                f"`{repo}` cannot be written: there is no token for the hub",
                hint=f"run `hf auth login`, or set HF_TOKEN to a token with write access: {TOKENS_PAGE}",
            )
        account: str = HfApi().whoami()["name"]
    return repo if "/" in repo else f"{account}/{repo}"


def upload(
    repo: str,
    files: Sequence[str],
    *,
    folder: Path,
    is_public: bool,
    message: str,
    warn: Warn,
    policy: RetryPolicy | None = None,
) -> Uploaded:
    """Upload `files`, paths below `folder`, to the model `repo`, which is created if absent; its other files stay.

    Raises `AlmError` if the hub refuses, or if the model is public there and `is_public` is False.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    make_ready(repo, policy or RetryPolicy())
    api = HfApi()
    with _wrap_hub_errors(repo):
        before, is_private = _made(api, repo, is_public=is_public, warn=warn)
        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files]
        with _heard(warn):
            commit = api.create_commit(repo, additions, commit_message=message)
    url = f"{api.endpoint}/{repo}"
    return Uploaded(repo, url, commit.oid, is_private=is_private, is_new=commit.oid != before)


def _made(api: HfApi, repo: str, *, is_public: bool, warn: Warn) -> tuple[str | None, bool]:
    """Return the current commit of `repo`, None if it was just created, and whether it is private."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.model_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not is_public)
        return None, not is_public
    if not found.private and not is_public:
        raise AlmError(
            f"`{repo}` is public on the hub: anyone could read the uploaded files",
            hint="add `--public`, or name another `--repo`",
        )
    if found.private and is_public:
        warn(f"`{repo}` is private on the hub, and stays private", f"{api.endpoint}/{repo}/settings")
    return found.sha, bool(found.private)


@contextlib.contextmanager
def _heard(warn: Warn) -> Iterator[None]:
    """Pass on the library's warnings, such as one about an invalid model card, as our own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        warn(" ".join(str(warning.message).split()), None)


# ---- refusals -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _wrap_hub_errors(repo: str) -> Iterator[None]:
    """Turn exceptions of `huggingface_hub` about `repo` into an `AlmError` with a hint that resolves it."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # a name for whichever version it uses

    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError(
            f"`{repo}` is not a valid name on the hub: {error}", hint="use `--repo namespace/name`"
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(error, repo) from error
    except httpx.HTTPError as error:
        raise _broken(error) from error
    except RuntimeError as error:  # the library wraps the fault of one of several files
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refusal(cause, repo) from error
        if isinstance(cause, httpx.HTTPError):
            raise _broken(cause) from error
        raise
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        raise AlmError(
            " ".join(str(error).split()), hint="set a licence that the hub accepts: `--set licence=apache-2.0`"
        ) from error


def _broken(error: Exception) -> AlmError:
    return AlmError(f"the hub broke a connection: {error or type(error).__name__}", hint=_AGAIN)


def _refusal(error: HfHubHTTPError, repo: str) -> AlmError:
    status = error.response.status_code
    said = error.server_message or error.response.reason_phrase
    if status == 401:
        return bad_token(repo, is_write=True)
    if status == 403:
        return AlmError(
            f"your account or its token may not write to `{repo}`: {said}",
            hint=f"run `hf auth whoami` to see your account; create a token with write access at {TOKENS_PAGE}",
        )
    if status == 404:
        return AlmError(f"`{repo}` is hidden from you on the hub, or gone: {said}", hint="name another `--repo`")
    return AlmError(f"the hub refuses `{repo}` with {status}: {said}", hint=_AGAIN)
