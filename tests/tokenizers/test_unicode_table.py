"""The pinned classes against the `tokenizers` library, over every scalar value.

`python tests/tokenizers/test_unicode_table.py` writes `alm/tokenizers/_unicode.py` anew from the library.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

SCALARS = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
CLASSES = {"LETTERS": r"\p{L}", "NUMBERS": r"\p{N}", "SPACES": r"\s"}
SIZES = {"LETTERS": (677, 141_028), "NUMBERS": (144, 1_911), "SPACES": (10, 25)}

HEADER = '''\
"""Which code points are letters, numbers and spaces: pinned, so that no upgrade changes a tokenizer.

These are the classes of the `tokenizers` library. Python's own tables differ from them and
from one Python to the next. Written by `python tests/tokenizers/test_unicode_table.py`; never edited.
"""

from __future__ import annotations


def ranges(table: str) -> list[tuple[int, int]]:
    """The `(first, last)` code points of each range in `table`, both included.

    An entry is `gap+length` in hexadecimal: code points left out since the range before, code
    points in this one; a length of 1 is not written.

    >>> ranges("41+1a 6")
    [(65, 90), (97, 97)]
    """
    found, position = [], 0
    for entry in table.split():
        gap, _, length = entry.partition("+")
        first = position + int(gap, 16)
        position = first + int(length or "1", 16)
        found.append((first, position - 1))
    return found

'''


def of_library(regex: str) -> set[int]:
    """The scalar values that `regex` matches in the library."""
    split = Split(Regex(regex), behavior="removed", invert=True)
    pieces = split.pre_tokenize_str("".join(map(chr, SCALARS)))
    return {SCALARS[place] for _, (start, stop) in pieces for place in range(start, stop)}


def table_of(points: Iterable[int]) -> str:
    """`points` in the notation of the module."""
    entries, position, run = [], 0, 0
    for point in sorted(points):
        if run and point == position:
            run, position = run + 1, point + 1
            entries[-1] = f"{entries[-1].partition('+')[0]}+{run:x}"
        else:
            entries.append(f"{point - position:x}")
            run, position = 1, point + 1
    return " ".join(entries)


def module_text() -> str:
    parts = [HEADER]
    for name, regex in CLASSES.items():
        table = "\n".join(textwrap.wrap(table_of(of_library(regex)), 118))
        parts.append(f'\n{name} = """\n{table}\n"""\n')
    return "".join(parts)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_is_the_library_s(name: str) -> None:
    from alm.tokenizers import _unicode

    ours = _unicode.ranges(getattr(_unicode, name))
    points = {point for first, last in ours for point in range(first, last + 1)}
    assert (len(ours), len(points)) == SIZES[name]
    assert points == of_library(CLASSES[name])


def test_the_module_is_what_this_file_writes() -> None:
    from alm.tokenizers import _unicode

    assert Path(_unicode.__file__).read_text("utf-8") == module_text()


if __name__ == "__main__":
    module = Path(__file__).parents[2] / "alm" / "tokenizers" / "_unicode.py"
    module.write_text(module_text(), "utf-8")
