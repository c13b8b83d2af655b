"""Output of `alm sample`: texts as they are generated, or with the probability of each token."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from alm.cli import ui
from alm.cli.token_view import visible
from alm.generation.completions import Completion, Finished, TextChunk, seed_of
from alm.generation.config import SamplingConfig
from alm.generation.sampling import SampledToken

if TYPE_CHECKING:
    from alm.tokenizers.file import Tokenizer

# Number of alternatives to show for each token.
ALTERNATIVES = 5
# Background colours from improbable to probable, each with the probability at which it begins.
_COLOURS = ((0.0, 88), (0.02, 130), (0.1, 136), (0.3, 100), (0.6, 64), (0.9, 28))
_FOREGROUND = "bright_white"


class Texts:
    """The continuations of one prompt: one is printed as it is generated, several as records of clean text in order."""

    def __init__(self, prompt: str, sampling: SamplingConfig, count: int, *, silent: bool) -> None:
        self._prompt, self._sampling, self._silent = prompt, sampling, silent
        self.all = [Completion(seed_of(sampling, number)) for number in range(count)]
        self._shown = 0
        self._seconds = self._first = 0.0

    def take(self, events: Iterable[TextChunk | Finished]) -> None:
        """Collect all `events`, and print the texts unless silent."""
        started = time.perf_counter()
        is_alone = len(self.all) == 1
        self._show(self._prompt if is_alone else "")
        try:
            for event in events:
                self._first = self._first or time.perf_counter() - started
                self.all[event.number].add(event)
                if is_alone:
                    self._show(event.text)
                elif isinstance(event, Finished):
                    self._show_complete()
        finally:
            self._seconds = time.perf_counter() - started
            if is_alone:
                self._show("\n")
            else:  # if interrupted, print every complete text, even after one that is not
                self._show_complete(past_gaps=True)

    def _show(self, text: str) -> None:
        if text and not self._silent:
            ui.write_exact(text)

    def _show_complete(self, *, past_gaps: bool = False) -> None:
        """Print the complete texts up to the first incomplete one; with `past_gaps`, all complete ones."""
        from alm.corpus.records import record

        for text in self.all[self._shown :]:
            if text.reason is not None:
                self._show(record(self._prompt + text.text).decode("utf-8", "replace"))
            elif not past_gaps:
                return
            self._shown += 1

    @property
    def _tokens(self) -> int:
        return sum(len(text.tokens) for text in self.all)

    def summary(self) -> str:
        """A line with the number of tokens, the speed, and the seed that repeats the text."""
        rate = self._tokens / max(self._seconds, 1e-9)
        count = f"{len(self.all)} texts, " if len(self.all) > 1 else ""
        ends = {text.reason for text in self.all}
        end = ", the context is full" if "context" in ends else ""
        first = f"first after {self._first:.2f} s"
        return f"{count}{self._tokens} tokens, {rate:,.0f} tok/s, {first}, seed {self._sampling.seed}{end}"

    def values(self, tokenizer: Tokenizer) -> dict[str, Any]:  # Any: JSON
        """All texts as JSON; `text` and `ids` are those of the first one."""
        rate = round(self._tokens / max(self._seconds, 1e-9), 1)
        samples = [
            {
                "text": text.text,
                "seed": text.seed,
                "finish_reason": text.reason,
                "tokens": [_described(token, tokenizer) for token in text.tokens],
            }
            for text in self.all
        ]
        first = self.all[0]
        return {
            "prompt": self._prompt,
            "text": first.text,
            "ids": first.ids,
            "samples": samples,
            "tokens_per_second": rate,
        }

    def show_probabilities(self, tokenizer: Tokenizer) -> None:
        """Print each text with the probabilities of its tokens; several, each below its seed."""
        for text in self.all:
            if len(self.all) > 1:
                ui.write(f"seed {text.seed}")
            show_probabilities(tokenizer, self._prompt, text)


def _described(token: SampledToken, tokenizer: Tokenizer) -> dict[str, Any]:  # Any: JSON
    def described(token_id: int, logprob: float | None) -> dict[str, Any]:
        text = tokenizer.token_bytes(token_id).decode("utf-8", "replace")
        return {"id": token_id, "token": text, "logprob": logprob}

    alternatives = [described(*alternative) for alternative in token.alternatives]
    return {**described(token.id, token.logprob), "alternatives": alternatives}


def show_probabilities(tokenizer: Tokenizer, prompt: str, text: Completion) -> None:
    """Print the text, coloured by probability if the terminal has colours, then a line for each token."""
    pieces = visible([tokenizer.token_bytes(token.id) for token in text.tokens])
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        _show_in_colour(prompt, pieces, text.tokens)
    else:
        ui.write_exact(f"{prompt}{text.text}\n")
    for piece, token in zip(pieces, text.tokens, strict=True):
        shown = visible([tokenizer.token_bytes(token_id) for token_id, _ in token.alternatives])
        others = "  ".join(
            f"{_quoted(other)} {math.exp(logprob):.2f}"
            for other, (_, logprob) in zip(shown, token.alternatives, strict=True)
        )
        ui.write(f"{_probability(token):4.2f}  {_quoted(piece):<14}  {others}")


def _show_in_colour(prompt: str, pieces: Sequence[str], tokens: Sequence[SampledToken]) -> None:
    from rich.text import Text

    from alm.cli.console import Console

    text = Text(prompt)
    for piece, token in zip(pieces, tokens, strict=True):
        colour = max(entry for entry in _COLOURS if entry[0] <= _probability(token))[1]
        text.append(piece, style=f"{_FOREGROUND} on color({colour})")
    text.append("\n")
    for low, colour in _COLOURS:
        text.append(f" from {low:g} ", style=f"{_FOREGROUND} on color({colour})")
    Console().print(text, soft_wrap=True)


def _probability(token: SampledToken) -> float:
    return 0.0 if token.logprob is None else math.exp(token.logprob)


def _quoted(piece: str) -> str:
    return '"' + piece.replace("\n", "") + '"'
