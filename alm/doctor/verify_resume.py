"""The stage `alm verify-resume`: a run that is killed many times must end in the same bits as an undisturbed one.

Both runs are real: `alm pretrain` in its own process, or in one process per rank. This process watches the killed run
and chooses the moments: while it starts, in the middle of steps, and while a checkpoint is being written.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from alm.checkpoint import STAGING
from alm.checkpoint.format import LAST_NAME, Checkpoint, numbered
from alm.checkpoint.load import load_checkpoint
from alm.config.load import load
from alm.config.yaml_files import write_yaml
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.doctor import faults
from alm.doctor.faults import children, killed, stopped
from alm.errors import AlmError, ConfigError, quoted
from alm.events import Listener, Noted, Progressed, ignore
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import open_packed
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.train import train_tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.run.resolve import with_data
from alm.training.sizing import autotune

Moment = Literal["starting", "training", "writing"]
_SHARES: dict[Moment, int] = {"starting": 1, "training": 4, "writing": 5}
DAMAGES = len(faults.KINDS)
STEPS_PER_KILL = 4
_FEWEST_STEPS = 24
_POLL_SECONDS = 0.005
_WRITING_SECONDS = 0.03  # after a temporary file appears: long enough to hit the steps after it too
_STARTING_SECONDS = 3.0
_STEP_SECONDS = 0.05
# The other ranks notice, the main rank saves, torchrun ends the rest.
_ENDING_SECONDS = 120.0
_ONE_RANK_SHARE = 0.5
_TASK = "kill and resume"


@dataclass(frozen=True)
class Side:
    """Result of one run: hashes of its last checkpoint, and of its metrics without timings."""

    step: int
    weights: str
    optimizer: str
    metrics: str


@dataclass(frozen=True)
class Verdict:
    """Results of both runs, and the kills and damage of the second one.

    `kills` counts by moment; `of_one_rank` of them hit a single rank, the others all ranks and their starter;
    `half_written` left an unfinished checkpoint; `damaged` counts by kind of damage.
    """

    undisturbed: Side
    killed: Side
    ranks: int
    kills: dict[str, int]
    of_one_rank: int
    half_written: int
    damaged: dict[str, int]
    seconds: float

    @property
    def is_equal(self) -> bool:
        """Whether the killed run equals the undisturbed one, bit for bit."""
        return self.undisturbed == self.killed


def verify_resume(
    work: Path,
    *,
    kills: int,
    seed: int,
    data: Path | None = None,
    device_name: str = "auto",
    ranks: int = 1,
    on_event: Listener = ignore,
) -> Verdict:
    """Train twice in `work` on the packed `data`, or on built-in tales: undisturbed, and killed `kills` times.

    With several `ranks` a kill hits all of them and the process that started them, or one rank alone. Up to five times
    the newest checkpoint is damaged before the run resumes. `seed` determines the moments. Raises `AlmError` if a run
    ends by itself in an error.
    """
    if ranks > 1 and sys.platform == "win32":
        raise ConfigError("Windows does not report which processes are ranks", hint="leave out `--nproc`")
    started = time.monotonic()
    packed = data or example_data(work, on_event=on_event)
    config = example_config(packed, max_steps=max(_FEWEST_STEPS, STEPS_PER_KILL * kills), ranks=ranks)
    config = _measured_once(config, packed, device_name, on_event)
    path = work / "config.yaml"
    path.write_text(write_yaml(config.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "alm", "pretrain", "--model", str(path), "--train", str(path)]
    command += ["--data", str(packed), "--device", device_name, "--quiet"]
    command += [*(["--nproc", str(ranks)] if ranks > 1 else []), "--out"]
    on_event(Noted(f"training {config.training.max_steps} steps undisturbed"))
    _finish([*command, str(work / "undisturbed")], work / "undisturbed.log")
    on_event(Noted(f"training the same steps, killed {kills} times"))
    killer = _Killer(
        [*command, str(work / "killed")],
        work / "killed",
        config.training.max_steps,
        random.Random(seed),
        ranks=ranks,
    )
    for number in killer.kill(kills):
        on_event(Progressed(_TASK, number, kills, "kills"))
    _finish(killer.command, killer.log)
    return Verdict(
        undisturbed=side(work / "undisturbed"),
        killed=side(work / "killed"),
        ranks=ranks,
        kills=killer.kills,
        of_one_rank=killer.of_one_rank,
        half_written=killer.half_written,
        damaged=killer.damaged,
        seconds=round(time.monotonic() - started, 1),
    )


def _measured_once(config: RunConfig, packed: Path, device_name: str, on_event: Listener) -> RunConfig:
    """Fix in `config` what a run chooses by timing: two runs could choose differently."""
    data = open_packed(packed)
    seq_len, config = data.metadata.seq_len, with_data(config, data)
    choice = autotune.choose_precision(config, device_name, seq_len=seq_len, on_event=on_event)
    is_compiled = autotune.choose_compile(config, choice, seq_len=seq_len, on_event=on_event)
    training = {"precision": choice.precision, "compile": is_compiled}
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def side(run: Path) -> Side:
    """Hash the result of the finished `run`."""
    found = load_checkpoint(run / LAST_NAME)
    rows = metrics.without_clock(metrics.read(run))
    weights = {**found.model, **{f"trained.{name}": weight for name, weight in (found.trained or {}).items()}}
    return Side(
        found.step, _digest(weights), _digest(_optimizer(found)), hashlib.sha256(str(rows).encode()).hexdigest()
    )


def _optimizer(checkpoint: Checkpoint) -> dict[str, Any]:  # Any: tensors and numbers
    state: dict[Any, dict[str, Any]] = checkpoint.optimizer["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def _digest(values: dict[str, Any]) -> str:  # Any: tensors and numbers
    digest = hashlib.sha256()
    for name in sorted(values):
        value = values[name]
        digest.update(f"{name} ".encode())
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _finish(command: list[str], log: Path) -> None:
    with log.open("ab") as file:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False).returncode
    if code:
        raise _ended(code, log)


def _ended(code: int, log: Path) -> AlmError:
    said = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return AlmError(
        f"`alm pretrain` ended with code {code}: {said[-1] if said else 'it printed nothing'}",
        hint=f"run `cat {quoted(log)}`",
    )


class _Killer:
    """Process that starts the run repeatedly, and kills it at random moments spread over its steps."""

    def __init__(self, command: list[str], run: Path, max_steps: int, draw: random.Random, *, ranks: int = 1) -> None:
        self.command = command
        self.log = run.with_name(f"{run.name}.log")
        self.kills: dict[str, int] = dict.fromkeys(_SHARES, 0)
        self.of_one_rank = 0
        self.half_written = 0
        self.damaged: dict[str, int] = {}
        self._run = run
        self._max_steps = max_steps
        self._ranks = ranks
        self._draw = draw
        self._seen = (0, 0)

    def kill(self, kills: int) -> Iterator[int]:
        """Kill the run `kills` times, and yield the number after each."""
        last = self._max_steps - 3 * STEPS_PER_KILL  # so that a checkpoint still comes after the last target
        targets = sorted(self._draw.uniform(STEPS_PER_KILL, last) for _ in range(kills))
        rounds = self._draw.sample(range(1, kills + 1), min(DAMAGES, max(1, kills // 2)))
        wanted = 0
        for number, target in enumerate(targets, start=1):
            # The first kill must leave a checkpoint to resume from: a run that only ever starts proves nothing.
            shares = {m: share for m, share in _SHARES.items() if number > 1 or m != "starting"}
            (moment,) = self._draw.choices(list(shares), list(shares.values()))
            self._once(moment, target)
            wanted += number in rounds
            if wanted and len(numbered(self._run)) > 1:
                self._damage()
                wanted -= 1
            yield number

    def _once(self, moment: Moment, target: float) -> None:
        left_behind = self._half_written()
        with (
            self.log.open("ab") as log,
            subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as child,
        ):
            try:
                self._wait(child, moment, target, left_behind)
                code = child.poll()
                if code is None:
                    self._hit(child)
            finally:
                _end_all(child)
        if code is not None:
            raise self._too_early(code)
        self.kills[moment] += 1
        self.half_written += bool(self._half_written() - left_behind)

    def _hit(self, child: subprocess.Popen[bytes]) -> None:
        """Kill one rank and wait until the others end, or leave it to the caller to kill all at once."""
        ranks = children(child.pid) if self._ranks > 1 else []
        if ranks and self._draw.random() < _ONE_RANK_SHARE:
            killed(self._draw.choice(ranks))
            self.of_one_rank += 1
            _pause(child, _ENDING_SECONDS)

    def _too_early(self, code: int) -> AlmError:
        if code == 0:
            return AlmError("the run ended before it could be killed", hint="run it again with fewer `--kills`")
        return _ended(code, self.log)

    def _wait(
        self, child: subprocess.Popen[bytes], moment: Moment, target: float, left_behind: set[tuple[str, int]]
    ) -> None:
        """Wait until the chosen moment, or until the run ends by itself."""
        if moment == "starting":
            _pause(child, self._draw.uniform(0, _STARTING_SECONDS))
            return
        while child.poll() is None and (self._step() < target or not numbered(self._run)):
            time.sleep(_POLL_SECONDS)
        if moment == "training":
            _pause(child, self._draw.uniform(0, _STEP_SECONDS))
            return
        while child.poll() is None and not self._half_written() - left_behind:
            time.sleep(_POLL_SECONDS)
        _pause(child, self._draw.uniform(0, _WRITING_SECONDS))

    def _step(self) -> int:
        """Return the last step in the metrics. They are read only when they have grown: the run needs the processor."""
        path = self._run / metrics.NAME
        size = path.stat().st_size if path.is_file() else 0
        if size != self._seen[0]:
            rows = metrics.read(self._run)
            self._seen = (size, int(rows[-1]["step"]) if rows else 0)
        return self._seen[1]

    def _half_written(self) -> set[tuple[str, int]]:
        """Return the checkpoints being written, with times that distinguish them from those of an earlier process."""
        found = set()
        for path in self._run.glob(f".{STAGING}.staging/*.pt"):
            with contextlib.suppress(OSError):  # published in between
                found.add((path.name, path.stat().st_mtime_ns))
        return found

    def _damage(self) -> None:
        kind = faults.KINDS[sum(self.damaged.values()) % DAMAGES]
        kind(numbered(self._run)[0], self._draw)
        self.damaged[kind.__name__] = self.damaged.get(kind.__name__, 0) + 1


def _end_all(child: subprocess.Popen[bytes]) -> None:
    """Kill `child` and the ranks that it has started at the same moment; return when they have ended."""
    stopped(child)  # so that it does not start more ranks
    ranks = children(child.pid)
    child.kill()  # SIGKILL; on Windows TerminateProcess, which cannot be caught either
    for rank in ranks:
        killed(rank)
    child.wait()


def _pause(child: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=seconds)


_TALES = 300
_VOCAB_SIZE = 1024
_SEQ_LEN = 64


def example_data(work: Path, *, on_event: Listener = ignore) -> Path:
    """Prepare and pack built-in tales in `work`."""
    clean, tokenizer, packed = work / "clean", work / "tokenizer.json", work / "packed"
    source = {"kind": "tales", "limit": _TALES}
    prepare(load(CorpusConfig, [], base={"sources": {"tales": source}}), out=clean, on_event=on_event)
    train_tokenizer(TokenizerConfig(vocab_size=_VOCAB_SIZE), inputs=[clean], out=tokenizer, on_event=on_event)
    pack(PackConfig(seq_len=_SEQ_LEN), tokenizer=tokenizer, clean=[clean], out=packed, on_event=on_event)
    return packed


def example_config(packed: Path, *, max_steps: int, ranks: int = 1) -> RunConfig:
    """Configure a run of `ranks` on `packed`, with dropout, gradient accumulation and frequent checkpoints."""
    values = {
        "model": {
            "d_model": 128,
            "n_layers": 2,
            "n_heads": 4,
            "n_kv_heads": 2,
            "ffn_hidden_size": 256,
            "max_position_embeddings": open_packed(packed).metadata.seq_len,
            "dropout": 0.1,
        },
        "training": {
            "max_steps": max_steps,
            "micro_batch_size": 2,
            "gradient_accumulation": 2 * ranks,
            "checkpoint_interval": 3,
            "threads": 1,
            "keep_every": 20,
            "keep_best": True,
            "stop_when_worse": False,
        },
        "scheduler": {"kind": "cosine", "warmup_steps": 5},
        "validation": {"interval": 7, "bytes": 4000},
        "logging": {"log_interval": 1},
    }
    return RunConfig.model_validate(values)
