"""ChatML as templates for other tools: one for all of them, and one for training in `transformers`."""

from __future__ import annotations

from alm.tokenizers.chat_template import CHATML
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import TURN_END, TURN_START

NAME = "chat_template.jinja"
TEXT = CHATML
# In `transformers` alone: `chat_template="training"` marks what fine-tuning learns, as in `alm.tokenizers.chat_format`:
# the assistant's words and their end, but for an answer without words and a message of weight 0.
TRAINING_NAME = "additional_chat_templates/training.jinja"
TRAINING = TEXT.replace(
    "if message['role'] == 'assistant'",
    "if message['role'] == 'assistant' and text(message['content']) and message['weight']|default(1)",
).replace(
    "{{- text(message['content']) + '<|im_end|>' -}}",
    "{%- generation -%}{{- text(message['content']) + '<|im_end|>' -}}{%- endgeneration -%}",
)


def has_turns(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer has the tokens of ChatML."""
    return TURN_START in tokenizer.specials and TURN_END in tokenizer.specials
