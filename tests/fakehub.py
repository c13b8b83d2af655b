"""A Hugging Face hub on loopback, of the standard library alone, with faults to order.

It speaks the part of the hub that `datasets` and `huggingface_hub` use to read datasets and models, and to write
models. Large files are redirected to a second origin, as the hub does to its content network, and uploaded there.

`HF_ENDPOINT` and `HF_HOME` are read once, when `huggingface_hub` is imported, so `reserve()` must run before
anything imports it: at the top of `tests/conftest.py`. It binds the ports and sets the environment. A test that
does not enter `serving(hub)` finds no hub there, or an empty one: none can reach the real hub by mistake.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

HOST = "127.0.0.1"
LFS_BYTES = 10 * 1024
NAME = r"([^/]+(?:/[^/]+)?)"  # of a repository; old models have no namespace
_JOIN_SECONDS = 30.0


# ---- what the hub holds -------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """Whom a token belongs to, and what it allows."""

    name: str
    organizations: tuple[str, ...] = ()
    role: str = "write"


@dataclass
class Repository:
    """A dataset or a model: its commits by sha, and its branches by name. `readers` are tokens that may read it."""

    gated: bool = False
    private: bool = False
    licence: str | list[str] | None = None
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def sha(self, revision: str) -> str | None:
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None


@dataclass
class Fault:
    """What goes wrong with requests whose method and path match, `times` times after `after` good ones.

    `status` answers with that status; `reset` cuts the connection before any answer, `truncate` in the middle
    of the body; `end` does that too, in order, so that the first half arrives; `stall` never answers.
    """

    path: str
    action: str
    method: str = "GET|HEAD"
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 0
    times: int = 1
    seen: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        self.seen += 1
        return self.after < self.seen <= self.after + self.times


@dataclass(frozen=True)
class Request:
    """What was asked; names of headers in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else None


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """The answer is an error. The client reads the code from a header, not from the status."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        body = json.dumps({"error": message}).encode()
        self.answer = Answer(status, body, {"X-Error-Code": code, "X-Error-Message": message, **headers})


class FakeHub:
    """Datasets, tokens and faults; `requests` is what was asked. Everything may be changed while it serves."""

    page_entries = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers = [_Server(self), _Server(self)]
        self.url, self.content_url = (f"http://{HOST}:{server.server_address[1]}" for server in self._servers)
        self.forget()

    def forget(self) -> None:
        """Back to a hub that holds nothing, knows nobody and works."""
        self.repositories: dict[str, Repository] = {}
        self.models: dict[str, Repository] = {}
        self.accounts: dict[str, Account] = {}  # by token
        self.blobs: dict[str, bytes] = {}  # large files that were uploaded, by sha256
        self.tokens: set[str] = set()
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.page_entries = FakeHub.page_entries
        self.released = threading.Event()

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        kind: str = "datasets",
        branch: str = "main",
        licence: str | list[str] | None = None,
        gated: bool = False,
        private: bool = False,
        readers: tuple[str, ...] = (),
    ) -> str:
        """Commit `files` to `branch` of the dataset or model `name`; the commit's sha."""
        repository = self.held(kind).setdefault(name, Repository())
        repository.gated, repository.private, repository.licence = gated, private, licence
        repository.readers.update(readers)
        self.tokens.update(readers)
        state = json.dumps([name, sorted((path, _sha256(data)) for path, data in files.items())])
        sha = hashlib.sha1(state.encode()).hexdigest()
        repository.commits[sha] = dict(files)
        repository.branches[branch] = sha
        return sha

    def held(self, kind: str) -> dict[str, Repository]:
        """The repositories of a kind, `datasets` or `models`, by name."""
        return self.models if kind == "models" else self.repositories

    def sign_up(self, token: str, name: str, *, organizations: tuple[str, ...] = (), role: str = "write") -> None:
        """Give `token` to the account `name`."""
        self.accounts[token] = Account(name, organizations, role)
        self.tokens.add(token)

    def fault(self, path: str, action: str, **options: Any) -> Fault:
        """Let requests whose path matches the pattern `path` go wrong; see `Fault`."""
        fault = Fault(path, action, **options)
        self.faults.append(fault)
        return fault

    def asked(self, path: str, *, method: str = "GET|HEAD|POST|PUT") -> list[Request]:
        """The requests so far whose path matches."""
        return [r for r in self.requests if re.fullmatch(method, r.method) and re.search(path, r.path)]

    def note(self, request: Request) -> Fault | None:
        """Record `request`; the fault that strikes it, if one does."""
        with self._lock:
            self.requests.append(request)
            return next((fault for fault in self.faults if fault.strikes(request.method, request.path)), None)

    def start(self) -> None:
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        """Stop listening for good, and cut the connections that are still open."""
        self.released.set()
        for server in self._servers:
            server.stop()

    # ---- the protocol ---------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """What the hub says to `request` when nothing goes wrong."""
        routes: list[tuple[str, Callable[..., Answer]]] = [
            (rf"/api/(datasets|models)/{NAME}/auth-check", self._auth_check),
            (rf"/api/(datasets|models)/{NAME}/refs", self._refs),
            (rf"/api/(datasets|models)/{NAME}/revision/([^/]+)", self._info),
            (rf"/api/(datasets|models)/{NAME}/tree/([^/]+)/?(.*)", self._tree),
            (rf"/api/(datasets|models)/{NAME}", self._info),
            (rf"/(?:(datasets)/)?{NAME}/resolve/([^/]+)/(.+)", self._resolve),
            (rf"/api/resolve-cache/(datasets|models)/{NAME}/([^/]+)/(.+)", self._small_file),
            (r"/_content/([0-9a-f]{64})", self._content),
            (r"/api/whoami-v2", self._whoami),
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate_card),
            (r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", self._preupload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/_upload/([0-9a-f]{64})", self._upload),
            (r"/([^/]+/[^/]+)\.git/info/lfs/verify", self._verify),
            (r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", self._add_commit),
        ]
        for pattern, route in routes:
            if match := re.fullmatch(pattern, request.path):
                try:
                    return route(request, *(unquote("models" if part is None else part) for part in match.groups()))
                except RefusedError as refused:
                    return refused.answer
        return Answer(404, b'{"error": "no such route"}')

    def _readable(self, request: Request, kind: str, name: str) -> Repository:
        token = request.token
        if token is not None and token not in self.tokens:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        repository, account = self.held(kind).get(name), self.accounts.get(token or "")
        is_member = account is not None and name.partition("/")[0] in (account.name, *account.organizations)
        if repository is None or (repository.private and token not in repository.readers and not is_member):
            # The hub hides what is private; only somebody who has logged in is told that nothing was found.
            raise RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _through_gate(self, request: Request, kind: str, name: str) -> Repository:
        repository = self._readable(request, kind, name)
        if repository.gated and request.token not in repository.readers:
            status = 403 if request.token else 401
            raise RefusedError(status, "GatedRepo", f"Access to {name} is restricted.")
        return repository

    def _commit(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = repository.sha(revision)
        if sha is None:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha, repository.commits[sha]

    def _auth_check(self, request: Request, kind: str, name: str) -> Answer:
        self._through_gate(request, kind, name)
        return _json({})

    def _refs(self, request: Request, kind: str, name: str) -> Answer:
        branches = self._readable(request, kind, name).branches
        refs = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in branches.items()]
        return _json({"branches": refs, "converts": [], "tags": []})

    def _info(self, request: Request, kind: str, name: str, revision: str = "main") -> Answer:
        repository = self._readable(request, kind, name)
        sha, files = self._commit(repository, revision)
        licence = repository.licence
        siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(files)]
        if "blobs" in request.query:
            siblings = [{"rfilename": path, **_blob(files[path])} for path in sorted(files)]
        return _json(
            {
                "id": name,
                "sha": sha,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "tags": [],
                "cardData": {"license": licence} if licence else {},
                "siblings": siblings,
            }
        )

    def _tree(self, request: Request, kind: str, name: str, revision: str, folder: str) -> Answer:
        _, files = self._commit(self._readable(request, kind, name), revision)
        recursive = request.query.get("recursive", ["false"])[0].lower() in ("1", "true")
        entries = _entries(files, folder.strip("/"), recursive=recursive)
        if folder and not entries:
            raise RefusedError(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        start = int(request.query.get("cursor", ["0"])[0])
        end = start + self.page_entries
        if end >= len(entries):
            return _json(entries[start:])
        following = f"{self.url}{quote(request.path, safe='/%')}?recursive={recursive}&cursor={end}"
        return _json(entries[start:end], Link=f'<{following}>; rel="next"')

    def _file(self, request: Request, kind: str, name: str, revision: str, path: str) -> tuple[str, bytes]:
        sha, files = self._commit(self._through_gate(request, kind, name), revision)
        if path not in files:
            raise RefusedError(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": sha})
        return sha, files[path]

    def _resolve(self, request: Request, kind: str, name: str, revision: str, path: str) -> Answer:
        """Large files live at the other origin. Small ones are a relative redirect away, which clients follow."""
        sha, data = self._file(request, kind, name, revision, path)
        if len(data) > LFS_BYTES:
            linked = {"X-Linked-Etag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": sha}
            return Answer(302, headers={**linked, "Location": f"{self.content_url}/_content/{_sha256(data)}"})
        location = f"/api/resolve-cache/{kind}/{name}/{sha}/{quote(path)}"
        return Answer(307, headers={"X-Repo-Commit": sha, "ETag": f'"{_blob_id(data)}"', "Location": location})

    def _small_file(self, request: Request, kind: str, name: str, revision: str, path: str) -> Answer:
        sha, data = self._file(request, kind, name, revision, path)
        return _ranged(request, data, {"X-Repo-Commit": sha}, etag=_blob_id(data))

    def _content(self, request: Request, digest: str) -> Answer:
        for repository in (*self.repositories.values(), *self.models.values()):
            for files in repository.commits.values():
                for data in files.values():
                    if _sha256(data) == digest:
                        return _ranged(request, data, {})
        raise RefusedError(404, "", "no such content")

    # ---- models: who may write, and how files come in -------------------------------------------

    def _account(self, request: Request) -> Account:
        if request.token not in self.accounts:
            raise RefusedError(401, "", "Invalid credentials in Authorization header")
        return self.accounts[request.token]

    def _check_writer(self, request: Request, model: str) -> None:
        account, namespace = self._account(request), model.partition("/")[0]
        if account.role != "write" or namespace not in (account.name, *account.organizations):
            raise RefusedError(403, "", f"You don't have the rights to create or change a model in {namespace}")

    def _whoami(self, request: Request) -> Answer:
        account = self._account(request)
        orgs = [{"type": "org", "name": name} for name in account.organizations]
        auth = {"type": "access_token", "accessToken": {"role": account.role}}
        return _json({"type": "user", "name": account.name, "orgs": orgs, "auth": auth})

    def _create(self, request: Request) -> Answer:
        asked = json.loads(request.body)
        model = f"{asked.get('organization') or self._account(request).name}/{asked['name']}"
        self._check_writer(request, model)
        if model in self.models:
            raise RefusedError(409, "", "You already created this model repo")
        self.models[model] = Repository(private=asked.get("visibility") == "private")
        self._commit_files(model, {".gitattributes": b"*.safetensors filter=lfs\n"})
        return _json({"url": f"{self.url}/{model}", "name": model})

    def _validate_card(self, request: Request) -> Answer:
        """Only what a test needs of the hub's rules: a licence is a word, and a card without any is warned of."""
        head = json.loads(request.body)["content"].split("---")[1]
        stated = re.search(r"^license: (.*)$", head, re.MULTILINE)
        if stated is None:
            return _json({"errors": [], "warnings": [{"message": "no license is stated"}]})
        if not re.fullmatch(r'"?[\w.-]+"?', stated[1]):
            fault = {"errors": [{"message": '"license" must be one of a list'}], "warnings": []}
            return Answer(400, json.dumps(fault).encode(), {"Content-Type": "application/json"})
        return _json({"errors": [], "warnings": []})

    def _preupload(self, request: Request, model: str, revision: str) -> Answer:
        self._check_writer(request, model)
        _, known = self._commit(self._readable(request, "models", model), revision)
        found = []
        for file in json.loads(request.body)["files"]:
            path, is_large = file["path"], file["size"] > LFS_BYTES or file["path"].endswith(".safetensors")
            oid = {} if path not in known else {"oid": _sha256(known[path]) if is_large else _blob_id(known[path])}
            found.append({"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, **oid})
        return _json({"files": found})

    def _batch(self, request: Request, model: str) -> Answer:
        self._check_writer(request, model)
        objects = []
        for wanted in json.loads(request.body)["objects"]:
            upload = {"href": f"{self.content_url}/_upload/{wanted['oid']}"}
            verify = {"href": f"{self.url}/{model}.git/info/lfs/verify"}
            there = wanted["oid"] in self.blobs
            objects.append({**wanted, **({} if there else {"actions": {"upload": upload, "verify": verify}})})
        return _json({"transfer": "basic", "objects": objects})

    def _upload(self, request: Request, digest: str) -> Answer:
        if request.method != "PUT" or _sha256(request.body) != digest:
            raise RefusedError(400, "", "not what was announced")
        self.blobs[digest] = request.body
        return Answer(200)

    def _verify(self, request: Request, model: str) -> Answer:
        self._check_writer(request, model)
        asked = json.loads(request.body)
        if len(self.blobs.get(asked["oid"], b"")) != asked["size"]:
            raise RefusedError(404, "", "no such object")
        return _json({})

    def _add_commit(self, request: Request, model: str, revision: str) -> Answer:
        self._check_writer(request, model)
        _, files = self._commit(self._readable(request, "models", model), revision)
        header, *operations = [json.loads(line) for line in request.body.splitlines()]
        assert header["key"] == "header"
        added = {}
        for operation in operations:
            value = operation["value"]
            is_large = operation["key"] == "lfsFile"
            added[value["path"]] = self.blobs[value["oid"]] if is_large else base64.b64decode(value["content"])
        sha = self._commit_files(model, {**files, **added})
        return _json({"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{model}/commit/{sha}"})

    def _commit_files(self, model: str, files: Mapping[str, bytes]) -> str:
        repository = self.models[model]
        number = len(repository.commits)
        sha = hashlib.sha1(f"{model} {number}".encode()).hexdigest()
        repository.commits[sha] = dict(files)
        repository.branches["main"] = sha
        return sha


def _entries(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(path for path in files if path.startswith(prefix)):
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            parent = prefix + "/".join(parts[:depth])
            entries[parent] = {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0}
        if recursive or len(parts) == 1:
            entries[path] = _entry(path, files[path])
    return list(entries.values())


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
    if len(data) > LFS_BYTES:
        entry["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
    return entry


def _blob(data: bytes) -> dict[str, Any]:
    lfs = {"lfs": {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}} if len(data) > LFS_BYTES else {}
    return {"size": len(data), "blobId": _blob_id(data), **lfs}


def _ranged(request: Request, data: bytes, headers: Mapping[str, str], etag: str | None = None) -> Answer:
    headers = {**headers, "ETag": f'"{etag or _sha256(data)}"', "Accept-Ranges": "bytes"}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    if match is None:
        return Answer(200, data, headers)
    start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
    if start > end:
        return Answer(416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    return Answer(206, data[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(data)}"})


def _json(value: object, **headers: str) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---- sockets ------------------------------------------------------------------------------------


class _Server(http.server.ThreadingHTTPServer):
    """Bound when made, listening from `start` to `stop`. Its threads are joined, none outlives `stop`."""

    daemon_threads = True

    def __init__(self, hub: FakeHub) -> None:
        super().__init__((HOST, 0), _Handler, bind_and_activate=False)
        self.hub = hub
        self._open: set[socket.socket] = set()
        self._workers: list[threading.Thread] = []
        self._thread: threading.Thread | None = None
        self.server_bind()

    def start(self) -> None:
        if self._thread is None:
            self.server_activate()
            self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self.shutdown()
            self._thread.join(_JOIN_SECONDS)
        self.cut()
        self.server_close()

    def cut(self) -> None:
        """Cut every open connection and wait for its thread."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for worker in self._workers:
            worker.join(_JOIN_SECONDS)
        self._workers.clear()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        worker = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self._workers.append(worker)
        worker.start()

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the game; anything else is a mistake in this file."""
        if not isinstance(sys.exception(), ConnectionError | ValueError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one write for headers and body
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        body = self._body()
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, _decoded(url.path), parse_qs(url.query), headers, body)
        fault = hub.note(request)
        if fault is None:
            self._send(hub.answer(request))
        elif fault.action == "status":
            self._send(Answer(fault.status, b'{"error": "ordered"}', fault.headers))
        elif fault.action in ("truncate", "end"):
            answer = hub.answer(request)
            self._send(answer, only=len(answer.body) // 2)
            self.close_connection = True
            if fault.action == "truncate":
                self._reset()
        elif fault.action == "stall":
            hub.released.wait(_JOIN_SECONDS)
            self._reset()
        else:
            self._reset()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (names of the base class)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: Answer, *, only: int | None = None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:only])
        self.wfile.flush()

    def _reset(self) -> None:
        """A reset instead of an orderly end, so that the client sees a failure at once."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


def _decoded(path: str) -> str:
    """`path` decoded except for `%2F`: a branch may have a slash in its name."""
    return "%2F".join(unquote(part) for part in re.split("%2F", path, flags=re.IGNORECASE))


# ---- the test session's hub ---------------------------------------------------------------------


def environment(hub: FakeHub, home: str) -> dict[str, str]:
    """The environment of a process that must talk to `hub` and to nothing else, and writes below `home` only."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "NO_PROXY": HOST,
        "no_proxy": HOST,
    }


_UNSET = (
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
    *("TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HUGGINGFACE_HUB_CACHE"),
)


def reserve() -> FakeHub:
    """Bind a hub and point this process at it. To be called once, before anything imports `huggingface_hub`."""
    imported = {"huggingface_hub", "datasets"} & sys.modules.keys()
    assert not imported, f"{imported} imported too early: they have read the real environment"
    hub = FakeHub()
    home = tempfile.mkdtemp(prefix="alm-hf-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    atexit.register(hub.stop)
    os.environ.update(environment(hub, home))
    for name in _UNSET:
        os.environ.pop(name, None)
    return hub


@contextlib.contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """`hub`, empty and listening. Afterwards the clients of this process have forgotten it and all is closed."""
    hub.forget()
    hub.start()
    try:
        yield hub
    finally:
        hub.released.set()
        if "huggingface_hub" in sys.modules:
            import huggingface_hub

            huggingface_hub.close_session()
            huggingface_hub.HfFileSystem.clear_instance_cache()
        for server in hub._servers:
            server.cut()
        hub.forget()
