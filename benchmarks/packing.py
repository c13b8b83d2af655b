"""`alm pack` beside other ways from clean text to token files, on the same text and tokenizer; and the loader.

    python benchmarks/packing.py FOLDER [--peers PYTHON] [--megabytes 40] [--rounds 5] [--memory]

FOLDER holds text (`.txt.gz`, `.jsonl.gz`). Peers run in a virtual environment of their own, whose python is PYTHON
(`pip install litdata 'datatrove[io,processing]' tokenizers`): a script of `tokenizers` and NumPy, datatrove's
DocumentTokenizer, and litdata's `optimize` with `TokensLoader`, which is how litgpt prepares text. One core each
(`RAYON_NUM_THREADS=1`). CPU seconds of whole processes in turn; the median of the ratios with the least and the
greatest. `--memory` alone compares the peak for 50 MB and 500 MB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from corpus import Watch, documents

OURS = """
import sys
from pathlib import Path
from alm import engines
from alm.packing.config import PackConfig
from alm.packing.pack import pack
if __name__ == "__main__":
    clean, tokenizer, out, workers, mode = sys.argv[1:]
    pack(PackConfig(mode=mode, dtype="uint16"), tokenizer=Path(tokenizer), clean=[clean], out=Path(out),
         engine=engines.choose(workers=int(workers)))
    status = Path("/proc/self/status")
    if status.exists():
        print(next(int(s.split()[1]) / 1024 for s in status.read_text().splitlines() if s.startswith("VmHWM")))
"""

SCRIPT = """
import sys, json
import numpy as np
from tokenizers import Tokenizer
lines, tokenizer, out = sys.argv[1:]
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.encode_special_tokens = True
with open(lines, encoding="utf-8") as source, open(out, "wb") as target:
    batch = []
    def flush():
        for encoded in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            target.write(np.array([*encoded.ids, 0], dtype=np.uint16).tobytes())
        batch.clear()
    for line in source:
        batch.append(json.loads(line)["text"])
        if len(batch) == 1000:
            flush()
    flush()
"""

DATATROVE = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
if __name__ == "__main__":
    lines, tokenizer, out = sys.argv[1:]
    folder, _, name = lines.rpartition("/")
    LocalPipelineExecutor([
        JsonlReader(folder, glob_pattern=name),
        DocumentTokenizer(out, tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>", shuffle_documents=False),
    ], tasks=1, workers=1, logging_dir=out + "-log").run()
"""

LITDATA = """
import sys, json
from functools import partial
import torch
from litdata import optimize, TokensLoader
from tokenizers import Tokenizer
def encode(path, tokenizer):
    tokenizer = Tokenizer.from_file(tokenizer)
    for line in open(path, encoding="utf-8"):
        yield torch.tensor([*tokenizer.encode(json.loads(line)["text"]).ids, 0], dtype=torch.int32)
if __name__ == "__main__":
    lines, tokenizer, out = sys.argv[1:]
    optimize(fn=partial(encode, tokenizer=tokenizer), inputs=[lines], output_dir=out, num_workers=1,
             chunk_bytes="64MB", item_loader=TokensLoader())
"""
PEERS = {"tokenizers and NumPy": SCRIPT, "datatrove": DATATROVE, "litdata (litgpt)": LITDATA}


def prepared(work: Path, texts: list[str]) -> tuple[Path, Path, Path, int]:
    """Clean text, the same as JSON lines, a tokenizer, and the bytes of the text."""
    from alm.config.load import load
    from alm.corpus.config import CorpusConfig
    from alm.corpus.pipeline.prepare import prepare
    from alm.corpus.read import find, read_documents
    from alm.tokenizers.config import TokenizerConfig
    from alm.tokenizers.train import train_tokenizer

    raw = work / "raw.jsonl"
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    source = {"kind": "files", "paths": str(raw), "deduplicate": {"exact": False}}
    prepare(load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": 0.0}), out=work / "clean")
    train_tokenizer(TokenizerConfig(vocab_size=16384), inputs=[work / "clean"], out=work / "tokenizer.json")
    lines = work / "lines" / "clean.jsonl"
    lines.parent.mkdir()
    size = 0
    with lines.open("w", encoding="utf-8") as file:
        for document in read_documents(find([work / "clean"])):
            file.write(json.dumps({"text": document.text}) + "\n")
            size += len(document.text.encode())
    return work / "clean", lines, work / "tokenizer.json", size


def cpu(command: list[str]) -> float:
    """CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(clean: Path, tokenizer: Path, out: Path, *, workers: int = 1, mode: str = "concat") -> list[str]:
    program = out.parent / "ours.py"
    program.write_text(OURS)
    return [sys.executable, str(program), str(clean), str(tokenizer), str(out), str(workers), mode]


def say(what: str, ratios: list[float], more: str = "") -> None:
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{what:<52} {median:.2f}  [{low:.2f}, {high:.2f}]  {more}", flush=True)


def against_peers(work: Path, texts: list[str], rounds: int, python: str) -> None:
    clean, lines, tokenizer, size = prepared(work, texts)
    cpu(ours(clean, tokenizer, work / "warm"))
    ratios: dict[str, list[float]] = {name: [] for name in PEERS}
    speeds: dict[str, list[float]] = {name: [] for name in ("ours", *PEERS)}
    for number in range(rounds):
        mine = cpu(ours(clean, tokenizer, work / f"ours{number}"))
        speeds["ours"].append(size / 1e6 / mine)
        for name, program in PEERS.items():
            path = work / "peer.py"
            path.write_text(program)
            found = cpu([python, str(path), str(lines), str(tokenizer), str(work / f"{name[:4]}{number}")])
            ratios[name].append(found / mine)
            speeds[name].append(size / 1e6 / found)
    print(f"{size / 1e6:.0f} MB; ours {statistics.median(speeds['ours']):.1f} MB/s")
    for name, found in ratios.items():
        say(f"{name} / ours", found, f"{statistics.median(speeds[name]):.1f} MB/s")


def workers(work: Path, texts: list[str], rounds: int) -> None:
    clean, _, tokenizer, size = prepared(work, list(itertools.islice(itertools.cycle(texts), 32 * len(texts))))
    cpu(ours(clean, tokenizer, work / "warm"))
    ratios, shares = [], []
    for number in range(rounds):
        one = cpu(ours(clean, tokenizer, work / f"one{number}"))
        with Watch(depth=2) as watch:
            two = cpu(ours(clean, tokenizer, work / f"two{number}", workers=2))
        ratios.append(two / one)
        shares.append(watch.busiest_share())
    say(f"two workers / one, {size / 1e6:.0f} MB (at most 1.1)", ratios)
    say("share of the busiest worker (at most 0.55)", shares)


def memory(work: Path, texts: list[str]) -> None:
    for mode in ("concat", "bestfit"):
        peaks = []
        for megabytes in (50, 500):
            folder = work / f"{mode}{megabytes}"
            folder.mkdir()
            size = sum(len(text) for text in texts)
            more = list(itertools.islice(itertools.cycle(texts), int(len(texts) * megabytes * 1e6 / size)))
            clean, _, tokenizer, _ = prepared(folder, more)
            command = ours(clean, tokenizer, folder / "out", mode=mode)
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peaks.append(float(done.stdout.split()[-1]))
        print(f"{mode}: {peaks[0]:.0f} MB at the peak for 50 MB of text, {peaks[1]:.0f} for 500 MB", flush=True)


def loader(work: Path, texts: list[str]) -> None:
    from alm.data.loader import BatchPlan, micro_batch
    from alm.data.mixture import plain
    from alm.packing.shards import TRAIN, open_packed

    clean, _, tokenizer, _ = prepared(work, texts)
    cpu(ours(clean, tokenizer, work / "packed"))
    stream = open_packed(work / "packed").split(TRAIN)
    plan = BatchPlan(plain(stream.sequences), 32, 32, 1)
    rates = []
    for _ in range(5):
        began = time.process_time()
        for step in range(1000):
            micro_batch(stream, plan.rows(step))
        rates.append(32_000 / (time.process_time() - began))
    low, high = np.min(rates), np.max(rates)
    print(f"loader: {statistics.median(rates):,.0f} rows of 512 a second [{low:,.0f}, {high:,.0f}] (at least 150,000)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peers", help="python of the environment that has them")
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    texts = documents(given.folder, given.megabytes * 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        parts = {name: Path(folder) / name for name in ("memory", "loader", "peers", "workers")}
        for path in parts.values():
            path.mkdir()
        if given.memory:
            memory(parts["memory"], texts)
            return
        loader(parts["loader"], texts)
        if given.peers:
            against_peers(parts["peers"], texts, given.rounds, given.peers)
        workers(parts["workers"], texts, min(given.rounds, 3))


if __name__ == "__main__":
    main()
