"""What is tried: every command that writes, where there is nothing yet and over what is there."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash import trees
from crash.trees import OLD_NS, Entry, Tree

WORDS = [
    "the", "a", "fox", "hen", "sees", "runs", "to", "from", "red", "old", "barn", "hill", "and", "then", "it", "said",
    "hello", "again", "Größe", "日本",
]  # fmt: skip
UNIT_BYTES = 1200  # input of a unit, in place of 64 MiB: three units from a few lines
KEEP_LAST = 2
MODEL = [
    "model.d_model=16", "model.n_heads=2", "model.n_kv_heads=1", "model.n_layers=1", "model.ffn_hidden_size=32",
    "training.micro_batch_size=2", "training.gradient_accumulation=1", "training.precision=fp32", "training.threads=1",
    "logging.log_interval=1", "scheduler.warmup_steps=2", "samples.count=1", "samples.max_tokens=2",
    "training.checkpoint_interval=2", f"training.keep_last={KEEP_LAST}", "training.keep_best=true",
    "validation.interval=2", "validation.bytes=200",
]  # fmt: skip


def settings(*changes: str) -> list[str]:
    """The changes as flags."""
    return [word for change in changes for word in ("--set", change)]


SERIAL = ["--workers", "1"]
PREPARE = ["corpus", "prepare", "--src", "./corpus.yaml", *SERIAL]
TEXTS = ["corpus", "prepare", "my-texts", "--set", "validation_fraction=0.2", *SERIAL]
NOTES = ["corpus", "prepare", "my-notes", "--set", "validation_fraction=0.2", *SERIAL]
STDIN = ["corpus", "prepare", "-", "--set", "validation_fraction=0.2", *SERIAL]
TOKENIZER = ["tokenizer", "train", "--vocab-size", "300", *SERIAL]
UNIGRAM = ["tokenizer", "train", "--vocab-size", "400", "--kind", "unigram", *SERIAL]
PACK = ["pack", "--seq-len", "16", "--shard-size", "80", *SERIAL]
BESTFIT = [*PACK, "--mode", "bestfit", "--dtype", "uint16"]
PRETRAIN = ["pretrain", "--out", "runs/x", "--device", "cpu", *settings(*MODEL, "training.max_steps=8")]
ALL_KEPT = [*PRETRAIN, *settings("training.keep_last=4")]
OLDER = [
    "pretrain",
    "--resume",
    "runs/x/ckpt-step000004.pt",
    "--device",
    "cpu",
    *settings(f"training.keep_last={KEEP_LAST}", "training.keep_every=4"),
]
MORE = ["pretrain", "--out", "runs/x", "--device", "cpu", *settings("training.max_steps=12")]
LAST = ["--checkpoint", "runs/x/ckpt-last.pt"]
HUGGINGFACE = ["export", *LAST, "--to", "huggingface", "--out", "exports/x", "--no-compare"]
SAFETENSORS = ["export", *LAST, "--to", "safetensors", "--out", "exports/x", "--no-compare"]
GGUF = ["export", *LAST, "--to", "gguf", "--dtype", "f16", "--out", "exports/x", "--no-compare"]
IMPORT = ["import", "exports/model", "--out", "runs/taken", "--no-compare"]
TIKTOKEN = ["tokenizer", "export", "--to", "tiktoken", "--out", "artifacts/tiktoken"]
REPORT = ["report", "runs/x"]
QUICKSTART = ["quickstart", "--out", "q", "--steps", "3", "--device", "cpu"]
RECIPE = {
    "tales": 60,
    "overrides": ["model.d_model=32", "model.n_layers=1", "model.ffn_hidden_size=32", "training.micro_batch_size=1",
                  "training.gradient_accumulation=1", "training.precision=fp32", "training.threads=1",
                  "training.checkpoint_interval=1", "scheduler.warmup_steps=1", "samples.count=1",
                  "samples.max_tokens=4"],
    "budget": None,
    "end": 0.0,
    "steps": None,
}  # fmt: skip

CORPUS = """\
validation_fraction: 0.2
sources:
  books: {kind: files, paths: [my-texts], deduplicate: {near: true, lines: 3}}
  notes: {kind: files, paths: [my-notes/notes.jsonl]}
"""


@dataclass(frozen=True)
class Case:
    """A command in a situation.

    `targets` is all that the command may change, `foreign` what lies among it and is somebody else's. `force` is added
    to the command where it replaces what was made otherwise.
    """

    name: str
    arguments: tuple[str, ...]
    start: Tree
    targets: tuple[str, ...]
    foreign: tuple[str, ...] = ()
    force: bool = False
    stdin: bytes | None = None
    run: str | None = None  # the folder of the run that it trains
    aside: int | None = None  # the step after which checkpoints are set aside
    keep_last: int | None = None  # of a run, where it is known
    keep_every: int | None = None
    pages: tuple[str, ...] = ()  # about speeds, so that each is another one
    most: int | None = None  # so many faults, spread evenly: for what is made of the other cases

    @property
    def given(self) -> list[str]:
        """The words of the command."""
        return [*self.arguments, *(["--force"] if self.force else [])]


@dataclass
class World:
    """All artifacts of a chain, from one text or from another, made by the commands themselves."""

    tree: Tree = field(default_factory=dict)

    def of(self, *prefixes: str) -> Tree:
        """A part of it."""
        return trees.part(self.tree, *prefixes)


def inputs(seed: str) -> Tree:
    """Text: with exact and near duplicates and lines that come again and again."""
    draw = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(draw.choices(WORDS, k=words)) + ".\n"

    long = text(60)
    documents = [text(draw.randrange(8, 40)) for _ in range(12)]
    documents += [documents[0], long, long.replace("fox", "hen", 1)]
    documents = [("A line of the publisher.\n" if n % 3 == 0 else "") + each for n, each in enumerate(documents)]
    found: Tree = {"my-texts": Entry(None), "my-notes": Entry(None)}
    for number, document in enumerate(documents):
        found[f"my-texts/{number:02d}.txt"] = Entry(document.encode(), OLD_NS)
    notes = "".join(json.dumps({"text": text(20)}, ensure_ascii=False) + "\n" for _ in range(24))
    found["my-notes/notes.jsonl"] = Entry(notes.encode(), OLD_NS)
    found["corpus.yaml"] = Entry(CORPUS.encode(), OLD_NS)
    return found


def strangers(*names: str) -> Tree:
    """Files of somebody else."""
    found = {name: Entry(f"{name}: mine, and not to be touched\n".encode(), OLD_NS) for name in names}
    return trees.part(found, *names)


def world(root: Path, seed: str, command: Callable[..., None], *, keeps_all: bool, exports: bool) -> World:
    """The chain from the text of `seed`, by running each command in `root` with `command(folder, *arguments)`.

    `keeps_all`: with a run that has all of its checkpoints. `exports`: with a model to import.
    """
    trees.put(inputs(seed), root)
    for arguments in (PREPARE, TOKENIZER, PACK, PRETRAIN):
        command(root, *arguments)
    if keeps_all:
        os.rename(root / "runs/x", root / "runs/plain")
        command(root, *ALL_KEPT)
        os.rename(root / "runs/x", root / "runs/all-kept")
        os.rename(root / "runs/plain", root / "runs/x")
    if exports:
        command(root, *HUGGINGFACE)
        os.rename(root / "exports/x", root / "exports/model")
    return World(trees.take(root))


def made(root: Path, start: Tree, command: Callable[..., None], *arguments: str, stdin: bytes | None = None) -> Tree:
    """What `arguments` make of `start`."""
    trees.put(start, root)
    command(root, *arguments, stdin=stdin)
    return trees.take(root)


def moved(tree: Tree, source: str, target: str) -> Tree:
    """`tree` with the folder `source` called `target`."""
    return {
        target + name[len(source) :] if name == source or name.startswith(source + "/") else name: entry
        for name, entry in tree.items()
    }


FAST = {
    "corpus-old", "tokenizer-new", "tokenizer-old", "pack-old", "pretrain-new", "pretrain-older",
    "export-safetensors-new", "export-safetensors-old",
}  # fmt: skip


class Making:
    """Makes the cases that `is_wanted`, below `root`, by running commands with `command(folder, *arguments)`."""

    def __init__(self, root: Path, command: Callable[..., None], is_wanted: Callable[[str], bool]) -> None:
        self._root = root
        self._command = command
        self._is_wanted = is_wanted
        exports = is_wanted("import-new") or is_wanted("import-old")
        self._now = world(root / "now", "now", command, keeps_all=True, exports=exports)
        self._before = world(root / "before", "before", command, keeps_all=False, exports=exports)
        self.found: list[Case] = []

    def all(self) -> list[Case]:
        """The cases, in the order of the chain."""
        self._corpus()
        self._tokenizer()
        self._pack()
        self._runs()
        self._models()
        self._quickstart()
        return self.found

    def _add(
        self,
        name: str,
        arguments: list[str],
        start: Callable[[], Tree],
        target: str,
        mine: tuple[str, ...] = (),
        **more: Any,  # Any: the other fields of a case
    ) -> None:
        """A case whose `target` holds the files `mine`, which are not ours."""
        if self._is_wanted(name):
            foreign = tuple(f"{target}/{each}" for each in mine)
            tree = {**start(), **strangers(*foreign)}
            self.found.append(Case(name, tuple(arguments), tree, (target,), foreign, **more))

    def _pair(
        self,
        name: str,
        arguments: list[str],
        start: Tree,
        old: Callable[[], Tree],
        target: str,
        mine: tuple[str, ...] = (),
        stdin: bytes | None = None,
    ) -> None:
        """A case where there is nothing yet, and one over `old`."""
        self._add(f"{name}-new", arguments, lambda: start, target, stdin=stdin)
        self._add(f"{name}-old", arguments, lambda: {**start, **old()}, target, mine, stdin=stdin, force=True)

    def _made(self, start: Tree, arguments: list[str], target: str, stdin: bytes | None = None) -> Callable[[], Tree]:
        """What `arguments` make of `start` in `target`."""
        root = self._root / "old"

        def make() -> Tree:
            return trees.part(made(root, start, self._command, *arguments, stdin=stdin), target)

        return make

    def _corpus(self) -> None:
        texts, old_texts = (each.of("my-texts", "my-notes", "corpus.yaml") for each in (self._now, self._before))
        out = "data/clean"
        mine = ("mine.txt", "mine.json", "mine-00000.notes", ".mine")
        self._pair("corpus", PREPARE, texts, lambda: self._before.of(out), out, mine)
        for form in ("parquet", "jsonl.zst"):
            arguments = [*NOTES, "--format", form]
            old = self._made(old_texts, arguments, out)
            self._pair(f"corpus-{form.partition('.')[0]}", arguments, texts, old, out, mine)
        lines = b"".join(entry.data or b"" for name, entry in sorted(texts.items()) if name.endswith(".txt"))
        old = self._made({}, STDIN, out, b"".join(reversed(lines.splitlines(keepends=True))))
        self._pair("corpus-stdin", STDIN, {}, old, out, mine, stdin=lines)
        two = {name: entry for name, entry in texts.items() if not name.startswith("my-texts/1")}
        first = self._made(two, TEXTS, out)
        self._add("corpus-more", TEXTS, lambda: {**texts, **first()}, out, mine, force=True)

    def _tokenizer(self) -> None:
        start, mine = self._now.of("data/clean"), ("mine.json", "tokenizer.txt", ".mine")
        self._pair("tokenizer", TOKENIZER, start, lambda: self._before.of("artifacts"), "artifacts", mine)
        old = self._made(self._before.of("data/clean"), UNIGRAM, "artifacts")
        self._pair("tokenizer-unigram", UNIGRAM, start, old, "artifacts", mine)

    def _pack(self) -> None:
        start, mine = self._now.of("data/clean", "artifacts"), ("mine.bin", "shard_mine.bin", "mine.json", ".mine")
        for name, arguments in (("pack", PACK), ("pack-bestfit", BESTFIT)):
            self._pair(name, arguments, start, lambda: self._before.of("data/packed"), "data/packed", mine)

    def _runs(self) -> None:
        start = self._now.of("data/clean", "artifacts", "data/packed")
        out = "runs/x"
        mine = ("mine.txt", "ckpt-mine.pt", "mine.json", "set-aside/mine.pt", ".mine")
        common: dict[str, Any] = {"run": out, "keep_last": KEEP_LAST}
        self._add("pretrain-new", PRETRAIN, lambda: start, out, **common)
        self._add("pretrain-beside", PRETRAIN, lambda: start, out, mine, **common)
        kept = moved(self._now.of("runs/all-kept"), "runs/all-kept", out)
        self._add("pretrain-older", OLDER, lambda: {**start, **kept}, out, mine, aside=4, keep_every=4, **common)
        self._add("pretrain-more", MORE, lambda: {**start, **self._now.of(out)}, out, mine, **common)

    def _models(self) -> None:
        start, out = self._now.of("data/packed", "runs/x"), "exports/x"
        mine = ("mine.txt", "mine.safetensors", ".mine")
        for arguments in (HUGGINGFACE, SAFETENSORS, GGUF):
            name = f"export-{arguments[arguments.index('--to') + 1]}"
            self._pair(name, arguments, start, self._made(self._before.tree, arguments, out), out, mine)
        old = self._made(self._before.of("exports/model"), IMPORT, "runs/taken")
        self._pair("import", IMPORT, self._now.of("exports/model"), old, "runs/taken", ("mine.txt", "mine.pt", ".mine"))
        out = "artifacts/tiktoken"
        old = self._made(self._before.of("artifacts"), TIKTOKEN, out)
        self._pair("tiktoken", TIKTOKEN, self._now.of("artifacts"), old, out, ("mine.py", "mine.tiktoken"))
        out = "runs/x/report.html"
        self._pair("report", REPORT, start, self._made(self._before.tree, REPORT, out), out)

    def _quickstart(self) -> None:
        start = {"q": Entry(None), "q/quickstart.json": Entry(json.dumps(RECIPE).encode(), OLD_NS)}

        def warm() -> Tree:  # loads and compiles what only this does
            made(self._root / "old", start, self._command, *QUICKSTART)
            return start

        self._add("quickstart", QUICKSTART, warm, "q", run="q/runs/tales", pages=("q/report.html",), most=120)
