"""Every shape that ships is one that can be built, trained a step, and exported well."""

from __future__ import annotations

import pytest
import torch
from cases import for_each

from alm.config import presets
from alm.config.load import Part, load
from alm.config.yaml_files import read_yaml
from alm.model.config import ModelConfig
from alm.model.count import count
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.training.config import MODEL_SECTIONS, RunConfig

MODELS = [name for name in presets.names() if "model" in read_yaml(presets.find(name))]
PARAMETERS = {  # with this vocabulary
    "1m": (4096, 1.3e6),
    "3m": (8192, 3.9e6),
    "10m": (8192, 11.5e6),
    "pico": (32000, 29e6),
    "nano": (32000, 60e6),
    "120m": (32000, 121e6),
    "350m": (32000, 350e6),
    "1b": (32000, 1e9),
}


def shape(name: str) -> ModelConfig:
    return load(RunConfig, [Part(presets.find(name), MODEL_SECTIONS)]).model


def test_the_ladder_is_whole() -> None:
    assert set(PARAMETERS) <= set(MODELS)


@for_each("name", PARAMETERS)
def test_sizes_are_as_the_files_say_and_suit_quantization(name: str) -> None:
    vocab_size, parameters = PARAMETERS[name]
    model = shape(name).with_vocab_size(vocab_size)
    assert count(model).total == pytest.approx(parameters, rel=0.03)
    assert [model.d_model % 64, model.ffn_hidden_size % 64, model.head_width % 64] == [0, 0, 0]


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", MODELS)
def test_every_shape_takes_a_step_on_the_meta_device(name: str) -> None:
    config = shape(name).with_vocab_size(512)
    with torch.device("meta"):
        model = Transformer(config).to("meta")
        ids = torch.zeros(2, 33, dtype=torch.int64)
    assert sum(p.numel() for p in model.parameters()) == count(config).total
    model.losses(model(ids[:, :-1]), ids[:, 1:]).total.backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@for_each("name", [name for name in MODELS if count(shape(name).with_vocab_size(512)).total < 2e7])
def test_small_shapes_learn_a_batch(name: str) -> None:
    model = Transformer(shape(name).with_vocab_size(512))
    initialize(model, seed=0)
    ids = torch.randint(512, (2, 33), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model.losses(model(ids[:, :-1]), ids[:, 1:], divisor=64).total
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(6.24, abs=0.3)  # ln 512
    assert losses[2] < losses[0]
