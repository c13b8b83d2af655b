"""Texts of fixed kinds and sizes for the tokenizer's benchmark, put together from what this machine has.

A corpus is a .txt file with a line `<|endoftext|>` between documents. It is made once in a folder of the caller's.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
BETWEEN = "\n<|endoftext|>\n"

_CODE = (".py", ".c", ".h", ".js", ".pyi", ".cpp", ".hpp", ".cu", ".rs")
_WORDS = (".md", ".rst", ".txt")


def make(name: str, megabytes: float, folder: Path) -> Path:
    """The file of the corpus `name` (english, mixed or hard), of so many megabytes or a little less."""
    path = folder / f"{name}-{megabytes:g}.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        documents = _up_to(int(megabytes * 1e6), {"english": _english, "mixed": _mixed, "hard": _hard}[name]())
        path.write_bytes(BETWEEN.join(documents).encode())
    return path


def documents(path: Path) -> list[str]:
    """The documents of the corpus at `path`."""
    return path.read_bytes().decode().split(BETWEEN)


def _up_to(size: int, documents: Iterable[str]) -> list[str]:
    taken, total, too_large = [], 0, 0
    for document in documents:
        if "<|endoftext|>" in document or not document.strip():
            continue
        if total + len(document.encode()) > size:
            too_large += 1
            if too_large > 20:
                break
            continue
        total += len(document.encode())
        taken.append(document)
    return taken


def _english() -> Iterator[str]:
    """Books chapter by chapter as it were, then encyclopedic text, then documentation."""
    for path in sorted((DATA / "prose").glob("*.txt.gz")):
        yield from _parts(_read(path))
    for path in sorted((DATA / "encyclopedic").glob("*.gz")):
        yield from _parts(_read(path))
    yield from _files([Path("/usr/share/man"), Path("/usr/share/doc")], None)


def _mixed() -> Iterator[str]:
    """Code, documentation, other languages and English in turn."""
    libraries = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")), Path("/usr/include")]
    pages = [Path("/usr/share/man"), Path("/usr/share/doc"), *libraries]
    foreign = (part for path in sorted((DATA / "tokenizer").rglob("*.gz")) for part in _parts(_read(path)))
    kinds = [_files(libraries, _CODE), _files(libraries, _CODE), _files(pages, None), foreign, _english()]
    while kinds:
        for kind in list(kinds):
            document = next(kind, None)
            if document is None:
                kinds.remove(kind)
            else:
                yield document


def _files(folders: list[Path], suffixes: tuple[str, ...] | None) -> Iterator[str]:
    """Text files below `folders`, in an order that is drawn once; without suffixes, man pages and documentation."""
    for folder in folders:
        found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 1_000_000)
        random.Random(str(folder)).shuffle(found)
        for path in found:
            name = path.name.removesuffix(".gz")
            if name.endswith(suffixes) if suffixes else (name.endswith(_WORDS) or "/share/" in str(folder)):
                text = _read(path)
                if text:
                    yield text


def _read(path: Path) -> str:
    """The text of `path`; nothing if it is none."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError):
        return ""
    if ".jsonl" in path.name:
        records = [json.loads(line) for line in text.split("\n") if line]
        return "\n\n".join(value for record in records for value in record.values() if isinstance(value, str))
    return "" if "\x00" in text else text


def _parts(text: str, size: int = 40_000) -> Iterator[str]:
    """A long text in documents of about `size` characters, cut between paragraphs."""
    start = 0
    while start < len(text):
        cut = text.find("\n\n", start + size)
        stop = len(text) if cut < 0 else cut + 2
        yield text[start:stop]
        start = stop


def _hard() -> Iterator[str]:
    """One-word megabytes, every character there is, and soup."""
    draw = random.Random(11)
    yield "a" * 1_000_000
    yield " " * 200_000
    yield "".join(draw.choices("acgt", k=500_000))
    yield "ab" * 300_000
    scalars = [chr(point) for point in range(0x20, 0x110000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(scalars), 5000):
        yield "".join(scalars[start : start + 5000])
    for path in sorted((DATA / "tokenizer").glob("*.txt.gz")):
        yield _read(path)
    emoji = ["👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "❤️", "1️⃣"]
    while True:
        yield "".join(draw.choices([*"ab1 \n\t'.sStTlLrReEdM", "é", "٣", "𝟙", "\u3000", *emoji], k=5000))


if __name__ == "__main__":
    print(make(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
