"""Adapters in the files of PEFT: what PEFT makes of them is the model that alm trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config, write_packed
from safetensors.torch import load_file
from torch.nn import functional as F

from alm.checkpoint.format import AVERAGE, LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.data.loader import MicroBatch
from alm.device import choose
from alm.errors import AlmError
from alm.export.run import export
from alm.export.targets import peft as target
from alm.model.lora import merged
from alm.model.weights import is_adapter
from alm.training import state
from alm.training.pretrain import pretrain
from alm.training.step import train_step

CPU = choose("cpu", precision="fp32")
IDS = torch.arange(32)[None] % 50


@pytest.fixture(scope="module")
def adapted() -> state.TrainState:
    """A model with adapters that have learned a little."""
    live = state.init_state(run_config(model__vocab_size=50, lora__rank=4, lora__alpha=6.0), CPU)
    for _ in range(3):
        batch = MicroBatch(IDS, IDS)
        train_step(live, [batch], targets=32, choice=CPU, lr_factor=1.0, clip_norm=1.0, seed=1, should_stop=bool)
    return live


def of_peft(live: state.TrainState, folder: Path) -> Any:
    """The same model by `transformers` and `peft`, from the files that an export writes."""
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = live.model.config
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=shape.d_model,
            intermediate_size=shape.ffn_hidden_size,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            num_key_value_heads=shape.n_kv_heads,
            max_position_embeddings=64,
            rms_norm_eps=shape.norm_eps,
            rope_theta=10_000.0,
            tie_word_embeddings=shape.tie_embeddings,
        )
    )
    weights = live.model.state_dict()
    base.load_state_dict({name: weight for name, weight in weights.items() if not is_adapter(name)}, strict=False)
    adapters = {f"base_model.model.{name}": weight for name, weight in weights.items() if is_adapter(name)}
    save_file(adapters, folder / target.WEIGHTS_NAME)
    lora = run_config(lora__rank=4, lora__alpha=6.0).lora
    (folder / target.CONFIG_NAME).write_text(json.dumps(target.peft_values(lora, base="x")), encoding="utf-8")
    return PeftModel.from_pretrained(base, str(folder), is_trainable=True)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_computes_the_same_from_the_files(adapted: state.TrainState, tmp_path: Path) -> None:
    theirs = of_peft(adapted, tmp_path)
    adapted.model.zero_grad()
    logits = adapted.model.logits(adapted.model(IDS)), theirs(IDS).logits
    torch.testing.assert_close(*logits, rtol=0, atol=1e-5)
    for found in logits:
        F.cross_entropy(found[0], IDS[0]).backward()
    own = {name: each.grad for name, each in adapted.model.named_parameters() if is_adapter(name)}
    assert own
    for name, each in theirs.named_parameters():
        if each.requires_grad:
            known = own.pop(name.removeprefix("base_model.model.").replace(".default", ""))
            torch.testing.assert_close(known, each.grad, rtol=0, atol=1e-5)
    assert not own
    whole = merged(adapted.model.state_dict(), scale=6 / 4)
    found = theirs.merge_and_unload().state_dict()
    for name, weight in whole.items():
        torch.testing.assert_close(weight, found[name], rtol=0, atol=1e-5)


def test_an_export_writes_the_adapters_alone(tmp_path: Path) -> None:
    data, _ = write_packed(tmp_path / "data")
    small = {"samples__prompts": [], "training__max_steps": 2}
    pretrain(run_config(**small), data=data, out=tmp_path / "base")
    config = run_config(**small, lora__rank=2, training__weight_average=0.2)
    pretrain(config, data=data, out=tmp_path / "run", init=tmp_path / "base")
    export(target.Config(), checkpoint=tmp_path / "run", out=tmp_path / "out")
    found = load_file(tmp_path / "out" / target.WEIGHTS_NAME)
    values = json.loads((tmp_path / "out" / target.CONFIG_NAME).read_text())
    assert (values["r"], values["lora_alpha"], values["base_model_name_or_path"]) == (2, 32.0, "base")
    trained = load_checkpoint(tmp_path / "run" / LAST_NAME).trained
    assert trained is not None
    averages = {name: weight for name, weight in trained.items() if name.startswith(AVERAGE)}
    assert len(averages) == len(found) == 2 * 7 * config.model.n_layers
    for name, weight in averages.items():
        assert torch.equal(found[f"base_model.model.{name.removeprefix(AVERAGE)}"], weight)
    with pytest.raises(AlmError, match="no adapters"):
        export(target.Config(), checkpoint=tmp_path / "base", out=tmp_path / "none")
