"""Backends of generation, one for each kind of device: classes with the methods of `alm.generation.engine.Rows`."""
