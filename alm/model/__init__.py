"""The decoder-only transformer. It does no I/O, has no training loop and chooses no device."""
