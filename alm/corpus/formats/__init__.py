"""Kinds of file format that the source `files` reads."""
