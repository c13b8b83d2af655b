"""Commands that hints propose can be pasted: a shell takes them apart as they are meant, and they harm nothing."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import for_each
from sources import nodes_of

from alm.errors import quoted, shell

# What a command in backticks begins with.
PROGRAMS = "alm|cat|chmod|cp|df|export|gzip|head|hf|iconv|kill|ls|mv|nox|pip|ps|python|rm|run|sed|tr|ulimit|xz|zstd"
COMMAND = re.compile(rf"^(?:(?:{PROGRAMS})\b|--[a-z])")
# Numbers, and names that alm itself gave or has checked: a shell leaves them as they are.
PLAIN = {
    "_PARQUET_BRANCH",
    "key or what",
    "patterns",
    "_as_limit(2 * spent)",
    "name",
    "best",
    "data.seq_len",
    "fewer",
    "free // 2",
    "given",
    "here.size",
    "job.name",
    "key",
    "line",
    "max(2, tokens // 2)",
    "model.max_position_embeddings",
    "n",
    "nproc",
    "number",
    "owner.pid",
    "plan.model_that_fits",
    "rarer",
    "reference.preset",
    "seq_len",
    "sequences // best",
    "smaller.micro_batch_size",
    "step",
    "text",
    "there",
}
QUOTES = re.compile(r"^(?:quoted|shell|pack_command|shlex\.\w+)\(|\b(?:command|redo)\b|_again\(|_command\(")


def commands(source: str) -> Iterator[tuple[int, str, list[str]]]:
    """The commands in backticks of f-strings: line, text with `{}` for values, and the expressions of these."""
    for node in nodes_of(source):
        if not isinstance(node, ast.JoinedStr):
            continue
        values = [value for value in node.values if isinstance(value, ast.FormattedValue)]
        # A private character marks where a value stands, so that backticks are found in the text alone.
        text = "".join("\ue000" if isinstance(value, ast.FormattedValue) else value.value for value in node.values)
        for match in re.finditer(r"`([^`]*)`", text):
            first = text[: match.start()].count("\ue000")
            inner = values[first : first + match[1].count("\ue000")]
            yield node.lineno, match[1].replace("\ue000", "{}"), [ast.unparse(value.value) for value in inner]


def faults(source: str) -> list[str]:
    """What is wrong with the commands in `source`."""
    found = []
    for line, command, values in commands(source):
        if COMMAND.match(command):
            found += [
                f"line {line}: `{command}`: {value} is not quoted"
                for value in values
                if value not in PLAIN and not QUOTES.search(value)
            ]
    for node in nodes_of(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [
                f"line {node.lineno}: a hint removes files: {command}"
                for command in re.findall(r"`([^`]*)", node.value)
                if re.match(r"rm\b|.*\brm -|.*; rm\b", command)
            ]
    return found


def test_every_word_of_a_proposed_command_is_quoted_and_none_removes_files(repository: Path) -> None:
    files = [path for path in (repository / "alm").rglob("*.py") if "tales" not in path.parts]
    found = {str(path.relative_to(repository)): faults(path.read_text("utf-8")) for path in files}
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('hint=f"run `ls {path}` to see"', "path is not quoted"),
        ('hint=f"add `--out {free(out)}`"', "free(out) is not quoted"),
        ('hint=f"rm it: `rm {quoted(path)}`"', "removes files"),
        ('hint=f"`alm pack --in {a} --out {quoted(b)}`"', "a is not quoted"),
    ],
)
def test_faults_are_found(source: str, fault: str) -> None:
    assert any(fault in found for found in faults(f"f({source})"))


def test_quoted_commands_are_fine() -> None:
    assert faults('f(hint=f"run `ls {quoted(path)}`, `{shell(*words)}`, `{name}` or `--set a={number}`")') == []


WORDS = ["a b", "it's", "$(reboot)", "a;b", "a`b", "-x", "*", "a\nb", "\x1b]52;c;x\x07", "é", ""]


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="no bash here")
@for_each("word", WORDS)
def test_a_quoted_word_is_one_word_to_a_shell(word: str) -> None:
    for line in (f"printf %s= {quoted(word)}", shell("printf", "%s=", word)):
        made = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
        assert made.stdout.decode() == f"{word}="
