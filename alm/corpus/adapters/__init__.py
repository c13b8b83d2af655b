"""Kinds of adapter: how rows (mappings of field to value) become documents."""
