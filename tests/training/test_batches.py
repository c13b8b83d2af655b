"""How often a run sees its text, and what follows from that."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import run_config, write_packed
from cases import for_each

from alm.checkpoint.format import BEST_NAME, LAST_NAME
from alm.checkpoint.load import verify
from alm.data.mixture import mixture, plain
from alm.packing.shards import TRAIN, open_packed
from alm.training.batches import epochs, repeats
from alm.training.monitoring import metrics
from alm.training.plan import plan
from alm.training.pretrain import pretrain
from alm.training.run import run_folder


def test_text_repeats_as_soon_as_one_source_is_seen_more_than_once() -> None:
    config = run_config(training__max_steps=10)  # of 4 sequences
    assert not repeats(config, plain(40))
    assert repeats(config, plain(39))
    two = mixture({"small": 1, "large": 1}, {"small": range(10), "large": range(10, 1000)})
    assert epochs(config, two) == {"small": 2.0, "large": pytest.approx(0.02, abs=0.001)}
    assert repeats(config, two)
    assert repeats(run_config(training__max_steps=1), plain(39), step=10), "steps that are done count"


@for_each(
    "keep_best, stop, is_repeated, expected",
    [
        ("auto", "auto", False, (False, False)),
        ("auto", "auto", True, (True, True)),
        (True, "auto", False, (True, False)),
        (False, "auto", True, (False, False)),
        (False, True, True, (False, True)),
        ("auto", False, True, (True, False)),
    ],
)
def test_auto_follows_the_text(keep_best: object, stop: object, is_repeated: bool, expected: tuple[bool, bool]) -> None:
    training = run_config(training__keep_best=keep_best, training__stop_when_worse=stop).training
    assert (training.keeps_best(repeats=is_repeated), training.stops_when_worse(repeats=is_repeated)) == expected


def test_a_run_that_repeats_its_text_keeps_its_best_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate is far too high from step 9 on. A longer run of the same text keeps what is best from then on."""
    monkeypatch.setattr("alm.training.loop.lr_factor", lambda _, number: 1.0 if number < 9 else 100.0)
    small, _ = write_packed(tmp_path / "small", documents=20)
    rows = open_packed(small).metadata.sequences(TRAIN)
    settings = {"optim__lr": 0.02, "validation__interval": 3, "training__keep_last": 1, "logging__log_interval": 1}
    for name, steps, keeps in (("once", rows // 4, False), ("twice", rows // 2, True)):
        config = run_config(training__max_steps=steps, **settings)
        pretrain(config, data=small, out=tmp_path / name)
        scores = {row["step"]: row["bits_per_byte"] for row in metrics.read(tmp_path / name) if "bits_per_byte" in row}
        best = min(scores, key=lambda step: scores[step])
        assert best < steps
        assert (tmp_path / name / BEST_NAME).is_file() == keeps
        if keeps:
            assert verify(tmp_path / name / BEST_NAME).step == best
        assert run_folder.read_config(tmp_path / name).training.keep_best == "auto"


def test_a_run_of_an_older_alm_goes_on_as_it_did_there(data: Path, tmp_path: Path) -> None:
    pretrain(run_config(training__keep_best=True), data=data, out=tmp_path / "run")
    path = tmp_path / "run" / run_folder.CONFIG_NAME
    text = path.read_text().replace("stop_when_worse: auto,", "").replace("keep_best: true", "keep_best: false")
    path.write_text(text)
    found = run_folder.read_config(tmp_path / "run").training
    assert (found.keep_best, found.stop_when_worse) == (False, False)
    pretrain(run_config(training__max_steps=14), data=data, out=tmp_path / "run")
    assert not (tmp_path / "run" / BEST_NAME).exists()
    assert verify(tmp_path / "run" / LAST_NAME).step == 14


def test_a_plan_counts_the_best_checkpoint_of_a_run_that_repeats_its_text() -> None:
    config = run_config(training__max_steps=20, training__keep_last=2)  # 20 steps of 4 sequences of 16 tokens
    kept = {
        tokens: plan(config, seq_len=16, tokens=tokens, device_name="cpu", is_measured=False).disk.checkpoints
        for tokens in (1280, 1279)
    }
    assert kept == {1280: 3, 1279: 4}
