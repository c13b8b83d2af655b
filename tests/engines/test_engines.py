"""Every engine does the same: each unit once, errors as they were, nothing begun after one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from alm import engines
from alm.engines import Engine
from alm.errors import EXIT_USAGE, AlmError, ConfigError
from alm.events import Event, Listener, Noted

ENGINES = [("serial", 1), ("processes", 2)]
SECONDS = 60


@pytest.fixture(params=ENGINES, ids=[name for name, _ in ENGINES])
def engine(request: pytest.FixtureRequest) -> Engine:
    kind, workers = request.param
    return engines.choose(kind, workers=workers)


def square(number: int, tell: Listener) -> int:
    tell(Noted(f"unit {number}"))
    return number * number


def fail_at(bad: int, folder: Path, number: int, tell: Listener) -> int:
    (folder / str(number)).touch()
    if number == bad:
        raise ConfigError(f"unit {number} is bad", hint="mend it")
    return number


def heavy_modules(_: int, tell: Listener) -> list[str]:
    return [name for name in ("torch", "datasets", "typer", "rich") if name in sys.modules]


def die(folder: Path, number: int, tell: Listener) -> int:
    """Dies the first time that unit 1 is done."""
    if number == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    return number


def test_each_unit_is_done_once_and_told(engine: Engine) -> None:
    events: list[Event] = []
    assert dict(engine.map(square, range(7), on_event=events.append)) == {n: n * n for n in range(7)}
    assert sorted(str(event) for event in events) == [str(Noted(f"unit {n}")) for n in range(7)]
    assert list(engine.map(square, [])) == []


def test_units_are_asked_for_as_they_are_needed(engine: Engine) -> None:
    asked = []

    def units() -> object:
        for number in range(100):
            asked.append(number)
            yield number

    results = engine.map(square, units())  # type: ignore[arg-type]
    next(results)
    assert len(asked) <= 5
    results.close()
    assert len(asked) <= 5


def test_an_error_arrives_as_it_was_and_nothing_is_begun_after_it(engine: Engine, tmp_path: Path) -> None:
    done = []
    with pytest.raises(ConfigError) as caught:
        done += list(engine.map(partial(fail_at, 3, tmp_path), range(100)))
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == ("unit 3 is bad", "mend it", EXIT_USAGE)
    # Those on their way; the others were not begun.
    assert {int(path.name) for path in tmp_path.iterdir()} <= set(range(50))


def test_a_bug_is_no_alm_error(engine: Engine) -> None:
    with pytest.raises(TypeError):
        list(engine.map(square, ["x"]))  # type: ignore[list-item]


def test_auto_is_serial_for_one_worker() -> None:
    assert type(engines.choose(workers=1)) is type(engines.choose("serial"))
    assert type(engines.choose(workers=2)) is type(engines.choose("processes", workers=2))


def test_workers_import_nothing_heavy() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from alm import engines\nfrom test_engines import heavy_modules\n"
        "if __name__ == '__main__':\n"
        "    print(dict(engines.choose('processes', workers=2).map(heavy_modules, range(2))))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert run.stdout.strip() in ("{0: [], 1: []}", "{1: [], 0: []}"), run.stderr


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(AlmError, match="worker process died") as caught:
        list(engines.choose("processes", workers=2).map(partial(die, tmp_path), range(4)))
    assert "--workers" in str(caught.value.hint)
    again = engines.choose("processes", workers=2)
    assert dict(again.map(partial(die, tmp_path), range(4))) == {n: n for n in range(4)}


ORPHANS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from alm import engines
from test_engines import linger

if __name__ == "__main__":
    list(engines.choose("processes", workers=2).map(linger, [{folder!r}] * 2))
"""


def linger(folder: str, tell: Listener) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(SECONDS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    program = ORPHANS.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", program])
    pids = _wait_for(lambda: [int(path.name) for path in tmp_path.iterdir()], 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(SECONDS)
    _wait_for(lambda: [pid for pid in pids if not _lives(pid)], 2)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for(look: object, count: int) -> list[int]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        found: list[int] = look()  # type: ignore[operator]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


RAY = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, {tests!r})
from alm import engines
from alm.errors import ConfigError
from test_engines import die, fail_at

if __name__ == "__main__":
    folder = Path({folder!r})
    engine = engines.choose("ray", workers=2)
    assert dict(engine.map(partial(die, folder), range(6))) == {{n: n for n in range(6)}}
    assert (folder / "died").exists()
    try:
        list(engine.map(partial(fail_at, 1, folder), range(4)))
    except ConfigError as error:
        assert (error.message, error.hint) == ("unit 1 is bad", "mend it")
        print("as it was")
"""


@pytest.mark.slow
def test_ray_runs_a_unit_again_whose_worker_was_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    tests = str(Path(__file__).parent)
    program = tmp_path / "program.py"
    program.write_text(RAY.format(tests=tests, folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": tests, "RAY_TMPDIR": "/tmp"}
    run = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=240, env=environment, check=False
    )
    assert run.stdout.strip().endswith("as it was"), run.stderr[-3000:]
