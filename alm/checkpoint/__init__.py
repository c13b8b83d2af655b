"""Checkpoints: written whole, loaded without running code, checked by hash."""
