"""ChatML as templates for other tools: Jinja that every reader of such templates supports, and one for training.

A message's content is a text, null, or a list whose parts become lines, as in `alm.corpus.adapters`. A part is a text
or `{"type": "text", "text": ...}`.
"""

from __future__ import annotations

from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import TURN_END, TURN_START

NAME = "chat_template.jinja"
TEXT = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content is defined and content is iterable and content is not mapping -%}
{%- for part in content if part is string or part['type']|default('text') == 'text' and part['text'] is string -%}
{{- '' if loop.first else '\\n' -}}{{- part if part is string else part['text'] -}}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{{- text(message['content']) + '<|im_end|>' -}}{{- '\\n' -}}
{%- else -%}
{{- text(message['content']) + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt is defined and add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
# In `transformers` alone: `chat_template="training"` marks the assistant's words, on which fine-tuning trains.
TRAINING_NAME = "additional_chat_templates/training.jinja"
TRAINING = TEXT.replace(
    "{{- text(message['content']) + '<|im_end|>' -}}",
    "{%- generation -%}{{- text(message['content']) + '<|im_end|>' -}}{%- endgeneration -%}",
)


def has_turns(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has the tokens of ChatML."""
    return TURN_START in tokenizer.specials and TURN_END in tokenizer.specials
