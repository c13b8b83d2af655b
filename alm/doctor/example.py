"""Small model and data for runs of seconds, with every feature that could break resuming."""

from __future__ import annotations

from pathlib import Path

from alm.config.load import load
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import prepare
from alm.events import Listener, ignore
from alm.packing.config import PackConfig
from alm.packing.pack import pack
from alm.packing.shards import open_packed
from alm.tokenizers.config import TokenizerConfig
from alm.tokenizers.train import train_tokenizer
from alm.training.config import RunConfig

_TALES = 300
_VOCAB_SIZE = 1024
_SEQ_LEN = 64


def example_data(work: Path, *, on_event: Listener = ignore) -> Path:
    """Prepare and pack built-in tales in `work`."""
    clean, tokenizer, packed = work / "clean", work / "tokenizer.json", work / "packed"
    source = {"kind": "tales", "limit": _TALES}
    prepare(load(CorpusConfig, [], base={"sources": {"tales": source}}), out=clean, on_event=on_event)
    train_tokenizer(TokenizerConfig(vocab_size=_VOCAB_SIZE), inputs=[clean], out=tokenizer, on_event=on_event)
    pack(PackConfig(seq_len=_SEQ_LEN), tokenizer=tokenizer, clean=[clean], out=packed, on_event=on_event)
    return packed


def example_config(packed: Path, *, max_steps: int, ranks: int = 1) -> RunConfig:
    """Configure a run of `ranks` on `packed`, with dropout, gradient accumulation and frequent checkpoints."""
    values = {
        "model": {
            "d_model": 128,
            "n_layers": 2,
            "n_heads": 4,
            "n_kv_heads": 2,
            "ffn_hidden_size": 256,
            "max_position_embeddings": open_packed(packed).metadata.seq_len,
            "dropout": 0.1,
        },
        "training": {
            "max_steps": max_steps,
            "micro_batch_size": 2,
            "gradient_accumulation": 2 * ranks,
            "checkpoint_interval": 3,
            "threads": 1,
            "keep_every": 20,
            "keep_best": True,
        },
        "scheduler": {"kind": "cosine", "warmup_steps": 5},
        "validation": {"interval": 7, "bytes": 4000},
        "logging": {"log_interval": 1},
    }
    return RunConfig.model_validate(values)
