"""One tool doing one thing once, in a process of its own: prints its CPU seconds and peak memory as JSON.

python benchmarks/tokenizer_worker.py '{"work": "train", "tool": "alm", "corpus": "english-20.txt", ...}'
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import corpora

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"] + [f"<|reserved_{i}|>" for i in range(12)]
Job = dict[str, Any]  # Any: parsed JSON of our own making
Work = Callable[[], object]


def main() -> None:
    """Set up, unmeasured; do the work; say what it cost."""
    job: Job = json.loads(sys.argv[1])
    work = globals()[f"{job['work']}_{job['tool']}"](job)
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if callable(result):
        result = result()  # writes what was made, unmeasured
    print(json.dumps({"cpu": cpu, "wall": wall, "peak": _peak(), "result": result}))


def _peak() -> float:
    """Megabytes of memory at most since this program began: `getrusage` has the parent's on Linux."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024  # type: ignore[index] # always there
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# Training


def train_alm(job: Job) -> Work:
    """From memory to a model in memory. Compiled code is loaded before."""
    os.environ["ALM_KERNELS"] = "always"
    from alm import kinds
    from alm.tokenizers.count import count_texts
    from alm.tokenizers.file import Tokenizer
    from alm.tokenizers.model import Model
    from alm.tokenizers.pretokenize import chunks

    module = kinds.load("alm.tokenizers.models", job.get("kind", "bpe"))
    config = module.Config()

    def train(texts: list[str], vocab_size: int) -> Model:
        words = count_texts(([piece] for text in texts for piece in chunks(text)), config.pattern)
        trained: Model = module.train(words, config=config, vocab_size=vocab_size)
        return trained

    if not job.get("cold"):
        train(["a tiny text to load the compiled code with"], 400)
    texts = corpora.documents(Path(job["corpus"]))

    def work() -> Work:
        model = train(texts, job["vocab_size"])
        return lambda: Tokenizer.of(model, pattern=config.pattern).save(job["out"])

    return work


def stage_alm(job: Job) -> Work:
    """The stage as the command runs it: files read and hashed, tokenizer and metadata written."""
    os.environ["ALM_KERNELS"] = "always"
    from alm.tokenizers.config import TokenizerConfig
    from alm.tokenizers.train import train_tokenizer

    values = {"model": {"kind": job.get("kind", "bpe")}, "vocab_size": job["vocab_size"]}
    config, out = TokenizerConfig.model_validate(values), Path(job["out"])
    train_alm({**job, "corpus": os.devnull})  # loads the compiled code
    return lambda: train_tokenizer(config, inputs=[job["corpus"]], out=out, force=True).vocab_size


def train_rustbpe(job: Job) -> Work:
    """Its vocabulary is the bytes and the merges."""
    import rustbpe

    texts = corpora.documents(Path(job["corpus"]))
    tokenizer = rustbpe.Tokenizer()
    size = job["vocab_size"] - len(SPECIALS)

    def work() -> None:
        tokenizer.train_from_iterator(iter(texts), size, pattern=QWEN2)

    return work


def train_tokenizers(job: Job) -> Work:
    """BPE, or Unigram over the same words."""
    import tokenizers
    from tokenizers import Regex, models, pre_tokenizers, trainers

    texts = corpora.documents(Path(job["corpus"]))
    split = pre_tokenizers.Split(Regex(QWEN2), "isolated")
    options = {"vocab_size": job["vocab_size"], "special_tokens": SPECIALS, "show_progress": False}
    if job.get("kind") == "unigram":
        names = [*SPECIALS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = split
        trainer = trainers.UnigramTrainer(**options | {"special_tokens": names, "unk_token": "<unk>"})
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(**options, min_frequency=0, initial_alphabet=alphabet)

    def work() -> Work:
        tokenizer.train_from_iterator(texts, trainer)
        return lambda: tokenizer.save(job["out"])

    return work


def train_sentencepiece(job: Job) -> Work:
    """Its own split (white space and digits), one thread, byte fallback: not quite the same work."""
    import sentencepiece

    lines = (line for text in corpora.documents(Path(job["corpus"])) for line in text.split("\n") if line)

    def work() -> None:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_prefix=job["out"],
            vocab_size=job["vocab_size"],
            model_type=job.get("kind", "bpe"),
            num_threads=1,
            byte_fallback=True,
            split_digits=True,
            max_sentence_length=1 << 20,
            minloglevel=2,
        )

    return work


# Encoding: each returns how many ids there are and a checksum of them


def _sum(ids: Any) -> list[int]:  # Any: a list or an array of ids
    import numpy as np

    array = np.asarray(ids, dtype=np.int64)
    return [len(array), int((array * (np.arange(len(array)) % 8191 + 1)).sum())]


def _flat(lists: Iterator[list[int]]) -> list[int]:
    return [id_ for ids in lists for id_ in ids]


def encode_alm(job: Job) -> Work:
    """One flat array of ids, words met for the first time."""
    os.environ["ALM_KERNELS"] = "always"
    from alm.tokenizers.file import Tokenizer

    Tokenizer.load(job["tokenizer"]).encode_batch(["the cat"])  # loads the compiled code
    tokenizer, texts = Tokenizer.load(job["tokenizer"]), corpora.documents(Path(job["corpus"]))
    return _measured_then_summed(job, lambda: tokenizer.encode_batch(texts, workers=job.get("workers", 1)).ids)


def encode_tiktoken(job: Job) -> Work:
    """Lists of ids, the fastest of its ways in the study."""
    encoding, texts = _tiktoken(job), corpora.documents(Path(job["corpus"]))
    return _measured_then_summed(job, lambda: [encoding.encode_ordinary(text) for text in texts])


def encode_tiktoken_numpy(job: Job) -> Work:
    """Arrays of ids."""
    encoding, texts = _tiktoken(job), corpora.documents(Path(job["corpus"]))
    return _measured_then_summed(job, lambda: [encoding.encode_to_numpy(text, disallowed_special=()) for text in texts])


def encode_kitoken(job: Job) -> Work:
    """From the tokenizer.json."""
    import kitoken

    tokenizer, texts = kitoken.Kitoken.from_tokenizers_file(job["tokenizer"]), corpora.documents(Path(job["corpus"]))
    return _measured_then_summed(job, lambda: [tokenizer.encode(text, False) for text in texts])


def encode_tokenizers(job: Job) -> Work:
    """Without offsets."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(job["tokenizer"])
    tokenizer.encode_special_tokens = True
    texts = corpora.documents(Path(job["corpus"]))
    return _measured_then_summed(
        job, lambda: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    )


def _tiktoken(job: Job) -> Any:  # Any: an encoding of tiktoken
    import tiktoken

    from alm.tokenizers.file import Tokenizer

    tokenizer = Tokenizer.load(job["tokenizer"])
    ranks = {tokenizer.token_bytes(id_): id_ for id_ in range(len(SPECIALS), tokenizer.vocab_size)}
    return tiktoken.Encoding("alm", pat_str=QWEN2, mergeable_ranks=ranks, special_tokens={})


def _measured_then_summed(job: Job, encode: Callable[[], Any]) -> Work:
    """Encode, and where asked for say which ids came out; the sum is too slow to be part of the measurement."""

    def work() -> list[int] | None:
        ids = encode()
        if not job.get("check"):
            return None
        return _sum(_flat(ids) if isinstance(ids, list) else ids)

    return work


# Counting


def count_alm(job: Job) -> Work:
    """The words of the text, by threads."""
    os.environ["ALM_KERNELS"] = "always"
    from alm.corpus.read import find
    from alm.events import ignore
    from alm.tokenizers import count

    files = find([job["corpus"]])
    return lambda: len(count.count(files, "qwen2", workers=job["workers"], on_event=ignore).words)


if __name__ == "__main__":
    main()
