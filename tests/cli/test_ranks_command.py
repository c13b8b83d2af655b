"""`alm pretrain` as one of several ranks, and `--nproc`, which starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import SMALL

from alm import artifacts
from alm.artifacts import RunMetadata
from alm.cli import ui
from alm.distributed import Place
from alm.errors import EchoedError
from alm.events import Warned

SHARED = [*SMALL, "--set", "training.gradient_accumulation=2", "--device", "cpu"]


class Launch:
    """Stands for torchrun: keeps what it was given, and ends as told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.words: list[str] = []
        self.ranks = 0
        self.signals = ""
        self.patience = 0
        self.told: str | None = None

    def __call__(self, plan: Any, program: str) -> Any:
        assert program == sys.executable
        self.ranks, self.signals = plan.nproc_per_node, plan.signals_to_handle
        self.patience = plan.shutdown_timeout

        def run(*words: str) -> None:
            self.words = list(words)
            self.told = os.environ.get("ALM_STARTED")
            if self.error is not None:
                raise self.error

        return run


def launched(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> Launch:
    launch = Launch(error)
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", launch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return launch


def failed(**codes: int) -> Exception:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    failures: Any = {int(rank[1:]): SimpleNamespace(exitcode=code) for rank, code in codes.items()}
    error = ChildFailedError.__new__(ChildFailedError)
    error.failures = failures
    return error


def test_nproc_starts_the_same_words_so_often(trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = launched(monkeypatch)
    words = ["pretrain", *SHARED, "--nproc", "2", "--out", "runs/two"]
    assert run(*words) == (0, "", "")
    assert launch.words == ["-u", "-m", "alm", *words]
    assert launch.ranks == 2
    assert set(launch.signals.split(",")) >= {"SIGINT", "SIGTERM", "SIGUSR1"}
    assert launch.patience >= 600  # to save a large model on a slow disk
    assert not Path("runs/two").exists()


def test_a_time_limit_counts_from_the_start_of_the_starter(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch, deadlines = launched(monkeypatch), list[float]()
    monkeypatch.setattr("alm.cli.pretrain.time.monotonic", lambda: 100.0)
    words = ["pretrain", *SHARED, "--nproc", "2", "--time-limit", "90s", "--out", "runs/two"]
    assert run(*words) == (0, "", "")
    assert launch.told == "100.0"
    assert "ALM_STARTED" not in os.environ

    def stage(*_: Any, deadline: float, **__: Any) -> None:
        deadlines.append(deadline)

    monkeypatch.setattr("alm.training.pretrain.pretrain", stage)
    monkeypatch.setattr("alm.distributed.place", lambda: Place(1, 2, 1, 2))
    monkeypatch.setattr("alm.cli.pretrain.time.monotonic", lambda: 107.0)
    assert run(*words) == (0, "", "")
    monkeypatch.setenv("ALM_STARTED", launch.told)
    assert run(*words) == (0, "", "")
    assert deadlines == [197.0, 190.0]


@pytest.mark.parametrize(
    ("codes", "code", "phrase"),
    [
        ({"r0": 143}, 143, ""),
        ({"r0": 1, "r1": 70, "r2": -15}, 70, ""),
        pytest.param(
            {"r1": -9},
            1,
            "Error: rank 1 was ended by SIGKILL",
            marks=pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal"),
        ),
    ],
)
def test_the_exit_code_is_that_of_the_ranks(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch, codes: dict[str, int], code: int, phrase: str
) -> None:
    launched(monkeypatch, failed(**codes))
    found, out, err = run("pretrain", *SHARED, "--nproc", "2", "--out", "runs/two")
    assert (found, out) == (code, "")
    assert err.startswith(phrase) if phrase else err == ""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 75)])
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGUSR1")
def test_a_signal_to_torchrun_ends_in_its_exit_code(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException

    launched(monkeypatch, SignalException("", sigval=getattr(signal, name)))
    assert run("pretrain", *SHARED, "--nproc", "2", "--out", "runs/two")[0] == code


def test_a_dry_run_says_the_ranks_and_what_does_not_fit(trained: Path, run: Any) -> None:
    code, out, _ = run("pretrain", *SHARED, "--nproc", "2", "--dry-run", "--out", "runs/two")
    assert (code, "cpu, fp32, 2 ranks" in out) == (0, True)
    assert json.loads(run("pretrain", *SHARED, "--nproc", "2", "--dry-run", "--json")[1])["ranks"] == 2
    code, out, err = run("pretrain", *SHARED, "--nproc", "3", "--dry-run")
    assert (code, out) == (2, "")
    assert "3 ranks cannot share 2 micro-batches evenly" in err
    assert "Hint: use 2 ranks, or " in err


def test_nproc_agrees_with_torchrun_or_is_refused(trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.distributed.place", lambda: Place(1, 2, 1, 2))
    code, _, err = run("pretrain", *SHARED, "--nproc", "4", "--out", "runs/two")
    assert code == 2
    assert "`--nproc 4`, but torchrun has started 2 ranks" in err


def test_a_rank_that_is_not_the_main_one_says_nothing(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def stage(*_: Any, on_event: Any, **__: Any) -> None:
        on_event(Warned("heard"))

    monkeypatch.setattr("alm.training.pretrain.pretrain", stage)
    monkeypatch.setattr("alm.distributed.place", lambda: Place(1, 2, 1, 2))
    assert run("pretrain", *SHARED, "--out", "runs/two") == (0, "", "")
    with ui.listening(rank=0) as on_event:
        on_event(Warned("heard"))
    assert "heard" in capfd.readouterr().err


def test_an_echo_is_silent_and_keeps_its_exit_code(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise EchoedError("told elsewhere", exit_code=3)

    monkeypatch.setattr("alm.device.choose", fail)
    assert run("device") == (3, "", "")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
def test_ranks_whose_starter_is_killed_save_and_end(trained: Path) -> None:
    words = ["pretrain", *SHARED, "--nproc", "2", "--out", "runs/two", "--set", "training.max_steps=1000000"]
    starter = subprocess.Popen([sys.executable, "-m", "alm", *words], stderr=subprocess.PIPE, text=True)
    assert starter.stderr is not None
    with starter:
        for line in starter.stderr:
            if line.startswith("step 4/"):
                starter.kill()
                break
        rest = starter.stderr.read()  # ends when the last rank has ended
    assert "Error: terminated at step " in rest
    metadata = artifacts.read(Path("runs/two/run.json"), RunMetadata, hint="")
    assert metadata.environment["ranks"] == "2, ddp"
    assert list(Path("runs/two").glob("ckpt-step*-interrupt.pt"))
    assert not Path("runs/two/.lock").exists()
