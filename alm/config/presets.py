"""Presets, the configurations that ship with `alm`: `configs/` in a checkout, `alm/configs/` in the wheel."""

from __future__ import annotations

from pathlib import Path

from alm.config.base import did_you_mean
from alm.errors import ConfigError


def folder() -> Path:
    """Return the folder of the presets."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def names() -> list[str]:
    """List the presets, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(value: str) -> Path:
    """Return the file that `value` names: a path if it has a slash or ends in .yaml, else a preset."""
    is_path = "/" in value or "\\" in value or value.endswith((".yaml", ".yml"))
    path = Path(value) if is_path else folder() / f"{value}.yaml"
    if path.is_file():
        return path
    if is_path:
        fault = "is a folder, but a file is needed" if path.is_dir() else "does not exist"
        raise ConfigError(f"`{path}` {fault}", hint="run `alm config show` to see the presets")
    listed = ", ".join(names())
    raise ConfigError(
        f"no preset is named `{value}`{did_you_mean(value, names())} (there are: {listed})",
        hint=f"write `./{value}.yaml` if it is your own file, or run `alm config show` to see the presets",
    )


def name_of(path: Path) -> str:
    """Return what a user writes for `path`: the name of a preset, else the path. The inverse of `find`."""
    return path.stem if path.parent == folder() else str(path)
