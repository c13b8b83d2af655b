"""Two starters at one moment, and kills at any moment."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from crash import promises, sitting, stages, trees
from crash.stages import Case
from crash.trees import Entry, Tree
from crash.trial import KILLS, RACE, Clean, Trial, Violation

# Commands that give the same bytes however often they run, and have no word for that.
SILENT = ("report", "tiktoken")
AGAIN = ("q/report.html",)  # a quickstart that finds all up to date writes its page again


def race(case: Case, clean: Clean, folder: Path, *, number: int) -> list[Violation]:
    """Two processes of one command on one folder, released together: one works, the other is refused or has nothing
    to do."""
    trial = Trial(case, folder)
    trial.adopt(clean)
    trees.put(case.start, trial.work)
    gate, opener = os.pipe()
    logs = [folder / f"logs-{each}" for each in range(2)]
    pids = [sitting.begin(trial.work, case.arguments, logs=log, stdin=case.stdin, gate=(gate, opener)) for log in logs]
    os.close(gate)
    os.close(opener)  # both read the end of the pipe now
    outcomes = [sitting.ended(pid, log) for pid, log in zip(pids, logs, strict=True)]
    found = [*_both(case, outcomes)]
    tree = trees.take(trial.work)
    lines = trial.differences(tree)
    if lines and any(outcome.code == 0 for outcome in outcomes):
        said = "\n".join(f"exit code {each.code}: {each.err[-300:]}" for each in outcomes)
        found.append(("the one that works is damaged", "\n".join([*lines[:8], said])))
    found += trial.afterwards(tree)
    return [Violation(case.name, RACE, number, "", *each) for each in found]


def _both(case: Case, outcomes: Sequence[sitting.Outcome]) -> Iterator[tuple[str, str]]:
    said = "\n".join(f"exit code {each.code}\n{each.err[-700:]}" for each in outcomes)
    codes = sorted(each.code for each in outcomes)
    if codes == [0, 0]:
        if all(map(_has_worked, outcomes)) and not case.name.startswith(SILENT):
            yield "both worked", said
    elif codes != [0, 1]:
        yield "not exactly one worked", said
    else:
        refused = next(each for each in outcomes if each.code == 1)
        if refused.err.count("Error: ") != 1 or "Hint: " not in refused.err or "Traceback" in refused.err:
            yield "refused without one clear message", said


def _has_worked(outcome: sitting.Outcome) -> bool:
    """Whether the process changed more than hidden files and folders: one that finds all up to date does not."""
    return any(
        not any(part.startswith(".") for part in each.path.split("/")) and each.path not in AGAIN
        for each in outcome.operations
        if each.name in ("create", "write", "rename", "link", "copy")
    )


def _scrubbed(tree: Tree) -> Tree:
    """`tree` with an export that names no hash of its checkpoint, of which the tensors are compared."""
    name = "exports/x/export.json"
    values = json.loads(tree[name].data or b"{}") if name in tree else {}
    return {**tree, name: Entry(json.dumps({**values, "inputs": [], "checksum": ""}).encode())}


CHAIN = (stages.PREPARE, stages.TOKENIZER, stages.PACK, stages.PRETRAIN, stages.SAFETENSORS)
_MOST_KILLS = 4  # of one command


class Killing:
    """Kills at random times over the whole chain, each command again until it is done."""

    def __init__(self, folder: Path, *, is_fresh: bool) -> None:
        self._folder = folder
        self._is_fresh = is_fresh  # whether each is a new Python, or a fork of this process
        self._start = stages.inputs("kills")
        self._seconds: list[float] = []
        trees.put(self._start, self.work)
        for arguments in CHAIN:
            before = time.monotonic()
            code, err = self._end(self._begin(arguments))
            self._seconds.append(time.monotonic() - before)
            if code != 0:
                raise RuntimeError(f"alm {' '.join(arguments)}: {err}")
        self.wanted = trees.take(self.work)

    @property
    def work(self) -> Path:
        """The folder of the chain."""
        return self._folder / "work"

    def _begin(self, arguments: Sequence[str]) -> int | subprocess.Popen[bytes]:
        if not self._is_fresh:
            return sitting.begin(self.work, arguments, logs=self._folder / "logs")
        command = [sys.executable, "-m", "alm", *arguments]
        return subprocess.Popen(command, cwd=self.work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _end(self, process: int | subprocess.Popen[bytes]) -> tuple[int, str]:
        if isinstance(process, int):
            outcome = sitting.ended(process, self._folder / "logs")
            return outcome.code, outcome.err
        err = process.communicate()[1]
        return process.returncode, err.decode("utf-8", "replace")

    def chain(self, seed: int) -> tuple[int, list[Violation]]:
        """The chain with random kills: how many hit, and what they broke."""
        draw = random.Random(f"kills {seed}")
        trees.put(self._start, self.work)
        kills, at, found = 0, "", []
        for arguments, seconds in zip(CHAIN, self._seconds, strict=True):
            for _ in range(draw.randrange(1, _MOST_KILLS + 1)):
                process = self._begin(arguments)
                time.sleep(draw.random() * seconds)
                os.kill(process if isinstance(process, int) else process.pid, signal.SIGKILL)
                code, _ = self._end(process)
                if code != -signal.SIGKILL:
                    continue
                kills += 1
                at = " ".join(arguments[:2])
                found += [("a promise that does not hold", line) for line in promises.broken(trees.take(self.work))]
            code, err = self._end(self._begin(arguments))
            if code != 0:
                found.append(("the same command does not finish", f"exit code {code}\n{err[-900:]}"))
                break
        lines = trees.differences(_scrubbed(self.wanted), _scrubbed(trees.take(self.work)), ignore=lambda _: False)
        if lines:
            found.append(("another result", "\n".join(lines[:10])))
        return kills, [Violation("chain", KILLS, seed, at, *each) for each in found]
