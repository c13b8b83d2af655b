"""`alm verify-resume`: it kills, it compares, and it notices."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import pytest
import torch
import yaml
from builders import run_config, write_packed

from alm.checkpoint.format import LAST_NAME, numbered
from alm.checkpoint.load import load_checkpoint, newest, verify
from alm.checkpoint.save import save_checkpoint
from alm.device import by_speedup
from alm.distributed import Place
from alm.doctor import faults
from alm.doctor import verify_resume as doctor
from alm.doctor.faults import killed
from alm.doctor.verify_resume import _finish, _Killer, example_config, side, verify_resume
from alm.errors import AlmError, ArtifactError, ConfigError
from alm.events import Event, Progressed, Warned
from alm.files import is_running
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain
from alm.training.run import ranks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("data"))[0]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    pretrain(run_config(), data=data, out=out)
    return out


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are copies of one process that has imported PyTorch."""
    monkeypatch.setattr(
        doctor, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": forked.run, "Popen": forked.Popen})
    )


POSIX = pytest.mark.skipif(os.name == "nt", reason="without fork each run imports PyTorch")


@pytest.mark.slow
@POSIX
@pytest.mark.timeout(1200)  # where others use the machine too
@pytest.mark.usefixtures("copies")
def test_a_killed_run_ends_in_the_bits_of_the_undisturbed_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_SHARES", {"training": 1, "writing": 1})
    events: list[Event] = []
    found = verify_resume(tmp_path, kills=2, seed=0, data=data, device_name="cpu", on_event=events.append)
    assert found.is_equal
    assert sum(found.kills.values()) == 2
    assert found.damaged
    assert found.undisturbed.step == 24
    assert [event.done for event in events if isinstance(event, Progressed)] == [1, 2]
    assert side(tmp_path / "killed") == side(tmp_path / "undisturbed")
    assert "falling back" in (tmp_path / "killed.log").read_text()


def test_both_runs_are_given_what_was_measured_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where bf16 is about as fast as fp32, two runs that each measure it may choose differently, with nothing lost."""
    speedups = iter([2.0, 1.0])
    monkeypatch.setattr("alm.device._cpu_has_bf16", lambda: True)
    monkeypatch.setattr(
        "alm.training.sizing.autotune.faster_precision", lambda *_, **__: by_speedup(next(speedups), "a step")
    )
    commands: list[list[str]] = []

    def finish(command: list[str], log: Path) -> None:
        commands.append(command)
        raise AlmError("that is enough")

    monkeypatch.setattr(doctor, "_finish", finish)
    with pytest.raises(AlmError, match="enough"):
        verify_resume(tmp_path, kills=1, seed=0, data=data, device_name="cpu")
    assert commands[0][commands[0].index("--train") + 1] == str(tmp_path / "config.yaml")
    training = yaml.safe_load((tmp_path / "config.yaml").read_text())["training"]
    assert (training["precision"], training["compile"]) == ("bf16", False)
    assert next(speedups) == 1.0


def moved(run: Path, change: Callable[[Any], None]) -> None:
    """The last checkpoint of `run` with something changed, as whole as before."""
    found = load_checkpoint(run / LAST_NAME)
    change(found)
    save_checkpoint(found, run)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("weights", lambda c: c.model["model.norm.weight"].view(-1)[3:4].view(torch.int32).bitwise_xor_(1)),
        ("optimizer", lambda c: c.optimizer["state"][0]["exp_avg_sq"].view(-1)[:1].view(torch.int32).bitwise_xor_(1)),
        ("optimizer", lambda c: c.optimizer["state"][0]["step"].add_(1)),
    ],
)
def test_one_bit_is_noticed(finished: Path, tmp_path: Path, what: str, change: Callable[[Any], None]) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    moved(run, change)
    before, after = side(finished), side(run)
    assert [name for name in vars(before) if vars(before)[name] != vars(after)[name]] == [what]


def test_another_curve_is_noticed_and_another_clock_is_not(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    rows = metrics.read(run)
    rows[0]["step_seconds"] = 99.0
    (run / metrics.NAME).write_text(metrics.as_text(rows))
    assert side(run) == side(finished)
    rows[0]["loss"] += 1e-9
    (run / metrics.NAME).write_text(metrics.as_text(rows))
    assert replace(side(run), metrics="") == replace(side(finished), metrics="")
    assert side(run) != side(finished)


@pytest.mark.parametrize("kind", faults.KINDS, ids=lambda kind: kind.__name__)
def test_each_damage_is_one_that_resuming_must_notice(
    finished: Path, tmp_path: Path, kind: Callable[[Path, random.Random], None]
) -> None:
    for seed in range(5):
        run = Path(shutil.copytree(finished, tmp_path / str(seed)))
        kind(run / "ckpt-step000012.pt", random.Random(seed))
        with pytest.raises(ArtifactError):
            verify(run / "ckpt-step000012.pt")
        events: list[Event] = []
        found = newest(run, on_event=events.append)
        assert found is not None
        assert found.step == 8
        assert len([event for event in events if isinstance(event, Warned)]) == 1


def test_a_run_that_fails_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = "import sys; print('first', file=sys.stderr); print('Error: no data', file=sys.stderr); sys.exit(3)"
    with pytest.raises(AlmError, match="ended with code 3: Error: no data") as caught:
        _finish([sys.executable, "-c", program], tmp_path / "log")
    assert caught.value.hint == f"run `cat {tmp_path / 'log'}`"


@pytest.mark.parametrize(("code", "message"), [(0, "ended before it could be killed"), (2, "ended with code 2")])
@pytest.mark.skipif(os.name == "nt", reason="a killed process has a positive exit code there")
def test_a_run_that_ends_before_it_is_killed_is_told(tmp_path: Path, code: int, message: str) -> None:
    killer = _Killer([sys.executable, "-c", f"import sys; sys.exit({code})"], tmp_path / "run", 24, random.Random(0))
    with pytest.raises(AlmError, match=message):
        killer._once("training", 5.0)


RANKS = """
import subprocess, sys
ranks = [subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) for _ in "ab"]
with open(sys.argv[1], "a") as file:
    print(*[rank.pid for rank in ranks], file=file, flush=True)
while all(rank.poll() is None for rank in ranks):
    try:
        ranks[0].wait(0.01)
    except subprocess.TimeoutExpired:
        pass
print("a rank has ended", flush=True)
for rank in ranks:
    rank.kill()
    rank.wait()
sys.exit(1)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows is not asked for ranks")
def test_one_rank_is_killed_or_all(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A starter of ranks stands for torchrun: it ends them when one has ended."""
    run_, started = Path(shutil.copytree(finished, tmp_path / "run")), tmp_path / "started"
    killer = _Killer([sys.executable, "-c", RANKS, str(started)], run_, 24, random.Random(0), ranks=2)

    def wait(self: object, child: object, *_: object) -> None:
        while len(started.read_text().splitlines() if started.exists() else []) <= sum(killer.kills.values()):
            pass

    monkeypatch.setattr(_Killer, "_wait", wait)
    for share, expected in ((1.0, (1, 1)), (0.0, (1, 1)), (1.0, (2, 2))):
        monkeypatch.setattr(doctor, "_ONE_RANK_SHARE", share)
        killer._once("training", 0.0)
        assert (killer.of_one_rank, killer.log.read_text().count("a rank has ended")) == expected
    assert killer.kills["training"] == 3
    ids = [int(word) for word in started.read_text().split()]
    left = [rank for rank in ids if is_running(rank)]
    for rank in left:
        killed(rank)
    assert (len(ids), left) == (6, [])


def test_ranks_share_the_micro_batches_of_the_example(data: Path) -> None:
    for size in (1, 2, 3, 5):
        ranks.check(example_config(data, max_steps=24, ranks=size), Place(size=size))


@pytest.mark.slow
@POSIX
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("copies")
def test_killed_ranks_end_in_the_bits_of_undisturbed_ones(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_SHARES", {"training": 1})
    found = verify_resume(tmp_path, kills=1, seed=0, data=data, device_name="cpu", ranks=2)
    assert found.is_equal
    assert (found.ranks, sum(found.kills.values())) == (2, 1)
    assert len(load_checkpoint(tmp_path / "killed" / LAST_NAME).rng) == 2


def test_windows_is_not_asked_for_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "win32")
    with pytest.raises(ConfigError, match="which processes are ranks"):
        verify_resume(tmp_path, kills=1, seed=0, ranks=2)


def test_numbered_checkpoints_are_what_is_damaged(finished: Path, tmp_path: Path) -> None:
    run_ = Path(shutil.copytree(finished, tmp_path / "run"))
    killer = _Killer([], run_, 24, random.Random(0))
    for _ in range(5):
        killer._damage()
    assert killer.damaged == {kind.__name__: 1 for kind in faults.KINDS}
    assert len(numbered(run_)) == 2  # one has lost its metadata
