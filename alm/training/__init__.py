"""The pretraining loop and its run folder."""
