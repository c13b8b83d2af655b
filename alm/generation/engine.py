"""Generation of several texts at once, token by token: texts join and leave between two tokens.

Each text has a row of a batch, at its own place. B rows, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from alm import compiling
from alm.errors import InputError
from alm.generation.config import SamplingConfig
from alm.generation.sampling import SampledToken, TokenSampler
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer

EndReason = Literal["stop", "length", "context"]
_KERNELS = Path(__file__).with_name("backends")


@dataclass(frozen=True)
class Request:
    """A prompt to continue; an empty one begins with the engine's end of text."""

    ids: Sequence[int]
    sampling: SamplingConfig
    banned: Sequence[Sequence[int]] = ()
    alternatives: int | None = None  # None: tokens have no probabilities
    end_ids: Container[int] = ()  # tokens that end the text, beside the engine's end of text


class Rows(Protocol):
    """A model with what it remembers of the text in each row, (B, V) scores at a time: `alm/generation/backends/`.

    A row has room for `max_tokens` tokens.
    """

    def prefill(self, row: int, ids: Sequence[int], kept: int = 0) -> Tensor:
        """Replace the text of `row` by `ids`, and return the scores (V,) of the next token.

        Its text begins with the first `kept` of `ids` already, which are not read again; some `ids` are left to read.
        """
        ...

    def share(self, source: int, row: int, tokens: int) -> bool:
        """Replace the text of `row` by the first `tokens` tokens of `source`; False if it has to read them itself."""
        ...

    def step(self, rows: Sequence[int], ids: Sequence[int]) -> Tensor:
        """Append an id to each of `rows`, and return the scores (B, V) of the next tokens, in that order."""
        ...


@dataclass(frozen=True)
class NewToken:
    """A token that was added to the text of request `number`."""

    number: int
    token: SampledToken


@dataclass(frozen=True)
class Ended:
    """The text of request `number` is complete: it chose its end, has `max_tokens` tokens, or fills the context."""

    number: int
    reason: EndReason


@dataclass
class _Slot:
    """A text and its row, which has read `length` tokens: all of them, or all but the newest."""

    number: int
    row: int
    request: Request
    sampler: TokenSampler
    room: int  # tokens that may still be generated
    length: int
    scores: Tensor  # (V,) of the token after those that were read
    is_read: bool = True  # whether the row has read the newest token
    is_whole: bool = True  # whether the row has read the text from its beginning


class Engine:
    """Continues requests on one model, a few of them at a time."""

    def __init__(
        self,
        model: Transformer,
        *,
        end_of_text_id: int,
        vocab_size: int | None = None,
        rows: int = 1,
        max_tokens: int | None = None,
        plain: bool = False,
        remembers: bool = False,
    ) -> None:
        """Choose only ids below `vocab_size` (absent: all): a model may have more ids than its tokenizer.

        `rows` texts run at once, each with memory for `max_tokens` tokens, prompt included (absent: the full context).
        The model is put in eval mode; its weights must not change while the engine is used. `plain` as in `rows_for`.

        An engine that `remembers` reads of a prompt only what no free row has read in an earlier text. Its scores then
        depend on earlier texts by the rounding of sums: a token alone and a token among others add up differently.
        """
        self._config, self._end_of_text_id = model.eval().config, end_of_text_id
        self._vocab_size = vocab_size or model.config.known_vocab_size
        context = model.config.max_position_embeddings
        self._room = min(max_tokens or context, context)
        self._rows: Rows = rows_for(model, count=rows, max_tokens=self._room, plain=plain)
        self._row_count = rows
        self._slots: dict[int, _Slot] = {}
        self._waiting: dict[int, Request] = {}
        self._known: dict[int, tuple[list[int], Tensor]] = {}  # by row: its prompt, and the scores of the next token
        self._count = 0
        # A model with more state than keys and values cannot go back to an earlier token.
        self._remembers = remembers and not (model.config.smear or model.config.attention.document_mask)
        self._texts: dict[int, list[int]] = {}  # by row: what it has read

    def add(self, request: Request) -> int:
        """Queue a request; return its number, from 0. InputError if its prompt is too long or has unknown ids."""
        check_prompt(request.ids, self._config, context=self._room, overflow=request.sampling.overflow)
        if not request.ids and self._end_of_text_id < 0:
            raise ValueError("an empty prompt begins with the end of text, which this model does not have")
        number, self._count = self._count, self._count + 1
        self._waiting[number] = request
        return number

    def stop(self, number: int) -> None:
        """Drop a text, without an event."""
        self._waiting.pop(number, None)
        slot = self._slots.pop(number, None)
        if slot is not None and self._remembers:
            self._texts[slot.row] = slot.sampler.ids[: slot.length] if slot.is_whole else []

    def remembered(self, ids: Sequence[int]) -> int:
        """Count the first of `ids` that need not be read, because a free row has read them."""
        return max((self._common(row, ids) for row in self._free), default=0)

    @property
    def _free(self) -> list[int]:
        used = {slot.row for slot in self._slots.values()}
        return [row for row in range(self._row_count) if row not in used]

    def _common(self, row: int, ids: Sequence[int]) -> int:
        """Count the first of `ids` that `row` has read; the last one is always read, for its scores."""
        read = self._texts.get(row, [])[: max(len(ids) - 1, 0)]
        pairs = enumerate(zip(read, ids, strict=False))
        return next((place for place, (known, given) in pairs if known != given), len(read))

    def run(self) -> Iterator[NewToken | Ended]:
        """Yield events until all texts are complete."""
        while self._waiting or self._slots:
            yield from self.step()

    def step(self) -> list[NewToken | Ended]:
        """Add one token to each text that has a row. Waiting texts get the free rows first."""
        while self._free and self._waiting:
            number = next(iter(self._waiting))
            self._slots[number] = self._start(number, self._waiting.pop(number))
        self._read_newest([slot for slot in self._slots.values() if not slot.is_read])
        return [event for slot in list(self._slots.values()) for event in self._sample(slot)]

    def _start(self, number: int, request: Request) -> _Slot:
        prompt = list(request.ids) or [self._end_of_text_id]
        sampler = TokenSampler(request.sampling, prompt, banned=request.banned, alternatives=request.alternatives)
        most = request.sampling.max_tokens
        if request.sampling.overflow == "slide":
            prompt, room = prompt[-max(self._room - most, self._room // 2, 1) :], most
        else:
            room = min(most, self._room - len(prompt))
        row = max(self._free, key=lambda row: self._common(row, prompt))
        scores = self._prefill(row, prompt) if room else torch.empty(0)
        is_whole = room > 0 and len(prompt) == len(sampler.ids)
        return _Slot(number, row, request, sampler, room, len(prompt), scores, is_whole=is_whole)

    def _prefill(self, row: int, prompt: list[int]) -> Tensor:
        """Read what `row` does not have of a prompt, or copy it from a row that begins with the same one."""
        for source, (known, scores) in self._known.items():
            if known == prompt and self._rows.share(source, row, len(prompt)):
                self._texts.pop(row, None)
                self._known[row] = known, scores
                return scores
        # If reading is interrupted, the row has what it had of this text.
        self._known.pop(row, None)
        kept = self._common(row, prompt)
        self._texts[row] = prompt[:kept]
        scores = self._rows.prefill(row, prompt, kept) if kept else self._rows.prefill(row, prompt)
        self._known[row] = prompt, scores
        return scores

    def _read_newest(self, slots: list[_Slot]) -> None:
        """Let the rows read the token chosen last."""
        for slot in [slot for slot in slots if slot.length == self._room]:  # full: only a text that slides gets here
            # Keep half the room free, so that one prefill lasts for that many tokens.
            kept = slot.sampler.ids[-(self._room // 2) :] if self._room > 1 else slot.sampler.ids[-1:]
            self._known.pop(slot.row, None)
            slot.is_whole = False
            slot.scores, slot.length, slot.is_read = self._rows.prefill(slot.row, kept), len(kept), True
        left = [slot for slot in slots if not slot.is_read]
        if not left:
            return
        scores = self._rows.step([slot.row for slot in left], [slot.sampler.ids[-1] for slot in left])
        for slot, row_scores in zip(left, scores, strict=True):
            slot.scores, slot.length, slot.is_read = row_scores, slot.length + 1, True

    def _sample(self, slot: _Slot) -> Iterator[NewToken | Ended]:
        if slot.room:
            token = slot.sampler.choose(slot.scores[: self._vocab_size])
            if token.id == self._end_of_text_id or token.id in slot.request.end_ids:
                yield self._end(slot, "stop")
                return
            slot.room, slot.is_read = slot.room - 1, False
            yield NewToken(slot.number, token)
        if not slot.room:
            is_short = len(slot.sampler.generated) < slot.request.sampling.max_tokens
            yield self._end(slot, "context" if is_short else "length")

    def _end(self, slot: _Slot, reason: EndReason) -> Ended:
        self.stop(slot.number)
        return Ended(slot.number, reason)


def rows_for(model: Transformer, *, count: int, max_tokens: int, plain: bool = False) -> Rows:
    """Create `count` rows of `model`, with the fastest backend for its device and shape.

    `plain` computes as in training, for a model whose weights are about to change. `ALM_KERNELS=never` forces it.
    """
    device = model.device.type
    is_fast = not plain and os.environ.get("ALM_KERNELS") != "never"
    if is_fast and model.config.is_llama and model.model.norm.weight.dtype == torch.float32:
        if device == "cpu" and compiling.is_installed():
            from alm.generation.backends.numba_rows import NumbaRows

            return NumbaRows(model, count=count, max_tokens=max_tokens)
        if device in ("cuda", "mps"):
            from alm.generation.backends.fixed_shape_rows import FixedShapeRows

            return FixedShapeRows(model, count=count, max_tokens=max_tokens)
    from alm.generation.backends.torch_rows import TorchRows

    return TorchRows(model, count=count, max_tokens=max_tokens)


def must_compile(model: Transformer) -> bool:
    """Whether `rows_for` has to compile loops first, which takes seconds: no compiled code is on the disk."""
    is_wanted = os.environ.get("ALM_KERNELS") != "never" and compiling.is_installed()
    is_known = model.device.type == "cpu" and model.config.is_llama
    return is_wanted and is_known and not compiling.is_warm(compiling.folder(_KERNELS))


def check_prompt(
    prompt_ids: Sequence[int],
    config: ModelConfig,
    *,
    context: int | None = None,
    overflow: Literal["refuse", "slide"] | None = None,
) -> None:
    """Raise InputError if a model of this shape cannot continue the prompt in `context` tokens (absent: its own)."""
    context = context or config.max_position_embeddings
    if len(prompt_ids) >= context and overflow != "slide":
        other = ", or add `--overflow slide`" if overflow else ""  # callers without a policy have no such flag
        raise InputError(
            f"the prompt has {len(prompt_ids)} tokens, but the model's context holds {context}, answer included",
            hint=f"shorten the prompt to at most {context - 1} tokens{other}",
        )
    unknown = next((token_id for token_id in prompt_ids if not 0 <= token_id < config.known_vocab_size), None)
    if unknown is not None:
        raise InputError(
            f"the prompt has the token id {unknown}, but the model's ids are 0 to {config.known_vocab_size - 1}",
            hint="use the tokenizer.json beside the checkpoint",
        )


def needed(requests: Sequence[Request], config: ModelConfig) -> int:
    """Return the tokens of context that the longest of `requests` can need."""
    longest = max((max(len(each.ids), 1) + max(each.sampling.max_tokens, 1) for each in requests), default=1)
    return min(longest, config.max_position_embeddings)
