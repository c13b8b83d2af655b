"""Continues fixed prompts at a few steps of a run: `samples.jsonl` shows how a model learns to write.

Every text is a function of the weights, the settings and (seed, step, prompt): nothing is drawn from PyTorch's own
random state, so a run's weights are the same with samples and without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from alm.data.order import permute
from alm.errors import AlmError, ConfigError, InputError
from alm.events import Listener, Sampled, Warned
from alm.files import is_full, wrap_os_errors
from alm.generation.config import SamplingConfig
from alm.generation.engine import check_prompt
from alm.generation.generate import generate, stream_text
from alm.model.transformer import Transformer
from alm.packing.shards import TokenStream
from alm.tokenizers.file import StreamDecoder, Tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.monitoring.metrics import Row
from alm.training.run.run_folder import SAMPLES_NAME

NAME = SAMPLES_NAME
_ATTEMPTS = 2  # the disk may have room again
_HELD_OUT_PROMPTS = 3
_PROMPT_TOKENS = 16
_PROMPT_SEED = 0
AUTO_PROMPTS = 1 + _HELD_OUT_PROMPTS  # an empty one, and the held-out ones
_WRITTEN = {"temperature", "top_k", "max_tokens", "seed"}
_SEED_BYTES = 4  # short enough to be typed after `alm sample --seed`


def sample_steps(max_steps: int, count: int) -> tuple[int, ...]:
    """Return at most `count` steps from 1 to `max_steps`, evenly spaced in their logarithm, always with the last.

    >>> sample_steps(1000, 4)
    (1, 10, 100, 1000)
    """
    if count == 1:
        return (max_steps,)
    return tuple(sorted({round(max_steps ** (number / (count - 1))) for number in range(count)}))


def held_out_prompts(stream: TokenStream, tokenizer: Tokenizer, *, tokens: int = _PROMPT_TOKENS) -> Iterator[str]:
    """Yield the first `tokens` tokens, as text, of documents of `stream` that are longer; the same ones every time."""
    starts = stream.document_starts()
    ends = np.append(starts[1:], sum(shard.tokens for shard in stream.shards))
    for number in permute(np.arange(len(starts)), size=len(starts), seed=_PROMPT_SEED, epoch=0):
        start = int(starts[number])
        if ends[number] - start > tokens + 1:  # the end-of-text token is not text
            decoder = StreamDecoder(tokenizer)
            # Bytes of a character that is cut at the end are left out.
            yield "".join(decoder.feed(token_id) for token_id in stream.tokens(start, tokens).tolist())


class Sampler:
    """Continues the prompts of `config` after the steps that are due, and writes the texts into `run`."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        config: RunConfig,
        *,
        held_out: TokenStream,
        run: Path,
        should_stop: Callable[[], bool],
        on_event: Listener,
    ) -> None:
        self._model, self._tokenizer, self._config, self._run = model, tokenizer, config, run
        self._should_stop, self._on_event = should_stop, on_event
        self._waiting = b""
        self.prompts = prompts(config, tokenizer, held_out)
        self.steps = sample_steps(config.training.max_steps, config.samples.count) if self.prompts else ()

    def is_due(self, step: int) -> bool:
        return step in self.steps

    def catch_up(self, step: int) -> None:
        """Make the samples after `step` that a stop prevented."""
        if self.is_due(step) and not any(row["step"] == step for row in metrics.read(self._run, name=NAME)):
            self.sample(step)

    def sample(self, step: int) -> None:
        """Continue every prompt. All texts of a step are written, or none if a stop is requested meanwhile."""
        was_training = self._model.training
        try:
            rows = [row for number in range(len(self.prompts)) if (row := self._row(step, number)) is not None]
            if len(rows) == len(self.prompts):
                self._append(metrics.as_text(rows).encode())
                self._on_event(Sampled(step, tuple((row["prompt"], row["text"]) for row in rows)))
        except AlmError as error:
            if not isinstance(error, InputError) and not is_full(error):
                raise
            self._on_event(Warned(f"no samples at step {step}: {error.message}", error.hint))
        finally:
            self._model.train(was_training)

    def _append(self, data: bytes) -> None:
        """Write to the disk, before the step's checkpoint implies that it is there; a full disk gets nothing at all.

        Data that a full disk has no room for waits for the next samples.
        """
        self._waiting += data
        for attempt in range(_ATTEMPTS):
            try:
                self._write_waiting()
                return
            except AlmError as error:
                if not is_full(error) or attempt == _ATTEMPTS - 1:
                    raise

    def _write_waiting(self) -> None:
        path, data = self._run / NAME, self._waiting
        with wrap_os_errors(path), path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), before)
                raise
        self._waiting = b""

    def _row(self, step: int, number: int) -> Row | None:
        settings = self._config.samples
        key = sha256(f"{self._config.training.seed}/{step}/{number}".encode()).digest()
        sampling = SamplingConfig(
            temperature=settings.temperature,
            top_k=settings.top_k,
            max_tokens=settings.max_tokens,
            seed=int.from_bytes(key[:_SEED_BYTES], "big"),
        )
        text = self._continuation(self.prompts[number], sampling)
        return (
            None
            if text is None
            else {"step": step, "prompt": self.prompts[number], "text": text, **sampling.model_dump(include=_WRITTEN)}
        )

    def _continuation(self, prompt: str, sampling: SamplingConfig) -> str | None:
        tokenizer, ids = self._tokenizer, list[int]()
        for token_id in generate(
            self._model,
            tokenizer.prompt_ids(prompt),
            sampling=sampling,
            end_of_text_id=tokenizer.end_of_text_id,
            vocab_size=tokenizer.vocab_size,
            plain=True,
        ):
            if self._should_stop():
                return None
            ids.append(token_id)
        return "".join(stream_text(ids, StreamDecoder(tokenizer, continues=bool(prompt))))


def prompts(config: RunConfig, tokenizer: Tokenizer, held_out: TokenStream) -> tuple[str, ...]:
    """Return the prompts of `config`. Raises `ConfigError` for one that does not fit into the model's context."""
    given = config.samples.prompts
    if given == "auto":
        tokens = min(_PROMPT_TOKENS, config.model.max_position_embeddings // 4)
        found = held_out_prompts(held_out, tokenizer, tokens=tokens)
        return ("", *(text for text, _ in zip(found, range(_HELD_OUT_PROMPTS), strict=False)))
    for number, prompt in enumerate(given):
        try:
            check_prompt(tokenizer.prompt_ids(prompt), config.model)
        except InputError as error:
            raise ConfigError(f"`samples.prompts[{number}]`: {error.message}", hint=error.hint) from error
    return given
