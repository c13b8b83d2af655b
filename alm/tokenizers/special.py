"""The special tokens every tokenizer starts with. They have ids, and no text ever encodes to them."""

from __future__ import annotations

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
PADDING = "<|pad|>"

_RESERVED = 12

SPECIALS = (END_OF_TEXT, TURN_START, TURN_END, PADDING, *(f"<|reserved_{index}|>" for index in range(_RESERVED)))
"""The special tokens; the id of each is its place."""

UNKNOWN = "<unk>"
"""What a model over characters calls a character that has no id; its bytes are used in its place."""

BYTE_NAMES = tuple(f"<0x{byte:02X}>" for byte in range(256))
"""What such a model calls the tokens of single bytes."""
