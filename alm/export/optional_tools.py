"""Other tools that an export or an import is compared with, if they are installed."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from types import ModuleType

from alm import shown
from alm.errors import AlmError


class UnusableToolError(AlmError):
    """A tool that is not installed, cannot be loaded, or is too old: nothing can be compared with it."""


def load(name: str, *, least: int = 0) -> ModuleType:
    """Import the package `name`; `UnusableToolError` if it is missing, broken, or older than version `least`."""
    if find_spec(name) is None:
        raise UnusableToolError(f"`{name}` is not installed", hint=f"pip install {name}")
    hint = f"pip install --upgrade {name}"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UnusableToolError(
            f"`{name}` is installed but cannot be loaded: {shown.reason(error)}", hint=hint
        ) from error
    version = str(getattr(module, "__version__", ""))
    major = version.split(".")[0]
    if least and not (major.isdecimal() and int(major) >= least):
        raise UnusableToolError(f"`{name}` {version} is too old, {least}.0 is needed", hint=hint)
    return module
