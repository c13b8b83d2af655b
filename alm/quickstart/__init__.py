"""The whole pipeline on the built-in corpus."""
