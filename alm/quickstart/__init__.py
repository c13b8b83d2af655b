"""The complete pipeline on the built-in corpus."""
