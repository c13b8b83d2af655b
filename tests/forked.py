"""Processes that cost no start: copies of one that has imported PyTorch and `alm`, which takes seconds.

A copy is a process of its own, which signals reach and which may be killed. Not on Windows.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_PRELOADED = ["alm.cli.main", "alm.training.pretrain", "alm.generation.generate", "torch.distributed.launcher.api"]


def context() -> Any:  # Any: `ForkServerContext` is not there on Windows
    """The one whose processes are such copies."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOADED)
    return found


class Popen:
    """What `subprocess.Popen` does, for `python -m alm ...` alone."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        text: bool = False,
        start_new_session: bool = False,
    ) -> None:
        assert list(command[:3]) == [sys.executable, "-m", "alm"]
        assert stdin in (None, subprocess.DEVNULL)
        own = context()
        self.stdout, to_stdout = _stream(own, stdout, text)
        self.stderr, to_stderr = _stream(own, stderr, text)
        place = (str(Path.cwd()), dict(os.environ), start_new_session)
        self._process = own.Process(target=_alm, args=(list(command[3:]), *place, to_stdout, to_stderr))
        self._process.start()
        for end in (to_stdout, to_stderr):
            if isinstance(end, Connection):
                end.close()
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("alm", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def run(command: Sequence[str], *, check: bool = False, **options: Any) -> Any:
    """What `subprocess.run` does, without its output."""
    with Popen(command, **options) as process:
        code = process.wait()
    assert code == 0 or not check
    return subprocess.CompletedProcess(command, code)


def _stream(own: Any, wanted: IO[Any] | int | None, text: bool) -> tuple[IO[Any] | None, Connection | str | None]:
    """The end to read from, and what the process writes to: a pipe or the path of a file."""
    if wanted is None or (isinstance(wanted, int) and wanted != subprocess.PIPE):
        return None, os.devnull if wanted == subprocess.DEVNULL else None
    if not isinstance(wanted, int):
        return None, str(wanted.name)
    reading, writing = own.Pipe(duplex=False)
    end = os.dup(reading.fileno())
    reading.close()
    return os.fdopen(end, "r" if text else "rb", encoding="utf-8" if text else None), writing


def _alm(
    words: list[str], folder: str, environment: Mapping[str, str], new_session: bool, *streams: Connection | str | None
) -> None:
    gc.freeze()
    if new_session:
        os.setsid()
    os.fsync = lambda _: None  # as in tests/conftest.py
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, start=1):
        if isinstance(stream, Connection):
            os.dup2(stream.fileno(), number)
            stream.close()
        elif stream is not None:
            os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    _launch_copies()
    from alm.cli.main import main

    main(words)


def _launch_copies() -> None:
    """Let `--nproc` start its ranks as copies too."""
    from torch.distributed.elastic.multiprocessing.api import MultiprocessContext
    from torch.distributed.launcher import api

    from alm.cli.main import main

    launch, close = api.elastic_launch, MultiprocessContext._close

    def launched(plan: Any, program: str) -> Callable[..., Any]:
        plan.start_method = "fork"
        return lambda *words: launch(plan, main)(list(words[words.index("alm") + 1 :]))

    def closed(context: Any, *words: Any, **more: Any) -> None:
        context._worker_finished_event.set()  # a copy that ends without an error waits for it, a program does not
        close(context, *words, **more)

    MultiprocessContext._close = closed  # type: ignore[method-assign]
    api.elastic_launch = launched  # type: ignore[assignment,misc]


def prepare_corpus(folder: Path, out: Path, workers: int) -> None:
    """Prepare the texts in `folder`, in units of 2 kB, with filters and a search for near duplicates."""
    os.setsid()
    from alm import engines
    from alm.config.load import load
    from alm.corpus.config import CorpusConfig
    from alm.corpus.pipeline.prepare import prepare

    source = {"kind": "files", "paths": str(folder), "filters": ["mask"], "deduplicate": {"near": True}}
    config = load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": 0.1})
    prepare(config, out=out, unit_bytes=2000, engine=engines.choose(workers=workers))


def pack_corpus(clean: Path, tokenizer: Path, out: Path, workers: int) -> None:
    """Pack a clean corpus in small parts."""
    os.setsid()
    from alm import engines
    from alm.packing.config import PackConfig
    from alm.packing.pack import pack

    config = PackConfig(seq_len=16, sequences_per_shard=7, mode="bestfit")
    engine = engines.choose(workers=workers)
    pack(config, tokenizer=tokenizer, clean=[clean], out=out, part_bytes=300, engine=engine)


def killed_after(seconds: float | None, work: Callable[..., None], *arguments: object) -> float:
    """Let a copy do `work`, and kill it with its workers after `seconds`, unless it is done; the seconds it took."""
    began = time.monotonic()
    process = context().Process(target=work, args=arguments)
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not begun its own group yet
            process.kill()
        process.join()
    else:
        assert process.exitcode == 0
    return time.monotonic() - began


def waiting_run(data: Path, out: Path, changes: Mapping[str, Any], line: Connection) -> None:
    """A run that says each of its steps on `line`, and waits there for a word before the next one."""
    gc.freeze()
    from builders import run_config

    from alm.events import Event, Stepped
    from alm.training.pretrain import pretrain

    def wait(event: Event) -> None:
        if isinstance(event, Stepped):
            line.send(event.step)
            line.recv()

    pretrain(run_config(**changes), data=data, out=out, on_event=wait)


def kill_run(data: Path, out: Path, changes: Mapping[str, Any], *, steps: int, seconds: float | None) -> None:
    """Start a run and kill it `seconds` after it is let into the step after `steps` of them; None: as these end."""
    own = context()
    line, its_line = own.Pipe()
    process = own.Process(target=waiting_run, args=(data, out, dict(changes), its_line))
    process.start()
    its_line.close()
    for step in range(1, steps + 1):
        line.recv()
        if step < steps or seconds is not None:
            line.send("go")
    process.join(seconds or 0.0)
    assert process.exitcode is None, process.exitcode  # it is in the next step, or waits after it
    process.kill()
    process.join()
