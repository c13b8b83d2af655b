"""The collector is out of the way in the context, and as it was after it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from alm.training.loop import collector_paused


class Ring:
    """Holds itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _nothing_frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not even what tests/conftest.py freezes, and whose number it keeps."""
    monkeypatch.setattr(gc, "get_freeze_count", gc.get_freeze_count.__wrapped__)  # type: ignore[attr-defined]
    gc.unfreeze()
    yield
    gc.freeze()


def test_the_collector_rests_and_comes_back() -> None:
    def fail() -> None:
        with collector_paused():
            seen.extend([gc.isenabled(), gc.get_freeze_count() > 1000])
            raise KeyError

    seen: list[bool] = []
    with pytest.raises(KeyError):
        fail()
    assert seen == [False, True]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_garbage_of_the_loop_goes_when_it_collects() -> None:
    with collector_paused():
        ring = weakref.ref(Ring())
        for _ in range(20_000):  # many times what would wake the collector
            Ring()
        assert ring() is not None
        gc.collect()
        assert ring() is None


def test_a_collector_that_was_off_or_frozen_stays_so() -> None:
    gc.disable()
    gc.freeze()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.enable()
