"""A checkpoint loaded for export: weights by their Llama names, shape, tokenizer, and origin."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alm import files
from alm.artifacts import SHORT_HASH
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.load import open_checkpoint
from alm.device import keep_to_processors
from alm.errors import ArtifactError, quoted, shell
from alm.events import Listener, ignore
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.tokenizers.file import Tokenizer
from alm.training.run import run_folder


@dataclass(frozen=True)
class Source:
    """One checkpoint. `weights` are fp32 on the CPU, without `lm_head.weight` if the embeddings are tied.

    `run` is the checkpoint's folder if its `run.json` describes the training, else None.
    """

    path: Path
    step: int
    sha256: str
    model: ModelConfig
    weights: dict[str, Tensor]
    tokenizer: Tokenizer
    tokenizer_path: Path
    run: Path | None

    @property
    def name(self) -> str:
        """The name of the model: that of its run's folder."""
        return self.path.resolve().parent.name

    @functools.cached_property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(tensor.numel() for tensor in self.weights.values())

    @functools.cached_property
    def network(self) -> Transformer:
        """The model in fp32 on the CPU, ready to evaluate."""
        return self.network_of(self.weights)

    def network_of(self, weights: dict[str, Tensor]) -> Transformer:
        """Return the same model with other values: those that a file of lower precision holds.

        It shares the memory of `weights`, except for tables with padding rows.
        """
        with torch.device("meta"):
            model = Transformer(self.model)
        model.load_state_dict(weights, assign=True)
        return model.eval()

    def not_finite(self) -> list[str]:
        """List the names of weights with values that are not finite."""
        return [name for name, tensor in self.weights.items() if not torch.isfinite(tensor).all()]


def load_source(checkpoint: Path, *, on_event: Listener = ignore) -> Source:
    """Load the checkpoint, a file or that of a run's folder, and the tokenizer beside it.

    Raises `ArtifactError` if either is missing or damaged, or if the model was trained with another tokenizer.
    """
    keep_to_processors()
    checkpoint = checkpoint_at(checkpoint, on_event=on_event)
    found, loaded = open_checkpoint(checkpoint, with_optimizer=False, on_event=on_event)
    path = checkpoint.with_name(run_folder.TOKENIZER_NAME)
    tokenizer = Tokenizer.load(path)
    if tokenizer.sha256 != loaded.tokenizer_sha256:
        raise ArtifactError(
            f"`{checkpoint}` was trained with another tokenizer than `{path}`\n"
            f"  of the checkpoint  {loaded.tokenizer_sha256[:SHORT_HASH]}\n"
            f"  {path}  {tokenizer.sha256[:SHORT_HASH]}",
            hint=f"copy the run's own tokenizer there: `cp data/packed/tokenizer.json {quoted(path)}`",
        )
    model = ModelConfig.model_validate(loaded.config["model"])
    if tokenizer.vocab_size > model.known_vocab_size:
        raise ArtifactError(
            f"`{path}` has {tokenizer.vocab_size:,} ids, but the model of `{checkpoint}` only "
            f"{model.known_vocab_size:,}",
            hint=f"run `{shell('alm', 'info', checkpoint)}` to see what it was made from",
        )
    folder = checkpoint.parent
    return Source(
        path=checkpoint,
        step=loaded.step,
        sha256=files.sha256(checkpoint) if found is None else found.sha256,
        model=model,
        weights={name: tensor.float() for name, tensor in loaded.model.items()},
        tokenizer=tokenizer,
        tokenizer_path=path,
        run=folder if run_folder.exists(folder) else None,
    )
