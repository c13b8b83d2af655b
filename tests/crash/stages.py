"""What is tried: every command that writes, where there is nothing yet and over what is there."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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
    is_fast: bool = False
    keep_last: int | None = None  # of a run, where it is known
    keep_every: int | None = None
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


def world(root: Path, seed: str, command: Callable[..., None]) -> World:
    """The chain from the text of `seed`, by running each command in `root` with `command(folder, *arguments)`."""
    trees.put(inputs(seed), root)
    for arguments in (PREPARE, TOKENIZER, PACK, PRETRAIN):
        command(root, *arguments)
    os.rename(root / "runs/x", root / "runs/plain")
    command(root, *ALL_KEPT)
    os.rename(root / "runs/x", root / "runs/all-kept")
    os.rename(root / "runs/plain", root / "runs/x")
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


def cases(root: Path, command: Callable[..., None]) -> list[Case]:
    """Every case, prepared below `root`."""
    now, before = world(root / "now", "now", command), world(root / "before", "before", command)
    texts = now.of("my-texts", "my-notes", "corpus.yaml")
    old_texts = before.of("my-texts", "my-notes", "corpus.yaml")
    lines = b"".join(now.tree[name].data or b"" for name in sorted(now.of("my-texts")) if name.endswith(".txt"))
    old_lines = b"".join(reversed(lines.splitlines(keepends=True)))
    found: list[Case] = []

    def add(
        name: str, arguments: list[str], start: Tree, targets: tuple[str, ...], old: Tree | None = None,
        foreign: tuple[str, ...] = (), stdin: bytes | None = None, run: str | None = None, fast: str = "",
    ) -> None:  # fmt: skip
        common = {"targets": targets, "stdin": stdin, "run": run, "keep_last": KEEP_LAST if run else None}
        found.append(Case(f"{name}-new", tuple(arguments), start, is_fast="n" in fast, **common))  # type: ignore[arg-type]
        if old is not None:
            over = {**start, **old, **strangers(*foreign)}
            found.append(
                Case(f"{name}-old", tuple(arguments), over, foreign=foreign, force=True, is_fast="o" in fast, **common)  # type: ignore[arg-type]
            )

    def old(start: Tree, *arguments: str, keep: str, stdin: bytes | None = None) -> Tree:
        return trees.part(made(root / "old", start, command, *arguments, stdin=stdin), keep)

    clean = ("data", "data/clean")
    beside = ("data/clean/mine.txt", "data/clean/mine.json", "data/clean/mine-00000.notes", "data/clean/.mine")
    add("corpus", PREPARE, texts, clean, before.of("data/clean"), beside, fast="o")
    for form in ("parquet", "jsonl.zst"):
        command_ = [*NOTES, "--format", form]
        name = f"corpus-{form.partition('.')[0]}"
        add(name, command_, texts, clean, old(old_texts, *command_, keep="data/clean"), beside)
    add("corpus-stdin", STDIN, {}, clean, old({}, *STDIN, keep="data/clean", stdin=old_lines), beside, stdin=lines)
    two = {name: entry for name, entry in texts.items() if not name.startswith("my-texts/1")}
    added = {**texts, **old(two, *TEXTS, keep="data/clean"), **strangers(*beside)}
    found.append(Case("corpus-more", tuple(TEXTS), added, clean, beside, force=True))

    ready = now.of("data/clean")
    kept = ("artifacts/mine.json", "artifacts/tokenizer.txt", "artifacts/.mine")
    add("tokenizer", TOKENIZER, ready, ("artifacts",), before.of("artifacts"), kept, fast="no")
    unigram = old(before.of("data/clean"), *UNIGRAM, keep="artifacts")
    add("tokenizer-unigram", UNIGRAM, ready, ("artifacts",), unigram, kept)

    ready = now.of("data/clean", "artifacts")
    packed = ("data/packed",)
    kept = ("data/packed/mine.bin", "data/packed/shard_mine.bin", "data/packed/mine.json", "data/packed/.mine")
    add("pack", PACK, ready, packed, before.of("data/packed"), kept, fast="o")
    add("pack-bestfit", BESTFIT, ready, packed, before.of("data/packed"), kept)

    ready = now.of("data/clean", "artifacts", "data/packed")
    runs = ("runs", "runs/x")
    kept = ("runs/x/mine.txt", "runs/x/ckpt-mine.pt", "runs/x/mine.json", "runs/x/set-aside/mine.pt", "runs/x/.mine")
    add("pretrain", PRETRAIN, ready, runs, run="runs/x", fast="n")
    found.append(
        Case(
            "pretrain-beside",
            tuple(PRETRAIN),
            {**ready, **strangers(*kept)},
            runs,
            kept,
            run="runs/x",
            keep_last=KEEP_LAST,
        )
    )
    all_kept = moved(now.of("runs/all-kept"), "runs/all-kept", "runs/x")
    found.append(
        Case("pretrain-older", tuple(OLDER), {**ready, **all_kept, **strangers(*kept)}, runs, kept, run="runs/x",
             aside=4, keep_last=KEEP_LAST, keep_every=4, is_fast=True)
    )  # fmt: skip
    finished = {**ready, **now.of("runs/x")}
    found.append(
        Case(
            "pretrain-more",
            tuple(MORE),
            {**finished, **strangers(*kept)},
            runs,
            kept,
            run="runs/x",
            keep_last=KEEP_LAST,
        )
    )

    exported = ("exports", "exports/x")
    kept = ("exports/x/mine.txt", "exports/x/mine.safetensors", "exports/x/.mine")
    for name, arguments in (
        ("export-huggingface", HUGGINGFACE),
        ("export-safetensors", SAFETENSORS),
        ("export-gguf", GGUF),
    ):
        was = old({**before.tree}, *arguments, keep="exports/x")
        add(name, arguments, finished, exported, was, kept, fast="no" if name == "export-safetensors" else "")
    model = now.of("exports/model")
    was = old(before.of("exports/model"), *IMPORT, keep="runs/taken")
    kept = ("runs/taken/mine.txt", "runs/taken/mine.pt", "runs/taken/.mine")
    add("import", IMPORT, model, ("runs", "runs/taken"), was, kept)
    was = old(before.of("artifacts"), *TIKTOKEN, keep="artifacts/tiktoken")
    kept = ("artifacts/tiktoken/mine.py", "artifacts/tiktoken/mine.tiktoken")
    add("tiktoken", TIKTOKEN, now.of("artifacts"), ("artifacts", "artifacts/tiktoken"), was, kept)
    was = old(before.tree, *REPORT, keep="runs/x/report.html")
    add("report", REPORT, finished, ("runs/x/report.html",), was, ())
    recipe = {"q": Entry(None), "q/quickstart.json": Entry(json.dumps(RECIPE).encode(), OLD_NS)}
    made(root / "old", recipe, command, *QUICKSTART)  # loads and compiles what only this does
    found.append(Case("quickstart", tuple(QUICKSTART), recipe, ("q",), run="q/runs/tales", most=120))
    return found
