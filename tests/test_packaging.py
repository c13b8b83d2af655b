"""What surrounds the code: the line that sets up and tests, CI, the hooks, the wheel's table of contents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

SET_UP_AND_TEST = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/nox"
RUN_TIME = {
    *("torch", "typer", "pydantic", "pyyaml", "datasets", "huggingface_hub", "rich", "numpy", "numba"),
    *("safetensors", "gguf", "jinja2", "backports.zstd", "resiliparse", "webencodings"),
}
SESSIONS = {
    *("dev", "lint", "types", "tests", "tests_full", "llamacpp", "docs", "quickstart", "device", "build", "interop"),
    *("bench", "bench_model", "bench_generate", "crash", "hostile", "models"),
}


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))


@pytest.fixture(scope="module")
def workflow(repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / ".github/workflows/ci.yml").read_text("utf-8"))


def lines(path: Path) -> list[str]:
    return [line.strip().removeprefix("$ ") for line in path.read_text("utf-8").split("\n")]


@pytest.mark.parametrize("name", ["README.md", ".ci/run"])
def test_one_line_sets_up_and_tests(repository: Path, name: str) -> None:
    assert SET_UP_AND_TEST in lines(repository / name)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_ci_can_be_executed(repository: Path) -> None:
    assert os.access(repository / ".ci/run", os.X_OK)


@pytest.mark.skipif(os.name == "nt", reason="bash runs it")
@pytest.mark.parametrize(
    ("summaries", "expected"),
    [
        (["10 passed in 1.00s"], "10 passed, 0 failed, 0 skipped"),
        (["=== 7 passed, 2 skipped, 1 warning in 61.00s (0:01:01) ==="], "7 passed, 0 failed, 2 skipped"),
        (["1 failed, 9 passed, 2 errors in 1.00s", "3 passed in 0.10s"], "12 passed, 3 failed, 0 skipped"),
        ([], "0 passed, 0 failed, 0 skipped"),
    ],
)
def test_ci_closes_with_the_sum_of_all_summaries(
    repository: Path, tmp_path: Path, summaries: list[str], expected: str
) -> None:
    script = (repository / ".ci/run").read_text("utf-8")
    said = "; ".join(f"echo '{summary}'" for summary in [*summaries, "nox > took 9 passed hours"])
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/run").write_text(script.replace(SET_UP_AND_TEST, f"{said}; return 3"), encoding="utf-8")
    done = subprocess.run(["bash", str(tmp_path / ".ci/run")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, expected)


def test_run_time_dependencies_are_these(project: dict[str, Any]) -> None:
    names = {re.split(r"[<>=\[ ]", wanted, maxsplit=1)[0] for wanted in project["project"]["dependencies"]}
    assert names == RUN_TIME
    assert "torch>=2.10,<2.14" in project["project"]["dependencies"]


def test_the_name_of_the_package_and_of_the_command(project: dict[str, Any]) -> None:
    assert project["project"]["name"] == "a-lm"
    assert project["project"]["scripts"] == {"alm": "alm.cli.main:main"}


def test_the_wheel_has_the_presets_and_the_type_mark(project: dict[str, Any], repository: Path) -> None:
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["alm"], "force-include": {"configs": "alm/configs"}}
    assert (repository / "alm/py.typed").is_file()


def test_nox_has_the_sessions(repository: Path) -> None:
    command = [sys.executable, "-m", "nox", "--list"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^[*-] (\w+)", listed, re.MULTILINE)) == SESSIONS
    assert re.findall(r"^\* (\w+)", listed, re.MULTILINE) == [
        "lint",
        "types",
        "tests_full",
        "llamacpp",
        "build",
    ]


def test_three_hooks_and_nothing_to_download(repository: Path) -> None:
    config = yaml.safe_load((repository / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [source["repo"] for source in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert [(hook["id"], hook["language"]) for hook in hooks] == [
        ("ruff-check", "system"),
        ("ruff-format", "system"),
        ("mypy", "system"),
    ]


def test_ci_tests_every_python_that_is_declared(project: dict[str, Any], workflow: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: "
    declared = {c.removeprefix(prefix) for c in project["project"]["classifiers"] if c.startswith(prefix)}
    tested = {(each["os"], each["python"]) for each in workflow["jobs"]["tests"]["strategy"]["matrix"]["include"]}
    assert {python for system, python in tested if system == "ubuntu-latest"} == declared
    assert {system for system, _ in tested} == {"ubuntu-latest", "macos-14", "windows-latest"}


def test_ci_may_only_read_and_runs_sessions_that_exist(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    run = {name for step in steps if "nox -s" in step for name in step.split("#")[0].split()[2:]}
    assert run == {"lint", "types", "tests_full", "llamacpp", "build", "quickstart"}
    assert run <= SESSIONS
