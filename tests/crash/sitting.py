"""One run of the command line in a forked process: everything is imported already, so it costs what it does."""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crash.faults import Fault, install

PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Operation:
    """A change that the process made or was about to make; `number` is 0 for those that a full disk refused later."""

    number: int
    name: str
    path: str
    source: str = ""  # of a rename or a link, where it is known


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `code` is negative for a signal."""

    code: int
    err: str
    operations: tuple[Operation, ...]
    pid: int
    seconds: float = 0.0  # of a processor

    def at(self, number: int) -> Operation | None:
        """The operation of that number."""
        return next((each for each in self.operations if each.number == number), None)

    def scrub(self, data: bytes) -> bytes:
        """`data` without the id of the process."""
        data = re.sub(rb'("started": ")\d+', rb"\1", data)  # what a lock says of the process, besides
        return re.sub(rb"(?<!\d)%d(?!\d)" % self.pid, b"PID", data)


def begin(
    folder: Path,
    arguments: Sequence[str],
    *,
    logs: Path,
    fault: Fault | None = None,
    stdin: bytes | None = None,
    gate: tuple[int, int] | None = None,
    patience: int = PATIENCE_SECONDS,
) -> int:
    """Fork a process that runs `alm ARGUMENTS` in `folder`, at the end of the pipe `gate` if there is one; its id."""
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "stdin").write_bytes(stdin or b"")
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _run(folder, arguments, logs, fault, gate, patience)
    except BaseException as error:  # noqa: BLE001 - nothing may reach the code of the parent
        os.write(2, f"the harness failed: {error!r}\n".encode())
    finally:
        os._exit(code)
    raise AssertionError


def _run(
    folder: Path,
    arguments: Sequence[str],
    logs: Path,
    fault: Fault | None,
    gate: tuple[int, int] | None,
    patience: int,
) -> int:
    signal.alarm(patience)
    log = os.open(logs / "operations", os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND)
    for number, name, flags in ((0, "stdin", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
        descriptor = os.open(logs / name, flags | (0 if number == 0 else os.O_CREAT | os.O_TRUNC))
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    os.chdir(folder)
    sys.argv = ["alm", *arguments]
    from alm.cli.main import main

    if gate is not None:
        os.close(gate[1])
        os.read(gate[0], 1)
    install(folder, fault, log)
    code = 0
    try:
        main(list(arguments))
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def ended(pid: int, logs: Path) -> Outcome:
    """Wait for the process, and say how it ended."""
    _, status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    err = (logs / "err").read_bytes().decode("utf-8", "replace") if (logs / "err").exists() else ""
    operations = []
    if (logs / "operations").exists():
        for line in (logs / "operations").read_bytes().decode("utf-8", "replace").splitlines():
            number, name, path, *source = line.split("\t")
            operations.append(Operation(int(number), name, path, *source))
    return Outcome(code, err, tuple(operations), pid, usage.ru_utime + usage.ru_stime)


def run(
    folder: Path,
    arguments: Sequence[str],
    *,
    logs: Path,
    fault: Fault | None = None,
    stdin: bytes | None = None,
    patience: int = PATIENCE_SECONDS,
) -> Outcome:
    """Run `alm ARGUMENTS` in `folder` in a process of its own, with the fault."""
    return ended(begin(folder, arguments, logs=logs, fault=fault, stdin=stdin, patience=patience), logs)
