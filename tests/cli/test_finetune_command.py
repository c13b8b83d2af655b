"""`alm finetune` on several ranks, its plan, and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from builders import ROUNDING

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.cli.main import main
from alm.training.monitoring import metrics
from alm.training.run import run_folder
from alm.training.sizing import probe
from alm.training.sizing.probe import StepTimings

STEPS = 6
QUICK = [
    "--set", f"training.max_steps={STEPS}", "--set", "training.threads=1", "--set", "training.precision=fp32",
    "--set", "training.checkpoint_interval=2", "--set", "optim.eps=0.01", "--set", "logging.log_interval=1",
    "--set", "samples.max_tokens=4", "--seq-len", "96", "--device", "cpu",
]  # fmt: skip
SHARED = ["--set", "training.micro_batch_size=2", "--set", "training.gradient_accumulation=2"]
FINETUNE = ["finetune", "--model", "runs/pretrain", "--data", "chats.jsonl", "--replay", "none", *QUICK]


@pytest.fixture
def chats(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Conversations beside a trained run."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"the fox sees {number}."},
                {"role": "assistant", "content": f"a hen and {number}."},
            ]
        }
        for number in range(40)
    ]
    (trained / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: StepTimings(0.02, 0.001, 0.001, 0.001))
    return trained / "chats.jsonl"


class OneRank:
    """Stands for torchrun: runs the command of the ranks in this process, as the only one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranks: list[int] = []
        self.words: list[str] = []
        monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", self)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def __call__(self, plan: Any, program: str) -> Any:
        self.ranks.append(plan.nproc_per_node)

        def run(*words: str) -> None:
            self.words = [*words[3:]]
            with pytest.raises(SystemExit) as caught:
                main(self.words)
            assert not caught.value.code

        return run


def weights(folder: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(Path(folder) / LAST_NAME).model
    return found


def losses(folder: str) -> list[float]:
    return [row["loss"] for row in metrics.read(Path(folder)) if "loss" in row]


@pytest.mark.parametrize("more", [["--budget", "1h"], ["--lora", "2", "--set", "model.dropout=0.1"]])
def test_ranks_train_the_run_that_was_chosen(
    chats: Path, run: Any, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    launch = OneRank(monkeypatch)
    code, _, err = run(*FINETUNE, *SHARED, *more, "--out", "runs/one")
    assert code == 0, err
    code, out, err = run(*FINETUNE, *SHARED, *more, "--out", "runs/two", "--nproc", "2", "--json")
    assert code == 0, err
    assert launch.ranks == [2]
    assert json.loads(out)["result"]["step"] == STEPS
    assert Path("runs/one/config.yaml").read_text() == Path("runs/two/config.yaml").read_text()
    assert all(torch.equal(weight, weights("runs/two")[name]) for name, weight in weights("runs/one").items())


def test_ranks_continue_a_run_and_say_how_it_ended(chats: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = OneRank(monkeypatch)
    whole = ["--set", "training.micro_batch_size=4", "--set", "training.gradient_accumulation=1"]
    command = [*FINETUNE, *whole, "--nproc", "2", "--out", "runs/two"]
    code, _, err = run(*command)
    assert code == 0, err
    own = run_folder.read_config(Path("runs/two")).training
    assert (own.micro_batch_size, own.gradient_accumulation) == (2, 2)  # so that two can share them
    code, out, err = run(*command, "--set", f"training.max_steps={STEPS + 2}")
    assert code == 0, err
    assert f"resuming `runs/two` at step {STEPS} of {STEPS + 2}" in err
    assert re.fullmatch(rf"runs/two: {STEPS + 2} steps, .* on answers held out.*\n", out)
    assert "next: alm chat runs/two" in err
    assert re.search("again, bit for bit: alm pretrain --init runs/pretrain/ckpt-last.pt .* --nproc 2\n", err)
    assert "--init" not in launch.words


def test_what_cannot_be_shared_is_said_before_a_rank_starts(
    chats: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = OneRank(monkeypatch)
    one = ["--set", "training.micro_batch_size=1", "--set", "training.gradient_accumulation=1"]
    code, _, err = run(*FINETUNE, *one, "--nproc", "2", "--out", "runs/two")
    assert (code, "2 ranks cannot share 1 micro-batches evenly" in err) == (2, True)
    monkeypatch.setattr("alm.distributed.place", lambda: SimplePlace(2))
    code, _, err = run(*FINETUNE, "--out", "runs/two")
    assert (code, "run `alm finetune --nproc 2`" in err) == (2, True)
    assert launch.ranks == []


class SimplePlace:
    def __init__(self, size: int) -> None:
        self.size = size


def test_a_plan_of_a_fine_tuning_is_its_dry_run(chats: Path, run: Any) -> None:
    same = ["--model", "runs/pretrain", "--data", "chats.jsonl", *QUICK, *SHARED, "--lora", "2", "--nproc", "2"]
    same.append("--json")
    code, out, err = run("plan", "--finetune", *same)
    assert code == 0, err
    found, dry = json.loads(out), json.loads(run("finetune", *same, "--dry-run")[1])
    for values in (found, dry):
        del values["seconds"], values["seconds_by_part"]["start"], values["process_bytes"]
        values["verdict"] = [line for line in values["verdict"] if not line.startswith("Time: ")]
    assert found == dry
    assert (found["steps"], found["ranks"], found["initial_weights"]) == (STEPS, 2, "runs/pretrain")
    assert found["conversations"] > 30
    assert found["memory"]["optimizer"] < found["memory"]["weights"]  # of the adapters alone
    code, out, _ = run("plan", "--finetune", *same[:-1])
    assert re.search(r"conversations with [\d,]+ tokens of answers", out)
    assert "learned by heart" not in out
    assert not list(Path("runs").glob("*-chat*"))


def test_a_budget_is_planned_for_a_fine_tuning(chats: Path, run: Any) -> None:
    own = [word for word in QUICK if "max_steps" not in word]
    own.remove("--set")
    words = ["plan", "--finetune", "--model", "runs/pretrain", "--data", "chats.jsonl", *own, "--epochs", "4000"]
    whole, part = (json.loads(run(*words, *more, "--json")[1]) for more in ([], ["--budget", "2m"]))
    assert whole["seconds"] > 120 >= part["seconds"] > 0.9 * 120


def test_wrong_input_to_a_plan_of_a_fine_tuning_is_named(chats: Path, run: Any) -> None:
    wrong = (
        (["--model", "runs/nowhere", "--data", "chats.jsonl"], "runs/nowhere"),
        (["--model", "runs/pretrain"], "there are no conversations"),
        (["--model", "runs/pretrain", "--data", "data/packed"], "holds text and no conversations"),
        (["--model", "runs/pretrain", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--model", "runs/pretrain", "--data", "chats.jsonl", "--init", "runs/pretrain"], "`--init` is not for"),
    )
    for words, said in wrong:
        code, out, err = run("plan", "--finetune", *words)
        assert (code in (1, 2), out, said in err) == (True, "", True), err


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_two_processes_train_the_same_curve_and_resume(chats: Path, run: Any) -> None:
    """The second run is interrupted as by Ctrl-C: a signal to the starter and its ranks at once.

    With adapters, of which ranks share a part of the weights: how they share all of them is the same in every run
    (tests/training/run/test_ranks.py).
    """
    finetune = [*FINETUNE, *SHARED, "--lora", "2"]
    code, _, err = run(*finetune, "--out", "runs/one")
    assert code == 0, err
    command = [sys.executable, "-m", "alm", *finetune, "--out", "runs/two", "--nproc", "2"]
    child = forked.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stderr is not None
    with child:
        for line in child.stderr:
            if line.startswith("step 3/"):
                os.killpg(child.pid, signal.SIGINT)
                break
        rest = child.stderr.read()
    assert child.returncode == 130, rest
    assert "--resume runs/two/ckpt-last.pt" in rest
    with forked.Popen(command, stderr=subprocess.PIPE, text=True) as again:
        assert again.stderr is not None
        rest = again.stderr.read()
    assert again.returncode == 0, rest
    assert "resuming `runs/two` at step" in rest
    assert run_folder.read_metadata(Path("runs/two")).environment["ranks"] == "2, ddp"
    assert losses("runs/two") == pytest.approx(losses("runs/one"), rel=ROUNDING)
