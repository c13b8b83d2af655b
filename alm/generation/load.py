"""Loading a checkpoint and its tokenizer for generation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alm import device
from alm.artifacts import SHORT_HASH
from alm.checkpoint.choose import checkpoint_at
from alm.checkpoint.load import in_fp32_, open_checkpoint
from alm.errors import ArtifactError, quoted, shell
from alm.events import Listener, ignore
from alm.generation.completions import Finished, TextChunk, write
from alm.generation.config import SamplingConfig
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
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


def load_model(
    checkpoint: Path, *, tokenizer: Path | None = None, device_name: str = "auto", on_event: Listener = ignore
) -> LoadedModel:
    """Load the model in `checkpoint`, in fp32, with `tokenizer` or else the one beside the checkpoint.

    `checkpoint` is a file, or the folder of a run: then an event says if its best checkpoint is not its last. Raises
    `ArtifactError` if the checkpoint is damaged, or was trained with another tokenizer.
    """
    checkpoint = checkpoint_at(checkpoint, on_event=on_event)
    target = device.choose(device_name, precision="fp32").device
    _, loaded = open_checkpoint(checkpoint, device=target, with_optimizer=False, on_event=on_event)
    path = tokenizer or checkpoint.with_name("tokenizer.json")
    words = Tokenizer.load(path)
    if words.sha256 != loaded.tokenizer_sha256:
        raise ArtifactError(
            f"`{checkpoint}` was trained with another tokenizer\n"
            f"  of the checkpoint  {loaded.tokenizer_sha256[:SHORT_HASH]}\n"
            f"  {path}  {words.sha256[:SHORT_HASH]}",
            hint=f"leave out `--tokenizer`, or give `--tokenizer {quoted(checkpoint.with_name('tokenizer.json'))}`",
        )
    config = ModelConfig.model_validate(loaded.config["model"])
    if words.vocab_size > config.known_vocab_size:
        raise ArtifactError(
            f"`{path}` has {words.vocab_size:,} ids, but the model of `{checkpoint}` only {config.known_vocab_size:,}",
            hint=f"run `{shell('alm', 'info', checkpoint)}` to see what it was made from",
        )
    model = Transformer.holding(config, in_fp32_(loaded.model))
    found = ends.read(checkpoint.parent, vocab_size=words.vocab_size)
    return LoadedModel(model.to(target), words, found)
