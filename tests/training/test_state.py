"""A checkpoint knows as many rows of a table as there are tokens, whatever is in memory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from builders import run_config
from cases import for_each

from alm.checkpoint.format import Checkpoint
from alm.data.loader import MicroBatch
from alm.device import choose
from alm.model.count import count
from alm.training import state
from alm.training.config import RunConfig
from alm.training.sizing import memory
from alm.training.step import train_step

CPU = choose("cpu", precision="fp32")


def config_of(optimizer: str) -> RunConfig:
    return run_config(model__vocab_size=50, model__tie_embeddings=False, optim__kind=optimizer)


def stepped(optimizer: str) -> tuple[state.TrainState, Checkpoint]:
    config = config_of(optimizer)
    live = state.init_state(config, CPU)
    step(live)
    names = {"environment": {}, "tokenizer_sha256": "", "data_sha256": ""}
    return live, copy.deepcopy(state.snapshot(live, config, **names))


def step(live: state.TrainState) -> None:
    ids = torch.arange(16)[None] % 50
    batch = MicroBatch(ids, ids)
    train_step(live, [batch], targets=16, choice=CPU, lr_factor=1.0, clip_norm=1.0, seed=1, should_stop=bool)


@for_each("optimizer", ["adamw", "muon"])
@for_each(
    "shape",
    [
        {},
        {"model__tie_embeddings": False, "model__feedforward": "dual"},
        {"model__qk_norm": True, "model__x0_skip": True, "model__value_residual": True, "model__smear": True},
    ],
)
def test_an_optimizer_keeps_as_many_numbers_as_its_kind_says(optimizer: str, shape: dict[str, Any]) -> None:
    config = run_config(model__vocab_size=50, optim__kind=optimizer, **shape)
    live = state.init_state(config, CPU)
    step(live)
    saved = state.snapshot(live, config, environment={}, tokenizer_sha256="", data_sha256="")
    held, written = (
        sum(value.numel() for values in found["state"].values() for value in values.values() if value.dim())
        for found in (live.optimizer.state_dict(), saved.optimizer)
    )
    weights = sum(value.numel() for value in saved.model.values())
    assert memory.checkpoint_bytes(config) == 4 * (weights + written)
    needed = count(config.model).memory(1, 16, moments=memory.moments(config))
    assert needed.optimizer == 4 * held
    assert held > written  # the table is padded


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_moments_are_as_long_as_weights_and_go_back_in(optimizer: str) -> None:
    live, saved = stepped(optimizer)
    assert live.model.model.embed_tokens.weight.shape[0] == 64
    tables = [value for value in saved.model.values() if value.shape[0] == 50]
    moments = [m for values in saved.optimizer["state"].values() for m in values.values() if m.dim() == 2]
    assert len(tables) == 2
    assert len([m for m in moments if m.shape[0] == 50]) == 4
    assert not any(m.shape[0] == 64 for m in moments if m.shape[1] == live.model.config.d_model and len(m) > 50)
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tables)
    other = state.init_state(config_of(optimizer), CPU)
    state.restore_(other, saved, CPU)
    step(live)
    step(other)
    for name, value in live.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert (other.model.model.embed_tokens.weight[50:] == 0).all()
