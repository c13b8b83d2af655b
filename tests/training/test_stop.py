"""Asking a run to stop, and the durations of a time limit."""

from __future__ import annotations

import os
import re
import signal

import pytest
from cases import for_each

from alm.cli.options import seconds
from alm.distributed import World
from alm.errors import ConfigError, StoppedError, quoted
from alm.training.stop import StopReason, StopRequests

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR1")


@pytest.mark.parametrize(
    ("name", "reason", "code"),
    [
        ("SIGINT", StopReason.INTERRUPTED, 130),
        ("SIGTERM", StopReason.TERMINATED, 143),
        pytest.param("SIGUSR1", StopReason.ASKED, 75, marks=posix),
    ],
)
def test_a_signal_asks_once(name: str, reason: StopReason, code: int) -> None:
    asked: list[None] = []
    with StopRequests(on_request=lambda: asked.append(None)) as requests:
        assert requests.reason is None
        signal.raise_signal(getattr(signal, name))
        signal.raise_signal(signal.SIGTERM)
        assert len(asked) == 1
    assert reason.exit_code == code
    with StopRequests() as requests:
        signal.raise_signal(getattr(signal, name))
        assert requests.reason is reason


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_the_next_ctrl_c_stops_at_once(first: str) -> None:
    with StopRequests():
        signal.raise_signal(getattr(signal, first))
        with pytest.raises(StoppedError, match="at once"):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])  # torchrun passes the next Ctrl-C on as SIGTERM
def test_a_ctrl_c_that_reaches_a_rank_twice_is_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("alm.training.stop.time.monotonic", lambda: now)
    with StopRequests(World(size=2)) as requests:
        signal.raise_signal(signal.SIGINT)
        now += 1
        signal.raise_signal(signal.SIGINT)
        assert requests.reason is StopReason.INTERRUPTED
        now += 4
        with pytest.raises(StoppedError, match="at once"):
            signal.raise_signal(getattr(signal, name))


def test_a_deadline_is_a_reason_once_it_is_past(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("alm.training.stop.time.monotonic", lambda: now)
    with StopRequests(deadline=160.0) as requests:
        assert requests.reason is None
        now = 160.0
        assert requests.reason is StopReason.OUT_OF_TIME
        assert StopReason.OUT_OF_TIME.exit_code == 75
        signal.raise_signal(signal.SIGTERM)
        assert requests.reason is StopReason.TERMINATED
    assert StopRequests().reason is None


@for_each(
    "given, expected",
    [
        *[("90s", 90), ("55m", 3300), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800), ("1d1h1m1s", 90061)],
        *[("0h5m", 300), ("5min", 300), ("1h 30m", 5400), ("2 hours", 7200), ("1 hour, 5 minutes", 3900), ("5M", 300)],
        *[("5mn", 300), ("1 hour and 30 minutes", 5400), (".5h", 1800), ("1 week", 604800)],
        *[("5\u00a0min", 300), ("1\u202fh  30\tm", 5400)],
    ],
)
def test_a_duration_is_read(given: str, expected: float) -> None:
    assert seconds(given, flag="--time-limit") == expected


@for_each(
    "given, reason",
    [
        ("55", "has no unit"),
        ("1.5", "has no unit"),
        ("", "is not a duration"),
        ("0", "is not above zero"),
        ("0m", "is not above zero"),
        ("-5m", "is not a duration"),
        ("30m1h", "is not a duration"),
        ("1:30:00", "is not a duration"),
        ("5 months", "is not a duration"),
        ("9999999999h", "is longer than a hundred years"),
        ("5 m s", "is not a duration"),
        ("infm", "is not a duration"),
    ],
)
def test_what_is_no_duration_is_told(given: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"`--time-limit {re.escape(quoted(given))}` {reason}") as caught:
        seconds(given, flag="--time-limit")
    assert "--time-limit 55m" in str(caught.value.hint)
