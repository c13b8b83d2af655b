"""Templates for other tools, in Jinja that every reader of such templates supports, of formats that `alm` chooses.

A message's content is a text, null, or a list whose parts become lines, as in `alm.corpus.adapters`. A part is a text
or `{"type": "text", "text": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping

_CONTENT = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content is defined and content is iterable and content is not mapping -%}
{%- for part in content if part is string or part['type']|default('text') == 'text' and part['text'] is string -%}
{{- '' if loop.first else '\\n' -}}{{- part if part is string else part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
"""


def _asking(opening: str) -> str:
    """Return the end of a template, which asks for an answer."""
    asked = "add_generation_prompt is defined and add_generation_prompt"
    return f"{{%- if {asked} -%}}{{{{- {_quoted(opening)} -}}}}{{%- endif -%}}\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", r"\\").replace("'", r"\'").replace("\n", r"\n") + "'"


CHATML = (
    _CONTENT
    + """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{{- text(message['content']) + '<|im_end|>' -}}{{- '\\n' -}}
{%- else -%}
{{- text(message['content']) + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
"""
    + _asking("<|im_start|>assistant\n")
)


def in_turns(turns: Mapping[str, tuple[str, str]], *, begin: str, opening: str) -> str:
    """Return the template of turns that have a text before and after the content, by role."""
    branches = [
        f"{{%- if message['role'] == {_quoted(role)} -%}}"
        f"{{{{- {_quoted(before)} + text(message['content']) + {_quoted(after)} -}}}}{{%- endif -%}}\n"
        for role, (before, after) in turns.items()
    ]
    first = f"{{{{- {_quoted(begin)} -}}}}\n" if begin else ""
    loop = f"{{%- for message in messages -%}}\n{''.join(branches)}{{%- endfor -%}}\n"
    return f"{_CONTENT}{first}{loop}{_asking(opening)}"
