"""The driver: prepares, shares the work out, gathers what was found, and says it."""

from __future__ import annotations

import argparse
import collections
import fnmatch
import gc
import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crash import races, stages
from crash.faults import KINDS, SHIM, Fault
from crash.stages import Case
from crash.trial import Clean, Trial, Violation


@contextmanager
def _away(folder: Path, stdin: bytes | None) -> Iterator[io.BytesIO]:
    """This process in `folder`, with its output kept."""
    before = Path.cwd(), sys.stdin, sys.stdout, sys.stderr
    said = io.BytesIO()
    os.chdir(folder)
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin or b""), encoding="utf-8")
    sys.stdout = sys.stderr = io.TextIOWrapper(said, encoding="utf-8", write_through=True)
    try:
        yield said
    finally:
        os.chdir(before[0])
        sys.stdin, sys.stdout, sys.stderr = before[1:]


def command(folder: Path, *arguments: str, stdin: bytes | None = None) -> None:
    """`alm ARGUMENTS` in this process, so that what it loads and compiles is there for every fork."""
    from alm.cli.main import main

    with _away(folder, stdin) as said:
        try:
            main(list(arguments))
        except SystemExit as ending:
            if ending.code not in (0, None):
                raise RuntimeError(f"alm {' '.join(arguments)}\n{said.getvalue().decode()}") from None


def make_small() -> None:
    """Units of a few lines in place of 64 MiB, where the stage still takes their size; a command line built once."""
    import functools

    import safetensors.torch  # noqa: F401 - for the injector, which imports nothing

    if SHIM not in os.environ:  # which counts what the system is asked for
        os.fsync = lambda _: None  # durable.py judges the order of the calls, and the disk takes milliseconds for each
    import typer.main

    typer.main.get_command = functools.cache(typer.main.get_command)
    from alm.corpus.pipeline.prepare import prepare

    named = prepare.__kwdefaults__ or {}
    if "unit_bytes" in named:
        named["unit_bytes"] = stages.UNIT_BYTES


class Running:
    """What the command line asks for, in `folder`."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self._folder = folder
        self._given = given
        self._started = time.monotonic()

    def all(self) -> int:
        """Everything; the exit code."""
        make_small()
        cases = stages.Making(self._folder / "prepared", command, self._is_wanted).all()
        if not cases:
            print("no such case")
            return 2
        self._say(f"{len(cases)} cases")
        if threading.active_count() != 1:
            raise RuntimeError(f"threads are left: {threading.enumerate()}")
        gc.collect()
        gc.freeze()
        clean = self._clean(cases)
        if self._given.list:
            for case in cases:
                for violation in clean[case.name].violations:
                    print(violation.text())
                if self._given.case:
                    for each in clean[case.name].outcome.operations:
                        print(f"  {each.number:4} {each.name:9} {each.path}")
            return 0
        tasks = [] if self._given.no_faults else self._tasks(cases, clean)
        results = self._shared(cases, clean, tasks) if tasks else []
        code = self._summary(cases, clean, results)
        return max(code, self._races(cases, clean), self._kills(self._given.kills, is_fresh=False),
                   self._kills(self._given.fresh, is_fresh=True))  # fmt: skip

    def _races(self, cases: list[Case], clean: dict[str, Clean]) -> int:
        """Races of the cases in turn; those that replace by force may do so twice."""
        if not self._given.races:
            return 0
        running = [case for case in cases if not case.force]
        found = []
        for number in range(self._given.races):
            case = running[number % len(running)]
            found += races.race(case, clean[case.name], self._folder / "race", number=number)
        self._say(f"{self._given.races:,} races of {len(running)} commands, {len(found)} violations")
        return self._tell(found)

    def _kills(self, count: int, *, is_fresh: bool) -> int:
        if not count:
            return 0
        killing = races.Killing(self._folder / "kills", is_fresh=is_fresh)
        kills, chains = 0, 0
        found: list[Violation] = []
        while kills < count:
            hit, broken = killing.chain(self._given.seed + chains)
            kills, chains = kills + hit, chains + 1
            found += broken
        how = "new processes" if is_fresh else "forks"
        self._say(f"{kills:,} random kills of {how} over {chains:,} chains, {len(found)} violations")
        return self._tell(found)

    def _tell(self, found: list[Violation]) -> int:
        for violation in found[: self._given.full]:
            print(f"\n{violation.text()}")
        return int(bool(found))

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", flush=True)

    def _is_wanted(self, name: str) -> bool:
        if self._given.case:
            return any(fnmatch.fnmatch(name, pattern) for pattern in self._given.case)
        return name in stages.FAST or not self._given.fast

    def _clean(self, cases: list[Case]) -> dict[str, Clean]:
        kinds = tuple(self._given.kind or KINDS)
        clean = {}
        for case in cases:
            before = time.monotonic()
            clean[case.name] = Trial(case, self._folder / "clean", kinds).clean()
            changes, faults = len(clean[case.name].outcome.operations), len(clean[case.name].faults)
            took, spent = time.monotonic() - before, clean[case.name].outcome.seconds
            self._say(f"{case.name}: {changes} changes, {faults} faults, {took:.2f} s, {spent:.2f} CPU s")
        return clean

    def _tasks(self, cases: list[Case], clean: dict[str, Clean]) -> list[tuple[str, Fault]]:
        tasks = []
        for case in cases:
            faults = clean[case.name].faults
            if self._given.number:
                faults = [fault for fault in faults if fault.number in self._given.number]
            most = self._given.sample or len(faults)
            if case.most and not self._given.number:
                most = min(most, case.most)
            count = min(most, len(faults))
            tasks += [(case.name, faults[len(faults) * each // count]) for each in range(count)]
        return tasks

    def _shared(
        self, cases: list[Case], clean: dict[str, Clean], tasks: list[tuple[str, Fault]]
    ) -> list[tuple[str, Fault, list[Violation]]]:
        """The tasks, done by several forks of this process; neighbours by the same one, which knows their states."""
        jobs = max(1, min(self._given.jobs, len(tasks)))
        named = {case.name: case for case in cases}
        children = []
        for job in range(jobs):
            share = tasks[len(tasks) * job // jobs : len(tasks) * (job + 1) // jobs]
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    self._work(job, named, clean, share)
                    code = 0
                except BaseException:  # noqa: BLE001 - a fork ends here
                    sys.excepthook(*sys.exc_info())
                finally:
                    os._exit(code)
            children.append(pid)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        if any(codes):
            raise RuntimeError("a driver failed")
        results = []
        for job in range(jobs):
            for line in (self._folder / f"results-{job}.jsonl").read_text("utf-8").splitlines():
                values = json.loads(line)
                found = [Violation(**each) for each in values["violations"]]
                results.append((values["case"], Fault(**values["fault"]), found))
        return results

    def _work(self, job: int, named: dict[str, Case], clean: dict[str, Clean], share: list[tuple[str, Fault]]) -> None:
        trials: dict[str, Trial] = {}
        said = time.monotonic()
        with (self._folder / f"results-{job}.jsonl").open("w", encoding="utf-8") as file:
            for number, (name, fault) in enumerate(share, 1):
                if name not in trials:
                    trials[name] = Trial(named[name], self._folder / f"job-{job}")
                    trials[name].adopt(clean[name])
                found = trials[name].violations(fault)
                values: dict[str, Any] = {
                    "case": name,
                    "fault": asdict(fault),
                    "violations": [asdict(v) for v in found],
                }
                file.write(json.dumps(values) + "\n")
                file.flush()
                if time.monotonic() - said > 30:
                    said = time.monotonic()
                    self._say(f"driver {job}: {number} of {len(share)} faults, {name}")

    def _summary(
        self, cases: list[Case], clean: dict[str, Clean], results: list[tuple[str, Fault, list[Violation]]]
    ) -> int:
        tried = collections.Counter(name for name, _, _ in results)
        faulty = collections.Counter(name for name, _, found in results if found)
        violations = [v for case in cases for v in clean[case.name].violations]
        violations += [violation for _, _, found in results for violation in found]
        print(f"\n{'case':<24} {'changes':>8} {'faults':>8} {'broken':>8}")
        for case in cases:
            changes = len(clean[case.name].outcome.operations)
            print(f"{case.name:<24} {changes:>8,} {tried[case.name]:>8,} {faulty[case.name]:>8,}")
        changes = sum(len(each.outcome.operations) for each in clean.values())
        print(f"{'all':<24} {changes:>8,} {tried.total():>8,} {faulty.total():>8,}\n")
        checks = collections.Counter((v.case, v.check) for v in violations)
        for (name, check), count in sorted(checks.items()):
            print(f"{count:>6,}  {name}: {check}")
        shown: collections.Counter[tuple[str, str]] = collections.Counter()
        left = self._given.full
        for violation in violations:
            shown[violation.case, violation.check] += 1
            if shown[violation.case, violation.check] <= 2 and left > 0:
                left -= 1
                print(f"\n{violation.text()}")
        self._say(f"{len(violations):,} violations by {faulty.total():,} of {tried.total():,} faults")
        if self._given.json:
            self._given.json.write_text(json.dumps([asdict(v) for v in violations], indent=1), encoding="utf-8")
        return int(bool(violations))
