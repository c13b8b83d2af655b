"""What a run needs around it: each check passes where it is there, and names cause and cure where it is not."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from cases import for_each
from checked import fails, notes, passes

from alm.doctor import environment
from alm.tokenizers import compiled

GB = 10**9


def installed(**versions: str) -> environment.Installed:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    return version


WANTED = ["python>=3.11", "torch<2.14,>=2.10", "numpy>=2.0", "ray>=2.50; extra == 'cluster'", "x; python_version<'3'"]


@pytest.mark.parametrize("torch_version", ["2.10.0", "2.13.0+cpu", "2.13.1a0+git1234"])
def test_libraries_of_the_right_versions_pass(torch_version: str) -> None:
    check = environment.libraries(WANTED, installed(torch=torch_version, numpy="2.4.1"))
    passes(check)
    assert f"torch {torch_version}" in check.measured


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"torch": "2.9.1", "numpy": "2.4.1"}, ("torch is 2.9.1", "pip install 'torch<2.14,>=2.10'")),
        ({"torch": "2.14.0", "numpy": "1.26"}, ("torch is 2.14.0", "numpy is 1.26", "'numpy>=2.0'")),
        ({"torch": "2.13.0"}, ("numpy is not installed", "pip install 'numpy>=2.0'")),
    ],
)
def test_another_version_fails_with_the_command_that_mends_it(versions: dict[str, str], words: tuple[str, ...]) -> None:
    fails(environment.libraries(WANTED, installed(**versions)), *words)


def test_an_old_python_fails() -> None:
    fails(environment.libraries(["python>=9.1"], installed(numpy="2.4.1")), "python is 3", "-m venv")


def test_without_an_installed_package_nothing_is_known() -> None:
    assert environment.libraries(None).outcome == "skipped"


def test_this_installation_is_what_the_package_asks_for() -> None:
    wanted = environment.requirements()
    assert wanted is not None
    assert any(one.startswith("torch") for one in wanted)
    passes(environment.libraries(wanted))


def test_a_full_disk_fails_a_small_one_is_noted_and_a_large_one_passes(tmp_path: Path) -> None:
    passes(environment.disk(tmp_path, 2 * GB))
    notes(environment.disk(tmp_path, GB), "3 checkpoints of ", f"df -h {tmp_path}", "training.keep_last=1")
    fails(environment.disk(tmp_path, GB // 1000), "1.0 MB free", f"df -h {tmp_path}")


def test_little_memory_fails_some_is_noted_and_much_passes() -> None:
    passes(environment.memory(20 * GB, "cpu"))
    notes(environment.memory(GB, "cpu"), "training `pico`", "training.micro_batch_size=2")
    fails(environment.memory(GB // 100, "cpu"), "10.0 MB free on cpu", "end other programs")
    assert environment.memory(None, "mps").outcome == "skipped"


def test_a_folder_for_compiled_code_that_cannot_be_written_fails(tmp_path: Path) -> None:
    passes(environment.kernel_folder(tmp_path, has_numba=True))
    fails(environment.kernel_folder(None, has_numba=True), "compiles it again", "export NUMBA_CACHE_DIR=")
    assert environment.kernel_folder(None, has_numba=False).outcome == "skipped"


def test_the_folder_that_the_tokenizer_uses_is_the_one_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "a-file"))
    compiled.folder.cache_clear()
    try:
        fails(environment.found_kernel_folder(), "NUMBA_CACHE_DIR")
    finally:
        compiled.folder.cache_clear()


@for_each("used, processors", [(1, 1), (1, 2), (2, 2), (4, 8), (8, 8)])
def test_threads_for_each_core_or_processor_pass(used: int, processors: int) -> None:
    passes(environment.threads(used, processors))


def test_more_threads_than_processors_fail_and_few_are_noted() -> None:
    fails(environment.threads(8, 2), "wait for each other", "export OMP_NUM_THREADS=2")
    notes(environment.threads(1, 8), "not used", "export OMP_NUM_THREADS=8")
