"""`alm plan`: the three questions before anything is spent."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from builders import SMALL, FakeTime

from alm import device
from alm.cli.options import DEFAULT_MODEL
from alm.training.run import run_folder
from alm.training.sizing import autotune, memory, probe
from alm.training.sizing.autotune import CompileTrial
from alm.training.sizing.probe import StepTimings

TIMINGS = StepTimings(micro_batch=0.9, update=0.1, validation_sequence=0.01, generated_token=0.02)
GB = 10**9


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU without bf16 and with 10 GB free, on which a micro-batch takes 0.9 s and an update 0.1."""
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: False)  # with it, two plans may measure two precisions
    monkeypatch.setattr(probe, "measure_steps", lambda *_, **__: TIMINGS)
    monkeypatch.setattr(device, "matmul_rate", lambda *_: 1e11)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 10 * GB)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steady: None) -> Path:
    """A folder without packed data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(run: Any, *arguments: str) -> dict[str, Any]:
    code, out, err = run("plan", *arguments, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_it_is_listed_and_works_before_there_is_data(empty: Path, run: Any) -> None:
    assert re.search(r"plan  +Estimate memory, time and cost", run("--help")[1], re.MULTILINE)
    code, out, err = run("plan", "--model", "1m", "--tokens", "2M")
    assert code == 0, err
    assert "assumed      a vocabulary of 32,000 (`--set model.vocab_size=...`)" in out
    assert "assumed      sequences of 512 tokens (`--seq-len`)" in out
    assert "\nFits: " in out
    assert "\nTime: about " in out
    assert "\nText: seen 6.6 times, so often that it is learned by heart" in out  # 1,600 steps of 8,192 of 2 million
    assert list(empty.iterdir()) == []


def test_a_plan_counts_with_the_compiled_model_where_a_run_would_compile(
    empty: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step of two micro-batches and an update the former shrink; where compiling does not pay, nothing does."""
    asked: list[bool] = []
    monkeypatch.setattr(probe, "measure_steps", lambda *_, apart, **__: asked.append(apart) or TIMINGS)
    found = []
    for trial in (None, CompileTrial(0.4, 0.1), CompileTrial(0.4, 0.5)):
        monkeypatch.setattr(autotune, "try_compile", lambda *_, trial=trial, **__: trial)
        found.append(planned(run, "--model", "1m", "--tokens", "2M")["step_seconds"])
    assert found == pytest.approx([2 * 0.9 + 0.1, 2 * 0.9 / 4 + 0.1, 2 * 0.9 + 0.1])
    assert asked == [False, True, True]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--budget", "1m", "--set", "training.max_steps=9"], "`--budget` chooses `training.max_steps`"),
        (["--no-measure", "--watts", "60"], "`--watts` needs a measured time"),
        (["--no-measure", "--price-per-hour", "1"], "`--price-per-hour` needs a measured time"),
    ],
)
def test_what_does_not_go_together_is_refused(empty: Path, run: Any, flags: list[str], said: str) -> None:
    code, _, err = run("plan", "--model", "1m", *flags)
    assert (code, said in err, "Hint: leave out" in err) == (2, True, True)


def test_the_commands_of_a_proposal_say_what_was_asked_for_and_can_be_pasted(empty: Path, run: Any) -> None:
    asked = ["--set", "data.mixture={a: 1, b: 2}", "--device", "cpu"]
    command = planned(run, "--budget", "20m", *asked)["commands"][-1]
    words = shlex.split(command)
    assert words[:3] == ["alm", "pretrain", "--model"]
    assert [words[words.index(flag) + 1] for flag in ("--device", "--budget")] == ["cpu", "20m"]
    assert "data.mixture={a: 1, b: 2}" in words


def test_numbers_add_up(empty: Path, run: Any) -> None:
    changes = ["--set", "model.vocab_size=1000", "--set", "training.max_steps=100", "--set", "training.keep_last=1"]
    found = planned(run, "--model", "1m", "--seq-len", "100", "--tokens", "1.6M", *changes, "--watts", "50",
                    "--price-per-hour", "2")  # fmt: skip
    # Width 128: 1,000 x 128 of the tied table; 4 layers of 128 x (128 + 64 + 64 + 128) and 3 x 128 x 384; 9 norms.
    assert found["parameters_by_part"] == {
        "embedding": 128_000, "attention": 4 * 128 * 384, "feedforward": 4 * 3 * 128 * 384, "norms": 9 * 128,
    }  # fmt: skip
    assert found["parameters"] == sum(found["parameters_by_part"].values())
    assert found["tokens"] == 100 * 16 * 100
    assert found["tokens_per_parameter"] == pytest.approx(160_000 / found["parameters"], abs=1e-3)
    assert found["compute_optimal_tokens"] == 20 * found["parameters"]
    assert found["epochs"] == {"all sources": 0.1}
    assert found["training_sequences"] == 16_000
    assert found["memory_bytes"] == sum(found["memory"].values())
    assert found["fits"] is True
    assert found["step_seconds"] == pytest.approx(2 * 0.9 + 0.1)
    assert found["tokens_per_second"] == pytest.approx(1600 / 1.9)
    assert found["seconds"] == pytest.approx(sum(found["seconds_by_part"].values()))
    assert found["seconds_by_part"]["steps"] == pytest.approx(190)
    assert found["seconds_by_part"]["validation"] == pytest.approx(1250 * 0.01)  # 500,000 bytes, 400 a sequence, once
    assert found["kwh"] == pytest.approx(50 * found["seconds"] / 3.6e6)
    assert found["price"] == pytest.approx(2 * found["seconds"] / 3600)
    # Weights and two moments, of which the matrices of the blocks have one with Muon.
    assert found["checkpoint_bytes"] == 12 * found["parameters"] - 4 * (4 * 128 * 384 + 4 * 3 * 128 * 384)
    assert found["checkpoints"] == 1


def test_without_measuring_only_what_is_counted_is_told(empty: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "measure_steps", None)
    found = planned(run, "--no-measure")
    assert (found["seconds"], found["tokens_per_second"], found["fits"]) == (None, None, True)
    assert "Time: not measured." in found["verdict"]
    for more in (["--model", "1m"], []):
        code, _, err = run("plan", "--no-measure", "--budget", "2h", *more)
        assert code == 2
        assert "measured" in err
        assert "leave out `--no-measure`" in err


def test_what_does_not_fit_is_told_with_what_does(empty: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = planned(run, "--model", "1m", "--set", "training.micro_batch_size=1")["memory_bytes"]
    monkeypatch.setattr(memory, "available_bytes", lambda _: one / memory.USABLE_SHARE + 1)
    found = planned(run, "--model", "1m")
    assert (found["fits"], found["largest_micro_batch"]) == (False, 1)
    assert found["suggested"] == {"micro_batch_size": 1, "gradient_accumulation": 16}
    assert found["seconds"] is not None
    (line,) = [line for line in found["verdict"] if line.startswith("Does not fit")]
    assert "`--set training.micro_batch_size=1 --set training.gradient_accumulation=16`" in line
    larger = planned(run, "--model", "120m")
    assert (larger["largest_micro_batch"], larger["model_that_fits"], larger["seconds"]) == (0, "1m", None)
    assert "`--model 1m`" in larger["verdict"][0]
    assert not any("Time" in line for line in larger["verdict"])
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1)
    assert "even one sequence is too large, for every preset" in planned(run, "--model", "120m")["verdict"][0]
    monkeypatch.setattr(memory, "available_bytes", lambda _: None)
    assert "free memory is unknown on this system" in planned(run, "--model", "1m", "--no-measure")["verdict"][0]
    assert re.fullmatch(r"Fits: [\d.]+ MB\.", planned(run, "--model", "1m")["verdict"][0])  # it was tried


def test_memory_that_is_full_after_all_is_no_error(empty: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> StepTimings:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(probe, "measure_steps", full)
    found = planned(run, "--model", "1m")
    assert (found["seconds"], found["fits"], found["largest_micro_batch"]) == (None, False, 0)
    assert found["verdict"][0].startswith("Does not fit")
    monkeypatch.setattr(probe, "measure_steps", lambda config, *_, **__: full() if _micro(config) > 3 else TIMINGS)
    found = planned(run, "--model", "1m")
    assert found["suggested"] == {"micro_batch_size": 2, "gradient_accumulation": 8}
    assert found["step_seconds"] == pytest.approx(8 * 0.9 + 0.1)


def test_rates_are_measured_together_where_memory_does_not_hold_them_apart(
    empty: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of one micro-batch never has a forward pass beside gradients, as two of them do."""

    def measure_steps(*_: Any, apart: bool, **__: Any) -> StepTimings:
        if apart:
            raise RuntimeError("CUDA out of memory")
        return TIMINGS

    monkeypatch.setattr(probe, "measure_steps", measure_steps)
    monkeypatch.setattr(autotune, "try_compile", lambda *_, **__: CompileTrial(0.4, 0.1))
    found = planned(run, "--model", "1m")
    assert (found["fits"], found["suggested"]) == (True, None)


def test_a_model_that_does_not_fit_is_not_compiled(empty: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "try_compile", None)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1)
    assert planned(run, "--model", "1m")["fits"] is False


def _micro(config: Any) -> int:
    return int(config.training.micro_batch_size)


def test_a_budget_with_nothing_fixed_proposes_all_of_it(empty: Path, run: Any) -> None:
    found = planned(run, "--budget", "20m", "--tokens", "20M")
    assert 0.9 * 1200 < found["seconds"] <= 1200
    train, pack, pretrain = found["commands"]
    assert train == f"alm tokenizer train --vocab-size {found['vocab_size']}"
    assert pack == f"alm pack --seq-len {found['seq_len']}"
    assert re.match(r"alm pretrain --model \S+ --set training.micro_batch_size=\d+ .* --budget 20m$", pretrain)
    assert "max_steps" not in pretrain  # which `--budget` chooses
    code, out, _ = run("plan", "--budget", "20m")
    assert code == 0
    assert "assumed      sequences of" not in out  # it is proposed
    assert "\nTo do so:\n  alm tokenizer train" in out


def test_a_training_file_leaves_the_budget_the_steps_which_is_told(empty: Path, run: Any) -> None:
    code, out, err = run("plan", "--budget", "20m", "--train", "train", "--tokens", "20M")
    assert (code, "To do so:" in out) == (0, False)
    assert "these numbers are for `--model pico`" in err
    assert "these numbers are for" not in run("plan", "--budget", "20m", "--tokens", "20M")[2]
    assert DEFAULT_MODEL == "pico"


def test_a_budget_for_a_model_chooses_steps_alone(empty: Path, run: Any) -> None:
    found = planned(run, "--budget", "20m", "--model", "3m")
    assert found["commands"] == []
    assert 0.9 * 1200 < found["seconds"] <= 1200
    assert found["micro_batch_size"] == 8
    steps = found["steps"]
    assert found["intervals"] == {
        "warm-up": round(steps / 20), "validation": -(-steps // 16), "checkpoint": -(-steps // 8)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "many"], "`--tokens many` is not a number of tokens"),
        (["--tokens", "0"], "write it like `--tokens 20M`"),
        (["--budget", "20"], "has no unit"),
        (["--tokens", "5M", "--data", "data/packed"], "`--tokens` is for text that is not packed yet"),
        (["--seq-len", "4096", "--model", "1m"], "4,096 tokens do not fit `model.max_position_embeddings` 512"),
        (["--data", "nowhere"], "nowhere"),
        (["--nproc", "3"], "3 ranks cannot share 2 micro-batches evenly"),
        (["--budget", "2s", "--model", "1m"], "2 seconds are too short"),
    ],
)
def test_wrong_input_is_told(empty: Path, run: Any, arguments: list[str], said: str) -> None:
    code, out, err = run("plan", *arguments)
    assert (code in (1, 2), out) == (True, "")
    assert said in err


def test_packed_data_is_planned_with_and_a_dry_run_shows_the_same(trained: Path, run: Any, steady: None) -> None:
    changes = list(SMALL)
    found = planned(run, *changes)
    assert found["assumed"] == []
    assert found["vocab_size"] == 300
    code, out, _ = run("pretrain", *changes, "--out", "runs/other", "--dry-run", "--json")
    dry = json.loads(out)
    assert code == 0
    for values in (found, dry):
        del values["seconds"], values["seconds_by_part"]["start"], values["process_bytes"]
        values["verdict"] = [line for line in values["verdict"] if not line.startswith("Time: ")]  # counts the start
    assert dry == found
    assert not Path("runs/other").exists()
    found = planned(run, "--budget", "20m")
    (command,) = found["commands"]
    assert command.startswith("alm pretrain --model ")
    assert found["seq_len"] == 16


@pytest.mark.slow
def test_pretrain_keeps_to_a_budget_and_does_not_choose_again(
    trained: Path, run: Any, steady: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    for module in ("alm.cli.pretrain", "alm.training.run.fit"):
        monkeypatch.setattr(f"{module}.time", clock)
    # It would see that the machine is faster than `steady` says.
    monkeypatch.setattr("alm.training.run.time_budget.CHECKS", 0)
    code, _, err = run("pretrain", *SMALL, "--budget", "20m")
    assert code == 2
    assert "`--budget` chooses `training.max_steps`, which `--set` sets too" in err
    small = [word for pair in zip(SMALL[::2], SMALL[1::2], strict=True) if "max_steps" not in pair[1] for word in pair]
    code, _, err = run("pretrain", *small, "--budget", "40s", "--out", "runs/b")
    assert code == 0, err
    own = run_config("runs/b")
    assert 10 < own.training.max_steps < 40
    assert f"{own.training.max_steps} steps of 1 s fit into the time" in err
    code, _, err = run("pretrain", *small, "--train", "train", "--model", "pico", "--budget", "40s", "--out", "runs/b")
    assert code == 0, err
    assert f"keeps its {own.training.max_steps} steps" in err
    assert run_config("runs/b") == own


def run_config(folder: str) -> Any:
    return run_folder.read_config(Path(folder))


def test_a_plan_is_measured_on_the_device(trained: Path, run: Any) -> None:
    """With nothing held still."""
    found = planned(run, *SMALL)
    assert found["step_seconds"] > 0
    assert found["seconds"] > 6 * found["step_seconds"]
    assert found["available_bytes"] > 0


def test_a_run_from_a_checkpoint_is_planned_as_it_would_be_trained(trained: Path, run: Any, steady: None) -> None:
    small = ["--set", "training.threads=1", "--set", "training.precision=fp32"]
    found = planned(run, "--init", "runs/pretrain", *small)
    assert (found["parameters"], found["steps"]) == (run_metadata("runs/pretrain").parameters, 1600)
    assert Path(found["initial_weights"]).parent == Path("runs/pretrain")
    code, out, _ = run("pretrain", "--init", "runs/pretrain", *small, "--dry-run", "--json")
    assert (code, same_numbers(json.loads(out))) == (0, same_numbers(found))
    code, out, _ = run("plan", "--init", "runs/pretrain", *small)
    assert re.search(r"^start  +the weights of runs/pretrain/ckpt-last.pt$", out, re.MULTILINE)
    assert "Chinchilla" not in out
    assert "for each parameter" not in out
    unpacked = planned(run, "--init", "runs/pretrain", "--seq-len", "8", "--tokens", "2k", *small)
    assert (unpacked["seq_len"], unpacked["vocab_size"], unpacked["assumed"]) == (8, 300, [])


def same_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Without what this process and its clock decide."""
    left_out = {"seconds", "seconds_by_part", "process_bytes", "verdict"}
    return {key: value for key, value in values.items() if key not in left_out}


def run_metadata(folder: str) -> Any:
    return run_folder.read_metadata(Path(folder))


def test_a_checkpoint_that_does_not_fit_is_refused_before_a_run(trained: Path, run: Any) -> None:
    assert run("tokenizer", "train", "--vocab-size", "280", "--out", "other/tokenizer.json")[0] == 0
    assert run("pack", "--tokenizer", "other/tokenizer.json", "--seq-len", "16", "--out", "other/packed")[0] == 0
    other = ["--init", "runs/pretrain", "--data", "other/packed"]
    for command in (["plan"], ["pretrain", "--dry-run"]):
        code, _, err = run(*command, *other)
        assert code == 1
        assert "was trained with another tokenizer than the data in `other/packed`" in err
        assert "Hint: pack the text again" in err
    wrong = (
        (["--init", "runs/pretrain", "--model", "1m"], "`--init` and `--model` cannot be combined"),
        (["--init", "runs/nowhere"], "`runs/nowhere` does not exist"),
        (["--data", "data/packed", "--data", "other/packed"], "`--data` names 2 folders"),
        (["--lora", "4"], "`--lora` is for a fine-tuning"),
        (["--finetune", "--tokens", "2M"], "`--tokens` is not for a fine-tuning"),
    )
    for words, said in wrong:
        code, out, err = run("plan", *words)
        assert (code in (1, 2), out, said in err) == (True, "", True), err


def test_a_model_that_does_not_fit_names_no_other_model_to_start_from(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1)
    verdict = planned(run, "--init", "runs/pretrain", "--no-measure")["verdict"][0]
    assert "--model" not in verdict
    assert "`--set lora.rank=16`" in verdict
