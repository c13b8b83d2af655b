"""Many cases of one law as one test: pytest's own parameters cost more than a case that takes a millisecond."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

Test = Callable[..., None]


def for_each(name: str, values: Iterable[Any]) -> Callable[[Test], Test]:
    """Run a test for each of `values` of its parameter `name`; a failure is shown with its value.

    All share the fixtures of the test, so use it where none of them changes. Several can be stacked.
    """
    cases = list(values)
    assert cases

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            for value in cases:
                try:
                    test(*args, **kwargs, **{name: value})
                except BaseException as error:
                    error.add_note(f"{name} = {value!r}")
                    raise

        signature = inspect.signature(test)
        others = [parameter for parameter in signature.parameters.values() if parameter.name != name]
        assert len(others) < len(signature.parameters), name
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined] # what pytest reads
        return run

    return decorate
