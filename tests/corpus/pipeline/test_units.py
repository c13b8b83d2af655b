"""The plan of units, and what running again does."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest

from alm import engines
from alm.artifacts import SourceMetadata
from alm.cli.event_lines import units_line
from alm.config.load import load
from alm.corpus.config import CorpusConfig
from alm.corpus.document import Part
from alm.corpus.pipeline.prepare import prepare
from alm.corpus.pipeline.units import make_plan
from alm.corpus.read import find, read_documents
from alm.errors import ArtifactError
from alm.events import Event, UnitsProgressed
from alm.formatting import size

UNIT = 2000
KILLS = 4


def texts(count: int, *, seed: int = 0) -> dict[str, str]:
    draw = random.Random(seed)
    words = [f"word{n}" for n in range(400)]
    return {f"{i:03d}.txt": " ".join(draw.choices(words, k=80)) + f"\n{i}\n" for i in range(count)}


def folder_of(root: Path, files: dict[str, str]) -> Path:
    folder = root / "texts"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def corpus(folder: Path, *, form: str = "txt", **keys: Any) -> CorpusConfig:
    source = {"kind": "files", "paths": str(folder), **keys}
    return load(CorpusConfig, [], base={"sources": {"s": source}, "validation_fraction": 0.1, "format": form})


def made(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.is_file() and not p.name.startswith("_")}


def worked_on(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (out / ".alm" / "s").glob("[0-9]*.json")}


def run(config: CorpusConfig, out: Path, **keys: Any) -> SourceMetadata:
    [metadata] = prepare(config, out=out, unit_bytes=UNIT, **keys)
    return metadata


def test_units_keep_their_parts_when_inputs_are_added() -> None:
    old = [Part(f"{n}", 40) for n in (1, 3, 5, 7)]
    first = make_plan({}, old, files=(), revision=None, licence=None, prior=None, unit_bytes=100)
    assert [[part.name for part in unit.parts] for unit in first.units] == [["1", "3"], ["5", "7"]]
    more = [Part(f"{n}", 40) for n in range(1, 8)]
    second = make_plan({}, more, files=(), revision=None, licence=None, prior=first, unit_bytes=100)
    assert second.units[:2] == first.units
    assert [(u.number, [p.name for p in u.parts]) for u in second.units[2:]] == [(2, ["2", "4"]), (3, ["6"])]
    fewer = make_plan({}, [Part("5", 40), Part("9", 1)], files=(), revision=None, licence=None, prior=first)
    assert [(u.number, [p.name for p in u.parts]) for u in fewer.units] == [(1, ["5"]), (2, ["9"])]


def test_a_part_larger_than_a_unit_is_one() -> None:
    parts = [Part("a", 1), Part("b", 500), Part("c", 1), Part("d", 1)]
    plan = make_plan({}, parts, files=(), revision=None, licence=None, prior=None, unit_bytes=100)
    assert [[part.name for part in unit.parts] for unit in plan.units] == [["a"], ["b"], ["c", "d"]]


def test_added_inputs_only_add(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, {name: text for name, text in texts(40).items() if int(name[:3]) % 2})
    out = tmp_path / "clean"
    run(corpus(folder), out)
    before, work = made(out), worked_on(out)
    folder_of(tmp_path, texts(40))
    metadata = run(corpus(folder), out)
    after = made(out)
    assert {name: after[name] for name in before if name != "s.json"} == {
        name: data for name, data in before.items() if name != "s.json"
    }
    assert {name: worked_on(out)[name] for name in work} == work
    assert metadata.documents.output == 40
    assert sorted(d.text for d in read_documents(find([out]))) == sorted(texts(40).values())


def test_a_changed_input_is_refused_and_forcing_redoes_its_unit_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, texts(20))
    out = tmp_path / "clean"
    run(corpus(folder), out)
    work = worked_on(out)
    (folder / "003.txt").write_text("something else\n")
    with pytest.raises(ArtifactError, match="003.txt"):
        run(corpus(folder), out)
    metadata = run(corpus(folder), out, force=True)
    assert metadata.documents.output == 20
    changed = {name for name, stamp in worked_on(out).items() if work.get(name) != stamp}
    assert 0 < len({name[:5] for name in changed}) <= 2  # the unit that lost a part, and the one of the new part
    assert "something else\n" in {d.text for d in read_documents(find([out]))}


def test_damage_is_mended_by_force(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, texts(20))
    out = tmp_path / "clean"
    run(corpus(folder), out)
    before = made(out)
    shard = out / "s-00001.txt"
    shard.write_bytes(b"X" + shard.read_bytes()[1:])
    (out / "s-00002.jsonl").unlink()
    run(corpus(folder), out, force=True)
    assert made(out) == before


SLOW_FORMS = [pytest.param(form, marks=pytest.mark.slow) for form in ("jsonl.zst", "parquet")]


@pytest.mark.parametrize("form", ["txt", *SLOW_FORMS])
def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path, form: str) -> None:
    folder = folder_of(tmp_path, texts(30) | {"x.txt": texts(30)["004.txt"]})
    run(corpus(folder, form=form), tmp_path / "one")
    run(corpus(folder, form=form), tmp_path / "two", engine=engines.choose("processes", workers=2))
    assert made(tmp_path / "one") == made(tmp_path / "two")
    documents = list(read_documents(find([tmp_path / "one"])))
    assert [d.text for d in documents] == list(texts(30).values())
    assert {d.split for d in documents} == {"train", "validation"}


@pytest.mark.parametrize(("form", "builder"), [("jsonl.zst", "json"), ("parquet", "parquet")])
def test_datasets_reads_the_same_documents(tmp_path: Path, form: str, builder: str) -> None:
    from datasets import load_dataset

    folder = folder_of(tmp_path, texts(10))
    metadata = run(corpus(folder, form=form), tmp_path / "clean")
    files = [str(tmp_path / "clean" / shard.file) for shard in metadata.shards]
    found = load_dataset(builder, data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert found["text"][:] == list(texts(10).values())
    assert set(found.column_names) == {"text", "id", "sha256", "cluster", "split", "origin"}


def test_shares_of_the_units_make_the_same_whole(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, texts(30))
    run(corpus(folder), tmp_path / "whole")
    out = tmp_path / "shared"
    for index in (2, 0, 1):
        assert prepare(corpus(folder), out=out, unit_bytes=UNIT, share=(index, 3)) == []
    work = worked_on(out)
    run(corpus(folder), out)
    assert {name: worked_on(out)[name] for name in work} == work
    assert made(out) == made(tmp_path / "whole")


def test_progress_tells_units_documents_and_bytes(tmp_path: Path) -> None:
    events: list[Event] = []
    metadata = run(corpus(folder_of(tmp_path, texts(20))), tmp_path / "clean", on_event=events.append)
    last = [event for event in events if isinstance(event, UnitsProgressed)][-1]
    assert last.done == last.total == len(metadata.shards)
    assert (last.documents, last.bytes, last.bytes_kept) == (20, metadata.bytes.input, metadata.bytes.kept)
    assert (last.done_before, last.bytes_before) == (0, 0)


def test_units_of_an_earlier_start_count_for_no_speed(tmp_path: Path) -> None:
    source = corpus(folder_of(tmp_path, texts(30)))
    assert prepare(source, out=tmp_path / "clean", unit_bytes=UNIT, share=(0, 3)) == []
    events: list[Event] = []
    metadata = run(source, tmp_path / "clean", on_event=events.append)
    last = [event for event in events if isinstance(event, UnitsProgressed)][-1]
    assert 0 < last.done_before < last.done
    assert 0 < last.bytes_before < last.bytes == metadata.bytes.input
    now = last.bytes - last.bytes_before
    assert f"  {size(now / 2)}/s  " in units_line(last, 2.0)
    all_found = replace(last, done_before=last.done, bytes_before=last.bytes)
    assert "/s" not in units_line(all_found, 0.001)
    assert "eta" not in units_line(all_found, 0.001)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_instant_and_run_again_gives_the_same_bytes(tmp_path: Path, workers: int) -> None:
    folder = folder_of(tmp_path, texts(300) | {f"again{i}.txt": texts(300)[f"{i:03d}.txt"] for i in range(20)})
    calm, out = tmp_path / "calm", tmp_path / "killed"
    seconds = forked.killed_after(None, forked.prepare_corpus, folder, calm, workers)
    draw = random.Random(workers)
    for _ in range(KILLS):
        forked.killed_after(draw.uniform(0.3, 1.0) * seconds, forked.prepare_corpus, folder, out, workers)
    forked.killed_after(None, forked.prepare_corpus, folder, out, workers)
    assert made(out) == made(calm)
    report = json.loads((out / "_report.json").read_text())
    assert report["sources"][0]["documents"]["dropped"] == {"exact_duplicate": 20}
