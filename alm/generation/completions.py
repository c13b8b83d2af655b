"""Continuation of prompts as text, with events as tokens are chosen."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from alm.events import Listener, Noted, Warned, ignore
from alm.generation.config import SamplingConfig
from alm.generation.engine import Ended, EndReason, Engine, Request, must_compile, needed
from alm.generation.sampling import SampledToken
from alm.generation.stopping import StopFilter
from alm.model.transformer import Transformer
from alm.tokenizers.file import StreamDecoder, Tokenizer

# All rows share the reading of the weights; with more rows, arithmetic takes longer than that on a CPU.
MOST_ROWS = 16
_SEEDS = 2**63


@dataclass(frozen=True)
class TextChunk:
    """A token of text `number` was chosen. `text` is what can now be written, often nothing."""

    number: int
    text: str
    token: SampledToken


@dataclass(frozen=True)
class Finished:
    """Text `number` is complete; `text` is its end. The reason is as in `Ended`, or a stop was found."""

    number: int
    text: str
    reason: EndReason


@dataclass
class Completion:
    """A complete text, collected by `add`."""

    seed: int
    text: str = ""
    tokens: list[SampledToken] = field(default_factory=list)
    reason: EndReason | None = None

    @property
    def ids(self) -> list[int]:
        """The chosen tokens, including those of a stop at the end."""
        return [token.id for token in self.tokens]

    def add(self, event: TextChunk | Finished) -> None:
        """Add an event of this text."""
        self.text += event.text
        if isinstance(event, TextChunk):
            self.tokens.append(event.token)
        else:
            self.reason = event.reason


class TextStream:
    """Decoder and stop filter of one text, which may continue another one."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], *, continues: bool) -> None:
        self._decoder = StreamDecoder(tokenizer, continues=continues)
        self.stop = StopFilter(stops)

    def feed(self, token_id: int) -> str:
        """Return what can be written after another token, often nothing."""
        return self.stop.feed(self._decoder.feed(token_id))

    def finish(self) -> str:
        """Return what was held back."""
        return self.stop.feed(self._decoder.finish()) + self.stop.finish()


def write(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    *,
    ends: Container[int] = (),
    alternatives: int | None = None,
    on_event: Listener = ignore,
) -> Iterator[TextChunk | Finished]:
    """Continue all `prompts`, and yield events as they happen; an empty prompt begins a document.

    Text i is drawn with the seed `seed_of(sampling, i)`, so it is the same alone and among others. A token of `ends`
    ends a text, beside the tokenizer's end of text. `alternatives` as in `TokenSampler`. Raises InputError at once if a
    prompt is too long.
    """
    banned = banned_ids(tokenizer, sampling.bad_words)
    requests = [
        Request(ids, sampling.model_copy(update={"seed": seed_of(sampling, number)}), banned, alternatives, ends)
        for number, ids in enumerate(map(tokenizer.prompt_ids, prompts))
    ]
    if must_compile(model):
        on_event(Noted("compiling the generation kernels: some seconds, once on this machine"))
    engine = Engine(
        model,
        end_of_text_id=tokenizer.end_of_text_id,
        vocab_size=tokenizer.vocab_size,
        rows=max(1, min(len(requests), MOST_ROWS)),
        max_tokens=needed(requests, model.config),
    )
    for request in requests:
        engine.add(request)
    _warn_of_the_end(requests, model, on_event)
    streams = (TextStream(tokenizer, sampling.stop, continues=bool(prompt)) for prompt in prompts)
    return text_events(engine, dict(enumerate(streams)))


def seed_of(sampling: SamplingConfig, number: int) -> int:
    """Return the seed of text `number` of several."""
    return (sampling.seed + number) % _SEEDS


def banned_ids(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    """Return the ids of each of `words` alone and after a space."""
    return [tokenizer.encode(text) for word in words for text in (word, f" {word}")]


def _warn_of_the_end(requests: Sequence[Request], model: Transformer, on_event: Listener) -> None:
    context = model.config.max_position_embeddings
    for request in requests:
        if max(len(request.ids), 1) + request.sampling.max_tokens > context:
            slides = request.sampling.overflow == "slide"
            what = "the older half is dropped whenever it is full" if slides else "the text may end there"
            hint = None if slides else "add `--overflow slide` to continue past it"
            on_event(Warned(f"the context of {context:,} tokens is shorter than prompt and answer: {what}", hint))
            return


def text_events(engine: Engine, texts: Mapping[int, TextStream]) -> Iterator[TextChunk | Finished]:
    """Run `engine` and decode the texts of its requests, by number, as they come."""
    for event in engine.run():
        text = texts[event.number]
        if isinstance(event, Ended):
            if not text.stop.is_stopped:
                rest = text.finish()
                yield Finished(event.number, rest, "stop" if text.stop.is_stopped else event.reason)
            continue
        yield TextChunk(event.number, text.feed(event.token.id), event.token)
        if text.stop.is_stopped:
            engine.stop(event.number)
            yield Finished(event.number, "", "stop")
