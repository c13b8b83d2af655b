"""Kinds of feed-forward layer."""
