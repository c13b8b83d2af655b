"""What a run shows of itself: metrics, samples, trackers, forecast and verdict."""
