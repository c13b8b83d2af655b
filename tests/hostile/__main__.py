"""`nox -s hostile`: many mutations of every artifact, with what became of them as it goes."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).resolve().parent.parent
AT_ONCE = 250


def run(arguments: argparse.Namespace) -> int:
    """The number of violations."""
    from hostile import reading

    from alm.cli.main import main

    def command(*words: str) -> None:
        try:
            main(list(words))
        except SystemExit as ending:
            if ending.code:
                raise RuntimeError(words) from ending

    with TemporaryDirectory(prefix="alm-hostile-") as name:
        os.chdir(name)
        reading.make(Path(name), command)
        counts, violations, began = Counter[str](), 0, time.process_time()
        for done in range(0, arguments.mutations, AT_ONCE):
            wanted = min(AT_ONCE, arguments.mutations - done)
            outcome = reading.attack(Path(name), mutations_wanted=wanted, seed=arguments.seed + done)
            counts += outcome.counts
            violations += len(outcome.violations)
            seconds = time.process_time() - began
            lines = [f"{done + wanted:,} mutations  {dict(counts)}  {seconds:.0f} CPU s", *outcome.violations]
            sys.stdout.write("\n  ".join(lines) + "\n")
            sys.stdout.flush()
        os.chdir(TESTS)
    return violations


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    raise SystemExit(min(run(parser.parse_args()), 1))
