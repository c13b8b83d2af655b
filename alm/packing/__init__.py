"""From clean text to shards of token ids, every token counted."""
