"""What help looks like, that its examples can be pasted, and where wrong words lead."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from cases import for_each
from typer.testing import CliRunner

from alm.cli import help as helps
from alm.cli import synonyms
from alm.cli.main import app
from alm.config import presets
from alm.config.load import Part, load
from alm.errors import ConfigError
from alm.training.config import RunConfig

TREE = typer.main.get_command(app)
SCREEN = {"columns": 80, "lines": 40}


def commands(words: tuple[str, ...] = ("alm",), command: Any = TREE) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands((*words, name), child)


ALL = dict(commands())
GROUPS = {words: command for words, command in ALL.items() if hasattr(command, "commands")}
LEAVES = {words: command for words, command in ALL.items() if words not in GROUPS}


def parse(line: str) -> tuple[str, ...]:
    """Parse a command line as the program does, without running it; the words of its command."""
    words = shlex.split(line.partition(" < ")[0])
    assert words[0] == "alm"
    command, name = TREE, words[:1]
    while hasattr(command, "commands") and not words[len(name)].startswith("-"):
        name.append(words[len(name)])
        command = command.commands[name[-1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer._click.core.Context.exit", lambda *_: None, raising=False)
        if command is not TREE:
            command.make_context(name[-1], words[len(name) :], obj=words)
    return tuple(name)


def help_of(words: tuple[str, ...]) -> str:
    found = CliRunner().invoke(app, [*words[1:], "--help"], prog_name="alm", env={"COLUMNS": "80"})
    assert found.exit_code == 0
    return found.output


def test_the_commands_fit_one_screen_in_groups() -> None:
    lines = help_of(("alm",)).splitlines()
    assert len(lines) < SCREEN["lines"]
    assert max(map(len, lines)) <= SCREEN["columns"]
    assert [line.split()[0] for line in lines if re.match(r"  [A-Z]\w+ +[a-z-]+  ", line)] == list(helps.GROUPS)


@for_each("words", GROUPS)
def test_no_summary_is_cut(words: tuple[str, ...]) -> None:
    text = help_of(words)
    assert "..." not in text.partition("\n")[2]
    assert max(map(len, text.splitlines())) <= SCREEN["columns"]


@for_each("words", LEAVES)
def test_each_command_begins_with_two_examples_to_paste(words: tuple[str, ...]) -> None:
    text = help_of(words)
    examples = re.search(r"\nExamples:\n((?:  .*\n)+)\n", text)
    assert examples is not None
    assert text.index("Examples:") < text.index("Options:")
    lines = examples[1].splitlines()
    assert [parse(line.strip()) for line in lines] == [words] * 2


def test_examples_of_the_program_can_be_pasted() -> None:
    for line in TREE.epilog.splitlines():  # type: ignore[union-attr] # it has one
        for part in line.split(" && "):
            assert parse(part) in LEAVES


def test_rare_options_are_listed_last() -> None:
    text = help_of(("alm", "sample"))
    assert text.index("Options:") < text.index("--temperature <") < text.index("Rarely needed:") < text.index("--min-p")


def test_words_of_other_tools_lead_to_a_command() -> None:
    tables = [*synonyms._NAMES.items(), *synonyms._MISSING.items()]
    words = list(itertools.chain.from_iterable(names.split() for _, names in tables))
    assert sorted(words) == sorted(set(words))
    assert not set(words) & {name for _, name in (path for path in ALL if len(path) == 2)}
    for advice, _ in tables:
        for line in re.findall(r"`([^`]+)`", advice):
            parse(line)


@for_each(
    "word, command",
    [
        *(("prepare", "alm corpus prepare"), ("Train", "alm pretrain"), ("generate", "alm sample")),
        *(("ask", "alm chat"), ("lora", "alm finetune"), ("sft", "alm finetune"), ("serve", "gguf")),
        *(("version", "alm --version"), ("help", "alm --help"), ("ls", "alm runs"), ("compress", "alm quantize")),
    ],
)
def test_a_wrong_word_names_the_command(word: str, command: str) -> None:
    with pytest.raises(ConfigError) as caught:
        synonyms.lead(word, exists=False)
    assert command in str(caught.value.hint)


@for_each(
    "line, hint",
    [
        ("alm pretrain --steps 100", "`--set training.max_steps=100`"),
        ("alm pretrain --lr=0.01 --quiet", "`--set optim.lr=0.01`"),
        ("alm pretrain --batch_size", "`--set training.micro_batch_size=N`"),
        ("alm quickstart --epochs 3", "`--budget`"),
        ("alm sample --temp 0.7", "`--temperature`"),
        ("alm chat --max-tokens 5", "`--max-new-tokens`"),
        ("alm chat --system-prompt x", "`--system`"),
        ("alm export --model x", "`--checkpoint`"),
        ("alm tokenizer train --data x", "`--input`"),
        ("alm pack --input x", "`--in`"),
    ],
)
def test_an_option_of_other_tools_names_ours(line: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="has no option") as caught:
        parse(line)
    assert caught.value.hint == f"use {hint}"


def test_the_options_of_other_tools_lead_to_options_and_keys_that_exist() -> None:
    known = set().union(*(helps.flags_of(command, typer.Context(command)) for command in LEAVES.values()))
    for target in synonyms._OPTIONS:
        if target.endswith("="):
            value = {"model.d_model=": "64", "model.dropout=": "0.1"}.get(target, "1")
            load(RunConfig, [Part(presets.find("1m")), Part(presets.find("train"))], overrides=[f"{target}{value}"])
        else:
            assert target in known


def test_a_group_of_one_command_names_it() -> None:
    found = CliRunner().invoke(app, ["corpus", "my texts/"])
    assert isinstance(found.exception, ConfigError)
    assert found.exception.hint == "run `alm corpus prepare 'my texts/'`"


def test_a_path_in_the_place_of_a_command_is_understood() -> None:
    with pytest.raises(ConfigError, match="is a path") as caught:
        synonyms.lead("my texts/", exists=True)
    assert "alm quickstart 'my texts/'" in str(caught.value.hint)
    synonyms.lead("nothing-of-ours", exists=False)
