"""The special tokens that every tokenizer starts with. They have ids, but no text encodes to them."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
TURN_ENDS = (TURN_END, "<|eot_id|>", "<|eom_id|>")  # of ChatML and of Llama 3
PADDING = "<|pad|>"

ENDS_OF_TEXT = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<｜end▁of▁sentence｜>")
"""Names of the token that ends a text, in the order in which a file is searched: ours and GPT-2's, SmolLM's and Qwen's;
Llama 3's; Llama 2's and Mistral's; Gemma's; DeepSeek's."""

_RESERVED = 12

SPECIALS = (END_OF_TEXT, TURN_START, TURN_END, PADDING, *(f"<|reserved_{index}|>" for index in range(_RESERVED)))
"""The special tokens. The id of each is its index."""

UNKNOWN = "<unk>"
"""Name of a character without an id in a model over characters; its bytes are used instead."""

BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""Names of the tokens of single bytes in such a model."""
