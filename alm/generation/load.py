"""Loading a checkpoint and its tokenizer for generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alm import device
from alm.artifacts import SHORT_HASH
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.format import QUANTIZED_NAME
from alm.checkpoint.load import in_fp32_, open_checkpoint
from alm.errors import ArtifactError, quoted, shell
from alm.events import Listener, ignore
from alm.generation.completions import Finished, TextChunk, write
from alm.generation.config import SamplingConfig
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.quant.codes import Matrix
from alm.quant.file import open_verified
from alm.quant.network import network
from alm.tokenizers import ends
from alm.tokenizers.file import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, with the tokenizer it was trained with, and the ids that also end its texts."""

    model: Transformer
    tokenizer: Tokenizer
    ends: tuple[int, ...] = ()

    def write(
        self,
        prompts: Sequence[str],
        sampling: SamplingConfig,
        *,
        alternatives: int | None = None,
        on_event: Listener = ignore,
    ) -> Iterator[TextChunk | Finished]:
        """Continue `prompts`, with events as they happen: `alm.generation.completions.write`."""
        return write(
            self.model,
            self.tokenizer,
            prompts,
            sampling,
            ends=self.ends,
            alternatives=alternatives,
            on_event=on_event,
        )

    def complete(self, prompt: str, sampling: SamplingConfig) -> str:
        """Continue `prompt`; an empty one begins a new document."""
        return "".join(event.text for event in self.write([prompt], sampling))


@dataclass(frozen=True)
class StoredModel:
    """A model as a file holds it: weights by the names of its `state_dict`, in fp32 or as codes.

    `sha256` is None for a copy that has no metadata to verify it with.
    """

    config: ModelConfig
    weights: dict[str, Tensor | Matrix]
    step: int
    sha256: str | None
    tokenizer_sha256: str


def read_stored(checkpoint: Path, *, device: torch.device | str = "cpu", on_event: Listener = ignore) -> StoredModel:
    """Read the model in `checkpoint`, a file of `alm pretrain` or `alm quantize`. Raises `ArtifactError` if damaged."""
    if checkpoint.name == QUANTIZED_NAME:
        found, digest = open_verified(checkpoint, on_event=on_event)
        block = found.block
        return StoredModel(block.model, found.weights, block.step, digest, block.tokenizer_sha256)
    verified, loaded = open_checkpoint(checkpoint, device=device, with_optimizer=False, on_event=on_event)
    config = ModelConfig.model_validate(loaded.config["model"])
    weights: dict[str, Tensor | Matrix] = {**in_fp32_(loaded.model)}
    known = None if verified is None else verified.sha256
    return StoredModel(config, weights, loaded.step, known, loaded.tokenizer_sha256)


def tokenizer_of(stored: StoredModel, checkpoint: Path, given: Path | None = None) -> Tokenizer:
    """Load the tokenizer at `given`, or else beside `checkpoint`. Raises `ArtifactError` if it is not the model's."""
    path = given or checkpoint.with_name("tokenizer.json")
    words = Tokenizer.load(path)
    if words.sha256 != stored.tokenizer_sha256:
        hint = f"leave out `--tokenizer`, or give `--tokenizer {quoted(checkpoint.with_name('tokenizer.json'))}`"
        if given is None:
            hint = f"copy the run's own tokenizer there: `cp data/packed/tokenizer.json {quoted(path)}`"
        raise ArtifactError(
            f"`{checkpoint}` was trained with another tokenizer\n"
            f"  of the checkpoint  {stored.tokenizer_sha256[:SHORT_HASH]}\n"
            f"  {path}  {words.sha256[:SHORT_HASH]}",
            hint=hint,
        )
    if words.vocab_size > stored.config.known_vocab_size:
        raise ArtifactError(
            f"`{path}` has {words.vocab_size:,} ids, but the model of `{checkpoint}` only "
            f"{stored.config.known_vocab_size:,}",
            hint=f"run `{shell('alm', 'info', checkpoint)}` to see what it was made from",
        )
    return words


def load_model(
    checkpoint: Path, *, tokenizer: Path | None = None, device_name: str = "auto", on_event: Listener = ignore
) -> LoadedModel:
    """Load the model in `checkpoint`, in fp32 or as codes, with `tokenizer` or else the one beside the checkpoint.

    `checkpoint` is a file, or the folder of a run: then an event says if its best checkpoint is not its last. Raises
    `ArtifactError` if the checkpoint is damaged, or was trained with another tokenizer.
    """
    checkpoint = checkpoint_at(checkpoint, on_event=on_event)
    target = device.choose(device_name, precision="fp32").device
    stored = read_stored(checkpoint, device=target, on_event=on_event)
    words = tokenizer_of(stored, checkpoint, tokenizer)
    found = ends.read(checkpoint.parent, vocab_size=words.vocab_size)
    return LoadedModel(network(stored.config, stored.weights).to(target), words, found)
