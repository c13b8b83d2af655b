"""From shards to batches: any batch of any step, as a pure function."""
