"""Adapters in a file for llama.cpp: every key and number as worked out by hand, and what llama.cpp makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from builders import run_config, write_packed

from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import load_checkpoint
from alm.errors import AlmError, ArtifactError
from alm.export.run import export
from alm.export.source import load_source
from alm.export.targets import _adapters, _gguf_model, gguf_lora
from alm.export.targets import gguf as whole
from alm.export.targets._llama_cpp import serving
from alm.export.targets.gguf_lora import Config
from alm.training.pretrain import pretrain

RANK, ALPHA, HEADS, KV_HEADS, E = 3, 12.0, 4, 2, 8


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with adapters that have learned enough to matter; the folder `base` beside it is where it started."""
    root = tmp_path_factory.mktemp("adapted")
    data, _ = write_packed(root / "data")
    shape = {"model__d_model": HEADS * E, "model__n_heads": HEADS, "model__n_kv_heads": KV_HEADS, "model__n_layers": 2}
    steps: dict[str, Any] = {"samples__prompts": [], "training__max_steps": 40, "optim__lr": 0.02, **shape}
    pretrain(run_config(**steps), data=data, out=root / "base")
    pretrain(run_config(**steps, lora__rank=RANK, lora__alpha=ALPHA), data=data, out=root / "chat", init=root / "base")
    return root / "chat"


def written(run: Path, out: Path) -> gguf.GGUFReader:
    out.mkdir()
    gguf_lora.write(Config(), load_source(run), out)
    return gguf.GGUFReader(out / "chat-lora.gguf")


def test_the_keys(adapted: Path, tmp_path: Path) -> None:
    reader, source = written(adapted, tmp_path / "out"), load_source(adapted)
    found = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert found == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "general.name": "chat",
        "adapter.type": "lora",
        "adapter.lora.alpha": ALPHA,
        "alm.step": 40,
        "alm.checkpoint_sha256": source.sha256,
        "alm.tokenizer_sha256": source.tokenizer.sha256,
    }


def test_the_tensors(adapted: Path, tmp_path: Path) -> None:
    """Of queries and keys the rows of B are in llama.cpp's order: the halves of a head in turn."""
    found = {tensor.name: tensor.data for tensor in written(adapted, tmp_path / "out").tensors}
    trained = load_checkpoint(adapted / LAST_NAME).trained
    assert trained is not None
    names = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
    names |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
    assert len(found) == len(trained) == 2 * 2 * len(names)
    for name, tensor in trained.items():
        layer, module, kind = name.split(".")[2], name.split(".")[4], name.split(".")[5]
        values = tensor.numpy()
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(module)
        if heads is not None and kind == "lora_B":
            values = values[
                [head * E + half * E // 2 + i for head in range(heads) for i in range(E // 2) for half in (0, 1)]
            ]
        np.testing.assert_array_equal(found[f"blk.{layer}.{names[module]}.weight.{kind.lower()}"], values)


def test_a_run_without_adapters_is_refused(adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(AlmError, match="no adapters, which `alm finetune --lora 16` trains"):
        export(Config(), checkpoint=adapted.parent / "base", out=tmp_path / "out")


# ---- llama.cpp -------------------------------------------------------------------------------------------------

# fp32 on both sides, with sums in another order: the bar of exports for ln p, in nats.
LOG_PROBABILITY = 1e-3


@pytest.mark.llamacpp
def test_the_model_it_started_from_and_the_adapters_are_the_model(adapted: Path, tmp_path: Path) -> None:
    """Two exports that know nothing of each other, beside the merged one; without adapters it is another model."""
    export(Config(), checkpoint=adapted, out=tmp_path / "lora")
    export(whole.Config(), checkpoint=adapted.parent / "base", out=tmp_path / "base")
    export(whole.Config(), checkpoint=adapted, out=tmp_path / "merged")
    base, lora = tmp_path / "base" / "base-f32.gguf", tmp_path / "lora" / "chat-lora.gguf"
    found = [answers(base, lora), answers(tmp_path / "merged" / "chat-f32.gguf"), answers(base)]
    assert found[0][0] == found[1][0] != found[2][0]
    assert (found[0][1] - found[1][1]).abs().max() < LOG_PROBABILITY
    assert (found[2][1] - found[1][1]).abs().max() > 10 * LOG_PROBABILITY


def answers(model: Path, adapter: Path | None = None) -> tuple[list[list[int]], torch.Tensor]:
    """Greedy text behind some prompts, and ln p of every next token."""
    with serving(model, context=64, adapter=adapter) as llama:
        prompts = [llama.encode(text) for text in ("the fox", "hello again", "it said")]
        values = [llama.log_probabilities(prompt, end=0, vocab_size=300) for prompt in prompts]
        return [llama.greedy(prompt, 20) for prompt in prompts], torch.stack(values)


def unmoved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gguf_model, "in_their_order", lambda name, rows, model: rows)


def other_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = _adapters.settings
    monkeypatch.setattr(_adapters, "settings", lambda source: honest(source).model_copy(update={"alpha": ALPHA / RANK}))


@pytest.mark.llamacpp
@pytest.mark.parametrize("mistake", [unmoved, other_alpha])
def test_a_mistake_is_a_failure(
    adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[pytest.MonkeyPatch], None]
) -> None:
    source = load_source(adapted)
    with monkeypatch.context() as planted:
        mistake(planted)
        gguf_lora.write(Config(), source, tmp_path)
    found = gguf_lora.compare(Config(), source, tmp_path)
    assert "ln p of every token" in [comparison.what for comparison in found if not comparison.is_close]
    assert {path.name for path in tmp_path.iterdir()} == {"chat-lora.gguf"}


@pytest.mark.llamacpp
def test_a_file_that_does_not_fit_the_model(adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_lora, "_A", ".lora_b")
    monkeypatch.setattr(gguf_lora, "_B", ".lora_a")
    with pytest.raises(ArtifactError, match="llama.cpp cannot load `chat-lora.gguf`"):
        export(Config(), checkpoint=adapted, out=tmp_path / "out")
    assert list((tmp_path / "out").glob("*")) == []
