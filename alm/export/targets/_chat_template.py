"""ChatML as a template for `transformers`. It marks the assistant's words, on which fine-tuning trains.

`PLAIN` is the same without the marks, which other readers of such templates do not support.
"""

from __future__ import annotations

NAME = "chat_template.jinja"
TEXT = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{%- generation -%}{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}{{- '\\n' -}}
{%- else -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
PLAIN = TEXT.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
