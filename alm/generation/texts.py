"""Prompts as text, and their continuations as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from alm.events import Listener, Noted, Warned, ignore
from alm.generation.choosing import Choice
from alm.generation.engine import Ended, EndReason, Engine, Request, needed
from alm.generation.rows import must_compile
from alm.generation.sampling import SamplingConfig
from alm.generation.stopping import StopFilter
from alm.model.transformer import Transformer
from alm.tokenizers.file import StreamDecoder, Tokenizer

# Reading the weights is shared by all rows; with more of them arithmetic takes longer than that on a CPU.
MOST_ROWS = 16
_SEEDS = 2**63


@dataclass(frozen=True)
class Written:
    """A token of text `number` was chosen, and this much of the text is now sure to be written, often nothing."""

    number: int
    text: str
    choice: Choice


@dataclass(frozen=True)
class Finished:
    """Text `number` is complete, with the last of it. Why: `alm.generation.engine.Ended`, or a stop was found."""

    number: int
    text: str
    reason: EndReason


@dataclass
class Continuation:
    """A whole text, as `add` collects it."""

    seed: int
    text: str = ""
    choices: list[Choice] = field(default_factory=list)
    reason: EndReason | None = None

    @property
    def ids(self) -> list[int]:
        """The tokens that were chosen, those of a stop at the end included."""
        return [choice.id for choice in self.choices]

    def add(self, event: Written | Finished) -> None:
        """Take in what happened to this text."""
        self.text += event.text
        if isinstance(event, Written):
            self.choices.append(event.choice)
        else:
            self.reason = event.reason


class _Text:
    """One text on its way from ids to what can be shown."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self.stop = StopFilter(stops)

    def feed(self, token_id: int) -> str:
        return self.stop.feed(self._decoder.feed(token_id))

    def finish(self) -> str:
        return self.stop.feed(self._decoder.finish()) + self.stop.finish()


def write(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    sampling: SamplingConfig,
    *,
    alternatives: int | None = None,
    on_event: Listener = ignore,
) -> Iterator[Written | Finished]:
    """Continue all `prompts`, an empty one as the beginning of a document; what happens, as it happens.

    Text i is drawn with the seed `seed_of(sampling, i)`, so it is the same alone and among others. `alternatives` as
    in `Chooser`. Raises InputError at once where a prompt has no room.
    """
    banned = _banned(tokenizer, sampling.bad_words)
    requests = [
        Request(ids, sampling.model_copy(update={"seed": seed_of(sampling, number)}), banned, alternatives)
        for number, ids in enumerate(map(tokenizer.encode, prompts))
    ]
    if must_compile(model):
        on_event(Noted("compiling the loops that generate, some seconds, once on this machine"))
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
    texts = [_Text(tokenizer, sampling.stop) for _ in requests]
    return _written(engine, texts)


def seed_of(sampling: SamplingConfig, number: int) -> int:
    """The seed of text `number` of several."""
    return (sampling.seed + number) % _SEEDS


def _banned(tokenizer: Tokenizer, words: Sequence[str]) -> list[list[int]]:
    return [tokenizer.encode(text) for word in words for text in (word, f" {word}")]


def _warn_of_the_end(requests: Sequence[Request], model: Transformer, on_event: Listener) -> None:
    context = model.config.max_position_embeddings
    for request in requests:
        if max(len(request.ids), 1) + request.sampling.max_tokens > context:
            slides = request.sampling.overflow == "slide"
            what = "the older half is forgotten whenever it is full" if slides else "the text may end there"
            hint = None if slides else "add `--overflow slide` to go on past it"
            on_event(Warned(f"the context of {context:,} tokens is shorter than prompt and answer: {what}", hint))
            return


def _written(engine: Engine, texts: Sequence[_Text]) -> Iterator[Written | Finished]:
    for event in engine.run():
        text = texts[event.number]
        if isinstance(event, Ended):
            if not text.stop.is_stopped:
                rest = text.finish()
                yield Finished(event.number, rest, "stop" if text.stop.is_stopped else event.reason)
            continue
        yield Written(event.number, text.feed(event.choice.id), event.choice)
        if text.stop.is_stopped:
            engine.stop(event.number)
            yield Finished(event.number, "", "stop")
