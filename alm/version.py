"""The version of alm."""

__version__ = "0.2.0"
