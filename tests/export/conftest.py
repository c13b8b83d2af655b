"""Checkpoints to export: small random models of any shape, and one that was really trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import run_config, write_packed

from alm.checkpoint.format import QUANTIZED_NAME, Checkpoint
from alm.checkpoint.save import save_checkpoint
from alm.cli.main import main
from alm.export.source import load_source
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.quant import file
from alm.quant.calibrate import quantized
from alm.quant.codes import TypeName
from alm.tokenizers.file import Tokenizer
from alm.training.pretrain import pretrain

MERGES = [(99, 87), (272, 84), (87, 84), (91, 91), (236, 80)]  # th the he ll, and a behind a blank
TINY: dict[str, Any] = {
    "d_model": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "ffn_hidden_size": 48,
    "max_position_embeddings": 64,
}

Make = Callable[..., Path]


def random_weights(model: Transformer, seed: int = 3) -> dict[str, torch.Tensor]:
    """Large enough that a mistake anywhere shows, and that no two tokens are nearly as likely."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    noise = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    return {name: value + 1 if value.dim() == 1 else value for name, value in noise.items()}


def greedy_ids(network: Transformer, prompt: list[int], tokens: int, end: int) -> list[int]:
    """Continue the prompt, without a cache, up to and including the end of the text."""
    ids = list(prompt)
    with torch.no_grad():
        while len(ids) < len(prompt) + tokens and ids[len(prompt) :][-1:] != [end]:
            ids.append(int(network.logits(network(torch.tensor([ids]))[0, -1]).argmax()))
    return ids[len(prompt) :]


def save(folder: Path, config: ModelConfig, weights: dict[str, torch.Tensor], tokenizer: Tokenizer) -> Path:
    """`weights` as the checkpoint of a run that left nothing else behind."""
    folder.mkdir(parents=True)
    tokenizer.save(folder / "tokenizer.json")
    values = {**run_config().model_dump(mode="json"), "model": config.model_dump(mode="json")}
    checkpoint = Checkpoint(
        step=7,
        samples_seen=28,
        model=weights,
        optimizer={},
        rng=[],
        config=values,
        environment={},
        tokenizer_sha256=tokenizer.sha256,
        data_sha256="d" * 64,
    )
    save_checkpoint(checkpoint, folder)
    return folder / "ckpt-last.pt"


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.from_merges(MERGES)


@pytest.fixture
def checkpoint_of(tmp_path: Path, tokenizer: Tokenizer) -> Make:
    """A checkpoint of a small random model; keywords are of its configuration."""

    def make(**changes: Any) -> Path:
        config = ModelConfig.model_validate({**TINY, "vocab_size": tokenizer.vocab_size, **changes})
        return save(tmp_path / "runs" / "tiny", config, random_weights(Transformer(config)), tokenizer)

    return make


def quantize(checkpoint: Path, to: TypeName, *, tables: TypeName | None = None) -> Path:
    """The same model with rounded weights, in a folder of its own without metadata."""
    source = load_source(checkpoint)
    weights = quantized(source.network, to, tables=tables)
    block = file.Block(
        to=to,
        model=source.model,
        step=source.step,
        tokenizer_sha256=source.tokenizer.sha256,
        source_sha256=source.sha256,
    )
    folder = checkpoint.parent.with_name(f"{checkpoint.parent.name}-{to}")
    folder.mkdir()
    source.tokenizer.save(folder / "tokenizer.json")
    file.write(folder / QUANTIZED_NAME, file.QuantizedModel(block, weights))
    return folder / QUANTIZED_NAME


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was trained until its loss had fallen by half; its data lies beside it."""
    root = tmp_path_factory.mktemp("trained")
    packed, _ = write_packed(root)
    config = run_config(training__max_steps=60, validation__interval=20, validation__bytes=10**6)
    pretrain(config, data=packed, out=root / "runs" / "tales", device_name="cpu")
    return root / "runs" / "tales"


@pytest.fixture
def greedy_of(capsys: pytest.CaptureFixture[str]) -> Callable[[Path, str, int], list[int]]:
    """The ids that `alm sample` finds likeliest behind a prompt."""

    def sample(checkpoint: Path, prompt: str, tokens: int) -> list[int]:
        capsys.readouterr()
        words = ["--checkpoint", str(checkpoint), "--prompt", prompt, "--max-tokens", str(tokens), "--device", "cpu"]
        main_ok(["sample", *words, "--top-k", "0", "--json"])
        found: list[int] = json.loads(capsys.readouterr().out)["ids"]
        return found

    return sample


def main_ok(words: list[str]) -> None:
    """The command line, which must end well."""
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code in (0, None)
