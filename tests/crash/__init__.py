"""The proof of crash safety: faults at every operation of every stage, judged from the command line alone.

`python -m crash --help` (from `tests/`) says what it can do; `nox -s crash` runs all of it.
"""
