from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import run_config, write_packed

from alm.corpus.split import VALIDATION
from alm.device import Choice
from alm.distributed import World
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.packing.shards import open_packed
from alm.tokenizers.file import Tokenizer
from alm.training.parallel import Objective, Parallelism
from alm.training.validate import rows_for, validate

CPU = Choice(torch.device("cpu"), "fp32", "", "")
# Sums of a few hundred fp32 logarithms taken in another order.
TOLERANCE = 1e-5


def test_bits_per_byte_is_what_its_definition_says(tmp_path: Path) -> None:
    packed = open_packed(write_packed(tmp_path)[0])
    stream = packed.split(VALIDATION)
    widths = Tokenizer.load(packed.tokenizer_path).bytes_per_id
    model = Transformer(run_config(model__vocab_size=packed.metadata.vocab_size).model)
    initialize(model, seed=3)
    model.train()
    score = validate(
        Parallelism(Objective(model, model), World()), stream, widths, rows=np.arange(5), micro_batch_size=2, choice=CPU
    )
    nats, text_nats, size = 0.0, 0.0, 0
    for row in range(5):
        ids = torch.from_numpy(stream.rows(np.array([row])))
        log_p = model.logits(model(ids[:, :-1])).log_softmax(-1)[0]
        for position, target in enumerate(ids[0, 1:].tolist()):
            loss = -log_p[position, target].item()
            nats += loss
            if target != packed.metadata.end_of_text_id:
                text_nats += loss
                size += len(Tokenizer.load(packed.tokenizer_path).token_bytes(target))
    assert score.loss == pytest.approx(nats / (5 * stream.seq_len), rel=TOLERANCE)
    assert score.bits_per_byte == pytest.approx(text_nats / math.log(2) / size, rel=TOLERANCE)
    assert model.training


def test_the_rows_hold_the_bytes_asked_for(tmp_path: Path) -> None:
    packed = open_packed(write_packed(tmp_path)[0])
    stream = packed.split(VALIDATION)
    widths = Tokenizer.load(packed.tokenizer_path).bytes_per_id
    sizes = [int(widths[stream.tokens(row * 16 + 1, 16)].sum()) for row in range(stream.sequences)]
    for wanted in (1, 100, sum(sizes[:4]), sum(sizes) + 1):
        rows = rows_for(stream, widths, wanted_bytes=wanted).tolist()
        assert rows == sorted(set(rows))
        found = sum(sizes[row] for row in rows)
        assert len(rows) == stream.sequences or found >= wanted > found - max(sizes)


def test_the_rows_are_spread_over_the_stream(tmp_path: Path) -> None:
    packed = open_packed(write_packed(tmp_path, documents=600)[0])
    stream = packed.split(VALIDATION)
    rows = rows_for(stream, Tokenizer.load(packed.tokenizer_path).bytes_per_id, wanted_bytes=1000)
    assert len(rows) < stream.sequences / 2
    assert rows[-1] > stream.sequences / 2
