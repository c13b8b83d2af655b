"""`alm config show`, `check` and `copy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alm.cli import options, ui
from alm.cli.help import Commands

if TYPE_CHECKING:
    from alm.config.base import Config

app = Commands(help="Show, check and copy configurations.", no_args_is_help=True)


@app.command(examples=("alm config show", "alm config show pico train --set training.max_steps=200"))
def show(
    names: Annotated[
        list[str] | None, typer.Argument(help="Files or presets, such as `pico train`; without any, list the presets.")
    ] = None,
    set_: options.Set = None,
    json: options.Json = False,
) -> None:
    """Print a configuration with every default filled in."""
    from alm.config import presets
    from alm.config.yaml_files import write_yaml

    if not names:
        listed = [(name, str(presets.folder() / f"{name}.yaml")) for name in presets.names()]
        ui.show_result(dict(listed), ui.table(listed), as_json=json)
        return
    values = _load(names, set_ or []).model_dump(mode="json")
    if json:
        ui.show_result(values, [], as_json=True)
    else:  # exact, to be saved to a file: YAML has its own escapes
        ui.write_exact(write_yaml(values))


@app.command(examples=("alm config check configs/mine.yaml", "alm config check pico train --set optim.lr=0.01"))
def check(
    names: Annotated[list[str], typer.Argument(help="Files or presets to combine.")],
    set_: options.Set = None,
) -> None:
    """Check configurations, and list every problem."""
    _load(names, set_ or [])
    ui.write(f"valid: {' '.join(names)}")


@app.command(examples=("alm config copy pico", "alm config copy train --out configs/mine.yaml"))
def copy(
    name: Annotated[str, typer.Argument(help="The preset to copy.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write.  [default: configs/NAME.yaml]")] = None,
    force: options.Force = False,
) -> None:
    """Copy a preset to a file that you can edit."""
    from alm.config import presets
    from alm.errors import ConfigError, shell
    from alm.files import write_bytes

    source = presets.find(name)
    target = out or Path("configs") / f"{source.stem}.yaml"
    if target.exists() and not force:
        hint = f"run `{shell('alm', 'config', 'copy', name, '--out', 'other.yaml')}`, or add --force"
        raise ConfigError(f"`{target}` already exists", hint=hint)
    write_bytes(target, source.read_bytes())
    ui.write(str(target))


def _load(names: list[str], overrides: list[str]) -> Config:
    """A corpus file alone, or model and training files together."""
    from alm.config import presets
    from alm.config.load import Part, load
    from alm.config.yaml_files import read_yaml
    from alm.corpus.config import CorpusConfig
    from alm.training.config import RunConfig

    paths = [presets.find(name) for name in names]
    loaded = [read_yaml(path) for path in paths]
    if any(isinstance(values, dict) and "sources" in values for values in loaded):
        return load(CorpusConfig, [Part(path) for path in paths], overrides=overrides)
    return load(RunConfig, [Part(path) for path in paths], overrides=overrides)
