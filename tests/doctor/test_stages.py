"""Tokenizer, loader and checkpoints: each check passes where they are sound, and fails on a planted fault."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import write_packed
from checked import fails, notes, passes

from alm.checkpoint.format import Checkpoint
from alm.checkpoint.load import load_checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.device import Choice
from alm.doctor import checkpoints, loading, models, tokenizing
from alm.packing.shards import TokenStream
from alm.tokenizers.file import Tokenizer
from alm.training.config import RunConfig

CHOICE = Choice(torch.device("cpu"), "fp32", "", "asked for")


# ---- tokenizer ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return tokenizing.tokenizers()


def test_each_make_of_tokenizer_gives_hard_text_back(made: dict[str, Tokenizer]) -> None:
    assert set(made) == {"bytes", "fallback", "unigram"}
    assert [tokenizer.is_byte_level for tokenizer in made.values()] == [True, False, False]
    passes(tokenizing.round_trip(made))
    assert "Cafe\u0301" in tokenizing.HARD[0]


class BreaksCafe(Tokenizer):
    """Bytes of a character that has no id are read one by one, as Latin-1."""

    def decode(self, ids: Any) -> str:
        return b"".join(self.token_bytes(int(id_)) for id_ in ids).decode("latin-1")


def test_a_byte_fallback_that_breaks_an_accent_fails(made: dict[str, Tokenizer]) -> None:
    made = {**made, "fallback": BreaksCafe(*made["fallback"].__reduce__()[1])}
    fails(tokenizing.round_trip(made), "`fallback` decodes 'Caf\\xe9", "do not pack text")


def test_compiled_code_makes_the_ids_of_plain_python(made: dict[str, Tokenizer]) -> None:
    passes(tokenizing.kernels([made["bytes"]]))


def test_kernels_that_cut_one_text_in_another_way_fail(made: dict[str, Tokenizer]) -> None:
    plain = partial(tokenizing.encoded, [made["bytes"]], use_kernels=False)

    def native(texts: Sequence[str]) -> list[list[int]]:
        found = plain(texts)
        return [*found[:-1], found[-1][::-1]]

    check = tokenizing.same_ids(native, plain)
    fails(check, "'see you at 8 ", "ALM_KERNELS=never")
    assert check.measured.startswith(f"{len(tokenizing.HARD) - 1} of {len(tokenizing.HARD)}")


def test_kernels_that_do_not_compile_fail(made: dict[str, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.errors import TypingError

    def broken(*_: object, **__: object) -> None:
        raise TypingError("no such type")

    monkeypatch.setattr(tokenizing, "encoded", broken)
    fails(tokenizing.kernels([made["bytes"]]), "TypingError: no such type", "export ALM_KERNELS=never")


def test_without_numba_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing.importlib.util, "find_spec", lambda name: None)
    assert tokenizing.kernels([]).outcome == "skipped"


# ---- loader ------------------------------------------------------------------------------------------------


def test_a_loader_that_is_slower_than_the_model_fails() -> None:
    passes(loading.keeps_up(4000.0, 1000.0, where="`data`"))
    notes(loading.keeps_up(1500.0, 1000.0, where="`data`"), "only 1.5 times as fast", "alm doctor --data")
    check = loading.keeps_up(900.0, 1000.0, where="`data`")
    fails(check, "`data` gives rows more slowly", "alm doctor --data")
    assert check.measured == "900 rows/s read, 1,000 used"


class FakeClock:
    """Time that passes only when something takes it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_leaves_out_the_first_batch_and_stops_after_its_time() -> None:
    clock = FakeClock()
    batch = models.batch(models.plain(), rows=3, tokens=4)
    seen = []

    def use(_: object) -> None:
        seen.append(clock.now)
        clock.now += 10.0 if len(seen) == 1 else 0.25

    def batches() -> Iterator[Any]:
        while True:
            yield batch

    assert loading.rate(batches(), use, clock=clock, seconds=1.0) == pytest.approx(12.0)
    assert len(seen) == 5
    seen.clear()
    assert loading.rate([batch, batch], lambda _: None, clock=clock, seconds=9.0) > 0  # data may end before


def test_a_slow_loader_is_measured_as_slow(tmp_path: Path) -> None:
    clock = FakeClock()

    class Slow(TokenStream):
        def rows(self, numbers: Any, shifts: Any = None) -> Any:
            clock.now += 2.0 * len(numbers)
            return super().rows(numbers, shifts)

    sound = loading.made_up(tmp_path)
    slow = Slow(sound.folder, sound.shards, sound.seq_len, sound.dtype, sound.stride)
    assert loading.loader_rate(slow, CHOICE, clock=clock) <= 4 / 8 * 4  # read ahead: a few rows come at once
    ticks = itertools.count(0.0, 0.1)
    assert loading.loader_rate(sound, CHOICE, clock=lambda: next(ticks)) == pytest.approx(4 / 0.1)


def test_made_up_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    stream = loading.made_up(tmp_path)
    written = np.fromfile(tmp_path / "shard_00000.bin", dtype="<u4")
    last = stream.sequences - 1
    assert stream.rows(np.array([0, last]))[1].tolist() == written[last * 512 : last * 512 + 513].tolist()
    assert written.max() < loading.vocab_size_of(None)


def test_given_data_decides_sequence_and_vocabulary(tmp_path: Path) -> None:
    packed, metadata = write_packed(tmp_path)
    stream = loading.stream_of(packed)
    assert stream.seq_len == 16
    assert loading.vocab_size_of(packed) == metadata.vocab_size
    assert loading.model_rate(stream, CHOICE, vocab_size=metadata.vocab_size) > 0
    assert loading.has_no_row(packed).outcome == "skipped"


# ---- checkpoints -------------------------------------------------------------------------------------------


@pytest.fixture
def config() -> RunConfig:
    return models.run_of(models.plain().model_copy(update={"dropout": 0.1}))


def test_a_checkpoint_comes_back_and_a_run_goes_on(config: RunConfig, tmp_path: Path) -> None:
    passes(checkpoints.round_trips(config, CHOICE, tmp_path))
    passes(checkpoints.resumes_exactly(config, CHOICE, tmp_path))


def lossy(checkpoint: Checkpoint, folder: Path) -> Path:
    narrow = {name: tensor.bfloat16().float() for name, tensor in checkpoint.model.items()}
    return save_checkpoint(dataclasses.replace(checkpoint, model=narrow), folder)


def flipped(checkpoint: Checkpoint, bit: int) -> Checkpoint:
    """`checkpoint` with one bit of the largest moment of the first parameter flipped, 0 is the last of its fraction."""
    moments = checkpoint.optimizer["state"][0]["exp_avg"].view(-1)
    place = int(moments.abs().argmax())
    moments[place : place + 1].view(torch.int32).bitwise_xor_(1 << bit)
    return checkpoint


def last_bit(checkpoint: Checkpoint, folder: Path) -> Path:
    return save_checkpoint(flipped(checkpoint, 0), folder)


def one_bit(checkpoint: Checkpoint, folder: Path) -> Path:
    """A quarter of the moment or more: no processor rounds it away in the steps that follow, as it may the last bit."""
    return save_checkpoint(flipped(checkpoint, 22), folder)


def without_moments(checkpoint: Checkpoint, folder: Path) -> Path:
    for values in checkpoint.optimizer["state"].values():
        values["exp_avg"].zero_()
    return save_checkpoint(checkpoint, folder)


def a_step_off(checkpoint: Checkpoint, folder: Path) -> Path:
    return save_checkpoint(dataclasses.replace(checkpoint, step=checkpoint.step - 1), folder)


FAULTS = [(lossy, "model"), (one_bit, "optimizer"), (without_moments, "optimizer"), (a_step_off, "step")]


def copied(fault: checkpoints.Save) -> checkpoints.Save:
    """A fault changes what is written, not what is compared with."""
    return lambda checkpoint, folder: fault(Checkpoint(**checkpoints._copied(vars(checkpoint))), folder)


@pytest.mark.parametrize(("fault", "what"), [*FAULTS, (last_bit, "optimizer")])
def test_a_lossy_checkpoint_fails(fault: checkpoints.Save, what: str, config: RunConfig, tmp_path: Path) -> None:
    check = checkpoints.round_trips(config, CHOICE, tmp_path, save=copied(fault))
    fails(check, what, "not what was written", "alm doctor --out")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(("fault", "what"), FAULTS)
def test_a_run_that_goes_on_from_something_else_fails(
    fault: checkpoints.Save, what: str, config: RunConfig, tmp_path: Path
) -> None:
    fails(checkpoints.resumes_exactly(config, CHOICE, tmp_path, save=copied(fault)), what, "alm verify-resume")


def test_a_part_that_is_lost_while_loading_fails(config: RunConfig, tmp_path: Path) -> None:
    def load(path: Path) -> Checkpoint:
        return dataclasses.replace(load_checkpoint(path), environment={})

    fails(checkpoints.round_trips(config, CHOICE, tmp_path, load=load), "environment changed on the way")


def test_where_two_runs_differ_anyway_a_resume_is_not_blamed(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, calls = checkpoints.train_steps, iter(range(100))

    def varying(state: Any, choice: Choice, *, steps: int) -> Any:
        state = sound(state, choice, steps=steps)
        with torch.no_grad():
            state.model.model.norm.weight[0] += 1e-6 * next(calls)
        return state

    monkeypatch.setattr(checkpoints, "train_steps", varying)
    notes(checkpoints.resumes_exactly(config, CHOICE, tmp_path), "order that changes", "training.reproducible=true")
