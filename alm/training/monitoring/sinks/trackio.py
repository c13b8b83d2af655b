"""Kind `trackio`: Trackio, a tracker whose dashboard runs on your own machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from alm.config.base import Config as BaseConfig
from alm.errors import AlmError
from alm.files import is_full, read_json, write_json
from alm.training.monitoring.sinks._sink import LoggedRun, Opening, off_stdout

PACKAGE, INSTALL = "trackio", "trackio"
NAME = "trackio.json"
# Trackio sends its queue twice a second. Values that a killed process queued since then may be lost.
_ON_ITS_WAY_SECONDS = 1.0
_MOST_BYTES = 1 << 20


class Config(BaseConfig):
    """Sends rows, no samples, to Trackio: `trackio show` draws them."""

    kind: Literal["trackio"] = "trackio"
    project: str = Field(default="alm", min_length=1, description="The project that the run belongs to.")


def opened(config: Config, opening: Opening) -> Trackio:
    """Open the sink. Trackio finds runs by name only, so the name includes the run's id."""
    import trackio

    name = f"{opening.name}-{opening.id}"
    with off_stdout():
        run = trackio.init(project=config.project, name=name, config=opening.config, resume="allow")
    sent = Sent(opening.run / NAME, {"project": config.project, "run": name})
    return Trackio(run, sent, where=f"`trackio show --project {config.project}`")


class Trackio(LoggedRun):
    """A run at Trackio, which keeps all values of a step: values that it has are not sent again."""

    def __init__(self, run: Any, sent: Sent, *, where: str) -> None:  # Any: the package is optional
        super().__init__(run, where=where)
        self._sent = sent

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        new = {name: value for name, value in values.items() if self._sent.is_new(name, step)}
        if new:
            super().scalars(step, new)
            self._sent.add(new, step)

    def close(self) -> None:
        with off_stdout():
            super().close()
        self._sent.all_arrived()


class Sent:
    """The last step of each name that has surely arrived, in a file that outlives a killed process.

    It applies to `target` only: another project, or another run of this name, starts with nothing.
    """

    def __init__(self, path: Path, target: Mapping[str, str]) -> None:
        self._path, self._target = path, dict(target)
        self._arrived = self._read()
        self._on_their_way: deque[tuple[float, dict[str, int]]] = deque()

    def is_new(self, name: str, step: int) -> bool:
        """Whether the value of `name` at `step` may not have arrived."""
        return step > self._arrived.get(name, -1)

    def add(self, names: Mapping[str, object], step: int) -> None:
        """Record that the values of `names` at `step` have been sent."""
        now = time.monotonic()
        # Half as often as possible: each time writes a file.
        if self._on_their_way and self._on_their_way[0][0] <= now - 2 * _ON_ITS_WAY_SECONDS:
            self._note(until=now - _ON_ITS_WAY_SECONDS)
        self._on_their_way.append((now, dict.fromkeys(names, step)))

    def all_arrived(self) -> None:
        """Record that everything sent has arrived."""
        self._note(until=time.monotonic())

    def _note(self, *, until: float) -> None:
        while self._on_their_way and self._on_their_way[0][0] <= until:
            self._arrived |= self._on_their_way.popleft()[1]
        try:
            write_json(self._path, {**self._target, "steps": self._arrived})
        except AlmError as error:
            if not is_full(error):
                raise

    def _read(self) -> dict[str, int]:
        try:
            found = read_json(self._path, most=_MOST_BYTES)
        except AlmError:
            return {}
        if not isinstance(found, dict) or any(found.get(key) != value for key, value in self._target.items()):
            return {}
        steps = found.get("steps")
        if not isinstance(steps, dict) or any(type(step) is not int for step in steps.values()):
            return {}
        return steps
