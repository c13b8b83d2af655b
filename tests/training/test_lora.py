"""Adapters: the weights stay, the checkpoint has them added in, and the run resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config
from torch.nn import functional as F

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.data.loader import MicroBatch
from alm.device import choose
from alm.errors import ConfigError, StoppedError
from alm.events import Event, Stepped
from alm.model.lora import adapter_parameters, adapter_shapes, merged
from alm.model.transformer import Transformer
from alm.model.weights import is_adapter
from alm.training import state
from alm.training.config import RunConfig, checked
from alm.training.pretrain import pretrain
from alm.training.sizing import memory
from alm.training.step import train_step

CPU = choose("cpu", precision="fp32")


def config_of(rank: int = 4, **changes: Any) -> RunConfig:
    return run_config(model__vocab_size=50, lora__rank=rank, **changes)


def stepped(config: RunConfig, steps: int = 3) -> state.TrainState:
    live = state.init_state(config, CPU)
    ids = torch.arange(16)[None] % 50
    for _ in range(steps):
        batch = MicroBatch(ids, ids)
        train_step(live, [batch], targets=16, choice=CPU, lr_factor=1.0, clip_norm=1.0, seed=1, should_stop=bool)
    return live


def saved(live: state.TrainState, config: RunConfig) -> Any:
    return state.snapshot(live, config, environment={}, tokenizer_sha256="", data_sha256="")


def test_at_first_a_model_with_adapters_computes_what_it_did() -> None:
    plain, adapted = (state.init_state(config_of(rank), CPU).model for rank in (0, 4))
    ids = torch.arange(30)[None]
    assert torch.equal(plain(ids), adapted(ids))


def test_only_adapters_learn_and_the_merged_model_computes_the_same() -> None:
    config = config_of()
    before = {name: weight.clone() for name, weight in state.init_state(config, CPU).model.state_dict().items()}
    live = stepped(config)
    after = live.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == set(adapter_shapes(config.model, 4, config.lora.targets))
    numbers = sum(weight.numel() for name, weight in after.items() if is_adapter(name))
    assert numbers == adapter_parameters(config.model, 4, config.lora.targets) == memory.trained_numbers(config)
    other = Transformer(config.model)
    other.load_state_dict(merged(after, scale=config.lora.scale))
    ids = torch.arange(30)[None]
    torch.testing.assert_close(other(ids), live.model(ids), rtol=0, atol=1e-5)


def test_an_adapter_is_what_the_paper_says() -> None:
    live = stepped(config_of())
    layer = live.model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    assert layer.lora_A is not None
    assert layer.lora_B is not None
    low = F.linear(F.linear(x, layer.lora_A.weight), layer.lora_B.weight)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight) + 32 / 4 * low)
    assert layer.lora_B.weight.abs().max() > 0


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_checkpoint_brings_adapters_and_their_average_back(share: float, tmp_path: Path) -> None:
    config = config_of(training__weight_average=share)
    live = stepped(config)
    path = save_checkpoint(saved(live, config), tmp_path)
    found = load_checkpoint(path)
    assert found.trained is not None
    assert found.model.keys() == Transformer(config.model).state_dict().keys()
    other = state.init_state(config, CPU)
    state.restore_(other, found, CPU)
    for one in (live, other):
        ids = torch.arange(16)[None] % 50
        batch = MicroBatch(ids, ids)
        train_step(one, [batch], targets=16, choice=CPU, lr_factor=1.0, clip_norm=1.0, seed=1, should_stop=bool)
    again, expected = saved(other, config), saved(live, config)
    for name, weight in expected.trained.items():
        assert torch.equal(weight, again.trained[name]), name
    for name, weight in expected.model.items():
        assert torch.equal(weight, again.model[name]), name
    written = sum(m.numel() for values in found.optimizer["state"].values() for m in values.values() if m.dim())
    numbers = sum(weight.numel() for weight in [*found.model.values(), *found.trained.values()])
    assert memory.checkpoint_bytes(config) == 4 * (numbers + written)


def test_an_average_that_is_switched_on_starts_at_the_adapters() -> None:
    before, after = config_of(), config_of(training__weight_average=0.2)
    found = saved(stepped(before), before)
    other = state.init_state(after, CPU)
    state.restore_(other, found, CPU)
    again = saved(other, after)
    for name, weight in found.model.items():
        torch.testing.assert_close(weight, again.model[name], rtol=0, atol=1e-6)
    assert all(torch.equal(again.trained[f"average.{name}"], weight) for name, weight in found.trained.items())


def test_adapters_that_fit_no_matrix_are_refused(tmp_path: Path) -> None:
    config = config_of()
    made = saved(stepped(config), config)
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    for changed in (
        {"x.lora_A.weight": torch.zeros(4, 16)},
        {name: torch.zeros(4, 15)},
        {name: torch.zeros(4)},
        {"y": torch.zeros(2, 2)},
    ):
        made.trained.clear()
        made.trained.update({name: torch.zeros(4, 16), **changed})
        with pytest.raises(Exception, match="do not match its configuration"):
            load_checkpoint(save_checkpoint(made, tmp_path))


def test_parts_of_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="need complete weights"):
        checked({"lora": {"rank": 4}, "training": {"parallel": "fsdp"}})


class StopAfter:
    """A listener that stops the run after `step`."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stepped) and event.step == self.step:
            raise KeyboardInterrupt


def test_a_run_with_adapters_starts_from_weights_and_resumes_bit_for_bit(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    config = run_config(lora__rank=2, training__weight_average=0.2, training__max_steps=8)
    whole, out = tmp_path / "whole", tmp_path / "run"
    pretrain(config, data=data, out=whole, init=uninterrupted)
    with pytest.raises((StoppedError, KeyboardInterrupt)):
        pretrain(config, data=data, out=out, init=uninterrupted, on_event=StopAfter(5))
    pretrain(config, data=data, out=out)
    one, other, base = (load_checkpoint(run / LAST_NAME) for run in (whole, out, uninterrupted))
    assert one.trained is not None
    assert other.trained is not None
    assert all(torch.equal(weight, other.trained[name]) for name, weight in one.trained.items())
    assert all(torch.equal(weight, other.model[name]) for name, weight in one.model.items())
    name = "model.embed_tokens.weight"
    assert torch.equal(one.model[name], base.model[name])
