"""The tokenizer against its peers: rustbpe, tokenizers, tiktoken, kitoken and sentencepiece, one thread each.

Every measurement is a process of its own, in turn, several rounds; what is printed are medians, and the ratio of CPU
seconds within a round with its interval. The bars are those the work was measured by; nothing is asserted.

    python benchmarks/tokenizer.py                     # everything, about half an hour
    python benchmarks/tokenizer.py train encode        # some of: cold train hard grow encode unigram quality scale
    python benchmarks/tokenizer.py --quick             # small texts, one round: does it run?
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import corpora
import paired

WORKER = Path(__file__).with_name("tokenizer_worker.py")
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
MODULES = {"tiktoken_numpy": "tiktoken"}
Found = dict[str, Any]  # Any: parsed JSON of the worker


class Bench:
    """Where texts are, how often to measure, and how large."""

    def __init__(self, folder: Path, rounds: int, quick: bool) -> None:
        self.rounds, self._folder, self._quick = rounds, folder, quick
        self._out = TemporaryDirectory()

    def corpus(self, name: str, megabytes: float) -> Path:
        """The corpus, a twentieth of it when quick."""
        return corpora.make(name, megabytes / 20 if self._quick else megabytes, self._folder)

    def out(self, name: str) -> str:
        """A file to write to."""
        return str(Path(self._out.name) / name)

    def vocab_size(self, size: int) -> int:
        """Fewer when quick."""
        return size // 8 if self._quick else size

    def run(self, tool: str, limit: float = 900, environment: dict[str, str] | None = None, **job: object) -> Found:
        """One measurement in a process of its own; infinite seconds when it takes longer than `limit`."""
        command = [sys.executable, str(WORKER), json.dumps({"tool": tool, **job}, default=str)]
        settings = {**os.environ, **ONE_THREAD, **(environment or {})}
        try:
            done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            return {"cpu": math.inf, "wall": math.inf, "peak": math.nan, "result": None}
        if done.returncode:
            raise SystemExit(f"{tool} failed at {job}:\n{done.stderr}")
        found: Found = json.loads(done.stdout.splitlines()[-1])
        return found

    def compare(self, title: str, peers: dict[str, str], *, few: tuple[str, ...] = (), **job: object) -> None:
        """alm and its peers in turn; `peers` are the bars by name, and those in `few` run once."""
        print(f"\n{title}", flush=True)
        names = ["alm", *(name for name in peers if find_spec(MODULES.get(name, name)))]
        found: dict[str, list[Found]] = {name: [] for name in names}
        for number in range(self.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                if number == 0 or name not in few:
                    found[name].append(self.run(name, **{**job, "out": self.out(f"{name}-{job['work']}")}))
        for name, costs in found.items():
            cpu = statistics.median(cost["cpu"] for cost in costs)
            peak = statistics.median(cost["peak"] for cost in costs)
            print(f"  {name:<15} {cpu:8.2f} CPU s  {peak:6.0f} MB at peak", flush=True)
        for name in names[1:]:
            pairs = zip(found[name], found["alm"], strict=False)
            ratios = [theirs["cpu"] / ours["cpu"] for theirs, ours in pairs]
            print(f"  {name} / alm: {paired.with_interval(ratios)}{peers[name] and '; bar ' + peers[name]}", flush=True)


def cold(bench: Bench) -> None:
    """A machine that has compiled nothing yet, and the next start: what loading the code adds to a small training."""
    corpus = bench.corpus("english", 1)
    for kind in ("bpe", "unigram"):
        job = {"work": "train", "kind": kind, "corpus": corpus, "vocab_size": 1000, "out": bench.out("cold.json")}
        with TemporaryDirectory() as folder:
            first, second = (
                bench.run("alm", environment={"NUMBA_CACHE_DIR": folder}, cold=True, **job)["cpu"] for _ in range(2)
            )
        loaded = bench.run("alm", **job)["cpu"]
        print(f"\n{kind} training: compiling {first - loaded:.2f}, loading {second - loaded:.2f} CPU s", flush=True)


def train(bench: Bench) -> None:
    """BPE training on much text."""
    size = bench.vocab_size(32_000)
    bars = {"rustbpe": "2, stretch 3", "tokenizers": "7, stretch 10"}
    bench.compare("BPE, 20 MB of English", bars, work="train", corpus=bench.corpus("english", 20), vocab_size=size)
    bars = {"rustbpe": "2, stretch 3", "tokenizers": "8"}
    corpus = bench.corpus("mixed", 100)
    bench.compare("BPE, 100 MB mixed", bars, few=("tokenizers",), work="train", corpus=corpus, vocab_size=size)
    for name, megabytes in (("english", 20), ("mixed", 100)):
        found = bench.run(
            "alm", work="stage", corpus=bench.corpus(name, megabytes), vocab_size=size, out=bench.out("s.json")
        )
        print(f"  the whole stage, {megabytes} MB {name}: {found['cpu']:.2f} CPU s, {found['peak']:.0f} MB at peak")


def hard(bench: Bench) -> None:
    """BPE training on text that is hard."""
    size = bench.vocab_size(8_000)
    corpus = bench.corpus("hard", 11)
    bench.compare("BPE, 11 MB hard", {"rustbpe": "1, stretch 2"}, work="train", corpus=corpus, vocab_size=size)


def grow(bench: Bench) -> None:
    """How the cost grows with the text."""
    print("\nBPE by size of mixed text: CPU s [MB at peak]")
    for megabytes in (10, 20, 50, 100):
        corpus, size = bench.corpus("mixed", megabytes), bench.vocab_size(32_000)
        line = f"  {megabytes:3} MB"
        for tool in ("alm", "rustbpe", *(["tokenizers"] if megabytes <= 20 else [])):
            found = bench.run(tool, work="train", corpus=corpus, vocab_size=size, out=bench.out("grow.json"))
            line += f"   {tool} {found['cpu']:.2f} [{found['peak']:.0f}]"
        print(line, flush=True)


def encode(bench: Bench) -> None:
    """Encoding with one vocabulary, words met for the first time."""
    tokenizer = bench.out("mixed.json")
    size = bench.vocab_size(32_000)
    bench.run("alm", work="train", corpus=bench.corpus("mixed", 100), vocab_size=size, out=tokenizer)
    for name, megabytes, bar in (("english", 20, "2.5, stretch 4"), ("mixed", 30, "2, stretch 3"), ("hard", 11, "")):
        corpus = bench.corpus(name, megabytes)
        tools = {"tiktoken": bar, "tiktoken_numpy": bar, "kitoken": bar, "tokenizers": ""}
        job = {"work": "encode", "corpus": corpus, "tokenizer": tokenizer}
        sums = {tool: bench.run(tool, check=True, **job)["result"] for tool in ("alm", *tools)}
        others = [tool for tool in tools if sums[tool] != sums["alm"]]
        same = f"OTHER IDS from {', '.join(others)}" if others else "equal ids"
        bench.compare(f"encoding {megabytes} MB {name}: {same}", tools, few=("tokenizers",), **job)


def unigram(bench: Bench) -> None:
    """Unigram training."""
    job = {"work": "train", "kind": "unigram", "vocab_size": bench.vocab_size(32_000)}
    bars = {"sentencepiece": "2.5, stretch 4", "tokenizers": ""}
    corpus = bench.corpus("english", 20)
    bench.compare("Unigram, 20 MB of English", bars, few=("tokenizers",), corpus=corpus, **job)


def quality(bench: Bench) -> None:
    """How probable held-out text is under a Unigram model, both files in the hands of the `tokenizers` library."""
    texts = corpora.documents(bench.corpus("english", 20))
    held_out = texts[::20]
    kept = Path(bench.out("kept.txt"))
    kept.write_bytes(corpora.BETWEEN.join(text for i, text in enumerate(texts) if i % 20).encode())
    print(f"\nUnigram, log-probability a byte of {sum(len(text.encode()) for text in held_out) / 1e6:.1f} MB held out")
    found = {}
    for tool in ("alm", "tokenizers"):
        out = bench.out(f"{tool}-quality.json")
        job = {"work": "train", "kind": "unigram", "vocab_size": bench.vocab_size(32_000)}
        bench.run(tool, limit=3000, corpus=kept, out=out, **job)
        found[tool] = _log_probability(out, held_out)
        print(f"  {tool:<15} {found[tool]:.4f}", flush=True)
    print(f"  worse by {found['alm'] / found['tokenizers'] - 1:+.2%}; bar 0.30%", flush=True)


def _log_probability(path: str, texts: list[str]) -> float:
    """The mean score a byte of the best way to cut `texts`, by a tokenizer file."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.encode_special_tokens = True
    scores = [score for _, score in json.loads(Path(path).read_text("utf-8"))["model"]["vocab"]]
    total = sum(scores[id_] for text in texts for id_ in tokenizer.encode(text, add_special_tokens=False).ids)
    return total / sum(len(text.encode()) for text in texts)


def scale(bench: Bench) -> None:
    """Two workers against one: CPU seconds of all, and how far the elapsed time falls."""
    corpus, tokenizer = bench.corpus("mixed", 100), bench.out("scale.json")
    bench.run("alm", work="train", corpus=corpus, vocab_size=bench.vocab_size(32_000), out=tokenizer)
    for work in ("count", "encode"):
        ratios, walls = [], []
        for _ in range(bench.rounds):
            one, two = (
                bench.run("alm", work=work, corpus=corpus, tokenizer=tokenizer, workers=workers) for workers in (1, 2)
            )
            ratios.append(two["cpu"] / one["cpu"])
            walls.append(two["wall"] / one["wall"])
        print(f"\n{work}, two threads / one: CPU {paired.with_interval(ratios)}; bar 1.1")
        print(f"  wall {paired.with_interval(walls)}", flush=True)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    section.__name__: section for section in (cold, train, hard, grow, encode, unigram, quality, scale)
}


def main() -> None:
    """Run the sections that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(gettempdir()) / "alm-benchmark-texts")
    given = parser.parse_args()
    bench = Bench(given.data, 1 if given.quick else given.rounds, given.quick)
    for kind in ("bpe", "unigram"):  # compiles what is not compiled yet
        job = {"work": "train", "kind": kind, "corpus": bench.corpus("english", 1), "vocab_size": 1000}
        bench.run("alm", **job, out=bench.out("warm.json"))
        bench.run("alm", work="encode", corpus=bench.corpus("english", 1), tokenizer=bench.out("warm.json"))
    for name in given.sections or SECTIONS:
        SECTIONS[name](bench)


if __name__ == "__main__":
    main()
