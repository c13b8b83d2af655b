"""Trackers that also get the rows of a run: each module is a kind of `logging.sinks`."""
