"""Files as a model on the Hugging Face hub: in one commit, and private unless it is asked to be public."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alm.errors import AlmError, ConfigError
from alm.hub import Patience, make_ready, token_variable

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

_TOKENS = "https://huggingface.co/settings/tokens"
Warn = Callable[[str, str | None], None]
"""Takes a warning and its hint."""

_AGAIN = "run the same command again: what the hub has already is not sent again"


@dataclass(frozen=True)
class Uploaded:
    """Where the files are. `is_new` is False where the hub had all of them already."""

    repo: str
    url: str
    sha: str
    is_private: bool
    is_new: bool


def full_name(repo: str, *, patience: Patience | None = None) -> str:
    """`repo` with its namespace, that of the account where it has none; AlmError when the hub knows no account."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    make_ready(repo, patience or Patience())
    with _explained(repo):
        validate_repo_id(repo)
        if get_token() is None:
            raise AlmError(
                f"`{repo}` cannot be written: there is no token of the hub here",
                hint=f"run `hf auth login`, or set HF_TOKEN to a token that may write: {_TOKENS}",
            )
        account: str = HfApi().whoami()["name"]
    return repo if "/" in repo else f"{account}/{repo}"


def upload(
    repo: str,
    files: Sequence[Path],
    *,
    is_public: bool,
    message: str,
    warn: Warn,
    patience: Patience | None = None,
) -> Uploaded:
    """Put `files` into the model `repo`, which is made if it is not there; what else it holds stays.

    AlmError when the hub refuses, and when the model is public there and `is_public` is not given.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    make_ready(repo, patience or Patience())
    api = HfApi()
    with _explained(repo):
        before, is_private = _made(api, repo, is_public=is_public, warn=warn)
        additions = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
        with _heard(warn):
            commit = api.create_commit(repo, additions, commit_message=message)
    url = f"{api.endpoint}/{repo}"
    return Uploaded(repo, url, commit.oid, is_private=is_private, is_new=commit.oid != before)


def _made(api: HfApi, repo: str, *, is_public: bool, warn: Warn) -> tuple[str | None, bool]:
    """The commit that `repo` is at, None where it is made now, and whether it is private."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = api.model_info(repo)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=not is_public)
        return None, not is_public
    if not found.private and not is_public:
        raise AlmError(
            f"`{repo}` is public on the hub: all could read what is sent",
            hint="add `--public`, or name another `--repo`",
        )
    if found.private and is_public:
        warn(f"`{repo}` is private on the hub, and stays so", f"{api.endpoint}/{repo}/settings")
    return found.sha, bool(found.private)


@contextlib.contextmanager
def _heard(warn: Warn) -> Iterator[None]:
    """What the library warns of, a model card that the hub finds fault with for one, told as we tell things."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        warn(" ".join(str(warning.message).split()), None)


# ---- refusals -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises about `repo` into an `AlmError` that says how to cure it."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # a name for whichever version it uses

    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError(f"`{repo}` can be no name on the hub: {error}", hint="use `--repo namespace/name`") from error
    except errors.HfHubHTTPError as error:
        raise _refusal(error, repo) from error
    except httpx.HTTPError as error:
        raise _broken(error) from error
    except RuntimeError as error:  # raised about one of several files
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
            " ".join(str(error).split()), hint="set a licence that the hub knows: `--set licence=apache-2.0`"
        ) from error


def _broken(error: Exception) -> AlmError:
    return AlmError(f"the hub broke a connection: {error or type(error).__name__}", hint=_AGAIN)


def _refusal(error: HfHubHTTPError, repo: str) -> AlmError:
    status = error.response.status_code
    said = error.server_message or error.response.reason_phrase
    if status == 401:
        return _bad_token(repo)
    if status == 403:
        return AlmError(
            f"your account or its token may not write to `{repo}`: {said}",
            hint=f"run `hf auth whoami` to see which account this is; {_TOKENS} has tokens that may write",
        )
    if status == 404:
        return AlmError(f"`{repo}` is hidden from you on the hub, or gone: {said}", hint="name another `--repo`")
    return AlmError(f"the hub refuses `{repo}` with {status}: {said}", hint=_AGAIN)


def _bad_token(repo: str) -> AlmError:
    named = token_variable()
    where = f"the token in {named}" if named else "your stored token"
    hint = f"set {named} to a token that may write: {_TOKENS}" if named else "run `hf auth login` for a new one"
    return AlmError(f"the hub does not accept {where}: it is wrong, expired or revoked (asked for `{repo}`)", hint=hint)
