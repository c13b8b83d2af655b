"""Every artifact that the chain makes, and the functions of the commands that read it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hostile import mutations

from alm import artifacts
from alm.artifacts import ExportMetadata, ImportMetadata, PackMetadata, SourceMetadata
from alm.cli.inspect import inspect
from alm.corpus.read import find, read_documents
from alm.corpus.split import SPLITS
from alm.errors import AlmError
from alm.export.importing import open_gguf
from alm.packing.shards import open_packed
from alm.quickstart import recipe
from alm.report import html, record
from alm.tokenizers.file import Tokenizer
from alm.training.monitoring import metrics, trackers
from alm.training.monitoring.sinks.trackio import Sent
from alm.training.run import lineage, run_folder

MOST_SECONDS = 10.0


class TooLongError(BaseException):
    """Reading did not end."""


class ChangedError(Exception):
    """Another result, and no error."""


def _info(path: str) -> Callable[[Path], object]:
    def look(root: Path) -> object:
        found = inspect(root / path)
        if found.faults:
            raise AlmError(found.faults[0], hint=found.fix)
        return found.values()

    return look


def _corpus(root: Path) -> object:
    return [(each.text, each.source, each.split) for each in read_documents(find([root / "data/clean"]))]


def _packed(root: Path) -> object:
    data = open_packed(root / "data/packed", is_hashed=True)
    streams = [data.split(name) for name in SPLITS]
    rows = [stream.rows(np.arange(stream.sequences)).tolist() for stream in streams]
    return rows, [stream.document_starts().tolist() for stream in streams], data.metadata


def _tokens(root: Path) -> object:
    tokenizer = Tokenizer.load(root / "artifacts/tokenizer.json")
    return tokenizer.encode("the fox sees the old barn"), tokenizer.sha256


def _current(root: Path) -> object:
    """What decides whether a stage has anything to do."""
    packed = artifacts.read(root / "data/packed/metadata.json", PackMetadata, hint="")
    path = root / "data/packed/metadata.json"
    return artifacts.current(
        path, PackMetadata, config=packed.config, inputs=packed.inputs, force=False, redo="alm pack"
    )


def _report(root: Path) -> object:
    records = [record.read(root / "runs/small")]
    return html.html(records, record.names(records)), lineage.trace(root / "runs/small", records[0].metadata)


def _resume(root: Path) -> object:
    rows = metrics.read(root / "runs/small")
    metrics.read(root / "runs/small", name=run_folder.SAMPLES_NAME)
    metrics.split(root / "runs/small", after=2)
    return (
        metrics.training_seconds(rows),
        run_folder.read_config(root / "runs/small"),
        run_folder.read_metadata(root / "runs/small"),
    )


def _sinks(root: Path) -> object:
    sent = Sent(root / "runs/small/trackio.json", {"project": "p", "run": "r"})
    return trackers._id(root / "runs/small"), sent.is_new("loss", 3)


def _recipe(root: Path) -> object:
    return recipe.read(root / "quickstart.json")


def _export(root: Path) -> object:
    return artifacts.read(root / "exports/plain/export.json", ExportMetadata, hint="")


def _gguf(root: Path) -> object:
    """The model of a stranger's file: nothing says which numbers it should have."""
    found = open_gguf(root / "exports/gguf/small-f32.gguf")
    shapes = {name: tuple(tensor.shape) for name, tensor in found.stored.tensors()}
    return found.model, found.tokenizer.sha256, found.ends, shapes


def _import(root: Path) -> object:
    return artifacts.read(root / "runs/imported/import.json", ImportMetadata, hint="")


def _clean(root: Path) -> object:
    return artifacts.read(root / "data/clean/my-texts.json", SourceMetadata, hint="")


READERS: dict[str, tuple[Callable[[Path], object], ...]] = {
    "data/clean": (_clean, _info("data/clean"), _corpus),
    "data/packed": (_packed, _current, _info("data/packed")),
    "artifacts": (_tokens, _info("artifacts/tokenizer.json")),
    "runs/small": (_resume, _report, _sinks, _info("runs/small")),
    "exports/plain": (_export, _info("exports/plain")),
    "exports/gguf": (_gguf,),
    "runs/imported": (_import, _info("runs/imported")),
    "quickstart.json": (_recipe,),
}
# A person writes these, or they are records whose lines stand alone, or what is remembered for speed: a change that is
# well-formed counts, and no hash of them is kept.
MAY_DIFFER = (".gguf", "config.yaml", "metrics.jsonl", "samples.jsonl", "quickstart.json", "sinks.json", "trackio.json")
# Read by others, or by name alone.
LEFT_OUT = (".pt", ".safetensors", ".html", ".md", ".lock", "_report.json", "generation_config.json")


@dataclass
class Outcome:
    """What became of the mutations: how many, and what broke the promise."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def files_of(root: Path) -> list[tuple[str, Path]]:
    """Each file to mutate, with the artifact that it belongs to."""
    found = []
    for name in READERS:
        path = root / name
        inside = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
        found += [(name, each) for each in inside if not each.name.endswith(LEFT_OUT)]
    return found


def attack(root: Path, *, mutations_wanted: int, seed: int = 0) -> Outcome:
    """Mutate files one at a time, read, and put them back."""
    draw, outcome = random.Random(f"hostile {seed}"), Outcome()
    targets = files_of(root)
    wanted = {name: [reader(root) for reader in READERS[name]] for name in READERS}
    for number in range(mutations_wanted):
        name, path = targets[number % len(targets)]
        whole = path.read_bytes()
        way = draw.choice(mutations.of(path.name))
        data = way(whole, draw)
        path.write_bytes(data)
        try:
            for reader, expected in zip(READERS[name], wanted[name], strict=True):
                kind = judged(reader, root, expected, may_differ=path.name.endswith(MAY_DIFFER))
                outcome.counts[kind] += 1
                if kind not in ("equal", "refused", "allowed"):
                    label = f"{number} {path.relative_to(root)} {way.__name__} {getattr(reader, '__name__', reader)}"
                    outcome.violations.append(f"{label}: {kind}")
        finally:
            path.write_bytes(whole)
    return outcome


def judged(reader: Callable[[Path], object], root: Path, expected: object, *, may_differ: bool) -> str:
    began = time.monotonic()
    try:
        with _bounded(MOST_SECONDS):
            found = reader(root)
    except AlmError as error:
        return "refused" if "rm " not in (error.hint or "") else f"a hint that removes: {error.hint}"
    except TooLongError:
        return f"did not end within {time.monotonic() - began:.0f} seconds"
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        place = error.__traceback__
        while place and place.tb_next:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else "?"
        return f"{type(error).__name__} at {where}: {str(error)[:200]}"
    if found == expected:
        return "equal"
    return "allowed" if may_differ else "another result, silently"


def make(root: Path, command: Callable[..., None]) -> None:
    """Everything that is read, in `root`, which is the working folder."""
    from builders import CHAIN, texts

    for number, text in enumerate(texts(60)):
        path = root / "my-texts" / f"{number:03d}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for arguments in CHAIN[:3]:
        command(*arguments)
    command(*CHAIN[3], "--out", "runs/small", "--device", "cpu")
    last = ["--checkpoint", "runs/small/ckpt-last.pt", "--no-compare"]
    command("export", *last, "--to", "safetensors", "--out", "exports/plain")
    command("export", *last, "--to", "huggingface", "--out", "exports/other")
    command("export", *last, "--to", "gguf", "--out", "exports/gguf")
    command("import", "--from", "huggingface", "exports/other", "--out", "runs/imported", "--no-compare")
    (root / "runs/small/sinks.json").write_text(json.dumps({"id": "0123abcd"}))
    sent = {"project": "p", "run": "r", "steps": {"loss": 4}}
    (root / "runs/small/trackio.json").write_text(json.dumps(sent))
    recipe.write(recipe.Recipe(), root / "quickstart.json")


def replaced(path: Path, root: Path) -> Iterator[str]:
    """Something else than a file in its place, one after the other; the file is put back."""
    whole = path.read_bytes()
    for kind in ("missing", "folder", "link to itself", "pipe"):
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "link to itself":
            path.symlink_to(path)
        elif kind == "pipe":
            os.mkfifo(path)
        try:
            yield kind
        finally:
            with suppress(OSError):
                path.rmdir() if kind == "folder" else path.unlink()
            path.write_bytes(whole)
