"""Many cases of one law as one test: pytest's own parameters cost more than a case that takes a millisecond."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

Test = Callable[..., None]


def for_each(name: str, values: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test for each of `values` of its parameter `name`; a failure is shown with its value.

    `name` may be several, as in "text, expected": then each value is a tuple. All share the fixtures of the test, so
    use it where none of them changes. Several can be stacked.
    """
    names = name.split(", ")
    cases = [value if len(names) > 1 else (value,) for value in values]
    assert cases

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            for value in cases:
                try:
                    test(*args, **kwargs, **dict(zip(names, value, strict=True)))
                except BaseException as error:
                    error.add_note(", ".join(map("{} = {!r}".format, names, value)))
                    raise

        signature = inspect.signature(test)
        others = [parameter for parameter in signature.parameters.values() if parameter.name not in names]
        assert len(others) == len(signature.parameters) - len(names), name
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined] # what pytest reads
        return run

    return decorate
