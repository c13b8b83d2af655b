"""The version of alm."""

__version__ = "0.1.0"
