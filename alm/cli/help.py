"""The help of every command in one form: a summary, two examples, the options, and apart those that are rarely needed.

It is plain text at any width, made without Rich. `Commands` is the Typer application that all commands use.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from alm.cli.synonyms import lead, lead_into, lead_option

# Typer's name of a section of options; here also of the plain help.
RARE = "Rarely needed"
GROUPS = ("Start", "Data", "Train", "Use", "Share", "Inspect")
_INDENT = 2
_ROOM = 300  # characters; a summary that does not fit a line of 80 fails a test instead of being cut


# Typer exports only this class derived from it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class Command(TyperCommand):
    """A command; `epilog` holds its examples, one a line, shown before the options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: types of Click, which Typer has a copy of
        """Parse the arguments; for an option of other tools, name what does this here."""
        given = [*args]
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            lead_option(str(getattr(error, "option_name", "")), ctx.command_path, flags_of(self, ctx), given)
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:  # Any: types of Click, of which Typer has a private copy
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_examples(self.epilog, formatter)
        self.format_options(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options and rare options as sections of their own."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], RARE: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                place = getattr(parameter, "rich_help_panel", None) or ("Arguments" if is_argument else "Options")
                sections[place].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """A group of commands, in sections of related commands where they have any."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        _write_examples(self.epilog, formatter)
        self.format_commands(ctx, formatter)
        Command.format_options(self, ctx, formatter)  # type: ignore[arg-type] # needs `get_params` alone

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each command, beside the name of its section."""
        found: list[tuple[str, Any]] = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        found.sort(key=lambda item: GROUPS.index(_group(item[1])) if _group(item[1]) else 0)
        width = max(len(name) for name, _ in found)
        with formatter.section("Commands"):
            before = ""
            for name, command in found:
                group = _group(command)
                head = f"{group if group != before else '':<9}" if group else ""
                formatter.write(f"{'':<{_INDENT}}{head}{name:<{width}}  {command.get_short_help_str(_ROOM)}\n")
                before = group

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; for a word of other tools, name the command that does this here."""
        if args and args[0] not in self.commands and ctx.parent is None:
            lead(args[0], exists=os.path.lexists(args[0]))
        if args and len(self.commands) == 1 and args[0] not in self.commands and not args[0].startswith("-"):
            lead_into(ctx.command_path, next(iter(self.commands)), args)
        return super().resolve_command(ctx, args)


def flags_of(command: TyperCommand, ctx: Any) -> set[str]:
    """The names of all options of a command."""
    return {name for parameter in command.get_params(ctx) for name in parameter.opts}


def _group(command: Any) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else ""


def _write_examples(examples: str | None, formatter: Any) -> None:
    if examples:
        with formatter.section("Examples"):
            for line in examples.splitlines():  # never wrapped, to be copied
                formatter.write(f"{'':<{_INDENT}}{line}\n")


class Commands(typer.Typer):
    """A Typer application of commands with this help; every command has `examples`."""

    def __init__(self, **settings: Any) -> None:  # Any: what Typer takes
        super().__init__(cls=Group, rich_markup_mode=None, **settings)

    def command(
        self, name: str | None = None, *, examples: tuple[str, ...] = (), **settings: Any
    ) -> Callable[[Any], Any]:
        """Declare a command with examples to paste, each a complete command line."""
        return super().command(name, epilog="\n".join(examples), **({"cls": Command} | settings))
