"""The command line as a person meets it: the chain of commands, bad input, exit codes, streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import fakehub
import forked
import pytest
from builders import CHAIN, SMALL, texts
from cases import for_each

from alm.cli.main import with_bare_resume


def test_the_commands_chain_and_each_names_the_next(project: Path, run: Any) -> None:
    following = ["alm tokenizer train", "alm pack", "alm pretrain", "alm sample"]
    for arguments, command in zip(CHAIN, following, strict=True):
        code, out, err = run(*arguments)
        assert code == 0, err
        assert out.strip()
        assert f"next: {command}" in err
    code, out, err = run("sample", "--max-tokens", "8")
    assert code == 0, err
    assert len(out) > 1
    assert "8 tokens" in err or "tokens, " in err


@pytest.mark.slow
def test_with_no_flags_the_commands_chain_from_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: fakehub.FakeHub, run: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts(150)).encode()
    datasets = {
        "HuggingFaceFW/fineweb-edu": "sample-10BT",
        "wikimedia/wikipedia": "20231101.en",
        "roneneldan/TinyStories": "",
    }
    for name, folder in datasets.items():
        card = f"---\nconfigs:\n- config_name: {folder}\n  data_files: data.jsonl\n---\n" if folder else "# card\n"
        hub.add(name, {"README.md": card.encode(), "data.jsonl": rows})
    for arguments in (["corpus", "prepare"], ["tokenizer", "train"], ["pack"]):
        code, _, err = run(*arguments)
        assert code == 0, err
    assert "the text fills" in run("tokenizer", "train", "--force")[2]
    code, _, err = run("pretrain", *SMALL)
    assert code == 0, err
    assert Path("runs/pretrain/ckpt-last.pt").is_file()
    code, out, err = run("sample")
    assert code == 0, err
    assert out.strip()


def test_everything_is_up_to_date_the_second_time(trained: Path, run: Any) -> None:
    for arguments in CHAIN:
        code, _, err = run(*arguments)
        assert code == 0
        assert "up to date" in err


def test_json_is_one_object_on_stdout(trained: Path, run: Any) -> None:
    commands = [
        *CHAIN,
        ["sample", "--max-tokens", "4"],
        ["device"],
        ["config", "show", "pico", "train"],
        ["config", "show"],
    ]
    commands += [["info", path] for path in ("data/clean", "artifacts/tokenizer.json", "data/packed", "runs/pretrain")]
    commands += [
        ["tokenizer", "encode", "hello"],
        ["tokenizer", "decode", "80"],
        ["info", "runs/pretrain/ckpt-last.pt"],
    ]
    for arguments in commands:
        code, out, _ = run(*arguments, "--json")
        assert code == 0, arguments
        assert isinstance(json.loads(out), dict), arguments


@pytest.mark.slow
def test_quiet_says_nothing_on_stderr(project: Path, run: Any) -> None:
    for arguments in CHAIN:
        code, _, err = run(*arguments, "--quiet")
        assert (code, err) == (0, ""), arguments


@pytest.mark.slow
def test_a_dry_run_writes_nothing(project: Path, run: Any) -> None:
    for number, arguments in enumerate(CHAIN):
        before = sorted(project.rglob("*"))
        code, out, err = run(*arguments, "--dry-run")
        assert code == 0, err
        assert out.strip()
        assert sorted(project.rglob("*")) == before, arguments
        assert json.loads(run(*arguments, "--dry-run", "--json")[1])
        if number < 3:
            run(*arguments)


@pytest.mark.slow
def test_options_that_a_shell_expands_are_collected(project: Path, run: Any) -> None:
    run("corpus", "prepare", "my-texts")
    run("corpus", "prepare", "my-texts/000.txt", "my-texts/001.txt")
    files = sorted(str(path) for path in Path("data/clean").glob("*.txt"))
    assert len(files) == 3
    code, _, err = run("tokenizer", "train", "--input", *files, "--vocab-size", "280")
    assert code == 0, err
    meta = json.loads(Path("artifacts/tokenizer.meta.json").read_text())
    assert len(meta["inputs"]) == 3
    code, _, err = run("tokenizer", "train", "--input", "data/clean/*.txt", "--vocab-size", "280")
    assert "up to date" in err  # the same files, expanded by alm itself


def test_tokenizer_commands_are_each_other_s_inverse(trained: Path, run: Any) -> None:
    text = "a fox  runs\n Größe 日本 \U0001f600"
    ids = run("tokenizer", "encode", text)[1].split()
    assert run("tokenizer", "decode", *ids)[1] == text
    assert run("tokenizer", "decode", ",".join(ids))[1] == text
    assert run("tokenizer", "decode", "many")[0] == 1


def test_sampling_is_decided_by_its_seed(trained: Path, run: Any) -> None:
    def text(*more: str) -> str:
        code, out, err = run("sample", "--prompt", "the fox", "--max-tokens", "12", *more)
        assert code == 0, err
        return str(out)

    assert text() == text()
    assert text().startswith("the fox")
    assert text("--seed", "1") != text("--seed", "2")
    assert text("--top-k", "0", "--seed", "1") == text("--temperature", "0", "--seed", "2")


def test_a_resumed_run_needs_no_flags(trained: Path, run: Any) -> None:
    code, _, err = run("pretrain", "--resume", "runs/pretrain/ckpt-step000002.pt")
    assert code == 0, err
    assert "resuming `runs/pretrain` at step 2 of 6" in err
    assert "checkpoints after step 2 were moved to `runs/pretrain/set-aside-1`" in err
    code, _, err = run("pretrain", "--resume")
    assert (code, "up to date" in err) == (0, True)
    code, _, err = run("pretrain", "--resume", "never")
    assert code == 2
    assert "--out runs/pretrain-2" in err


@for_each(
    "given, meant",
    [
        (["pretrain", "--resume"], ["pretrain", "--resume", "auto"]),
        (["pretrain", "--resume", "--json"], ["pretrain", "--resume", "auto", "--json"]),
        (["pretrain", "--resume", "never"], ["pretrain", "--resume", "never"]),
        (["pretrain", "--resume=x"], ["pretrain", "--resume=x"]),
        (["pretrain", "--resume", "a.pt", "-q"], ["pretrain", "--resume", "a.pt", "-q"]),
        ([], []),
    ],
)
def test_a_bare_resume_means_auto(given: list[str], meant: list[str]) -> None:
    assert with_bare_resume(given) == meant


def fails(result: tuple[int, str, str], code: int, *phrases: str) -> None:
    """The command ended in `code` with one error, one hint, no traceback and nothing on stdout."""
    found, out, err = result
    assert (found, out) == (code, ""), err
    assert "Traceback" not in err
    for phrase in ("Error: ", *phrases):
        assert phrase in err
    assert err.count("Hint: ") == 1


def test_bad_input_ends_in_one_clear_message(trained: Path, run: Any) -> None:
    Path("empty").mkdir()
    Path("latin.txt").write_bytes(b"caf\xe9 au lait")
    Path("blank.txt").write_text("\n")
    Path("no-tokenizer.json").write_text('{"a": 1}')
    fails(run("corpus", "prepare", "none"), 1, "`none` does not exist")
    fails(run("corpus", "prepare", "empty"), 1, "holds text")
    fails(run("corpus", "prepare", "blank.txt", "--out", "x"), 1, "holds no text")
    fails(run("corpus", "prepare", "latin.txt", "--out", "x"), 1, "is not UTF-8", "iconv")
    fails(run("corpus", "prepare", "--src", "crpus"), 2, "did you mean `corpus`?")
    fails(run("tokenizer", "train", "--input", "none"), 1, "`none` does not exist")
    fails(run("tokenizer", "train", "--vocab-size", "100", "--out", "t.json"), 2, "272")
    fails(run("tokenizer", "train", "--kind", "bpx", "--out", "t.json"), 2, "did you mean `bpe`?")
    fails(run("tokenizer", "train", "--out", "empty"), 1, "is a folder")
    fails(run("tokenizer", "encode", "x", "--tokenizer", "no-tokenizer.json"), 1, "no-tokenizer.json")
    fails(run("tokenizer", "encode", "x", "--tokenizer", "empty"), 1, "is a folder")
    fails(run("pack", "--tokenizer", "none.json"), 1, "none.json")
    fails(run("pack", "--in", "none"), 1, "`none` does not exist")
    fails(run("pack", "--seq-len", "100000", "--out", "y"), 1, "one sequence of 100,000 needs 100,001")
    fails(run("pack", "--seq-len", "32"), 1, "made from other inputs", "--force")
    fails(run("pretrain", "--data", "none"), 1, "holds no packed data", "alm pack")
    fails(run("pretrain", "--model", "pcio"), 2, "did you mean `pico`?")
    fails(run("pretrain", "--device", "cuda:7", "--out", "z"), 2, "alm device")
    fails(run("pretrain", "--device", "gpu", "--out", "z"), 2, "unknown device `gpu`")
    fails(run("pretrain", "--resume", "runs/none.pt"), 1, "`runs/none.pt` does not exist")
    fails(run("pretrain", "--resume", "runs"), 1, "is a folder")
    fails(run("sample", "--checkpoint", "runs/none.pt"), 1, "does not exist")
    fails(run("sample", "--temperature", "-1"), 2, "temperature")
    fails(run("sample", "--prompt", "fox " * 2000), 1, "context")
    fails(run("config", "show", "nothing"), 2, "no preset is named")
    fails(run("info", "my-texts"), 1, "not an artifact of alm")


def test_a_configuration_with_three_mistakes_names_all_three(trained: Path, run: Any) -> None:
    Path("bad.yaml").write_text("training: {max_stps: 3, micro_batch_size: 0}\noptim: {lr: fast}\n")
    result = run("pretrain", "--train", "./bad.yaml", "--out", "z")
    fails(result, 2, "did you mean `max_steps`?", "`training.micro_batch_size`", "`optim.lr`", "alm config check")
    fails(run("config", "check", "./bad.yaml"), 2, "did you mean `max_steps`?")
    assert run("config", "check", "pico", "train")[0] == 0


def test_artifacts_of_another_tokenizer_are_refused(trained: Path, run: Any) -> None:
    run("tokenizer", "train", "--vocab-size", "290", "--out", "other.json")
    result = run("sample", "--tokenizer", "other.json")
    fails(result, 1, "was trained with another tokenizer")
    fails(run("pack", "--tokenizer", "other.json", "--seq-len", "16"), 1, "made from other inputs", "other.json")


def test_damage_is_found_by_info(trained: Path, run: Any) -> None:
    assert run("info", "data/packed")[0] == 0
    shard = Path("data/packed/shard_00000.bin")
    shard.write_bytes(bytes(shard.stat().st_size))
    code, _, err = run("info", "data/packed")
    assert code == 1
    assert "has changed since it was written" in err
    assert "Hint: run `alm pack" in err
    Path("runs/pretrain/ckpt-step000006.pt").write_bytes(b"")
    assert run("info", "runs/pretrain")[0] == 1


def test_a_preset_can_be_copied_and_edited(project: Path, run: Any) -> None:
    assert run("config", "copy", "pico")[:2] == (0, f"{Path('configs/pico.yaml')}\n")
    code, _, err = run("config", "copy", "pico")
    assert code == 2
    assert "exists" in err
    assert "d_model: 384" in run("config", "show", "configs/pico.yaml")[1]
    shown = run("config", "show", "pico", "train", "--set", "training.max_steps=7")[1]
    assert "max_steps: 7" in shown
    Path("union.yaml").write_text(shown)
    assert run("config", "show", "./union.yaml")[1] == shown


def test_wrong_usage_is_exit_2(run: Any) -> None:
    for arguments in (["pck"], ["pack", "--seqlen", "3"], ["pack", "--seq-len", "many"], ["corpus"]):
        assert run(*arguments)[0] == 2, arguments


def test_a_bug_says_that_it_is_one(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.device.choose", lambda *_: 1 / 0)
    code, _, err = run("device")
    assert code == 70
    assert "ZeroDivisionError" in err
    assert "this is a bug" in err


def alm(*arguments: str) -> forked.Popen:
    return forked.Popen(
        [sys.executable, "-m", "alm", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.sampled(1)
@pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_prints_the_command_that_resumes(
    trained: Path, run: Any, number: signal.Signals, code: int
) -> None:
    process = alm("pretrain", *SMALL, "--set", "training.max_steps=100000", "--out", "runs/long")
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith("step 4/"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == code
    assert "Traceback" not in rest
    assert "Hint: run `alm pretrain --resume runs/long/ckpt-last.pt` to continue" in rest
    assert list((trained / "runs/long").glob("ckpt-step*-interrupt.pt"))
    assert run("info", "runs/long")[0] == 0


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error on Windows")
def test_a_reader_that_leaves_is_no_error_message(trained: Path) -> None:
    process = alm("sample", "--max-tokens", "400")
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_batch_can_be_looked_at(trained: Path, run: Any) -> None:
    code, out, err = run("data", "show", "--step", "2")
    assert code == 0, err
    assert out.startswith("sequence ")
    values = json.loads(run("data", "show", "--step", "2", "--json")[1])
    assert [len(values["rows"]), values["step"]] == [2, 2]
    tokens = [sum(passage["tokens"] for passage in row["documents"]) for row in values["rows"]]
    assert tokens == [17, 17]
    assert run("data", "show", "--step", "7")[0] == 2
    assert "no step 7" in run("data", "show", "--step", "7")[2]
    assert run("data", "show", "--run", "none")[0] == 2


def test_sources_are_mixed_by_weight_and_many_epochs_are_told(trained: Path, run: Any) -> None:
    code, _, err = run("pretrain", *SMALL, "--out", "runs/mixed", "--set", "data.mixture={my-texts: 1}")
    assert code == 0, err
    code, out, _ = run("pretrain", *SMALL, "--set", "training.max_steps=5000", "--out", "runs/long", "--dry-run")
    assert "all sources seen" in out
    code, _, err = run("pretrain", *SMALL, "--out", "runs/other", "--set", "data.mixture={other: 1}")
    assert code == 2
    assert "names `other`, which has no sequences here (sources with sequences: my-texts)" in err
    for key in ("num_workers", "workers"):
        code, _, err = run("pretrain", *SMALL, "--out", "runs/other", "--set", f"data.{key}=4")
        assert code == 2
        assert "data.prefetch" in err


@pytest.mark.slow
def test_packing_takes_workers_a_mode_and_tokens_of_others(trained: Path, run: Any) -> None:
    assert run("pack", "--seq-len", "16", "--out", "two", "--workers", "2", "--mode", "bestfit")[0] == 0
    assert run("pack", "--seq-len", "16", "--out", "one", "--workers", "1", "--mode", "bestfit")[0] == 0
    names = {path.name for path in Path("one").iterdir()} - {"metadata.json"}
    assert all((Path("one") / name).read_bytes() == (Path("two") / name).read_bytes() for name in names)
    assert run("pretrain", *SMALL, "--data", "two", "--out", "runs/fitted")[0] == 0
    code, out, err = run("pack", "--from", "data/packed/shard_00000.bin", "--in", "data/clean", "--out", "x")
    assert (code, out) == (2, "")
    assert "cannot be combined" in err
    code, _, err = run("pack", "--mode", "best", "--out", "x")
    assert code == 2
    Path("gpt").mkdir()
    Path("gpt/train.bin").write_bytes(b"\x10\x00\x11\x00\x00\x00" * 200)
    code, out, err = run("pack", "--from", "gpt/train.bin", "--seq-len", "16", "--out", "x")
    assert code == 0, err
    assert "600 tokens" in out
    assert run("info", "x")[0] == 0


@pytest.mark.parametrize(
    "command", [["pack", "--seq-len", "16", "--out", "x"], ["corpus", "prepare", "my-texts", "--out", "x"]]
)
def test_ctrl_c_is_told(trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alm.packing.pack._make", interrupted)
    monkeypatch.setattr("alm.corpus.pipeline.prepare._make", interrupted)
    code, out, err = run(*command)
    assert (code, out) == (130, "")
    assert "interrupted; finished work is kept" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="signals to a process are POSIX")
def test_a_proof_that_is_terminated_ends_its_runs(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    ended = []

    def terminated(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            ended.append(True)

    monkeypatch.setattr("alm.doctor.verify_resume.verify_resume", terminated)
    assert run("verify-resume")[0] == 143
    assert ended
    assert list(tmp_path.glob("alm-verify-resume-*")) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("command", [["doctor"], ["plan", "--model", "1m", "--no-measure"]])
def test_ctrl_c_where_nothing_is_kept_promises_nothing(
    project: Path, run: Any, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("alm.doctor.examine.examine", interrupted)
    monkeypatch.setattr("alm.training.plan.plan", interrupted)
    code, out, err = run(*command)
    again = f"interrupted\n\nHint: run `alm {' '.join(command)}` to start again"
    assert (code, out, err.strip()) == (130, "", again)
