"""A checkpoint with its tokenizer, ready to generate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from alm import device
from alm.artifacts import SHORT_HASH
from alm.checkpoint.format import LAST_NAME
from alm.checkpoint.load import has_promise, load_checkpoint, verify
from alm.errors import ArtifactError
from alm.events import Listener, Warned, ignore
from alm.generation.generate import generate, stream_text
from alm.generation.sampling import SamplingConfig
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.tokenizers.file import StreamDecoder, Tokenizer


@dataclass
class Generation:
    """Text as it comes. `ids` grows while `text` is read."""

    _source: Iterator[int]
    _decoder: StreamDecoder
    ids: list[int] = field(default_factory=list)

    def text(self) -> Iterator[str]:
        """The pieces of the text, none of them cut within a character."""
        return stream_text(self._noted(), self._decoder)

    def _noted(self) -> Iterator[int]:
        for token_id in self._source:
            self.ids.append(token_id)
            yield token_id


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device with the tokenizer it was trained with."""

    model: Transformer
    tokenizer: Tokenizer

    def generate(self, prompt: str, sampling: SamplingConfig, *, on_event: Listener = ignore) -> Generation:
        """The continuation of `prompt`; an empty one begins a new document."""
        ids = self.tokenizer.encode(prompt)
        source = generate(
            self.model,
            ids,
            sampling=sampling,
            end_of_text_id=self.tokenizer.end_of_text_id,
            vocab_size=self.tokenizer.vocab_size,
        )
        context = self.model.config.max_position_embeddings
        if max(len(ids), 1) + sampling.max_tokens > context:
            on_event(Warned(f"the context of {context:,} tokens ends before `--max-tokens {sampling.max_tokens}`"))
        return Generation(source, StreamDecoder(self.tokenizer))


def newest_checkpoint(runs: Path) -> Path:
    """The `ckpt-last.pt` written last among the runs in `runs`."""
    found = list(runs.glob(f"*/{LAST_NAME}"))
    if not found:
        raise ArtifactError(f"no checkpoint in `{runs}`", hint="run `alm pretrain`, or name one with `--checkpoint`")
    return max(found, key=lambda path: path.stat().st_mtime)


def load_model(
    checkpoint: Path, *, tokenizer: Path | None = None, device_name: str = "auto", on_event: Listener = ignore
) -> LoadedModel:
    """The model in `checkpoint`, in fp32, with `tokenizer` or else the one beside the checkpoint.

    Raises `ArtifactError` when the checkpoint is damaged, or was trained with another tokenizer.
    """
    if checkpoint.is_file() and not has_promise(checkpoint):
        on_event(Warned(f"no metadata beside `{checkpoint}` can say whether it is whole"))
    else:
        verify(checkpoint)
    target = device.choose(device_name, precision="fp32").device
    loaded = load_checkpoint(checkpoint, device=target)
    path = tokenizer or checkpoint.with_name("tokenizer.json")
    words = Tokenizer.load(path)
    if words.sha256 != loaded.tokenizer_sha256:
        raise ArtifactError(
            f"`{checkpoint}` was trained with another tokenizer\n"
            f"  of the checkpoint  {loaded.tokenizer_sha256[:SHORT_HASH]}\n"
            f"  {path}  {words.sha256[:SHORT_HASH]}",
            hint=f"leave out `--tokenizer`, or give `--tokenizer {checkpoint.with_name('tokenizer.json')}`",
        )
    model = Transformer(ModelConfig.model_validate(loaded.config["model"]))
    model.load_state_dict(loaded.model)
    return LoadedModel(model.to(target).eval(), words)
