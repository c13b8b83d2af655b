"""A checkpoint loaded for export: weights by their Llama names, shape, tokenizer, and origin."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from alm import files
from alm.artifacts import SHORT_HASH
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.load import in_fp32_, load_checkpoint, open_checkpoint
from alm.device import keep_to_processors
from alm.errors import ArtifactError, quoted, shell
from alm.events import Listener, ignore
from alm.export.weights import bounds
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.model.weights import shapes_of
from alm.tokenizers import ends
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import TURN_ENDS
from alm.training.run import run_folder


@dataclass(frozen=True)
class Source:
    """One checkpoint. `load` reads its weights: fp32 on the CPU, without `lm_head.weight` if the embeddings are tied.

    `run` is the checkpoint's folder if its `run.json` describes the training, else None. `stored_ends` are the ids that
    end a text according to the model that was imported.
    """

    path: Path
    step: int
    sha256: str
    model: ModelConfig
    load: Callable[[], dict[str, Tensor]]
    tokenizer: Tokenizer
    tokenizer_path: Path
    run: Path | None
    stored_ends: tuple[int, ...] = ()

    @property
    def ends(self) -> list[int]:
        """The ids that end a text or an answer: as the imported model has them, the end of the text, those of turns."""
        specials = self.tokenizer.specials
        turns = [specials[name] for name in TURN_ENDS if name in specials]
        return list(dict.fromkeys([*self.stored_ends, self.tokenizer.end_of_text_id, *turns]))

    @property
    def name(self) -> str:
        """The name of the model: that of its run's folder."""
        return self.path.resolve().parent.name

    @functools.cached_property
    def weights(self) -> dict[str, Tensor]:
        """The weights, read when they are first used, and again after `release_weights`."""
        return self.load()

    def release_weights(self) -> None:
        """Free the memory of the weights while another tool needs it."""
        vars(self).pop("weights", None)

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(map(math.prod, shapes_of(self.model).values()))

    @property
    def network(self) -> Transformer:
        """The model in fp32 on the CPU, ready to evaluate, in memory of its own."""
        return self.network_of(self.load())

    def network_of(self, weights: dict[str, Tensor]) -> Transformer:
        """Return the same model with other values: those that a file of lower precision holds.

        It shares the memory of `weights`, except for tables with padding rows.
        """
        return Transformer.holding(self.model, weights)

    def not_finite(self) -> list[str]:
        """List the names of weights with values that are not finite."""
        return [name for name, tensor in self.weights.items() if not all(map(math.isfinite, bounds(tensor)))]


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
    sha256 = files.sha256(checkpoint) if found is None else found.sha256
    first = [loaded.model]

    def load() -> dict[str, Tensor]:
        return in_fp32_(first.pop() if first else _read_again(checkpoint, sha256))

    return Source(
        path=checkpoint,
        step=loaded.step,
        sha256=sha256,
        model=model,
        load=load,
        tokenizer=tokenizer,
        tokenizer_path=path,
        run=folder if run_folder.exists(folder) else None,
        stored_ends=ends.read(folder, vocab_size=tokenizer.vocab_size),
    )


def _read_again(checkpoint: Path, sha256: str) -> dict[str, Tensor]:
    """Read the weights of the same bytes; `ArtifactError` if training has saved another checkpoint since."""
    loaded = load_checkpoint(checkpoint, with_optimizer=False)
    if files.sha256(checkpoint) != sha256:
        raise ArtifactError(f"`{checkpoint}` has changed since it was read", hint="run the command again")
    return loaded.model
