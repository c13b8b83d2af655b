"""With `training.weight_average`, scores and checkpoints are of an average of the weights, and the run is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from builders import run_config

from alm.checkpoint.format import LAST_NAME, Checkpoint
from alm.checkpoint.load import load_checkpoint
from alm.data.loader import MicroBatch
from alm.device import choose
from alm.training import state
from alm.training.average import WeightAverage
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain
from alm.training.sizing import memory
from alm.training.step import train_step

CPU = choose("cpu", precision="fp32")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_step_t_counts_in_proportion_to_its_power(share: float) -> None:
    weight = torch.zeros(3, 2)
    average = WeightAverage([weight], share=share)
    values = torch.randn(40, 3, 2, generator=torch.Generator().manual_seed(1))
    for step, value in enumerate(values, start=1):
        weight.copy_(value)
        average.update(step)
    # b(t) = (1 - 1/t)^(1/share - 1) is the product of falling factors; the closed form is t^p - (t - 1)^p.
    power, steps = 1 / share - 1, torch.arange(1, 41, dtype=torch.float64)
    counts = steps**power - (steps - 1) ** power
    expected = (counts[:, None, None] * values).sum(0) / counts.sum()
    average.exchange()
    torch.testing.assert_close(weight.double(), expected, rtol=1e-5, atol=1e-6)
    average.exchange()
    assert torch.equal(weight, values[-1])


def lag(share: float, steps: int) -> float:
    weight = torch.zeros(1, dtype=torch.float64)
    average = WeightAverage([weight], share=share)
    for step in range(1, steps + 1):
        weight.fill_(step)
        average.update(step)
    average.exchange()
    return (steps - float(weight)) / steps


@pytest.mark.parametrize("share", [0.02, 0.1, 0.4])
def test_the_average_lags_by_its_share_of_the_steps(share: float) -> None:
    assert lag(share, 2000) == pytest.approx(share, rel=0.02)


def stepped(config: RunConfig, steps: int = 3) -> state.TrainState:
    live = state.init_state(config, CPU)
    ids = torch.arange(16)[None] % 50
    for _ in range(steps):
        batch = MicroBatch(ids, ids)
        train_step(live, [batch], targets=16, choice=CPU, lr_factor=1.0, clip_norm=1.0, seed=1, should_stop=bool)
    return live


def saved(live: state.TrainState, config: RunConfig) -> Checkpoint:
    return state.snapshot(live, config, environment={}, tokenizer_sha256="", data_sha256="")


def config_with(share: float) -> RunConfig:
    return run_config(model__vocab_size=50, training__weight_average=share)


def test_a_checkpoint_holds_the_average_and_what_the_run_continues_with() -> None:
    plain, mean = stepped(config_with(0)), stepped(config_with(0.2))
    without, with_ = saved(plain, config_with(0)), saved(mean, config_with(0.2))
    assert without.trained is None
    assert "trained" not in without.values()
    assert (without.values()["format_version"], with_.values()["format_version"]) == (1, 2)
    assert with_.trained is not None
    for name, weight in without.model.items():
        assert torch.equal(with_.trained[name], weight), name
        assert torch.equal(mean.model.state_dict()[name], plain.model.state_dict()[name]), name
    with mean.averaged():
        inside = {name: weight.clone() for name, weight in mean.model.state_dict().items()}
        assert not mean.is_consistent
    assert mean.is_consistent
    assert all(torch.equal(inside[name], weight) for name, weight in with_.model.items())
    assert any(not torch.equal(weight, without.model[name]) for name, weight in with_.model.items())
    written = sum(m.numel() for v in with_.optimizer["state"].values() for m in v.values() if m.dim())
    numbers = sum(weight.numel() for weight in with_.model.values())
    assert memory.checkpoint_bytes(config_with(0.2)) == 4 * (2 * numbers + written)


@pytest.mark.parametrize(("before", "after"), [(0.2, 0.2), (0.2, 0.0), (0.0, 0.2)])
def test_a_state_continues_with_the_weights_and_not_their_average(before: float, after: float) -> None:
    checkpoint = saved(stepped(config_with(before)), config_with(before))
    other = state.init_state(config_with(after), CPU)
    state.restore_(other, checkpoint, CPU)
    assert saved(stepped(config_with(0)), config_with(0)).model.keys() == checkpoint.model.keys()
    continued = checkpoint.trained or checkpoint.model
    assert all(torch.equal(other.model.state_dict()[name], weight) for name, weight in continued.items())
    with other.averaged():
        expected = checkpoint.model if after else continued
        assert all(torch.equal(other.model.state_dict()[name], weight) for name, weight in expected.items())


def test_a_run_with_an_average_trains_as_without_and_scores_the_average(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    pretrain(run_config(training__weight_average=0.2), data=data, out=out)
    rows = [metrics.read(run) for run in (out, uninterrupted)]
    losses, scores = (
        [[row[key] for row in found if key in row] for found in rows] for key in ("loss", "bits_per_byte")
    )
    assert losses[0] == losses[1]
    assert scores[0] != scores[1]
    average, weights = load_checkpoint(out / LAST_NAME), load_checkpoint(uninterrupted / LAST_NAME)
    assert average.trained is not None
    assert all(torch.equal(average.trained[name], weight) for name, weight in weights.model.items())
    assert load_checkpoint(out / LAST_NAME, with_optimizer=False).trained is None
