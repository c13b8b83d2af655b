"""Text generation from a checkpoint and a prompt."""
