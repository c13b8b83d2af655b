"""What sinks get, that they get it once, and that nothing of theirs can hurt a run."""

from __future__ import annotations

import errno
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import FakeTime, run_config, write_packed

from alm.checkpoint.load import load_checkpoint
from alm.errors import ConfigError
from alm.events import Event, Noted, Warned
from alm.files import wrap_os_errors
from alm.training.monitoring import metrics, samples, trackers
from alm.training.monitoring.metrics import without_clock
from alm.training.monitoring.sinks import trackio
from alm.training.monitoring.sinks._sink import Opening, named
from alm.training.pretrain import pretrain

# What wandb 0.31 and trackio 0.43 have and are asked for, so that a call they would refuse is refused here too.
WANDB = """
import json, os
CALLS = os.environ["CALLS"]
class Settings:
    def __init__(self, *, console, silent): pass
class Table:
    def __init__(self, columns=None, data=None):
        assert all(len(row) == len(columns) for row in data)
        self.rows = data
class Run:
    offline = True
    url = None
    def __init__(self, dir): self.dir = dir + "/wandb/offline-run/files"
    def log(self, data, step=None):
        if step >= int(os.environ.get("FAIL_AT", 99)): raise ConnectionError("the network\\n is gone")
        say("log", step, {k: v.rows if isinstance(v, Table) else v for k, v in data.items()})
    def finish(self, exit_code=None): say("finish", None, None)
def init(entity=None, project=None, dir=None, id=None, name=None, config=None, allow_val_change=None, resume=None,
         settings=None):
    if os.environ.get("NO_LOGIN"): raise RuntimeError("api_key not configured (no-tty)")
    seed = config["training"]["seed"]
    say("init", None, {"project": project, "id": id, "name": name, "resume": resume, "seed": seed})
    return Run(dir)
def say(*call):
    with open(CALLS, "a") as file: file.write(json.dumps(call) + "\\n")
"""
TRACKIO = """
import json, os
class Run:
    def log(self, metrics, step=None): say("log", step, metrics)
    def finish(self):
        print("* Run finished")
        say("finish", None, None)
def init(project, name=None, config=None, resume="never"):
    print("* Trackio project initialized")
    say("init", None, {"project": project, "name": name, "resume": resume})
    return Run()
def say(*call):
    with open(os.environ["CALLS"], "a") as file: file.write(json.dumps(call) + "\\n")
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("packed"))[0]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand-ins for wandb and trackio, which write their calls to this file."""
    for name, source in (("wandb", WANDB), ("trackio", TRACKIO)):
        (tmp_path / "fakes" / name).mkdir(parents=True)
        (tmp_path / "fakes" / name / "__init__.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "fakes"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls.jsonl"))
    yield tmp_path / "calls.jsonl"
    for name in ("wandb", "trackio"):
        sys.modules.pop(name, None)


def trained(packed: Path, out: Path, *sinks: Any, **changes: Any) -> list[Event]:
    events: list[Event] = []
    resume = changes.pop("resume", "auto")
    config = run_config(logging__sinks=list(sinks), **changes)
    pretrain(config, data=packed, out=out, resume=resume, device_name="cpu", on_event=events.append)
    return events


def told(calls: Path) -> list[Any]:
    return [json.loads(line) for line in calls.read_text().splitlines()]


def expected(run: Path) -> dict[tuple[str, int], float]:
    """Every number of the run's own record, by name and step."""
    return {(name, row["step"]): value for row in metrics.read(run) for name, value in named(row).items()}


def board(run: Path) -> tuple[dict[tuple[str, int], float], int, dict[int, bytes]]:
    """The numbers that TensorBoard shows, how many of them there are, and the texts of the first prompt."""
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator

    found = EventAccumulator(str(run / "tensorboard"), size_guidance={TENSORS: 0})
    found.Reload()
    tags = found.Tags()
    scalars = [(tag, event.step, event.value) for tag in tags["scalars"] for event in found.Scalars(tag)]
    texts = {e.step: e.tensor_proto.string_val[0] for e in found.Tensors("samples/0/text_summary")}
    return {(tag, step): value for tag, step, value in scalars}, len(scalars), texts


def same(shown: Mapping[tuple[str, int], float], run: Path) -> bool:
    """TensorBoard keeps single precision."""
    wanted = expected(run)
    return shown.keys() == wanted.keys() and all(shown[key] == pytest.approx(wanted[key], rel=1e-6) for key in wanted)


@pytest.mark.slow
def test_tensorboard_shows_each_step_once_though_it_was_made_twice(packed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    events = trained(packed, run, "tensorboard")
    assert any(isinstance(event, Noted) and "tensorboard --logdir" in event.message for event in events)
    shown, _, texts = board(run)
    assert same(shown, run)
    first = next(row for row in samples_of(run) if row["prompt"] == "")
    assert texts[first["step"]].decode() == "".join(f"    {line}\n" for line in first["text"].split("\n"))
    trained(packed, run, "tensorboard", resume=run / "ckpt-step000004.pt")
    shown, number, _ = board(run)
    assert number == len(shown)
    assert same(shown, run)


def samples_of(run: Path) -> list[dict[str, Any]]:
    return metrics.read(run, name=samples.NAME)


def test_a_sink_that_comes_later_gets_what_was_before(packed: Path, tmp_path: Path) -> None:
    trained(packed, tmp_path / "run", training__max_steps=8)
    trained(packed, tmp_path / "run", "tensorboard")
    shown, number, _ = board(tmp_path / "run")
    assert same(shown, tmp_path / "run")
    assert number == len(shown)


@pytest.mark.slow
def test_a_run_is_the_same_bits_with_sinks(packed: Path, tmp_path: Path, calls: Path) -> None:
    trained(packed, tmp_path / "plain")
    trained(packed, tmp_path / "shown", "tensorboard", "wandb")
    rows = [without_clock(metrics.read(tmp_path / name)) for name in ("plain", "shown")]
    assert rows[0] == rows[1]
    models = [load_checkpoint(tmp_path / name / "ckpt-last.pt", device="cpu").model for name in ("plain", "shown")]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_wandb_gets_every_row_and_goes_on_as_the_same_run(packed: Path, tmp_path: Path, calls: Path) -> None:
    run = tmp_path / "run"
    trained(packed, run, {"kind": "wandb", "project": "tales"}, training__max_steps=8)
    known = json.loads((run / "sinks.json").read_text())["id"]
    first = told(calls)
    assert first[0] == ["init", None, {"project": "tales", "id": known, "name": "run", "resume": "allow", "seed": 1337}]
    assert first[-1] == ["finish", None, None]
    trained(packed, run, {"kind": "wandb", "project": "tales"})
    again = told(calls)[len(first) :]
    assert again[0] == first[0]
    logged = [call for call in [*first, *again] if call[0] == "log"]
    numbers = {(name, step): value for _, step, values in logged for name, value in values.items() if name != "samples"}
    assert numbers == expected(run)
    assert [step for _, step, _ in logged] == sorted(step for _, step, _ in logged)
    tables = {step: values["samples"] for _, step, values in logged if "samples" in values}
    for step, table in tables.items():
        assert table == [[row["prompt"], row["text"]] for row in samples_of(run) if row["step"] == step]
    assert tables.keys() == {row["step"] for row in samples_of(run)}


def test_trackio_gets_every_row_and_leaves_stdout_alone(
    packed: Path, tmp_path: Path, calls: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    trained(packed, run, "trackio")
    begun, *logged, finished = told(calls)
    known = json.loads((run / "sinks.json").read_text())["id"]
    assert begun == ["init", None, {"project": "alm", "name": f"run-{known}", "resume": "allow"}]
    assert {(name, step): value for _, step, values in logged for name, value in values.items()} == expected(run)
    assert finished == ["finish", None, None]
    out, err = capsys.readouterr()
    assert out == ""
    assert "* Trackio project initialized" in err


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(trackio, "time", fake)
    return fake


class Showing:
    """Trackio as processes show rows to it, each of which may be killed."""

    def __init__(self, run: Path, calls: Path, clock: FakeTime) -> None:
        run.mkdir()
        self._run, self._calls, self._clock = run, calls, clock

    def process(self, steps: Mapping[int, Mapping[str, float]], *, apart: float, project: str = "alm", id_: str = "1",
                is_killed: bool = True) -> list[tuple[int, list[str]]]:  # fmt: skip
        """Rows that are seconds `apart`, and what of them is sent."""
        before = len(told(self._calls)) if self._calls.exists() else 0
        sink = trackio.opened(trackio.Config(project=project), Opening(self._run, id_, {}, 0, []))
        for step, values in steps.items():
            sink.scalars(step, values)
            self._clock.now += apart
        if not is_killed:
            sink.close()
        return [(step, sorted(values)) for call, step, values in told(self._calls)[before:] if call == "log"]


@pytest.fixture
def showing(tmp_path: Path, calls: Path, clock: FakeTime) -> Showing:
    return Showing(tmp_path / "shown", calls, clock)


def losses(*steps: int) -> dict[int, dict[str, float]]:
    return {step: {"loss": 1.0 / step} for step in steps}


def test_trackio_gets_what_a_killed_process_sent_only_once(showing: Showing) -> None:
    assert showing.process(losses(2, 4, 6, 8), apart=10.0) == [(step, ["loss"]) for step in (2, 4, 6, 8)]
    # That 6 was scored is new. Of 8, the last one, nobody knows whether it arrived.
    again = showing.process({4: {"loss": 0.2}, 6: {"loss": 0.1, "score": 0.3}, **losses(8, 10)}, apart=10.0)
    assert again == [(6, ["score"]), (8, ["loss"]), (10, ["loss"])]
    assert showing.process(losses(8, 10, 12), apart=10.0, is_killed=False) == [(10, ["loss"]), (12, ["loss"])]
    assert showing.process(losses(10, 12, 14), apart=10.0) == [(14, ["loss"])]


@pytest.mark.parametrize("number", range(20, 36))
def test_trackio_gets_again_what_may_have_been_on_its_way(showing: Showing, number: int) -> None:
    """Whenever it is killed: the rows of its last second, four of them, and not those of more than three."""
    rows = losses(*range(1, number + 1))
    showing.process(rows, apart=0.25)
    again = [step for step, _ in showing.process(rows, apart=0.0)]
    assert again == list(range(again[0], number + 1))
    assert 4 <= len(again) <= 12


def test_trackio_gets_all_where_it_has_nothing_of_the_run(tmp_path: Path, showing: Showing) -> None:
    rows, every = losses(2, 4), [(2, ["loss"]), (4, ["loss"])]
    assert showing.process(rows, apart=10.0, is_killed=False) == every
    assert showing.process(rows, apart=10.0, is_killed=False) == []
    assert showing.process(rows, apart=10.0, is_killed=False, project="other") == every
    assert showing.process(rows, apart=10.0, is_killed=False, project="other", id_="2") == every
    for damaged in ("", "[]", "null", "{}", '{"project": "other", "run": "shown-2", "steps": [1]}'):
        (tmp_path / "shown" / trackio.NAME).write_text(damaged)
        assert showing.process(rows, apart=10.0, is_killed=False, project="other", id_="2") == every


def test_a_full_disk_does_not_end_trackio(showing: Showing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, value: object) -> None:
        with wrap_os_errors(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trackio, "write_json", refuse)
    rows = losses(2, 4, 6)
    assert len(showing.process(rows, apart=10.0, is_killed=False)) == 3
    assert len(showing.process(rows, apart=10.0)) == 3


@pytest.mark.slow
def test_trackio_gets_each_number_once_though_steps_were_made_twice(packed: Path, tmp_path: Path, calls: Path) -> None:
    run = tmp_path / "run"
    trained(packed, run, "trackio")
    trained(packed, run, "trackio", resume=run / "ckpt-step000004.pt")
    logged = [(name, step) for call, step, values in told(calls) if call == "log" for name in values]
    assert len(logged) == len(set(logged))
    assert set(logged) == expected(run).keys()


def test_a_sink_that_fails_is_warned_of_once_and_the_run_goes_on(
    packed: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_AT", "4")
    events = trained(packed, tmp_path / "run", "wandb", "trackio")
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert warning.message == "the sink `wandb` failed and is disabled: ConnectionError: the network is gone"
    assert "metrics.jsonl" in str(warning.hint)
    assert metrics.read(tmp_path / "run")[-1]["step"] == 12
    assert max(call[1] for call in told(calls) if call[0] == "log") == 12  # of the other one


def test_a_package_that_is_missing_is_told_before_anything_is_written(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for kind, command in (("tensorboard", "pip install 'a-lm[tensorboard]'"), ("wandb", "pip install wandb")):
        with pytest.raises(ConfigError, match=f"sink `{kind}` needs the package {kind}") as caught:
            trained(packed, tmp_path / "run", kind)
        assert caught.value.hint == f"run `{command}`"
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_sink_that_cannot_be_opened_ends_the_command(
    packed: Path, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_LOGIN", "1")
    with pytest.raises(ConfigError, match="cannot be opened: RuntimeError: api_key not configured") as caught:
        trained(packed, tmp_path / "run", "trackio", "wandb")
    assert "logging.sinks=[]" in str(caught.value.hint)
    assert told(calls)[-1] == ["finish", None, None]  # the one that was open is closed


def test_a_sink_that_hangs_does_not_keep_the_run(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alm.training.monitoring.sinks import tensorboard

    released = threading.Event()

    class Hanging:
        where = "nowhere"

        def scalars(self, step: int, values: Mapping[str, float]) -> None:
            released.wait()

        samples = close = lambda self, *_: None

    monkeypatch.setattr(tensorboard, "opened", lambda config, opening: Hanging())
    monkeypatch.setattr(trackers, "_CLOSING_SECONDS", 0.01)
    try:
        events = trained(packed, tmp_path / "run", "tensorboard")
    finally:
        released.set()
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert "is not done after" in warning.message
    assert metrics.read(tmp_path / "run")[-1]["step"] == 12
