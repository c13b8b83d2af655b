"""A checkpoint loaded for export: weights by their Llama names, shape, tokenizer, and origin."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from alm import files
from alm.checkpoint.choose import checkpoint_at
from alm.device import keep_to_processors
from alm.errors import ArtifactError
from alm.events import Listener, ignore
from alm.export.weights import bounds
from alm.generation.load import read_stored, tokenizer_of
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.model.weights import shapes_of
from alm.quant.codes import Matrix, in_numbers
from alm.tokenizers import ends
from alm.tokenizers.file import Tokenizer
from alm.tokenizers.special import TURN_ENDS
from alm.training.run import run_folder


@dataclass(frozen=True)
class Source:
    """One checkpoint. `load` reads its weights: fp32 on the CPU, without `lm_head.weight` if the embeddings are tied.

    `run` is the checkpoint's folder if its `run.json` describes the training, else None. `stored_ends` are the ids that
    end a text according to the model that was imported. `codes` are those of the matrices of a quantized model.
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
    codes: Mapping[str, Matrix] = field(default_factory=dict)

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
    stored = read_stored(checkpoint, on_event=on_event)
    tokenizer = tokenizer_of(stored, checkpoint)
    folder = checkpoint.parent
    sha256 = stored.sha256 or files.sha256(checkpoint)
    codes = {name: value for name, value in stored.weights.items() if not isinstance(value, Tensor)}
    first = [stored.weights]

    def load() -> dict[str, Tensor]:
        return in_numbers(first.pop() if first else _read_again(checkpoint, sha256))

    return Source(
        path=checkpoint,
        step=stored.step,
        sha256=sha256,
        model=stored.config,
        load=load,
        tokenizer=tokenizer,
        tokenizer_path=checkpoint.with_name(run_folder.TOKENIZER_NAME),
        run=folder if run_folder.exists(folder) else None,
        stored_ends=ends.read(folder, vocab_size=tokenizer.vocab_size),
        codes=codes,
    )


def _read_again(checkpoint: Path, sha256: str) -> dict[str, Tensor | Matrix]:
    """Read the weights of the same bytes; `ArtifactError` if training has saved another checkpoint since."""
    found = read_stored(checkpoint).weights
    if files.sha256(checkpoint) != sha256:
        raise ArtifactError(f"`{checkpoint}` has changed since it was read", hint="run the command again")
    return found
