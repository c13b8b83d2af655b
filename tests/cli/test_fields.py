"""Options that are generated from fields: name, type, help, default and place are those of the field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field
from typer.testing import CliRunner

from alm.cli.fields import Fields, FieldsCommand, Values, with_fields
from alm.config.base import Config


class Shape(Config):
    """A configuration with a field of each type that has options."""

    rows: int = Field(3, ge=1, description="Number of rows.")
    scale: float = Field(0.5, description="Factor.")
    mode: Literal["fast", "exact"] = Field("fast", description="How to compute.")
    names: tuple[str, ...] = Field((), description="Names.")


HERE = f"{__name__}.Shape"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> tuple[typer.Typer, list[dict[str, Any]]]:
    """A command with generated options between others, and the values it was called with."""
    app, calls = typer.Typer(rich_markup_mode=None), []

    @app.command(cls=FieldsCommand)
    @with_fields
    def draw(
        *,
        before: Annotated[str, typer.Option("--before")] = "b",
        shape: Annotated[Values, Fields(HERE, "scale", "mode", "names", flags={"mode": "--way"})],
        changes: Annotated[Values, Fields(HERE, "rows", is_optional=True)],
        after: Annotated[bool, typer.Option("--after")] = False,
    ) -> None:
        """Draw."""
        calls.append({"before": before, "shape": shape, "changes": changes, "after": after})

    return app, calls


def test_values_arrive_by_field(called: tuple[typer.Typer, list[dict[str, Any]]]) -> None:
    app, calls = called
    assert CliRunner().invoke(app, []).exit_code == 0
    words = ["--way", "odd", "--names", "x", "--names", "y", "--rows", "7", "--scale", "2", "--after", "--before", "c"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert calls == [
        {"before": "b", "shape": {"scale": 0.5, "mode": "fast"}, "changes": {}, "after": False},
        {
            "before": "c",
            "shape": {"scale": 2.0, "mode": "odd", "names": ["x", "y"]},
            "changes": {"rows": 7},
            "after": True,
        },
    ]


def test_help_and_order_are_those_of_the_fields(called: tuple[typer.Typer, list[dict[str, Any]]]) -> None:
    command = typer.main.get_command(called[0])
    options: list[Any] = list(command.get_params(typer.Context(command)))
    shown = [(option.opts[0], option.help, option.default) for option in options if "--install" not in option.opts[0]]
    assert [entry for entry in shown if entry[0] not in ("--show-completion", "--help")] == [
        ("--before", None, "b"),
        ("--scale", "Factor.", 0.5),
        ("--way", "How to compute.", "fast"),
        ("--names", "Names. Repeatable.", None),
        ("--rows", "Number of rows.", None),
        ("--after", None, False),
    ]


@pytest.mark.parametrize("words", [["--rows", "x"], ["--scale", "x"], ["--mode", "fast"]])
def test_an_error_names_the_option(called: tuple[typer.Typer, list[dict[str, Any]]], words: list[str]) -> None:
    done = CliRunner().invoke(called[0], words)
    assert done.exit_code == 2
    assert words[0] in done.output
    assert called[1] == []
