"""The command line: the only place that draws, parses or exits."""
