"""Generation of ids from one prompt, and text from ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from alm.generation.config import SamplingConfig
from alm.generation.engine import Engine, NewToken, Request, needed
from alm.model.transformer import Transformer


class Decoder(Protocol):
    """Decodes ids piece by piece and holds back an unfinished character."""

    def feed(self, token_id: int, /) -> str:
        """Return the text that this id completes, perhaps none."""
        ...

    def finish(self) -> str:
        """Return the remaining text."""
        ...


def generate(
    model: Transformer,
    prompt_ids: Sequence[int],
    *,
    sampling: SamplingConfig,
    end_of_text_id: int,
    vocab_size: int | None = None,
    plain: bool = False,
) -> Iterator[int]:
    """Yield the ids that follow the prompt: at most `max_tokens`, until the end of the text or of the context.

    Only ids below `vocab_size` are chosen (absent: all): a model may have more ids than its tokenizer. An empty prompt
    starts from `end_of_text_id`, which is itself never yielded. `stop` and `bad_words`, which are texts, are ignored.
    With `plain`, ids are computed as in training. The model is put in eval mode. Raises InputError at once, not at the
    first id, if the prompt leaves no room for an answer.
    """
    request = Request(prompt_ids, sampling)
    engine = Engine(
        model,
        end_of_text_id=end_of_text_id,
        vocab_size=vocab_size,
        max_tokens=needed([request], model.config),
        plain=plain,
    )
    engine.add(request)
    return (event.token.id for event in engine.run() if isinstance(event, NewToken))


def stream_text(ids: Iterable[int], decoder: Decoder) -> Iterator[str]:
    """Yield the text of `ids` as it becomes complete; no piece is empty."""
    for token_id in ids:
        if piece := decoder.feed(token_id):
            yield piece
    if rest := decoder.finish():
        yield rest
