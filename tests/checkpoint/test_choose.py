"""Which checkpoint stands for a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import TINY_MODEL, tiny_weights

from alm.checkpoint.choose import checkpoint_at, choose
from alm.checkpoint.format import BEST_NAME, LAST_NAME, Checkpoint
from alm.checkpoint.load import verify
from alm.checkpoint.retain import Retention, repair
from alm.checkpoint.save import save_checkpoint
from alm.errors import ArtifactError
from alm.events import Event, Noted


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step,
        samples_seen=step,
        model=tiny_weights(float(step)),
        optimizer={},
        rng=[],
        config={"model": TINY_MODEL},
        environment={},
        tokenizer_sha256="t",
        data_sha256="d",
    )


def run_of(folder: Path, *scores: float | None, best: bool = True) -> Path:
    """A run with checkpoints of steps 10, 20 ..., of which it keeps the best and the last."""
    for number, score in enumerate(scores, 1):
        save_checkpoint(checkpoint(10 * number), folder, bits_per_byte=score)
    repair(folder, Retention(last=1, best=best))
    return folder


@pytest.mark.parametrize(
    ("scores", "step", "said"),
    [
        (
            (1.9, 1.8432, 2.0259),
            20,
            "best of the run: step 20, 1.843 bits/byte; the last, step 30, has 2.026",
        ),
        ((1.9, 1.8, None), 20, "best of the run: step 20, 1.800 bits/byte; the last, step 30, has no score"),
        ((1.9, 1.8, 1.7), 30, None),
        ((None, None), 20, None),
    ],
)
def test_the_best_of_a_run_is_used_and_named(
    tmp_path: Path, scores: tuple[float | None, ...], step: int, said: str | None
) -> None:
    run, events = run_of(tmp_path, *scores), list[Event]()
    path = checkpoint_at(run, on_event=events.append)
    assert verify(path).step == step
    assert path.name == (BEST_NAME if said else LAST_NAME)
    assert events == ([Noted(said)] if said else [])


def test_a_run_that_does_not_keep_its_best_stands_for_its_last(tmp_path: Path) -> None:
    assert checkpoint_at(run_of(tmp_path, 1.0, 2.0, best=False)) == tmp_path / LAST_NAME


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1.0, 2.0)
    for path in (run / LAST_NAME, run / "ckpt-step000010.pt", run / "missing.pt"):
        assert checkpoint_at(path) == path


def test_a_damaged_best_is_not_chosen(tmp_path: Path) -> None:
    run = run_of(tmp_path, 1.0, 2.0)
    (run / "ckpt-step000010.pt").unlink()
    (run / "ckpt-step000010.pt").write_bytes(b"half")
    found = choose(run)
    assert found is not None
    assert (found.used.step, found.is_last) == (20, True)


def test_folders_without_a_checkpoint_say_what_to_do(tmp_path: Path) -> None:
    run = run_of(tmp_path / "runs" / "tales", 1.0)
    for folder in (tmp_path, tmp_path / "runs"):
        with pytest.raises(ArtifactError, match="without a checkpoint") as caught:
            checkpoint_at(folder)
        assert str(run) in str(caught.value.hint)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="without a checkpoint"):
        checkpoint_at(tmp_path / "empty")
    shutil.copy(run / LAST_NAME, tmp_path / "empty")  # a copy without metadata
    assert checkpoint_at(tmp_path / "empty") == tmp_path / "empty" / LAST_NAME
