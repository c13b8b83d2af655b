"""Commands, flags and defaults are a promise: a change shows as a change of `docs/cli.md` and of this file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from cases import for_each

from alm.cli.main import app

# People's scripts hold these: a name may be added, none may go.
PROMISED = {
    "alm": "--version",
    "alm quickstart": "--out --steps --seed --budget --fresh --device --json --quiet -q --verbose -v --dry-run",
    "alm corpus prepare": "--src --out --only --limit --format --workers --engine --ray-address --num-shards "
    "--shard-index --force --set --json -q -v --dry-run",
    "alm tokenizer train": "--input --vocab-size --out --kind --workers --force --set --json -q -v --dry-run",
    "alm tokenizer encode": "--tokenizer --show --json",
    "alm tokenizer decode": "--tokenizer --json",
    "alm tokenizer compare": "--text --model --json -q",
    "alm tokenizer export": "--to --out --tokenizer --force --json",
    "alm pack": "--tokenizer --in --from --out --seq-len --shard-size --mode --val-fraction --dtype --workers --engine "
    "--ray-address --force --json -q -v --dry-run",
    "alm data show": "--step --run --data --characters --json",
    "alm plan": "--model --train --data --seq-len --tokens --device --nproc --budget --watts --price-per-hour "
    "--no-measure --set --json -q -v",
    "alm pretrain": "--model --train --data --out --init --device --nproc --resume --seed --time-limit --budget --set "
    "--json -q -v --dry-run",
    "alm finetune": "--data --model --out --epochs --lora --budget --train-on --seq-len --resume --device --set --json "
    "-q -v --dry-run",
    "alm sample": "--checkpoint --tokenizer --prompt --prompt-file --interactive -i --num-samples --max-tokens "
    "--temperature --top-k --top-p --min-p --repetition-penalty --presence-penalty --frequency-penalty --bad-words "
    "--stop --overflow --seed --inspect --device --json -q -v",
    "alm chat": "--system --once --load --no-save --max-new-tokens --temperature --top-k --top-p --stop --seed --min-p "
    "--repetition-penalty --presence-penalty --frequency-penalty --bad-words --format --context --device --json -q -v",
    "alm quantize": "--to --out --text --tables --samples --force --json -q -v --dry-run",
    "alm export": "--to --checkpoint --out --dtype --no-compare --set --force --json -q -v --dry-run",
    "alm import": "--from --out --no-compare --force --json -q -v --dry-run",
    "alm push": "--repo --public --to --checkpoint --out --dtype --no-compare --set --force --json -q -v --dry-run",
    "alm runs": "--json",
    "alm watch": "--once --json",
    "alm report": "--out --force --json",
    "alm config show": "--set --json",
    "alm config check": "--set",
    "alm config copy": "--out --force",
    "alm info": "--json",
    "alm device": "--device --json",
    "alm doctor": "--device --data --out --json --quiet -q --verbose -v",
    "alm verify-resume": "--kills --seed --data --device --keep --json -q -v",
}


class Flag(NamedTuple):
    """What a person reads of a flag: its names, and its help with the default."""

    names: tuple[str, ...]
    text: str


def commands(words: str = "alm", command: Any = None) -> Iterator[tuple[str, Any]]:
    """Every command of the tree with its full name."""
    command = command or typer.main.get_command(app)
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(f"{words} {name}", child)


COMMANDS = dict(commands())


def options(command: str) -> dict[str, Any]:
    """The options of a command by each of their names."""
    return {
        name: option
        for option in COMMANDS[command].get_params(typer.Context(COMMANDS[command]))
        if option.param_type_name == "option" and option.name != "help"
        for name in option.opts
    }


def flags_of(command: str) -> set[Flag]:
    """The flags of a command as the code declares them."""
    found = set()
    for option in options(command).values():
        default = option.default.as_posix() if isinstance(option.default, Path) else option.default
        shown = option.show_default and default is not None and not isinstance(default, bool)
        text = f"{option.help} [default: {default}]" if shown else option.help
        found.add(Flag(tuple(sorted(option.opts)), " ".join(text.split())))
    return found


def flags_in(help_text: str) -> set[Flag]:
    """The flags that a help text lists."""
    body = help_text.partition("\nOptions:\n")[2].replace("\nRarely needed:\n", "")
    entries = re.split(r"\n(?=  -)", "\n" + body)[1:]
    found = set()
    for entry in entries:
        head, text = re.fullmatch(r"  (\S.*?)(?:  +|\n +)(\S.*)", entry.rstrip(), re.DOTALL).groups()  # type: ignore[union-attr]
        names = re.findall(r"(?<!\S)--?[a-z][a-z-]*", head)
        text = re.sub(r"; x>=\d+\]$| \[x>=\d+\]$", lambda range_: "]" * (range_[0][0] == ";"), " ".join(text.split()))
        found.add(Flag(tuple(sorted(names)), text))
    return found


@pytest.fixture(scope="module")
def page(repository: Path) -> dict[str, str]:
    """The help of each command in the committed page."""
    text = (repository / "docs/cli.md").read_text("utf-8")
    return dict(re.findall(r"^## (alm[^\n]*)\n\n```text\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL))


def test_the_tree_is_frozen(page: dict[str, str]) -> None:
    assert list(COMMANDS) == list(page)


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_and_defaults_are_frozen(page: dict[str, str], command: str) -> None:
    listed = {flag for flag in flags_in(page[command]) if "--help" not in flag.names}
    assert listed == flags_of(command)


@for_each("command", PROMISED)
def test_no_promised_flag_is_gone(command: str) -> None:
    assert set(PROMISED[command].split()) - set(options(command)) == set()


def test_every_command_that_does_something_is_promised() -> None:
    assert {name for name, command in COMMANDS.items() if not hasattr(command, "commands")} == set(PROMISED) - {"alm"}
