"""`alm corpus prepare` beside a bare loop, datatrove and datasketch, on the same documents.

    python benchmarks/corpus.py FOLDER [--datatrove PYTHON] [--megabytes 20] [--rounds 5] [--memory]

FOLDER holds text (`.txt.gz`, `.jsonl.gz`); datatrove lives in a virtual environment of its own
(`pip install 'datatrove[io,processing]' spacy`), whose python is PYTHON. What is compared is CPU seconds, in turn, and
the median of the ratios with the least and the greatest. `--memory` alone makes 200 MB and 2 GB of
input and takes minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

DOCUMENT_CHARACTERS = 3000

DATATROVE = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
texts = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False),
           FineWebQualityFilter()]
for one in filters:
    one.filter(Document(text="Warm up. Twice.", id="0"))
began = time.process_time()
verdicts = []
for text in texts:
    found = {}
    for one in filters:
        result = one.filter(Document(text=text, id="0"))
        found[type(one).__name__] = True if result is True else str(result[1])
    verdicts.append(found)
print(json.dumps({"seconds": time.process_time() - began, "verdicts": verdicts}))
"""
FILTERS = {
    "GopherRepetitionFilter": "gopher_repetition",
    "GopherQualityFilter": "gopher_quality",
    "C4QualityFilter": "c4",
    "FineWebQualityFilter": "fineweb",
}


def documents(folder: Path, most: int) -> list[str]:
    """Texts of `folder`, long ones in pieces, of `most` characters together."""
    found: list[str] = []
    size = 0
    for text in itertools.chain.from_iterable(_texts(path) for path in sorted(folder.rglob("*.gz"))):
        for start in range(0, len(text), DOCUMENT_CHARACTERS):
            found.append(text[start : start + DOCUMENT_CHARACTERS])
            size += len(found[-1])
            if size >= most:
                return found
    return found


def _texts(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        if ".jsonl" in path.name:
            yield from (row["text"] for row in map(json.loads, file) if isinstance(row.get("text"), str))
        elif ".txt" in path.name:
            yield file.read()


def cpu(function: Callable[[], object]) -> float:
    """CPU seconds of this process and of those it waited for."""
    before = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    function()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = after.ru_utime + after.ru_stime - before[1].ru_utime - before[1].ru_stime
    return time.process_time() - before[0] + children


def say(name: str, ratios: list[float], note: str) -> None:
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"{name:<42} {middle:6.2f}  [{least:.2f}, {most:.2f}]  {note}", flush=True)


COMPARED = {
    "nothing compared": {"exact": False, "near": False},
    "equal documents": {"exact": True, "near": False},
    "near duplicates": {"exact": True, "near": True},
    "repeated lines": {"exact": True, "near": False, "lines": 5},
}


def prepared(folder: Path, out: Path, *, workers: int = 1, compared: str = "nothing compared") -> None:
    from alm import engines
    from alm.config.load import load
    from alm.corpus.config import CorpusConfig
    from alm.corpus.pipeline.prepare import prepare

    source = {"kind": "files", "paths": str(folder), "deduplicate": COMPARED[compared]}
    config = load(CorpusConfig, [], base={"sources": {"s": source}})
    prepare(config, out=out, engine=engines.choose(workers=workers))


def bare(folder: Path, out: Path) -> None:
    """Reads, decodes, checks NFC, writes: the least that any cleaner does."""
    out.mkdir()
    for path in sorted(folder.iterdir()):
        text = path.read_bytes().decode("utf-8")
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
        (out / path.name).write_bytes(text.encode("utf-8"))


def light(work: Path, texts: list[str], rounds: int) -> None:
    folder = work / "light"
    folder.mkdir()
    size = sum(len(text.encode()) for text in texts)
    joined = "".join(texts)
    for number in range(0, len(joined), 1 << 20):
        (folder / f"{number:012d}.txt").write_text(joined[number : number + (1 << 20)], encoding="utf-8")
    prepared(folder, work / "warm")
    ours, ratios = [], []
    for number in range(rounds):
        ours.append(cpu(partial(prepared, folder, work / f"ours{number}")))
        ratios.append(ours[-1] / cpu(partial(bare, folder, work / f"bare{number}")))
    say("light, ours / bare loop (at most 2.5)", ratios, f"{size / 1e6 / statistics.median(ours):,.0f} MB/s")


def rules(work: Path, texts: list[str], rounds: int, python: str) -> None:
    from alm.corpus.filters import Candidate, c4, fineweb, gopher_quality, gopher_repetition

    chain = [(module, module.Config()) for module in (gopher_repetition, gopher_quality, c4, fineweb)]
    file = work / "texts.jsonl"
    file.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")

    def judge() -> list[dict[str, list[str]]]:
        found = []
        for text in texts:
            draft = Candidate(text)
            found.append({config.kind: list(module.broken_rules(draft, config)) for module, config in chain})
        return found

    ratios = []
    for _ in range(rounds):
        run = subprocess.run([python, "-c", DATATROVE, str(file)], capture_output=True, text=True, check=True)
        theirs = json.loads(run.stdout.splitlines()[-1])
        ours = cpu(judge)
        ratios.append(theirs["seconds"] / ours)
    size = sum(len(text.encode()) for text in texts)
    say("every rule, datatrove / ours (at least 15)", ratios, f"{size / 1e6 / ours:,.1f} MB/s")
    agreement(texts, theirs["verdicts"], judge())


def agreement(texts: list[str], theirs: list[dict[str, object]], ours: list[dict[str, list[str]]]) -> None:
    """How often the verdicts agree, and which do not."""
    for name, kind in FILTERS.items():
        pairs = [(a[name], b[kind]) for a, b in zip(theirs, ours, strict=True)]
        differ = [(n, a, b) for n, (a, b) in enumerate(pairs) if (a is True) != (not b)]
        print(f"  {kind}: {len(pairs) - len(differ):,} of {len(pairs):,} verdicts agree")
        for number, a, b in differ[:8]:
            print(f"    document {number}: datatrove {a}, ours {b or 'keeps'}: {texts[number][:60]!r}")


def minhash(texts: list[str], rounds: int) -> None:
    import re

    from datasketch import MinHash

    from alm.corpus.dedup.minhash import Signer

    signer = Signer()
    word = re.compile(r"\w+")

    def theirs() -> None:
        for text in texts:
            words = word.findall(text.lower())
            shingles = {" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))}
            found = MinHash(num_perm=112)
            found.update_batch(list(shingles))

    def ours() -> None:
        for start in range(0, len(texts), 64):  # as the first pass does
            signer.bands_of(texts[start : start + 64])

    ours()
    seconds = [(cpu(theirs), cpu(ours)) for _ in range(rounds)]
    size = sum(len(text.encode()) for text in texts)
    speed = size / 1e6 / statistics.median(b for _, b in seconds)
    say("MinHash, datasketch / ours (at least 2)", [a / b for a, b in seconds], f"{speed:,.1f} MB/s")


class Watch:
    """CPU seconds of the child processes there are, as Linux shows them, looked at ten times a second.

    With `depth` 2 it is the children of children.
    """

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth

    def __enter__(self) -> Watch:
        self._ended = threading.Event()
        self._seconds: dict[int, float] = {}
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            parents, seconds = {}, {}
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    fields = stat.read_text().rpartition(")")[2].split()
                    pid = int(stat.parent.name)
                    parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / 100
            wanted = {os.getpid()}
            for _ in range(self._depth):
                wanted = {pid for pid, parent in parents.items() if parent in wanted}
            self._seconds.update({pid: seconds[pid] for pid in wanted})

    def busiest_share(self) -> float:
        """Of the CPU seconds of all children, how many the busiest used."""
        return max(self._seconds.values()) / sum(self._seconds.values())


def workers(work: Path, texts: list[str], rounds: int) -> None:
    folder = work / "many"
    folder.mkdir()
    joined = "".join(texts)
    for copy in range(max(1, (400 << 20) // max(1, len(joined)))):
        (folder / f"{copy:04d}.txt").write_text(f"copy {copy}\n{joined}", encoding="utf-8")
    ratios, shares = [], []
    for number in range(rounds):
        one = cpu(partial(prepared, folder, work / f"one{number}", workers=1))
        with Watch() as watch:
            two = cpu(partial(prepared, folder, work / f"two{number}", workers=2))
        ratios.append(two / one)
        shares.append(watch.busiest_share())
    say("two workers / one, CPU (at most 1.1)", ratios, "")
    say("share of the busiest worker (at most 0.55)", shares, "")


PEAK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from corpus import prepared
prepared(Path(sys.argv[2]), Path(sys.argv[3]), compared=sys.argv[4])
print(next(int(s.split()[1]) / 1024 for s in open("/proc/self/status") if s.startswith("VmHWM")))
"""


def memory(work: Path, texts: list[str]) -> None:
    for compared in COMPARED:
        peaks, counts = {}, {}
        for megabytes in (200, 2000):
            file = work / f"{megabytes}.jsonl"
            if not file.exists():
                with file.open("w", encoding="utf-8") as out:
                    endless = (f"{n} {text}" for n, text in enumerate(itertools.cycle(texts)))
                    while out.tell() < megabytes * 1_000_000:
                        out.write(json.dumps({"text": next(endless)}) + "\n")
            command = [
                sys.executable,
                "-c",
                PEAK,
                str(Path(__file__).parent),
                str(file),
                str(work / f"{compared}{megabytes}"),
            ]
            run = subprocess.run([*command, compared], capture_output=True, text=True, check=True)
            peaks[megabytes] = float(run.stdout)
            with file.open("rb") as lines:
                counts[megabytes] = sum(1 for _ in lines)
            shutil.rmtree(work / f"{compared}{megabytes}")
        more = (peaks[2000] - peaks[200]) * 1e6 / (counts[2000] - counts[200])
        print(
            f"  {compared}: {peaks[200]:,.0f} MB at the peak for 200 MB ({counts[200]:,} documents), "
            f"{peaks[2000]:,.0f} for 2 GB ({counts[2000]:,}): {peaks[2000] / peaks[200]:.2f}, "
            f"{more:.0f} bytes a document",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datatrove", help="python of the environment that has datatrove")
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    texts = documents(given.folder, given.megabytes * 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if given.memory:
            memory(work, texts)
            return
        light(work, texts, given.rounds)
        minhash(texts[:: max(1, len(texts) // 1500)], given.rounds)
        if given.datatrove:
            rules(work, texts[:: max(1, len(texts) // 500)], min(given.rounds, 3), given.datatrove)
        workers(work, texts, min(given.rounds, 3))


if __name__ == "__main__":
    main()
