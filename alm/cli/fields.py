"""Options generated from the fields of a configuration, so that a field is described once: where it is declared.

One parameter of a command stands for all of them, and receives their values by field name:

    @app.command(cls=FieldsCommand)
    @with_fields
    def pack(*, packing: Annotated[Values, Fields("alm.packing.config.PackConfig", "seq_len", "dtype")]) -> None:
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container, Iterable
from importlib import import_module
from typing import Any, get_args, get_origin

import typer

from alm.cli.help import RARE, Command

Values = dict[str, Any]  # Any: as the fields have it


class Fields:
    """Annotation of a parameter that stands for an option for each of these fields of `schema`, a `module.Class`.

    `flags` has the option of a field where it is not `--` and the field's name; the fields in `rare` are listed apart.
    With `is_optional`, for whole numbers that override those of a file, the options have no default, and a value that
    is not given is left out.
    """

    def __init__(
        self,
        schema: str,
        *names: str,
        flags: dict[str, str] | None = None,
        rare: Container[str] = (),
        is_optional: bool = False,
    ) -> None:
        self.schema, self.names, self.flags, self.is_optional = schema, names, flags or {}, is_optional
        self.rare = rare

    def parameters(self) -> list[inspect.Parameter]:
        """The options, as Typer reads them from the signature of a command."""
        module, _, schema = self.schema.rpartition(".")
        known = getattr(import_module(module), schema).model_fields
        return [self._parameter(name, known[name]) for name in self.names]

    def _parameter(self, name: str, field: Any) -> inspect.Parameter:  # Any: pydantic's FieldInfo
        kind, text, default, metavar = field.annotation, field.description, field.default, None
        if get_origin(kind) is tuple:
            kind, text, default, metavar = list[str], f"{text} Repeatable.", None, "TEXT"
        elif kind not in (int, float):
            kind = str  # the configuration refuses a word that it does not know, and lists those it does
        if self.is_optional:
            default = None
        flag = self.flags.get(name, f"--{name.replace('_', '-')}")
        option = typer.Option(
            default, flag, help=text, metavar=metavar, rich_help_panel=RARE if name in self.rare else None
        )
        annotation = kind if default is not None else kind | None
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=annotation)

    def values(self, given: Values) -> Values:
        """Take the values of the fields out of all that are `given`."""
        taken = {name: given.pop(name) for name in self.names}
        return {name: value for name, value in taken.items() if value is not None}


class FieldsCommand(Command):
    """Adds the generated options when they are needed: `alm --help` needs none, and importing pydantic takes long."""

    def get_params(self, ctx: Any) -> Any:  # Any: types of Click, of which Typer has a private copy
        complete = getattr(self.callback, "complete", None)
        if complete is not None:
            app = typer.Typer(add_completion=False)
            app.command()(complete())
            made = typer.main.get_command(app)
            self.params, self.callback = made.params, made.callback
        return super().get_params(ctx)


def with_fields(function: Callable[..., None]) -> Callable[..., None]:
    """Hide the parameters annotated with `Fields` from Typer; a `FieldsCommand` puts the generated options there."""
    signature = inspect.signature(function, eval_str=True)
    groups = {
        name: mark
        for name, parameter in signature.parameters.items()
        for mark in get_args(parameter.annotation)[1:]
        if isinstance(mark, Fields)
    }

    def with_options(options: Callable[[Fields], Iterable[inspect.Parameter]]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**given: Any) -> None:
            function(**{name: group.values(given) for name, group in groups.items()}, **given)

        parameters = [
            option
            for name, parameter in signature.parameters.items()
            for option in (options(groups[name]) if name in groups else [parameter])
        ]
        vars(command)["__signature__"] = signature.replace(parameters=parameters)
        return command

    declared = with_options(lambda group: ())
    vars(declared)["complete"] = lambda: with_options(Fields.parameters)
    return declared
