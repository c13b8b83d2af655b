"""Checkpoints: written atomically, loaded without running code, checked by hash."""

STAGING = "checkpoint"  # the label under which checkpoints are staged in the folder of a run
