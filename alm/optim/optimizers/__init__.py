"""Kinds of optimizer."""
