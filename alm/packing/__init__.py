"""Packing: clean text in, shards of token ids out, with every token counted."""
