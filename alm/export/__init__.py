"""Exports of trained models to the files of other tools, and imports from them."""
