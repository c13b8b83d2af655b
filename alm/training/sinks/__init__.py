"""Where the rows of a run go besides its own files: each module is a kind of `logging.sinks`."""
