"""The decoder-only transformer: no I/O, no loop, no device chosen."""
