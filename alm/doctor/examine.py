"""The stage `alm doctor`: checks of alm's guarantees on this machine and device, one after the other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from alm import openmp
from alm.available import usable_processors
from alm.device import Choice, available_bytes, keep_freed_memory
from alm.doctor import (
    checkpoints,
    end_to_end,
    environment,
    layers,
    loading,
    models,
    precision,
    tokenizing,
)
from alm.doctor.check import Check, Examined, guarded, skipped
from alm.errors import InputError
from alm.events import Listener, ignore
from alm.generation.engine import rows_for
from alm.model.attention import attend
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.positions import Rotary
from alm.model.transformer import Transformer
from alm.packing.shards import open_packed
from alm.training.sizing.autotune import choose_precision
from alm.training.state import init_state

_SEED = 1337
_LONG = 1024
_TIMED = {"n_layers": 2, "max_position_embeddings": 256, "vocab_size": 4096}

Named = tuple[str, Examined]


def chosen(device_name: str) -> Choice:
    """Choose the device and its fastest precision for the timed model, as a run would."""
    return choose_precision(models.run_of(_timed()), device_name, seq_len=_timed().max_position_embeddings)


def examine(
    choice: Choice, *, out: Path = Path(), data: Path | None = None, on_event: Listener = ignore
) -> Iterator[Check]:
    """Run all checks and yield each result; a check that ends in an error has failed.

    Checkpoints are written to the disk of the folder `out`, and removed again. `data` is packed data to measure the
    loader's speed; without it, random data is used. Raises `AlmError` at once if `out` or `data` is not usable.
    """
    out = _existing(out)
    if data is not None:
        open_packed(data)
    if choice.device.type == "cpu":
        keep_freed_memory()
    return (guarded(name, check, choice.device) for name, check in _checks(choice, out, data, on_event))


def _existing(folder: Path) -> Path:
    """Return `folder`, or the nearest parent that exists: it is on the same disk."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"`{there}` is a file, but a folder is needed", hint="alm doctor --out .")
    return there


def _checks(choice: Choice, out: Path, data: Path | None, on_event: Listener) -> Iterator[Named]:
    yield from _of_environment(choice, out)
    yield from _of_model(choice)
    yield from _of_tokenizer(on_event)
    yield loading.NAME, partial(_loader, choice, data)
    yield from _of_checkpoints(choice, out)


def _of_environment(choice: Choice, out: Path) -> Iterator[Named]:
    yield environment.LIBRARIES, lambda: environment.libraries(environment.requirements())
    yield environment.DISK, lambda: environment.disk(out, environment.free_space(out))
    where = "this machine" if choice.device.type == "cpu" else str(choice.device)
    yield environment.MEMORY, lambda: environment.memory(available_bytes(choice.device), where)
    yield environment.FOLDER, environment.found_kernel_folder
    used, usable = torch.get_num_threads(), usable_processors()
    yield environment.THREADS, lambda: environment.threads(used, usable, waiting=openmp.waiting())


def _of_model(choice: Choice) -> Iterator[Named]:
    config, everything = models.plain(), models.with_everything()
    batch = models.batch(config)
    yield end_to_end.FIRST_LOSS, lambda: end_to_end.first_loss(_new(config, choice), batch, choice)
    yield end_to_end.GRADIENTS, lambda: end_to_end.gradients(_new(everything, choice), models.batch(everything), choice)
    yield end_to_end.OVERFIT, lambda: end_to_end.overfitted(init_state(models.run_of(config), choice), batch, choice)
    yield layers.NORMS, partial(_rotation, layers.keeps_lengths, choice)
    yield layers.DISTANCES, partial(_rotation, layers.counts_distances, choice)
    for title, shape in ((end_to_end.CACHE, config), (f"{end_to_end.CACHE}, rules", everything)):
        yield title, partial(_decoding, shape, choice, title)
    yield end_to_end.BACKEND, partial(_decoding_in_rows, choice)
    for case in layers.CASES:
        yield case.name, partial(layers.attention_agrees, attend, case, choice)
    yield precision.LOSSES, partial(_first_losses, choice)
    yield precision.SPEED, partial(_speed, choice)
    yield precision.AGAINST_CPU, partial(_against_cpu, choice)


def _new(config: ModelConfig, choice: Choice) -> Transformer:
    model = Transformer(config)
    initialize(model, seed=_SEED)
    return model.to(choice.device)


def _rotation(check: Callable[..., Check], choice: Choice) -> Check:
    config = models.plain()
    model = Transformer(config.model_copy(update={"max_position_embeddings": _LONG})).to(choice.device)
    rotary = model.model.positions
    assert isinstance(rotary, Rotary)
    return check(rotary, tokens=_LONG, width=config.head_width, device=choice.device)


def _decoding(config: ModelConfig, choice: Choice, name: str) -> Check:
    return end_to_end.cache_agrees(models.random_model(config, choice.device), models.ids(config), choice, name=name)


def _decoding_in_rows(choice: Choice) -> Check:
    config = models.plain().model_copy(update={"qk_norm": True})
    model, ids = models.random_model(config, choice.device), models.ids(config)
    rows = rows_for(model, count=len(ids), max_tokens=ids.shape[1])
    return end_to_end.backend_agrees(model, ids, choice, rows)


def _fp32(choice: Choice) -> Choice:
    return dataclasses.replace(choice, precision="fp32")


def _first_losses(choice: Choice) -> Check:
    if choice.precision == "fp32":
        return precision.nothing_to_compare(precision.LOSSES, choice)
    config = models.plain()
    batch = models.batch(config)
    found, wanted = (precision.first_losses(config, each, batch) for each in (choice, _fp32(choice)))
    return precision.same_losses(found, wanted, config, choice.precision, targets=batch.target_count())


def _speed(choice: Choice) -> Check:
    if choice.precision == "fp32":
        return precision.nothing_to_compare(precision.SPEED, choice)
    return precision.fast_enough(*precision.speeds(_timed(), choice, _fp32(choice)), choice.precision)


def _timed() -> ModelConfig:
    return ModelConfig().model_copy(update=_TIMED)


def _against_cpu(choice: Choice) -> Check:
    if choice.device.type == "cpu":
        return skipped(precision.AGAINST_CPU, "this is the CPU: there is nothing to compare")
    config = models.plain()
    here, there = (
        precision.forward_backward(config, models.batch(config), device)
        for device in (choice.device, torch.device("cpu"))
    )
    return precision.same_as_cpu(here, there, config, device=str(choice.device))


def _of_tokenizer(on_event: Listener) -> Iterator[Named]:
    made = functools.cache(tokenizing.tokenizers)
    yield tokenizing.ROUND_TRIP, lambda: tokenizing.round_trip(made())
    yield tokenizing.KERNELS, lambda: tokenizing.kernels(list(made().values()), on_event=on_event)


def _loader(choice: Choice, data: Path | None) -> Check:
    with TemporaryDirectory(prefix="alm-doctor-") as folder:
        stream = loading.made_up(Path(folder)) if data is None else loading.stream_of(data)
        if data is not None and not stream.sequences:
            return loading.has_no_row(data)
        model_rows = loading.model_rate(stream, choice, vocab_size=loading.vocab_size_of(data))
        where = f"`{data}`" if data is not None else "the disk of temporary files"
        return loading.keeps_up(loading.loader_rate(stream, choice), model_rows, where=where)


def _of_checkpoints(choice: Choice, out: Path) -> Iterator[Named]:
    config = models.run_of(models.plain().model_copy(update={"dropout": 0.1}))
    yield checkpoints.SAVED, partial(_on_disk, checkpoints.round_trips, config, choice, out)
    yield checkpoints.RESUMED, partial(_on_disk, checkpoints.resumes_exactly, config, choice, out)


def _on_disk(check: Callable[..., Check], config: object, choice: Choice, out: Path) -> Check:
    with TemporaryDirectory(prefix=".alm-doctor-", dir=out) as folder:
        return check(config, choice, Path(folder))
