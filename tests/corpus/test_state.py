"""What is remembered between two runs: checked before it is used, made again where it is damaged, held out for good."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alm.artifacts import HoldOut, SourceMetadata
from alm.config.load import load
from alm.corpus.config import CorpusConfig
from alm.corpus.counts import RunningCounts
from alm.corpus.pipeline import prepare as module
from alm.corpus.pipeline.decide import Decisions
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.pipeline.unit_store import UnitFiles, UnitMarker, UnitWriter, read_marker, write_marker
from alm.errors import AlmError, ArtifactError
from alm.events import Event, Noted
from alm.files import parse

UNIT = 700
_DRAW = random.Random(5)
_WORDS = [_DRAW.choice("bcdfg") + _DRAW.choice("aeiou") + str(n) for n in range(90)]
MENU = "menu | home | help\n"


def _text(number: int) -> str:
    draw = random.Random(number // 2)  # neighbours are much alike
    return MENU + " ".join(draw.choices(_WORDS, k=40)) + f"\nending {number}\n"


def _inputs(folder: Path, numbers: range) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number:02d}.txt").write_text(_text(number))
    return folder


def _corpus(folder: Path, **keys: Any) -> CorpusConfig:
    source = {"kind": "files", "paths": str(folder), "deduplicate": {"near": True, "lines": 3}, **keys}
    return load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": 0.2})


def _run(config: CorpusConfig, out: Path, **keys: Any) -> SourceMetadata:
    [metadata] = prepare(config, out=out, unit_bytes=UNIT, **keys)
    return metadata


def _message_of(config: CorpusConfig, out: Path) -> str | None:
    try:
        _run(config, out, force=True)
    except AlmError as error:
        return error.message
    return None


def _made(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.is_file() and not p.name.startswith("_")}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _fold(path: Path) -> None:
    path.unlink()
    (path / "inner").mkdir(parents=True)


def _state(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in (out / ".alm" / "s").rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Inputs, a corpus of the first of them, and one that was made of those and then grew."""
    root = tmp_path_factory.mktemp("grown")
    texts = _inputs(root / "texts", range(12))
    _run(_corpus(texts), root / "first")
    shutil.copytree(root / "first", root / "grown")
    _inputs(texts, range(16))
    _run(_corpus(texts), root / "grown")
    return texts, root / "first", root / "grown"


# Every file is flipped. Cut and gone are other ways to be damaged, which every third file shows.
@pytest.mark.sampled(1)
@pytest.mark.parametrize(("harm", "stride"), [(_flip, 1), (_cut, 3), (Path.unlink, 3)], ids=["flipped", "cut", "gone"])
def test_harm_to_any_file_of_the_state_changes_nothing_of_what_is_made(
    grown: tuple[Path, Path, Path], harm: Callable[[Path], None], stride: int
) -> None:
    texts, first, undisturbed = grown
    names = [name for name in _state(first) if "/0000" not in name or "/00001" in name]
    assert {".sha256", ".json", ".npy", ".fates", ".repeated"} <= {Path(name).suffix for name in names}
    for number, name in enumerate(names[::stride]):
        out = first.with_name(f"{harm.__name__}{number}")  # beside the inputs, whose paths are relative
        shutil.copytree(first, out)
        harm(out / name)
        if name.endswith("plan.json"):  # which document came first cannot be known from anything else
            with pytest.raises(ArtifactError, match="held-out documents, may change"):
                _run(_corpus(texts), out)
            continue
        _run(_corpus(texts), out)
        assert _made(out) == _made(undisturbed), name


@pytest.mark.slow
def test_harm_before_anything_is_published_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _inputs(tmp_path / "texts", range(6))
    _run(_corpus(texts), tmp_path / "undisturbed")
    begun = tmp_path / "begun"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish", stop)
    with pytest.raises(KeyboardInterrupt):
        _run(_corpus(texts), begun)
    monkeypatch.undo()
    names = [name for name in _state(begun) if "/0000" not in name or "/00001" in name]
    assert {".final.txt", ".final.jsonl"} <= {"." + name.partition("00001.")[2] for name in names}
    for number, name in enumerate(names):
        out = tmp_path / str(number)
        shutil.copytree(begun, out)
        _flip(out / name)
        _run(_corpus(texts), out)
        assert _made(out) == _made(tmp_path / "undisturbed"), name


@pytest.mark.slow
def test_a_folder_in_place_of_a_file_of_the_state_is_an_error_with_its_path(tmp_path: Path) -> None:
    texts = _inputs(tmp_path / "texts", range(4))
    _run(_corpus(texts), tmp_path / "first")
    for number, name in enumerate(_state(tmp_path / "first")):
        out = tmp_path / str(number)
        shutil.copytree(tmp_path / "first", out)
        _fold(out / name)
        message = _message_of(_corpus(texts), out)
        assert message is None or str(out / ".alm") in message


def test_names_in_the_state_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    texts, out = _inputs(tmp_path / "texts", range(4)), tmp_path / "out"
    _run(_corpus(texts), out)
    others = ["²²²²²", "٠٠٠٩٩.txt", "00000", "caf\udce9"]
    for name in others:
        (out / ".alm" / "s" / name).write_text("mine")
    _run(_corpus(texts), out, force=True)
    assert all((out / ".alm" / "s" / name).read_text() == "mine" for name in others)


def test_a_marker_is_trusted_only_with_its_checksum(tmp_path: Path) -> None:
    path, held = tmp_path / "held.json", HoldOut(digest="a" * 64, cut=0.25)
    write_marker(path, held)
    assert read_marker(path, HoldOut) == held
    path.write_text(path.read_text().replace("0.25", "0.26"))
    assert read_marker(path, HoldOut, may_lack_checksum=True) is None
    path.write_text(held.model_dump_json())  # as earlier versions wrote it
    assert read_marker(path, HoldOut, may_lack_checksum=True) == held
    assert read_marker(path, HoldOut) is None
    for damage in ("", "[]", "{", "9" * 5000, '{"digest": 1}', "[" * 9000):
        path.write_text(damage)
        assert read_marker(path, HoldOut, may_lack_checksum=True) is None


def test_decisions_with_another_hash_are_refused(tmp_path: Path) -> None:
    texts, out = _inputs(tmp_path / "texts", range(4)), tmp_path / "out"
    _run(_corpus(texts), out)
    from alm.corpus.pipeline.unit_store import UnitFiles

    with pytest.raises(ArtifactError, match="has changed since it was written"):
        Decisions.read(UnitFiles(out / ".alm" / "s" / "lines", 0), "0" * 64)


# ---- what is held out ---------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[CorpusConfig, Path]:
    """A corpus whose hashes hold out nothing, so that one text was chosen."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"text {number}\n" * (number + 2))
    source = {"kind": "files", "paths": str(folder), "document": "file"}
    config = load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": 0.000001})
    metadata = _run(config, tmp_path / "out")
    assert metadata.held is not None
    assert metadata.held == read_marker(tmp_path / "out/.alm/s/held.json", HoldOut)
    (folder / "9.txt").write_text("more\n")
    return config, tmp_path / "out"


def _held_out(out: Path) -> list[str]:
    lines = [json.loads(line) for path in sorted(out.glob("s-*.jsonl")) for line in path.read_text().splitlines()]
    return [line["sha256"] for line in lines if line["split"] == "validation"]


@pytest.mark.parametrize("harm", [_flip, _cut, Path.unlink, _fold])
def test_what_is_held_out_is_remembered_twice(tiny: tuple[CorpusConfig, Path], harm: Callable[[Path], None]) -> None:
    config, out = tiny
    before = _held_out(out)
    harm(out / ".alm/s/held.json")
    if harm is not _fold:
        _run(config, out)
        assert _held_out(out) == before
        assert read_marker(out / ".alm/s/held.json", HoldOut) is not None  # written again


def test_a_damaged_memory_without_a_copy_is_an_error_that_says_how_to_go_on(tiny: tuple[CorpusConfig, Path]) -> None:
    config, out = tiny
    values = json.loads((out / "s.json").read_text())
    del values["held"], values["checksum"]  # as earlier versions wrote it
    (out / "s.json").write_text(json.dumps(values))
    _flip(out / ".alm/s/held.json")
    for force in (False, True):
        with pytest.raises(ArtifactError, match="records which text of `s` is held out") as caught:
            _run(config, out, force=force)
        assert "mv" in str(caught.value.hint)
        assert "--force" in str(caught.value.hint)
    (out / ".alm/s/held.json").rename(out / ".alm/s/held.damaged")
    assert _run(config, out, force=True).validation_documents == 1


def test_a_report_that_is_damaged_is_taken_from_the_report_of_all(tmp_path: Path) -> None:
    texts, out, events = _inputs(tmp_path / "texts", range(4)), tmp_path / "out", list[Event]()
    _run(_corpus(texts), out)
    before = (out / "_report.json").read_bytes()
    _flip(out / ".alm/s/report.json")
    _run(_corpus(texts), out)
    assert (out / "_report.json").read_bytes() == before
    _flip(out / ".alm/s/report.json")
    (out / "_report.json").unlink()
    _run(_corpus(texts), out, on_event=events.append)
    assert any(isinstance(event, Noted) and "report leaves out `s`" in event.message for event in events)


def test_metadata_that_no_corpus_wrote_is_left_alone(tmp_path: Path) -> None:
    texts, out = _inputs(tmp_path / "texts", range(2)), tmp_path / "out"
    for name, data in {"s.json": "{}", "s-00000.jsonl": '{"text": "mine"}\n', "s-00000.txt": "mine\n"}.items():
        out.mkdir()
        (out / name).write_text(data)
        for force in (False, True):
            with pytest.raises(ArtifactError, match="no corpus wrote it"):
                _run(_corpus(texts), out, force=force)
        assert (out / name).read_text() == data
        shutil.rmtree(out)


def test_state_of_any_number_of_values_is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parse, "MOST_VALUES", 10)
    files = UnitFiles(tmp_path, 0)
    with UnitWriter(files, signs=False, has_lines=False) as writer:
        for number in range(50):
            writer.add("a", b"a", origin=f"a.txt#{number}", bytes_before=1, changes={}, is_compared=False)
    marker = writer.save(key="k", capped=None, counts=RunningCounts().frozen())
    assert read_marker(files.marker, UnitMarker) == marker
    assert len(files.read_details()[0]) == 50
