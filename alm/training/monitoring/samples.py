"""Continues fixed prompts at a few steps of a run: `samples.jsonl` shows how a model learns to write.

Every text is a function of the weights, the settings and (seed, step, prompt): nothing is drawn from PyTorch's own
random state, so a run's weights are the same with samples and without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np

from alm.data.order import permute
from alm.errors import AlmError, ConfigError, InputError
from alm.events import Listener, Noted, Sampled, Warned
from alm.files import is_full, wrap_os_errors
from alm.generation.config import SamplingConfig
from alm.generation.engine import Ended, Engine, NewToken, Request, check_prompt, needed
from alm.generation.generate import stream_text
from alm.model.transformer import Transformer
from alm.packing.shards import TokenStream
from alm.tokenizers.file import StreamDecoder, Tokenizer
from alm.training.config import RunConfig
from alm.training.monitoring import metrics
from alm.training.monitoring.answers import Answer, Prompt, Turns, held_out_questions, rates
from alm.training.monitoring.metrics import Row
from alm.training.run.run_folder import SAMPLES_NAME

NAME = SAMPLES_NAME
_ATTEMPTS = 2  # the disk may have room again
_HELD_OUT_PROMPTS = 3
_PROMPT_TOKENS = 16
_PROMPT_SEED = 0
AUTO_PROMPTS = 1 + _HELD_OUT_PROMPTS  # an empty one, and the held-out ones
_QUESTIONS, _SHOWN = 8, 3  # of conversations: answered, and written to the file
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
        turns: Turns | None = None,
    ) -> None:
        """`turns` are those of conversations, if `held_out` has them."""
        self._model, self._tokenizer, self._config, self._run = model, tokenizer, config, run
        self._should_stop, self._on_event = should_stop, on_event
        self._waiting = b""
        self._turns = turns if config.samples.prompts == "auto" else None
        self.prompts = prompts(config, tokenizer, held_out, turns)
        self.steps = sample_steps(config.training.max_steps, config.samples.count) if self.prompts else ()

    def is_due(self, step: int) -> bool:
        return step in self.steps

    def catch_up(self, step: int) -> Row | None:
        """Make the samples after `step` that a stop prevented; return what `sample` does.

        A kill may have come between them and their row of metrics, which is then made again.
        """
        if not self.is_due(step):
            return None
        if not any(row["step"] == step for row in metrics.read(self._run, name=NAME)):
            return self.sample(step)
        if self._turns is None or any(row["step"] == step and "stop_rate" in row for row in metrics.read(self._run)):
            return None
        answers = self._answers([self._sampling(step, number) for number in range(len(self.prompts))])
        return None if answers is None else self._judged(step, answers)

    def sample(self, step: int) -> Row | None:
        """Continue every prompt. All texts of a step are written, or none if a stop is requested meanwhile.

        Of conversations, some of the answers are written; return how all of them look, as a row of metrics.
        """
        was_training = self._model.training
        try:
            sampling = [self._sampling(step, number) for number in range(len(self.prompts))]
            answers = self._answers(sampling)
            if answers is None:
                return None
            rows = [self._row(step, *found) for found in zip(self.prompts, sampling, answers, strict=True)][
                : _SHOWN if self._turns is not None else None
            ]
            self._append(metrics.as_text(rows).encode())
            self._on_event(Sampled(step, tuple((row["prompt"], row["text"]) for row in rows)))
            if self._turns is not None:
                return self._judged(step, answers)
        except AlmError as error:
            if not isinstance(error, InputError) and not is_full(error):
                raise
            self._on_event(Warned(f"no samples at step {step}: {error.message}", error.hint))
        finally:
            self._model.train(was_training)
        return None

    def _judged(self, step: int, answers: Sequence[Answer]) -> Row:
        """Report how the answers after `step` look; return it as a row of metrics."""
        found = rates(answers, self._tokenizer)
        ended, loop, leak = (f"{share:.0%}" for share in found.values())
        self._on_event(
            Noted(f"step {step}: of {len(answers)} answers {ended} end by themselves, {loop} loop, {leak} leave a turn")
        )
        return {"step": step, **found}

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

    def _sampling(self, step: int, number: int) -> SamplingConfig:
        settings = self._config.samples
        key = sha256(f"{self._config.training.seed}/{step}/{number}".encode()).digest()
        return SamplingConfig(
            temperature=settings.temperature,
            top_k=settings.top_k,
            max_tokens=settings.max_tokens,
            seed=int.from_bytes(key[:_SEED_BYTES], "big"),
        )

    def _row(self, step: int, prompt: Prompt, sampling: SamplingConfig, answer: Answer) -> Row:
        decoder = StreamDecoder(self._tokenizer, continues=bool(prompt.text))
        text = "".join(stream_text(answer.ids, decoder))
        return {"step": step, "prompt": prompt.text, "text": text, **sampling.model_dump(include=_WRITTEN)}

    def _answers(self, sampling: Sequence[SamplingConfig]) -> list[Answer] | None:
        """Continue all prompts; return None if a stop is requested meanwhile."""
        end_ids = () if self._turns is None else self._turns.ends
        requests = [
            Request(prompt.ids, settings, end_ids=end_ids)
            for prompt, settings in zip(self.prompts, sampling, strict=True)
        ]
        # Text has one row at a time, as in the runs so far: in a larger batch sums round differently.
        count = len(requests) if self._turns is not None else 1
        engine = Engine(
            self._model,
            end_of_text_id=self._tokenizer.end_of_text_id,
            vocab_size=self._tokenizer.vocab_size,
            rows=count,
            max_tokens=needed(requests, self._model.config),
            plain=True,
        )
        for request in requests:
            engine.add(request)
        ids: list[list[int]] = [[] for _ in requests]
        ended = [False] * len(requests)
        for event in engine.run():
            if self._should_stop():
                return None
            if isinstance(event, NewToken):
                ids[event.number].append(event.token.id)
            elif isinstance(event, Ended):
                ended[event.number] = event.reason == "stop"
        return [Answer(tuple(each), has_ended) for each, has_ended in zip(ids, ended, strict=True)]


def prompts(
    config: RunConfig, tokenizer: Tokenizer, held_out: TokenStream, turns: Turns | None = None
) -> tuple[Prompt, ...]:
    """Return the prompts of `config`. Raises `ConfigError` for one that does not fit into the model's context."""
    given = config.samples.prompts
    if given == "auto" and turns is not None:
        return tuple(islice(held_out_questions(held_out, tokenizer, turns.opening), _QUESTIONS))
    if given == "auto":
        tokens = min(_PROMPT_TOKENS, config.model.max_position_embeddings // 4)
        found = held_out_prompts(held_out, tokenizer, tokens=tokens)
        return tuple(_prompt(text, tokenizer) for text in ("", *islice(found, _HELD_OUT_PROMPTS)))
    for number, prompt in enumerate(given):
        try:
            check_prompt(tokenizer.prompt_ids(prompt), config.model)
        except InputError as error:
            raise ConfigError(f"`samples.prompts[{number}]`: {error.message}", hint=error.hint) from error
    return tuple(_prompt(text, tokenizer) for text in given)


def _prompt(text: str, tokenizer: Tokenizer) -> Prompt:
    return Prompt(tuple(tokenizer.prompt_ids(text)), text)
