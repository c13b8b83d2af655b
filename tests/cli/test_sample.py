"""`alm sample` as it is typed: where the prompt comes from, several texts, probabilities, a conversation."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest

from alm.cli.sample import _check_words
from alm.corpus.records import read_records, unescape
from alm.errors import ConfigError

SHORT = ["--max-tokens", "6", "--device", "cpu"]


def ok(run: Any, *arguments: str) -> tuple[str, str]:
    code, out, err = run("sample", *SHORT, *arguments)
    assert code == 0, err
    return out, err


def test_a_prompt_is_the_same_from_a_flag_a_file_and_stdin(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("prompt.txt").write_text("the fox", encoding="utf-8")
    flag = ok(run, "--prompt", "the fox")[0]
    assert flag.startswith("the fox")
    assert ok(run, "--prompt-file", "prompt.txt")[0] == flag
    # As `echo` and editors write it.
    for written in (b"the fox", b"the fox\n", b"\xef\xbb\xbfthe fox\r\n", b"the fox\r"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(written)))
        assert ok(run, "--prompt", "-")[0] == flag
        Path("prompt.txt").write_bytes(written)
        assert ok(run, "--prompt-file", "prompt.txt")[0] == flag


def test_a_prompt_needs_no_flag_and_no_quotes(trained: Path, run: Any) -> None:
    flag = ok(run, "--prompt", "the fox")[0]
    assert ok(run, "the fox")[0] == ok(run, "the", "fox")[0] == flag


@pytest.mark.parametrize(
    ("words", "prompt", "hint"),
    [
        (["x"], "y", "leave out one of the two"),
        (["letter.txt"], None, "`--prompt-file letter.txt`"),
        (["runs"], None, "`--checkpoint runs`"),
    ],
)
def test_a_prompt_that_is_a_path_or_given_twice_is_refused(
    words: list[str], prompt: str | None, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("letter.txt").write_text("a letter", "utf-8")
    Path("runs").mkdir()
    with pytest.raises(ConfigError) as caught:
        _check_words(words, prompt)
    assert hint in str(caught.value.hint)


def test_several_texts_are_records_with_seeds_that_count_up(trained: Path, run: Any) -> None:
    out, err = ok(run, "--prompt", "the fox", "--num-samples", "3", "--seed", "5")
    records = [unescape(record.decode()) for record in read_records(io.BytesIO(out.encode()))]
    alone = [ok(run, "--prompt", "the fox", "--seed", str(seed))[0].removesuffix("\n") for seed in (5, 6, 7)]
    assert records == alone
    assert len(set(records)) == 3
    assert "\n3 texts, 18 tokens, " in err  # after the name of the run


def test_json_has_tokens_with_probabilities(trained: Path, run: Any) -> None:
    found = json.loads(ok(run, "--prompt", "the", "--json", "--num-samples", "2", "--top-k", "0")[0])
    assert found["prompt"] == "the"
    first, second = found["samples"]
    assert (first["seed"], second["seed"], first["finish_reason"]) == (1337, 1338, "length")
    assert found["text"] == first["text"] == second["text"] == "".join(token["token"] for token in first["tokens"])
    assert found["ids"] == [token["id"] for token in first["tokens"]]
    for token in first["tokens"]:
        best = token["alternatives"][0]
        assert (best["id"], best["logprob"]) == (token["id"], token["logprob"])  # greedy
        assert sum(math.exp(other["logprob"]) for other in token["alternatives"]) <= 1 + 1e-9
        assert len(token["alternatives"]) == 5


def test_inspect_shows_a_line_for_each_token(trained: Path, run: Any) -> None:
    out, _ = ok(run, "--prompt", "the", "--inspect")
    text, lines = out.split("\n0.", 1)
    assert text.startswith("the")
    shown = ("0." + lines).splitlines()
    assert len(shown) == 6
    assert all(line.count('"') == 12 for line in shown)


def test_a_stop_is_not_printed(trained: Path, run: Any) -> None:
    whole = ok(run, "--prompt", "the fox")[0].removeprefix("the fox").removesuffix("\n")
    out, _ = ok(run, "--prompt", "the fox", "--stop", whole[3:5])
    assert out == "the fox" + whole[: whole.index(whole[3:5])] + "\n"


def test_the_end_of_the_context_is_refused_or_slid_over(trained: Path, run: Any) -> None:
    arguments = ["--prompt", "fox " * 2000, "--temperature", "9", "--top-k", "300"]
    code, _, err = run("sample", *arguments)
    assert code == 1
    assert "the model's context holds" in err
    _, err = ok(run, *arguments, "--overflow", "slide")
    assert "the older half is dropped" in err


def test_lines_are_continued_one_after_the_other(trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "the fox\n/set temperature=0\n/again\n/set tempature=1\n/show\n/help\n/hlep\nthe\n/quit\nno more\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    out, err = ok(run, "-i", "--seed", "5")
    first = ok(run, "--prompt", "the fox", "--seed", "5")[0]
    greedy = [ok(run, "--prompt", prompt, "--temperature", "0")[0] for prompt in ("the fox", "the")]
    assert out == first + "".join(greedy)
    assert "did you mean `temperature`?" in err
    assert "/again" in err
    assert "unknown command `/hlep`" in err
    assert "seed                7" in err


def test_a_line_that_is_too_long_costs_no_more_than_itself(
    trained: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("fox " * 2000 + "\nthe\n"))
    out, err = ok(run, "-i")
    assert out.startswith("the")
    assert "context holds" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "a", "--prompt-file", "b"], "`--prompt` and `--prompt-file` cannot be combined"),
        (["-i", "--json"], "`--interactive` and `--json` cannot be combined"),
        (["-i", "--prompt", "a"], "`--interactive` and `--prompt` cannot be combined"),
        (["-i", "--prompt-file", "a"], "`--interactive` and `--prompt-file` cannot be combined"),
        (["-i", "--num-samples", "2"], "`--interactive` and `--num-samples` cannot be combined"),
        (["--inspect", "--json"], "the JSON has probabilities"),
        (["--top-p", "0"], "top_p"),
        (["--overflow", "crash"], "overflow"),
        (["--stop", ""], "an empty text is in every text"),
        (["--num-samples", "0"], "--num-samples"),
    ],
)
def test_what_does_not_go_together_is_said(trained: Path, run: Any, arguments: list[str], says: str) -> None:
    code, _, err = run("sample", *arguments)
    assert code == 2
    assert says in err


def test_a_prompt_file_that_is_none_is_named(trained: Path, run: Any) -> None:
    code, _, err = run("sample", "--prompt-file", "none.txt")
    assert (code, "`none.txt` does not exist" in err) == (1, True)
    Path("latin.txt").write_bytes(b"caf\xe9")
    code, _, err = run("sample", "--prompt-file", "latin.txt")
    assert (code, "`latin.txt` is not UTF-8 at byte 3" in err) == (1, True)
