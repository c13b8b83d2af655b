"""What every test stands on: no network, no home, nothing left behind."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fakehub
import pytest

FREE_BYTES = 8 * 10**9  # of every device, in every test that does not say otherwise
_HUB = fakehub.reserve()  # now: HF_ENDPOINT and HF_HOME are read when `huggingface_hub` is imported


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast-bf16` runs the tests as on a CPU that is fast in bf16."""
    parser.addoption("--fast-bf16", action="store_true", help="precision `auto` is bf16; without, it is fp32")


def pytest_configure(config: pytest.Config) -> None:
    """Compiled kernels are kept from one run of the tests to the next, for the processes that tests start too.

    Nothing is forced to the disk, which takes milliseconds each time: a kill leaves what was written, and of a power
    cut the order of the calls decides (tests/crash/durable.py).
    """
    os.fsync = lambda _: None
    os.environ["NUMBA_CACHE_DIR"] = str(config.cache.mkdir("kernels"))  # type: ignore[union-attr] # never switched off


@pytest.hookimpl(tryfirst=True)  # before pytest looks at `-m`
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow all but n cases of a test marked `sampled(n)`: the last stays, and others at even distances.

    Slow tests come first, so that no worker waits at the end for a long one of another.
    """
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        if (mark := item.get_closest_marker("sampled")) is not None:
            cases.setdefault((item.nodeid.partition("[")[0], mark.args[0]), []).append(item)
    for (_, number), found in cases.items():
        chosen = {round(len(found) * (index + 1) / number) - 1 for index in range(number)}
        for index, item in enumerate(found):
            if index not in chosen:
                item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """A run of training collects garbage often: what was imported is none, and looking through it takes 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.get_freeze_count = functools.cache(gc.get_freeze_count)  # each run asks, and counting takes 50 ms


@pytest.fixture
def hub() -> Iterator[fakehub.FakeHub]:
    """An empty hub on loopback."""
    with fakehub.serving(_HUB) as serving:
        yield serving


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names for homes: pytest looks through all folders that it has made for the next number."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _no_home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = next(_homes)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    for name in ("FORCE_COLOR", "ALM_DEBUG", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _same_machine(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the flags and the speed of this CPU nor what other programs leave of its memory decide a test."""
    if (device := sys.modules.get("alm.device")) is None:  # in tests of text alone, which need no PyTorch
        return
    from alm.training.run import resolve
    from alm.training.sizing import memory, oom_cache

    is_fast = bool(pytestconfig.getoption("--fast-bf16"))
    seconds = {"fp32": 0.2, "bf16": 0.1 if is_fast else 0.4}
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: is_fast)
    monkeypatch.setattr(device, "_bf16_speedup", lambda _: seconds["fp32"] / seconds["bf16"])
    measured = device.by_speedup(seconds["fp32"] / seconds["bf16"], "a step of this model")
    monkeypatch.setattr("alm.training.sizing.autotune.faster_precision", lambda *_, **__: measured)
    for module in (memory, resolve, oom_cache):
        monkeypatch.setattr(module, "available_bytes", lambda _: FREE_BYTES)


@pytest.fixture(autouse=True)
def _one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find one processor: to start workers takes seconds, many times what the small texts of tests take."""
    if (available := sys.modules.get("alm.available")) is not None:
        monkeypatch.setattr(available, "usable_processors", lambda **_: 1)


@pytest.fixture(autouse=True)
def _small_texts_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """That an earlier test has loaded kernels does not make the tokenizer use, and perhaps compile, others of them."""
    if (compiled := sys.modules.get("alm.tokenizers.compiled")) is not None:
        monkeypatch.setitem(compiled._state, "loaded", False)


@pytest.fixture
def few_files() -> Iterator[Callable[[int], None]]:
    """`few_files(n)`: from then on a test can open n more files than are open. Not on Windows."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(number: int) -> None:
        with Path(__file__).open() as next_one:
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_one.fileno() + number, limits[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parent.parent
