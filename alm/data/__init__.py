"""Batches from shards: any batch of any step, as a pure function."""
