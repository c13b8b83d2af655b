"""Go's templates as far as Modelfiles of `alm` use them, by way of Jinja, and what Ollama gives to them.

Beside Ollama's own `template` and `parser`, compiled by Go 1.27, this made the same of the files of test_ollama.py.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence

import jinja2

_NAMES = {".Role": "message.role", ".Content": "message.content", "$.System": "system", "$i": "loop.index0"}
_OPERATORS = {"eq": "==", "ne": "!=", "gt": ">", "and": "and"}


def render(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """Write what Ollama sends to the model."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return compiled(template).render(messages=messages, system=system)


@functools.cache
def compiled(template: str) -> jinja2.Template:
    return jinja2.Template(as_jinja(template), keep_trailing_newline=True)


def as_jinja(template: str) -> str:
    """Translate a template, statement by statement; KeyError for what is not known here."""
    parts, ends = [], list[str]()
    for number, part in enumerate(re.split(r"\{\{ (.*?) \}\}", template)):
        if number % 2 == 0:
            parts.append(f"{{{{ {json.dumps(part)} }}}}")
        elif part == "end":
            parts.append(f"{{% {ends.pop()} %}}")
        elif part == "range $i, $_ := .Messages":
            ends.append("endfor")
            parts.append("{% for message in messages %}")
        elif part.startswith("else if "):
            parts.append(f"{{% elif {_expression(part.removeprefix('else if '))} %}}")
        elif part.startswith("if "):
            ends.append("endif")
            parts.append(f"{{% if {_expression(part.removeprefix('if '))} %}}")
        else:
            parts.append(f"{{{{ {_expression(part)} }}}}")
    assert not ends
    return "".join(parts)


def _expression(text: str) -> str:
    """Translate `and (eq $i 0) $.System` and the like."""
    words: list[str] = re.findall(r'"[^"]*"|\(.*?\)|\S+', text)
    if len(words) == 1:
        word = words[0]
        if word.startswith("("):
            return f"({_expression(word[1:-1])})"
        return word if word.startswith('"') or word.isdecimal() else _NAMES[word]
    operator, left, right = words
    return f"{_expression(left)} {_OPERATORS[operator]} {_expression(right)}"


def instructions(modelfile: str) -> list[tuple[str, str]]:
    """Take a Modelfile apart, as Ollama does: each instruction with its argument, without quotes around it."""
    found = re.findall(r'^([A-Z]+) ("""(?:.|\n)*?"""|.*)$', modelfile, re.MULTILINE)
    assert "".join(f"{name} {value}\n" for name, value in found) == modelfile
    return [(name, value.removeprefix('"""').removesuffix('"""')) for name, value in found]
