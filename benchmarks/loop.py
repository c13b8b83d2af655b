"""What the training loop costs beside forward, backward and optimizer, in shares of a step's CPU seconds.

A run of the preset 1m, one thread, logging on, without validation, checkpoints and samples, drawn as plain lines and on
a panel. The parts are timed where the loop calls them, on its own thread; what the process spends beyond them, on any
thread, is the rest: reading batches, metrics, drawing. What is paid once a run, before the first steps, is left out.

    python benchmarks/loop.py
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from rich.console import Console

from alm import device
from alm.cli import ui
from alm.cli.render import LiveListener
from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.events import Listener, Stepped
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.train import train_tokenizer
from alm.training import state
from alm.training.config import MODEL_SECTIONS, RunConfig
from alm.training.parallel import clip_
from alm.training.pretrain import pretrain

FIRST, STEPS, ROUNDS = 10, 60, 3  # steps before measuring, and measured
BATCH, LENGTH, VOCAB_SIZE = 8, 256, 4096
PARTS = ("forward", "backward", "optimizer", "clipping")


def main() -> None:
    """Rounds in turn; the median share of each, with the least and the greatest."""
    torch.set_num_threads(1)
    device.keep_freed_memory()
    choice = device.choose("cpu", precision="fp32")
    device.matmul_rate(choice.device, choice.precision)  # measured once, before the first step
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(Path(os.devnull).open("w")):
        data = _data(Path(folder))
        shares: dict[str, list[dict[str, float]]] = {"plain lines": [], "panel": []}
        for number in range(ROUNDS + 1):
            for name, found in shares.items():
                with _listener(name) as on_event:
                    measured = _measured(data, Path(folder), on_event)
                if number:  # the first round warms up
                    found.append(measured)
    for name, found in shares.items():
        print(f"{name}: {statistics.median(f['step'] for f in found) * 1e3:.1f} CPU ms a step")
        for part in (*PARTS, "rest"):
            values = [f[part] / f["step"] for f in found]
            print(f"  {part:<10} {statistics.median(values):7.3%} [{min(values):.3%}, {max(values):.3%}]")


def _data(folder: Path) -> Path:
    prepare(load(CorpusConfig, [Part(presets.find("tales"))]), out=folder / "clean")
    config = TokenizerConfig(vocab_size=VOCAB_SIZE)
    train_tokenizer(config, inputs=[folder / "clean"], out=folder / "tokenizer.json")
    pack(PackConfig(seq_len=LENGTH), tokenizer=folder / "tokenizer.json", clean=[folder / "clean"], out=folder / "data")
    return folder / "data"


@contextlib.contextmanager
def _listener(name: str) -> Iterator[Listener]:
    if name == "plain lines":
        yield ui.PlainListener()
        return
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=100, highlight=False, markup=False)
        with LiveListener(console) as listener:
            yield listener


def _measured(data: Path, folder: Path, on_event: Listener) -> dict[str, float]:
    """CPU seconds of a step, and of each part of it."""
    changes = [
        f"model.vocab_size={VOCAB_SIZE}",
        f"training.max_steps={FIRST + STEPS}",
        f"training.micro_batch_size={BATCH}",
    ]
    changes += ["training.gradient_accumulation=1", "training.checkpoint_interval=1000000", "training.threads=1"]
    changes += ["training.precision=fp32", "validation.interval=1000000", "samples.prompts=[]"]
    config = load(RunConfig, [Part(presets.find("1m"), MODEL_SECTIONS)], overrides=changes)
    spent, begun, ended = dict.fromkeys(PARTS, 0.0), 0.0, 0.0

    def watched(event: object) -> None:
        nonlocal begun, ended
        on_event(event)
        if isinstance(event, Stepped) and event.step == FIRST:
            spent.update(dict.fromkeys(PARTS, 0.0))
            begun = time.process_time()
        elif isinstance(event, Stepped) and event.step == FIRST + STEPS:
            ended = time.process_time()

    with contextlib.ExitStack() as patches:
        _watch(patches, spent)
        out = Path(patches.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        pretrain(config, data=data, out=out, device_name="cpu", on_event=watched)
    step = (ended - begun) / STEPS
    parts = {name: seconds / STEPS for name, seconds in spent.items()}
    return {"step": step, **parts, "rest": step - sum(parts.values())}


def _watch(patches: contextlib.ExitStack, spent: dict[str, float]) -> None:
    """Times the parts wherever the loop calls them."""

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            before = time.thread_time()
            try:
                return function(*arguments, **keywords)
            finally:
                spent[part] += time.thread_time() - before

        return call

    patches.enter_context(mock.patch("alm.training.step.clip_", timed("clipping", clip_)))
    patches.enter_context(mock.patch("torch.Tensor.backward", timed("backward", torch.Tensor.backward)))

    def watched(*arguments: Any, **keywords: Any) -> state.TrainState:
        live = init_state(*arguments, **keywords)
        live.parallelism.loss = timed("forward", live.parallelism.loss)
        live.optimizer.step = timed("optimizer", live.optimizer.step)  # type: ignore[method-assign]
        return live

    init_state = state.init_state
    patches.enter_context(mock.patch("alm.training.pretrain.init_state", watched))


if __name__ == "__main__":
    main()
