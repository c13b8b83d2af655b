"""Kinds of learning-rate schedule."""
