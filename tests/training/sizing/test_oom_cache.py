"""What did not fit is remembered for the device, and for as long as no more memory is free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config

from alm.events import Event, Warned
from alm.training.config import RunConfig
from alm.training.sizing import oom_cache

CPU = torch.device("cpu")
FREE = 1000


@pytest.fixture(autouse=True)
def _free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom_cache, "available_bytes", lambda _: FREE)


def key(config: RunConfig, **changes: Any) -> str:
    return oom_cache.key(config, CPU, **{"seq_len": 16, "vocab_size": 300, **changes})


def capped(config: RunConfig, **changes: Any) -> tuple[tuple[int, int], list[Event]]:
    events: list[Event] = []
    found = oom_cache.limit_micro_batch(
        config, CPU, **{"seq_len": 16, "vocab_size": 300, **changes}, on_event=events.append
    ).training
    return (found.micro_batch_size, found.gradient_accumulation), events


def test_half_of_what_failed_is_taken_next_time_and_told() -> None:
    config = run_config(training__micro_batch_size=8, training__gradient_accumulation=3)
    assert capped(config) == ((8, 3), [])
    oom_cache.remember(key(config), failed=8, free_bytes=FREE)
    sizes, events = capped(config)
    assert sizes == (4, 6)
    (event,) = events
    assert isinstance(event, Warned)
    assert "micro-batches of 8 sequences did not fit here before" in event.message
    place = oom_cache.cache_folder() / oom_cache.NAME
    assert event.hint == f"`--set training.micro_batch_size=4` has the same effect; the limit is stored in {place}"
    assert capped(config, ranks=4)[0] == (3, 8)
    assert capped(run_config(training__micro_batch_size=16, training__gradient_accumulation=1))[0] == (4, 4)
    for smaller in (4, 6, 7):  # not known not to fit
        assert capped(run_config(training__micro_batch_size=smaller))[0] == (smaller, 2)


def test_a_limit_is_of_its_device_shape_and_length() -> None:
    config = run_config(training__micro_batch_size=8)
    oom_cache.remember(key(config), failed=8, free_bytes=FREE)
    assert capped(config, seq_len=32)[0] == (8, 2)
    assert capped(config, vocab_size=301)[0] == (8, 2)
    assert capped(run_config(training__micro_batch_size=8, model__n_layers=3))[0] == (8, 2)
    assert capped(run_config(training__micro_batch_size=8, model__vocab_size=300))[0] == (4, 4)


def test_with_clearly_more_memory_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(training__micro_batch_size=8)
    oom_cache.remember(key(config), failed=8, free_bytes=FREE)
    for free, sizes in ((FREE * 1.1, (4, 4)), (FREE * 1.3, (8, 2)), (None, (4, 4))):
        monkeypatch.setattr(oom_cache, "available_bytes", lambda _, free=free: free)
        assert capped(config)[0] == sizes


@pytest.mark.parametrize("text", ["", "[]", '{"KEY": 5}', '{"KEY": {"failed": "many"}}', "\xff"])
def test_a_damaged_file_is_no_limit_and_is_written_anew(text: str) -> None:
    config = run_config(training__micro_batch_size=8)
    path = oom_cache.cache_folder() / oom_cache.NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(text.replace("KEY", key(config)).encode("latin-1"))
    assert capped(config) == ((8, 2), [])
    oom_cache.remember(key(config), failed=8, free_bytes=None)
    assert json.loads(path.read_text())[key(config)] == {"failed": 8, "free_bytes": None}


def test_limits_of_other_runs_stay() -> None:
    oom_cache.remember("one", failed=8, free_bytes=1)
    oom_cache.remember("two", failed=2, free_bytes=None)
    oom_cache.remember("one", failed=4, free_bytes=3)
    assert json.loads((oom_cache.cache_folder() / oom_cache.NAME).read_text()) == {
        "one": {"failed": 4, "free_bytes": 3},
        "two": {"failed": 2, "free_bytes": None},
    }


def test_without_a_place_to_write_nothing_is_remembered() -> None:
    oom_cache.cache_folder().parent.mkdir(parents=True)
    oom_cache.cache_folder().write_text("a file where a folder should be")
    oom_cache.remember("one", failed=8, free_bytes=1)


def test_the_cache_folder_is_where_the_platform_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path.home()
    assert oom_cache.cache_folder({}, platform="linux") == home / ".cache" / "alm"
    assert oom_cache.cache_folder({"XDG_CACHE_HOME": "/c"}, platform="linux") == Path("/c/alm")
    assert oom_cache.cache_folder({}, platform="darwin") == home / "Library" / "Caches" / "alm"
    assert oom_cache.cache_folder({"LOCALAPPDATA": "/local"}, platform="win32") == Path("/local/alm")
