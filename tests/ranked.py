"""What the tests of several ranks run: `python ranked.py DATA OUT PART...`, with parts like `checks-2`: 2 ranks.

One process imports PyTorch, which takes seconds, and starts the ranks of each part as copies of itself, with the
launcher of torchrun and `alm --nproc`. It writes how a part ended to OUT/PART.json, and the main rank of a part of
checks writes there what it found.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from builders import SMOOTH, run_config
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.tensor import Shard, distribute_tensor

from alm import distributed
from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.cli import main as cli
from alm.cli import ranks
from alm.corpus.split import TRAIN, VALIDATION
from alm.data.loader import MicroBatch, read_step, target_count
from alm.device import Choice
from alm.distributed import World
from alm.errors import AlmError, EchoedError, StoppedError
from alm.events import Event, Stepped
from alm.optim.groups import group
from alm.optim.optimizers._muon import Muon, matrix_group
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer
from alm.training import state as training_state
from alm.training import step
from alm.training.batches import plan_batches
from alm.training.config import RunConfig
from alm.training.monitoring import throughput
from alm.training.parallel import full_tensor
from alm.training.pretrain import pretrain
from alm.training.run import fit, time_budget
from alm.training.run.resolve import with_data
from alm.training.run.run_folder import read_config
from alm.training.sizing import probe
from alm.training.sizing.probe import StepTimings
from alm.training.state import TrainState, init_state
from alm.training.step import train_step
from alm.training.stop import StopReason, StopRequests
from alm.training.validate import rows_for, validate

CPU = Choice(torch.device("cpu"), "fp32", "", "")
STEPS, STOP = 4, 2
# 6 micro-batches can be shared by 1, 2 and 3 ranks, 8 are a whole tree.
PLAIN: dict[str, Any] = {
    "training__micro_batch_size": 1, "training__gradient_accumulation": 6, "training__max_steps": STEPS,
    "training__checkpoint_interval": STOP, "model__n_layers": 2, "model__dropout": 0.1, "samples__prompts": [],
    **SMOOTH,
}  # fmt: skip
ONE_LAYER = {"model__n_layers": 1}
KINDS: dict[str, dict[str, Any]] = {
    "ddp": {"samples__prompts": ["the"]},
    "fsdp": {"training__parallel": "fsdp"},
    "tree": {"training__gradient_accumulation": 8, "training__reproducible": True},
    "ddp8": {"training__gradient_accumulation": 8},
    "muon": {**ONE_LAYER, "optim__kind": "muon"},
    "muon-fsdp": {**ONE_LAYER, "optim__kind": "muon", "training__parallel": "fsdp"},
    "half": {**ONE_LAYER, "training__precision": "fp16"},
    "half-fsdp": {**ONE_LAYER, "training__precision": "fp16", "training__parallel": "fsdp"},
}
# By the number of ranks: what is trained, and what of it is resumed in the middle too.
TRAINED = {
    2: ["ddp", "fsdp", "tree", "ddp8", "half", "half-fsdp", "muon", "muon-fsdp"],
    3: ["ddp", "fsdp", "muon-fsdp"],
    4: ["tree"],
}
RESUMED = {2: ["ddp", "fsdp", "tree", "half", "half-fsdp", "muon", "muon-fsdp"], 3: ["ddp", "fsdp"], 4: ["tree"]}


def config_of(kind: str, **changes: Any) -> RunConfig:
    """The small run of a kind of parallelism."""
    return run_config(**{**PLAIN, **KINDS[kind], **changes})


def bits(run: Path, name: str = LAST_NAME) -> str:
    """A hash of all that decides what comes next: weights and optimizer."""
    found = load_checkpoint(run / name)
    digest = hashlib.sha256()
    for tensor in [*found.model.values(), *(t for s in found.optimizer["state"].values() for t in s.values())]:
        digest.update(tensor.numpy().tobytes())
    digest.update(str(found.loss_scaler).encode())
    return digest.hexdigest()


def trained(kind: str, data: Path, out: Path) -> str:
    """A hash of a run that went through."""
    run = out / f"{kind}-{distributed.place().size}"
    pretrain(config_of(kind), data=data, out=run, device_name="cpu")
    return bits(run) if distributed.place().is_main else ""


def resumed(kind: str, data: Path, out: Path) -> str:
    """A hash of the end of the same run, resumed in the middle."""
    run = out / f"{kind}-{distributed.place().size}"
    pretrain(config_of(kind), data=data, out=run, device_name="cpu", resume=run / f"ckpt-step{STOP:06d}.pt")
    return bits(run) if distributed.place().is_main else ""


def gradients(kind: str, data: Path, world: World) -> dict[str, Any]:
    """The gradients, loss and norm of one step with `kind`, next to those of this process alone."""
    alone, alone_result = stepped("ddp" if kind == "fsdp" else kind, data, World())
    ours, result = stepped(kind, data, world)
    worst = 0.0
    for mine, theirs in zip(ours.model.parameters(), alone.model.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        worst = max(worst, float((full_tensor(mine.grad) - theirs.grad).abs().max() / theirs.grad.abs().max()))
    return {
        "worst": worst,
        "loss": [float(result.loss), float(alone_result.loss)],
        "norm": [float(result.gradient_norm), float(alone_result.gradient_norm)],
    }


def stepped(kind: str, data: Path, world: World) -> tuple[TrainState, Any]:
    """A fresh state after one step; its gradients, clipped, are still there."""
    packed = open_packed(data)
    # Dual has a loss of its own; its router would make of rounding another route in a run of several steps.
    config = with_data(config_of(kind, model__feedforward="dual"), packed)
    stream = packed.split(TRAIN)
    state = init_state(config, CPU, world, seq_len=stream.seq_len)
    plan = plan_batches(config, stream)
    batches: list[MicroBatch] = read_step(stream, plan, 3, rank=world.rank, world_size=world.size)
    targets = target_count(stream, plan, 3)
    result = train_step(
        state, batches, targets=targets, choice=CPU, lr_factor=0.5, clip_norm=0.1, seed=1, should_stop=lambda: False
    )
    assert result is not None
    return state, result


def muon_on_parts(world: World) -> bool:
    """Whether three updates of matrices that ranks have parts of are those of whole ones, to the bit."""
    mesh, draw = init_device_mesh("cpu", (world.size,)), torch.Generator().manual_seed(0)
    shapes = ((5, 7), (7, 3), (1, 6), (8, 8), (5, 7))
    alone = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    shared = [nn.Parameter(distribute_tensor(p.detach().clone(), mesh, [Shard(0)])) for p in alone]
    settings: dict[str, Any] = {"momentum": 0.9, "method": "polar_express", "steps": 5, "scale": "spectral"}
    both = [Muon([matrix_group(group(ps, 0.1, weight_decay=0.1), **settings)]) for ps in (alone, shared)]
    for _ in range(3):
        for whole_one, part in zip(alone, shared, strict=True):
            whole_one.grad = torch.randn(whole_one.shape, generator=draw)
            part.grad = distribute_tensor(whole_one.grad.clone(), mesh, [Shard(0)])
        for optimizer in both:
            optimizer.step()
    return all(torch.equal(full_tensor(part), whole_one) for whole_one, part in zip(alone, shared, strict=True))


def score(data: Path, world: World, kind: str) -> list[float]:
    """Bits per byte and loss of the weights at step 0."""
    packed = open_packed(data)
    config = with_data(config_of(kind), packed)
    stream = packed.split(VALIDATION)
    widths = Tokenizer.load(packed.tokenizer_path).bytes_per_id
    state = init_state(config, CPU, world, seq_len=stream.seq_len)
    rows = rows_for(stream, widths, wanted_bytes=900)
    found = validate(state.parallelism, stream, widths, rows=rows, micro_batch_size=2, choice=CPU)
    assert found is not None
    return [found.bits_per_byte, found.loss, float(len(rows))]


def spoken(world: World) -> dict[str, Any]:
    """One of each thing that ranks say to each other."""
    summed = torch.tensor([1.0 + world.rank, 10.0])
    found: dict[str, Any] = {
        "sum": world.sum_(summed).tolist(),
        "greatest": world.greatest(world.rank),
        "gathered": world.gathered({"rank": world.rank}),
        "from_main": world.from_main(lambda: f"rank {world.rank}"),
    }
    if world.size % 2 == 0:
        partner = world.rank ^ 1
        found["exchanged"] = world.gathered(world.exchanged(torch.tensor([float(world.rank)]), partner=partner).item())
    return found


def checks(data: Path, out: Path) -> dict[str, Any]:
    """Every check that does not end the ranks."""
    size = distributed.place().size
    torch.set_num_threads(1)
    training_state.GROWTH_INTERVAL = 2  # so that the scale of fp16 moves
    found: dict[str, Any] = {}
    with distributed.joined("cpu") as world:
        found["spoken"] = spoken(world)
        found["muon"] = muon_on_parts(world)
        kinds = {2: ["ddp", "fsdp", "tree"], 3: ["ddp", "fsdp"], 4: ["tree"]}[size]
        found["gradients"] = {kind: gradients(kind, data, world) for kind in kinds}
        found["scores"] = {kind: score(data, world, kind) for kind in kinds}
        found["score_alone"] = score(data, World(), "ddp")
    found["trained"] = {kind: trained(kind, data, out) for kind in TRAINED[size]}
    found["resumed"] = {kind: resumed(kind, data, out) for kind in RESUMED[size]}
    if size == 2:
        found["kept_in_time"] = kept_in_time(data, out)
    if size == 3:  # last of all: a stop ends the ranks
        with distributed.joined("cpu") as world:
            run = world.from_main(lambda: Path(shutil.copytree(out / "ddp-2", out / "again-3")))
        found["loaded"] = loaded(config_of("fsdp"), data, run)
    return found


def kept_in_time(data: Path, out: Path) -> dict[str, Any]:
    """A run with a budget for 20 steps whose steps take twice as long as was measured, on the main rank's clock.

    The other ranks have one of their own. Next to it a run that had its length from the beginning.
    """
    here, now = distributed.place(), [1000.0]
    real = step._backward

    def backward(*arguments: Any, **keywords: Any) -> Any:
        now[0] += 1.0 + 3 * here.rank
        return real(*arguments, **keywords)

    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0])
    wanted = config_of("ddp", training__gradient_accumulation=4, scheduler__kind="wsd", scheduler__warmup_steps="auto",
                       training__max_steps=1000, training__checkpoint_interval=1000, validation__interval=500,
                       samples__prompts=[])  # fmt: skip
    with contextlib.ExitStack() as stack:
        for module in (fit, time_budget, throughput):
            stack.enter_context(mock.patch.object(module, "time", clock))
        stack.enter_context(mock.patch.object(step, "_backward", backward))
        stack.enter_context(mock.patch.object(probe, "measure_steps", return_value=StepTimings(0.5, 0.0, 0.0, 0.0)))
        pretrain(wanted, data=data, out=out / "kept", device_name="cpu", finish_by=1021.5)
    changed = read_config(out / "kept")
    pretrain(changed, data=data, out=out / "straight", device_name="cpu")
    hashes = [bits(out / name) if here.is_main else "" for name in ("kept", "straight")]
    return {"steps": changed.training.max_steps, "bits": hashes}


def loaded(config: RunConfig, data: Path, run: Path) -> str:
    """A hash of what is saved by a run that is resumed in the middle and stopped before it does anything."""
    asked = mock.patch.object(StopRequests, "reason", StopReason.TERMINATED)
    with contextlib.suppress(StoppedError, EchoedError), asked:
        pretrain(config, data=data, out=run, device_name="cpu", resume=run / f"ckpt-step{STOP:06d}.pt")
    return bits(run, f"ckpt-step{STOP:06d}-interrupt.pt") if distributed.place().is_main else ""


class SignalAt:
    """Sends this process a signal after a step."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped) and event.step == self.step:
            os.kill(os.getpid(), self.number)


def ending(how: str, data: Path, out: Path) -> None:
    """A run of which the last rank is ended after step 3, as `how` says."""
    here = distributed.place()

    def fail(event: Event) -> None:
        if isinstance(event, Stepped) and event.step == 3:
            raise AlmError("the disk is on fire", hint="call the fire brigade") if how == "error" else KeyError("a bug")

    last = here.rank == here.size - 1
    numbers = {"killed": signal.SIGKILL, "signalled": signal.SIGTERM}
    listener = (SignalAt(3, numbers[how]) if how in numbers else fail) if last else (lambda event: None)
    pretrain(config_of("ddp"), data=data, out=out / how, device_name="cpu", on_event=listener)


def rank(part: str, data: Path, out: Path) -> None:
    """What each rank of a part does."""
    if part != "checks":
        # Errors end as those of a command do.
        cli._command = lambda: lambda **_: ending(part, data, out)  # type: ignore[assignment]
        cli.main([])
    found = checks(data, out)
    here = distributed.place()
    if here.is_main:
        (out / f"found-{here.size}.json").write_text(json.dumps(found))


def started(part: str, size: int, data: Path, out: Path) -> dict[str, Any]:
    """Run a part on `size` ranks: the exit codes of those that failed, and what all of them wrote to stderr."""
    plan, codes, errors = ranks._plan(size), {}, out / f"{part}-{size}.txt"
    plan.start_method = "fork"  # of a process with one thread
    before = os.dup(2)
    with errors.open("wb") as file:
        os.dup2(file.fileno(), 2)
    try:
        elastic_launch(plan, rank)(part, data, out)
    except ChildFailedError as error:
        codes = {number: failure.exitcode for number, failure in error.failures.items()}
    finally:
        os.dup2(before, 2)
        os.close(before)
    return {"codes": codes, "stderr": errors.read_text()}


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    import torch._dynamo  # noqa: F401 - each rank would import it for itself

    gc.freeze()  # a run collects garbage often, and what was imported is none
    for name in sys.argv[3:]:
        part, _, size = name.rpartition("-")
        (out / f"{name}.json").write_text(json.dumps(started(part, int(size), data, out)))


if __name__ == "__main__":
    main()
