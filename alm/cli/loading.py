"""Says that PyTorch is being loaded, which takes seconds, whichever command needs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder

from alm.cli import screen


class _Announcer(MetaPathFinder):
    """Prints a line when PyTorch is first searched for, and finds nothing itself."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> None:
        if name == "torch":
            sys.meta_path.remove(self)
            screen.echo_err("loading PyTorch ...")


@contextlib.contextmanager
def announced(words: Sequence[str]) -> Iterator[None]:
    """Print a line on stderr when PyTorch is imported meanwhile, unless `words` ask for silence.

    Of the ranks that train together, only the first prints.
    """
    is_silent = "--json" in words or any(_is_quiet(word) for word in words) or os.environ.get("RANK", "0") != "0"
    announcer = None if is_silent or "torch" in sys.modules else _Announcer()
    if announcer is not None:
        sys.meta_path.insert(0, announcer)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(announcer)  # type: ignore[arg-type] # None is not there


def _is_quiet(word: str) -> bool:
    """Whether `word` is `--quiet`, or short flags with `-q` among them."""
    return word == "--quiet" or (word[:1] == "-" and word[1:].isalpha() and "q" in word)
