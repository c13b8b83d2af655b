"""What a saboteur tries: other people's files in the way, values no one means, two at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import SMALL

from alm.files import exclusive

Run = Any  # (exit code, stdout, stderr) of a command line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(run: Run, folder: Path, *arguments: str, phrase: str) -> None:
    """The command says `phrase` and changes nothing in `folder`."""
    before = contents(folder)
    code, _, err = run(*arguments)
    assert code in (1, 2), err
    assert phrase in err
    assert "Traceback" not in err
    assert contents(folder) == before


def test_texts_named_like_shards_are_not_replaced(project: Path, run: Run) -> None:
    books = project / "books"
    books.mkdir()
    for number in range(3):
        (books / f"books-{number:05d}.txt").write_text(f"a text of mine, number {number}\n")
    refused(run, books, "corpus", "prepare", "books", "--out", "books", phrase="is inside the input of source `books`")
    refused(run, books, "corpus", "prepare", "books", "--out", "books/clean", phrase="is inside the input of source")
    shutil.copytree(books, project / "other")
    refused(run, project / "other", "corpus", "prepare", "books", "--out", "other", phrase="no corpus wrote it")


def test_files_beside_shards_are_left_alone(trained: Path, run: Run) -> None:
    note = trained / "data/packed/shard_notes.txt"
    note.write_text("mine")
    assert run("pack", "--seq-len", "8", "--force")[0] == 0
    assert note.read_text() == "mine"


def test_a_folder_with_someone_s_tokenizer_is_no_place_for_a_run(trained: Path, run: Run) -> None:
    place = trained / "art"
    place.mkdir()
    (place / "tokenizer.json").write_text("{}")
    refused(run, place, "pretrain", *SMALL, "--out", "art", phrase="no run in `art` wrote it")


def test_everything_in_the_clean_folder_means_its_text(trained: Path, run: Run) -> None:
    files = [str(path) for path in sorted(Path("data/clean").glob("[!.]*"))]
    assert run("tokenizer", "train", "--input", *files, "--vocab-size", "280", "--out", "t.json")[0] == 0
    whole = json.loads(Path("artifacts/tokenizer.meta.json").read_text())
    assert json.loads(Path("t.meta.json").read_text())["documents"] == whole["documents"]


def test_a_kill_before_the_tokenizer_s_metadata_needs_no_force(trained: Path, run: Run) -> None:
    before = Path("artifacts/tokenizer.json").read_bytes()
    Path("artifacts/tokenizer.meta.json").unlink()
    code, _, err = run("tokenizer", "train", "--vocab-size", "300")
    assert code == 0, err
    assert Path("artifacts/tokenizer.json").read_bytes() == before
    assert run("info", "artifacts/tokenizer.json")[0] == 0
    Path("artifacts/tokenizer.meta.json").unlink()
    refused(run, trained / "artifacts", "tokenizer", "train", "--vocab-size", "290", phrase="says how it was made")


@pytest.mark.slow
def test_the_hint_of_a_damaged_artifact_mends_it(trained: Path, run: Run) -> None:
    for damaged, artifact in (
        ("data/clean/my-texts-00000.txt", "data/clean"),
        ("artifacts/tokenizer.json", "artifacts/tokenizer.json"),
        ("data/packed/shard_00000.bin", "data/packed"),
    ):
        Path(damaged).write_bytes(b"x" + Path(damaged).read_bytes()[1:])
        code, _, err = run("info", artifact)
        assert code == 1
        command = err.split("Hint: run `")[1].split("`")[0]
        code, _, err = run(*command.split()[1:])
        assert code == 0, err
        assert run("info", artifact)[0] == 0


@pytest.mark.sampled(1)
@pytest.mark.parametrize("spelling", ["my-texts/", "./my-texts", "my-texts//"])
def test_another_spelling_of_a_folder_is_the_same_folder(project: Path, run: Run, spelling: str) -> None:
    run("corpus", "prepare", "my-texts")
    code, _, err = run("corpus", "prepare", spelling)
    assert code == 0, err
    assert "up to date" in err


@pytest.mark.parametrize(
    "change",
    [
        "optim.betas=[1.5,2]",
        "training.seed=99999999999999999999999",
        "training.seed=!!int abc",
        "training.threads=100000",
        "training.max_steps=-1",
        "training.micro_batch_size=0",
        "optim.lr=.nan",
        "model.n_heads=5",
        "optim.kind=sgd",
        "model=3",
        "=",
    ],
)
def test_values_that_no_one_means_are_usage_errors(trained: Path, run: Run, change: str) -> None:
    code, _, err = run("pretrain", *SMALL, "--out", "x", "--set", change)
    assert code == 2, err
    assert not Path("x").exists()


def test_large_seeds_and_dropout_train(trained: Path, run: Run) -> None:
    more = ["--set", "model.dropout=0.1", "--seed", str(2**62), "--out", "x"]
    code, _, err = run("pretrain", *SMALL, *more)
    assert code == 0, err


@pytest.mark.parametrize("given", ["~nobody-of-that-name/x", "x" * 300, "a\x00b"])
def test_paths_that_cannot_be_are_told(project: Path, run: Run, given: str) -> None:
    code, _, err = run("corpus", "prepare", given)
    assert code in (1, 2), err
    assert "Traceback" not in err


def test_deep_json_is_an_error_with_its_line(project: Path, run: Run) -> None:
    Path("deep.jsonl").write_text('{"text": "a"}\n' + "[" * 200_000 + "\n")
    code, _, err = run("corpus", "prepare", "deep.jsonl", "--out", "x")
    assert code == 1
    assert "line 2" in err


def test_a_run_in_the_current_folder_works(trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("runs/pretrain")
    code, _, err = run("pretrain", "--out", ".", "--resume", "never")
    assert code == 2
    assert "pretrain-2" in err


def test_a_model_with_more_ids_than_its_tokenizer_never_says_one(trained: Path, run: Run) -> None:
    assert run("pretrain", *SMALL, "--set", "model.vocab_size=1000", "--out", "x")[0] == 0
    arguments = ["--checkpoint", "x/ckpt-last.pt", "--temperature", "9", "--top-k", "1000", "--max-tokens", "60"]
    code, out, err = run("sample", *arguments, "--json")
    assert code == 0, err
    assert max(json.loads(out)["ids"]) < 300


def test_a_checkpoint_copied_elsewhere_can_be_sampled(trained: Path, run: Run) -> None:
    Path("away").mkdir()
    for name in ("ckpt-last.pt", "tokenizer.json"):
        shutil.copy(Path("runs/pretrain") / name, "away")
    code, _, err = run("sample", "--checkpoint", "away/ckpt-last.pt", "--max-tokens", "4")
    assert code == 0
    assert "Warning" in err


def test_two_cannot_train_in_one_folder(trained: Path, run: Run) -> None:
    lock, longer = Path("runs/pretrain/.lock"), ["--set", "training.max_steps=9"]
    with exclusive(lock, what="a test"):
        refused(run, trained / "runs", "pretrain", *longer, phrase="is being worked on by process")
    lock.write_text(str(os.getppid()))  # a number alone locks nothing
    assert run("pretrain", *longer)[0] == 0


@pytest.mark.slow
def test_output_is_utf8_whatever_the_locale(trained: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    alm = [sys.executable, "-m", "alm", "tokenizer"]
    ids = subprocess.run([*alm, "encode", "Größe 日本"], env=environment, capture_output=True, check=True).stdout
    text = subprocess.run([*alm, "decode"], input=ids, env=environment, capture_output=True, check=True).stdout
    assert text == "Größe 日本".encode()
    broken = subprocess.run([*alm, "encode"], input=b"\xff abc", env=environment, capture_output=True, check=False)
    assert broken.returncode == 1
    assert b"standard input is not UTF-8: byte 0xFF at offset 0" in broken.stderr


@pytest.mark.slow
def test_a_small_file_beside_books_is_not_all_that_is_held_out(project: Path, run: Run) -> None:
    shelf = project / "shelf"
    shelf.mkdir()
    for number in range(3):
        (shelf / f"novel-{number}.txt").write_text("\n\n".join(f"paragraph {i} of {number}" for i in range(800)))
    (shelf / "README.md").write_text("three novels\n")
    code, _, err = run("corpus", "prepare", "shelf", "--json")
    assert code == 0, err
    lines = Path("data/clean/shelf-00000.jsonl").read_text().splitlines()
    held = [json.loads(line)["origin"] for line in lines if json.loads(line)["split"] == "validation"]
    assert held
    assert not any("README" in origin for origin in held)


@pytest.mark.slow
def test_sources_may_have_any_name(project: Path, run: Run) -> None:
    for name in ("metadata", "run"):
        Path(f"{name}.txt").write_text("some text\nand more\n" * 20)
    assert run("corpus", "prepare", "metadata.txt", "run.txt", "--out", "mm")[0] == 0
    code, out, err = run("info", "mm", "--json")
    assert code == 0, err
    assert [source["source"] for source in json.loads(out)["metadata"]] == ["metadata", "run"]
