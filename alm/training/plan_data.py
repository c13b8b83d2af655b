"""The text of a planned run: packed data, or assumptions about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alm.corpus.split import TRAIN, VALIDATION
from alm.errors import ConfigError
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer
from alm.training.batches import ALL, epochs, plan_batches
from alm.training.config import RunConfig
from alm.training.run.resolve import with_data
from alm.training.sizing import probe
from alm.training.sizing.probe import Batches
from alm.training.sizing.suggest import BYTES_PER_TOKEN
from alm.training.validate import rows_for

ASSUMED_VOCABULARY, ASSUMED_SEQ_LEN = 32_000, 512


@dataclass(frozen=True)
class Text:
    """The text of a planned run: packed data, or assumptions about it.

    `training_sequences` is None if the amount of text is unknown; `scored` is the number of sequences of a validation.
    `conversations` are those to train on, with `answer_tokens` that are learned; None for other text.
    """

    seq_len: int
    vocab_size: int
    training_sequences: int | None
    validation_sequences: int | None
    scored: int
    epochs: dict[str, float]
    batches: Batches
    assumed: tuple[str, ...] = ()
    conversations: int | None = None
    answer_tokens: int | None = None


def packed_text(config: RunConfig, data: Path) -> tuple[RunConfig, Text]:
    """Return the text of packed data, and `config` with its vocabulary."""
    packed = open_packed(data)
    config = with_data(config, packed)
    metadata, validation = packed.metadata, packed.split(VALIDATION)
    widths = Tokenizer.load(packed.tokenizer_path).bytes_per_id
    counted = metadata.conversations
    text = Text(
        seq_len=metadata.seq_len,
        vocab_size=metadata.vocab_size,
        training_sequences=metadata.sequences(TRAIN),
        validation_sequences=metadata.sequences(VALIDATION),
        scored=len(rows_for(validation, widths, wanted_bytes=config.validation.bytes)),
        epochs=epochs(config, plan_batches(config, packed.split(TRAIN)).mixture),
        batches=probe.rows_of(packed.split(TRAIN)),
        conversations=None if counted is None else counted.conversations[TRAIN],
        answer_tokens=None if counted is None else counted.answer_tokens[TRAIN],
    )
    return config, text


def assumed_text(config: RunConfig, *, seq_len: int | None, tokens: int | None) -> tuple[RunConfig, Text]:
    """Return a text that does not exist yet, and `config` with a vocabulary; `Text.assumed` lists the assumptions."""
    model, assumed = config.model, []
    if model.vocab_size == "auto":
        model = model.with_vocab_size(ASSUMED_VOCABULARY)
        assumed.append(f"a vocabulary of {ASSUMED_VOCABULARY:,} (`--set model.vocab_size=...`)")
    if seq_len is None:
        seq_len = min(ASSUMED_SEQ_LEN, model.max_position_embeddings)
        assumed.append(f"sequences of {seq_len} tokens (`--seq-len`)")
    if seq_len > model.max_position_embeddings:
        raise ConfigError(
            f"sequences of {seq_len:,} tokens do not fit `model.max_position_embeddings` "
            f"{model.max_position_embeddings:,}",
            hint=f"add `--set model.max_position_embeddings={seq_len}`",
        )
    if tokens is None:
        assumed.append("enough text (`--tokens`)")
    config = config.model_copy(update={"model": model})
    trained = config.training.sequences_per_step * config.training.max_steps * seq_len
    text = Text(
        seq_len=seq_len,
        vocab_size=model.known_vocab_size,
        training_sequences=None if tokens is None else tokens // seq_len,
        validation_sequences=None,
        scored=max(1, round(config.validation.bytes / BYTES_PER_TOKEN / seq_len)),
        epochs={} if tokens is None else {ALL: round(trained / tokens, 3)},
        batches=probe.random_rows(model.known_vocab_size, seq_len=seq_len),
        assumed=tuple(assumed),
    )
    return config, text
