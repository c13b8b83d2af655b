"""One fault in one case, and everything that has to hold afterwards."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crash import durable, promises, runs, sitting, trees
from crash.faults import KINDS, SHIM, Fault, fits
from crash.sitting import Outcome
from crash.stages import Case
from crash.trees import Tree

# What nobody may find when a command has ended well.
LEFTOVER = re.compile(r"(^|/)[^/]*(\.tmp-|\.tmp$|\.link-|\.lock$|journal|staging|\.partial)[^/]*", re.IGNORECASE)

# What was done to a case where it was not a fault.
CLEAN, RACE, KILLS = "nothing", "two at once", "random kills"


@dataclass(frozen=True)
class Violation:
    """A promise that a fault broke: where, and how to see it again."""

    case: str
    kind: str
    number: int
    operation: str
    check: str
    detail: str

    @property
    def command(self) -> str:
        """What shows it again, from the root of the checkout."""
        words = ["python", "tests/crash", "--case", self.case]
        if self.kind == RACE:
            words += ["--no-faults", "--races", "20"]
        elif self.kind == KILLS:
            words = [
                "python",
                "tests/crash",
                "--case",
                "report-new",
                "--no-faults",
                "--kills",
                "1",
                "--seed",
                str(self.number),
            ]
        elif self.kind == CLEAN:
            words += ["--list"]
        else:
            words += ["--kind", self.kind, "--number", str(self.number), "--keep"]
        return shlex.join([*words, *(["--native", os.environ[SHIM]] if SHIM in os.environ else [])])

    def text(self) -> str:
        """The violation in full."""
        at = f" at {self.number} ({self.operation})" if self.kind in KINDS else ""
        head = f"{self.case}  {self.kind}{at}: {self.check}"
        return "\n".join([head, *(f"    {line}" for line in self.detail.splitlines()), f"    {self.command}"])


@dataclass
class Clean:
    """The undisturbed run of a case: what it makes, and the changes it makes on the way."""

    tree: Tree
    outcome: Outcome
    faults: list[Fault]
    violations: list[Violation]


@dataclass
class Trial:
    """Tries faults of one case in `folder`."""

    case: Case
    folder: Path
    kinds: tuple[str, ...] = KINDS
    # What became of a state when the command was run on it without a fault, by the state's hash.
    _known: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def run(self, *, fault: Fault | None = None, with_force: bool = True) -> Outcome:
        """The command in the folder as it is."""
        arguments = self.case.given if with_force else list(self.case.arguments)
        return sitting.run(self.work, arguments, logs=self.logs, fault=fault, stdin=self.case.stdin)

    def clean(self) -> Clean:
        """Run the case without a fault, twice; lists the faults to try."""
        trees.put(self.case.start, self.work)
        outcome = self.run()
        found: list[Violation] = []

        def broken(check: str, detail: str) -> None:
            found.append(Violation(self.case.name, CLEAN, 0, "", check, detail))

        if outcome.code != 0:
            broken("the clean run fails", _said(outcome))
        tree = trees.take(self.work)
        for line in promises.broken(self._without_foreign(tree)):
            broken("promise after a clean run", line)
        for line in self._foreign_changes(tree):
            broken("files of others after a clean run", line)
        for name in sorted(tree.keys() - self.case.start.keys()):
            if LEFTOVER.search(name):
                broken("left over after a clean run", f"`{name}`")
        if SHIM not in os.environ:  # which does not say what was renamed
            for line in durable.misordered(self.case.start, tree, outcome.operations):
                broken("6 a power cut breaks a promise", line)
        faults = [
            Fault(kind, operation.number)
            for operation in outcome.operations
            for kind in self.kinds
            if fits(kind, operation.name)
        ]
        self._wanted = tree
        for check, detail in self._again(tree):
            broken(check, detail)
        return Clean(tree, outcome, faults, found)

    def adopt(self, clean: Clean) -> None:
        """Judge by a clean run that was made elsewhere."""
        self._wanted = clean.tree

    def violations(self, fault: Fault) -> list[Violation]:
        """What `fault` breaks."""
        trees.put(self.case.start, self.work)
        outcome = self.run(fault=fault)
        at = outcome.at(fault.number)
        where = f"{at.name} {at.path}" if at else "not reached"
        tree = trees.take(self.work)
        found = [*self._at_once(tree), *self._ending(fault, outcome, tree, is_reached=at is not None)]
        state = trees.digest(tree, lambda data: trees.without_clocks(outcome.scrub(data)))
        if state not in self._known:
            self._known[state] = [*self.afterwards(tree)]
        found += self._known[state]
        return [Violation(self.case.name, fault.kind, fault.number, where, *each) for each in found]

    # ---- immediately after

    def _without_foreign(self, tree: Tree) -> Tree:
        return {name: entry for name, entry in tree.items() if name not in self.case.foreign}

    def _at_once(self, tree: Tree) -> Iterator[tuple[str, str]]:
        for line in promises.broken(self._without_foreign(tree)):
            yield "1 a promise that does not hold", line
        for line in self._foreign_changes(tree):
            yield "1 files of others", line

    def _foreign_changes(self, tree: Tree) -> Iterator[str]:
        for name, entry in self.case.start.items():
            is_ours = any(name == t or name.startswith(t + "/") for t in self.case.targets)
            if entry.data is None or (is_ours and name not in self.case.foreign):
                continue
            now = tree.get(name)
            if now is None or now.data != entry.data:
                yield f"`{name}` {'is gone' if now is None else 'has changed'}"

    def _ending(self, fault: Fault, outcome: Outcome, tree: Tree, *, is_reached: bool) -> Iterator[tuple[str, str]]:
        if fault.is_kill and is_reached:
            if outcome.code != 137:
                yield "2 exit code", f"killed, but ended with {outcome.code}"
            return
        if outcome.code == 0:
            lines = self.differences(tree)
            if lines:
                only = all("left over" in line or "should not be" in line for line in lines)
                yield "2 success, with leftovers" if only else "2 success, with another result", "\n".join(lines[:12])
            return
        said = _said(outcome)
        if outcome.code != 1:
            yield "2 exit code", said
        elif "Traceback" in outcome.err or "this is a bug" in outcome.err:
            yield "2 traceback", said
        elif len(re.findall(r"^Error: ", outcome.err, re.MULTILINE)) != 1:
            yield "2 not one error message", said
        elif "Hint: " not in outcome.err:
            yield "2 no hint", said
        elif not self._names_a_path(outcome.err):
            yield "2 no path in the message", said

    def _names_a_path(self, err: str) -> bool:
        message = err[err.index("Error: ") :]
        for word in re.findall(r"`([^`]+)`", message.partition("Hint: ")[0]):
            path = (self.work / word).resolve()
            if path.is_relative_to(self.work.resolve()) and path != self.work.resolve():
                inside = path.relative_to(self.work.resolve()).as_posix()
                if "/" in word or inside in self._wanted or inside in self.case.start:
                    return True
        return False

    # ---- the same command again

    def afterwards(self, tree: Tree) -> Iterator[tuple[str, str]]:
        """What does not hold when the command runs again on `tree`."""
        if self.case.force:
            yield from self._without_force(tree)
            trees.put(tree, self.work)
        outcome = self.run()
        if outcome.code != 0:
            yield "3 the same command does not finish", _said(outcome)
            return
        found = trees.take(self.work)
        lines = [*self.differences(found)]
        if lines:
            yield "4 another result", "\n".join(lines[:12])
        yield from self._again(found)

    def _without_force(self, tree: Tree) -> Iterator[tuple[str, str]]:
        """Without --force the command finishes, or refuses because the old artifact is there, whole."""
        outcome = self.run(with_force=False)
        found = trees.take(self.work)
        if outcome.code == 0:
            lines = [*self.differences(found)]
            if lines:
                yield "1 without --force: another result", "\n".join(lines[:12])
        elif outcome.code != 1 or "Traceback" in outcome.err:
            yield "1 without --force: exit code", _said(outcome)
        else:
            lines = [*self._neither_old_nor_new(found)]
            if lines:
                yield "1 without --force: refused, and neither old nor new", "\n".join([*lines[:6], outcome.err[-700:]])

    def _neither_old_nor_new(self, tree: Tree) -> Iterator[str]:
        for name, entry in trees.part(self.case.start, *self.case.targets).items():
            now, new = tree.get(name), self._wanted.get(name)
            if entry.data is None or self._is_state(name) or (now is None and new is None):
                continue
            wanted = [each.data for each in (entry, new) if each is not None and each.data is not None]
            if now is None or now.data is None or not any(trees.same(name, data, now.data) for data in wanted):
                yield f"`{name}` {'is missing' if now is None else 'is neither the old nor the new one'}"

    def _again(self, tree: Tree) -> Iterator[tuple[str, str]]:
        """Once more: up to date, and nothing changes. Where it was replaced, without asking for that again."""
        arguments = list(self.case.arguments)
        if self.case.aside is not None and self.case.run:  # once more would set the new checkpoints aside
            arguments = ["pretrain", "--out", self.case.run]
        outcome = sitting.run(self.work, arguments, logs=self.logs, stdin=self.case.stdin)
        if outcome.code != 0:
            yield "5 once more", _said(outcome)
            return
        changed = [n for n in differing(tree, trees.take(self.work)) if not self._is_remembered(n)]
        if changed:
            yield "5 once more changes bytes", "\n".join(changed[:8])

    # ---- equality with the clean run

    def _is_state(self, name: str) -> bool:
        return "/.alm" in f"/{name}"

    def _is_remembered(self, name: str) -> bool:
        """Notes about the input that a command may write again: when it was looked at, what came in by a pipe."""
        return bool(re.search(r"\.alm/[^/]+/(plan\.json|input)$", name))

    def differences(self, tree: Tree) -> list[str]:
        """The ways in which `tree` is not what the clean run makes."""
        run = self.case.run
        lines = trees.differences(self._wanted, tree, self._is_compared_otherwise)
        lines += [f"`{name}` is cut off" for name in self.case.pages if not _is_page(tree.get(name))]
        lines += promises.broken(self._without_foreign(tree))
        lines += [*self._foreign_changes(tree)]
        if run:
            ours = self._without_foreign(tree)
            lines += runs.checkpoints(self._wanted, ours, run, self.case.keep_last, self.case.keep_every)
            lines += runs.rows(self._wanted, tree, run)
            if self.case.aside is not None:
                lines += runs.lost(self.case.start, tree, run, self.case.aside)
        return list(dict.fromkeys(lines))

    def _is_compared_otherwise(self, name: str) -> bool:
        run = self.case.run
        if name in self.case.pages:
            return True
        if run is None or not name.startswith(f"{run}/"):
            return False
        inside = name[len(run) + 1 :]
        if inside.startswith("set-aside-"):
            return self.case.aside is not None
        return name not in self.case.foreign and inside.startswith(("ckpt-", "metrics.jsonl"))


def differing(first: Tree, second: Tree) -> list[str]:
    """The names whose bytes differ."""
    return [name for name in sorted(first.keys() | second.keys()) if _data(first, name) != _data(second, name)]


def _data(tree: Tree, name: str) -> object:
    entry = tree.get(name)
    return None if entry is None else (entry.data, entry.link)


def _is_page(entry: trees.Entry | None) -> bool:
    return entry is not None and entry.data is not None and entry.data.rstrip().endswith(b"</html>")


def _said(outcome: Outcome) -> str:
    """The exit code and the message; of a traceback the lines that are ours."""
    err = outcome.err
    if "Traceback" in err:
        head, _, rest = err.rpartition("Traceback")
        ours = [line.strip() for line in rest.splitlines() if "/alm/" in line and "/cli/main.py" not in line]
        last = [line for line in rest.splitlines() if re.match(r"[A-Za-z_.]+(Error|Exception)\b", line)]
        err = "\n".join([*head.splitlines()[-2:], "Traceback:", *ours[-4:], *last[-1:]])
    return f"exit code {outcome.code}\n{err[-1200:].strip()}"
