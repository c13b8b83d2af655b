"""Kinds of engine: how work over many units runs."""
