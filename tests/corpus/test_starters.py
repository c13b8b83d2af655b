"""Two processes at once: what they share is safe, and what they cannot share is refused before anything is written."""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from alm.config.load import load
from alm.corpus.config import CorpusConfig
from alm.corpus.pipeline.prepare import Share, prepare
from alm.corpus.read import find, read_documents
from alm.corpus.sources import SPOOL
from alm.errors import AlmError, ConfigError, InputError
from alm.events import Event, UnitsProgressed
from alm.files import exclusive

UNIT = 60


def _texts(root: Path, name: str, count: int = 6) -> str:
    folder = root / name
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.txt").write_text(f"{name} {number} " * 5)
    return str(folder)


def _corpus(**sources: dict[str, object]) -> CorpusConfig:
    return load(CorpusConfig, [], base={"sources": sources, "validation_fraction": 0.2})


def _files(paths: str) -> dict[str, object]:
    return {"kind": "files", "paths": paths}


def _tree(root: Path) -> dict[str, bytes]:
    found = (path for path in sorted(root.rglob("*")) if path.is_file() and not path.name.endswith("lock"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def _made(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(out.iterdir()) if p.is_file() and not p.name.startswith("_")}


def _at_once(*starters: Callable[[], object]) -> list[BaseException | None]:
    """What each ends in. A lock is held by a descriptor, so threads exclude each other as processes do."""
    ready = threading.Barrier(len(starters))
    ends: list[BaseException | None] = [None] * len(starters)

    def run(number: int) -> None:
        ready.wait()
        try:
            starters[number]()
        except AlmError as error:
            ends[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(starters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


class _Standard:
    """Standard input that holds `data`."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


def test_different_sources_are_prepared_into_one_folder_at_once(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    sources = {name: _files(_texts(tmp_path, name)) for name in names}
    for name in names:
        prepare(_corpus(**sources), out=tmp_path / "alone", only=[name], unit_bytes=UNIT)
    for turn in range(4):
        out = tmp_path / f"together{turn}"
        ends = _at_once(
            *(
                lambda name=name, out=out: prepare(_corpus(**sources), out=out, only=[name], unit_bytes=UNIT)
                for name in names
            )
        )
        assert ends == [None] * len(names)
        assert _made(out) == _made(tmp_path / "alone")
        report = (out / "_report.json").read_text()
        assert all(f'"source": "{name}"' in report for name in names)


def test_the_same_source_is_refused_while_another_process_prepares_it(tmp_path: Path) -> None:
    out, config = tmp_path / "out", _corpus(a=_files(_texts(tmp_path, "a")))
    refusals: list[AlmError] = []

    def start_another(event: Event) -> None:
        if isinstance(event, UnitsProgressed) and not refusals:
            before = _tree(out)
            for share in (None, (0, 2)):
                with pytest.raises(AlmError, match="is being worked on by") as caught:
                    prepare(config, out=out, unit_bytes=UNIT, share=share)
                refusals.append(caught.value)
            assert _tree(out) == before

    prepare(config, out=out, unit_bytes=UNIT, on_event=start_another)
    assert [error.exit_code for error in refusals] == [1, 1]
    assert not list(out.rglob("*lock"))


def test_standard_input_is_taken_in_only_under_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, config = tmp_path / "out", _corpus(stdin={"kind": "stdin"})
    state = out / ".alm" / "stdin"
    state.mkdir(parents=True)
    (state / SPOOL).write_bytes(b"of the one that runs")
    monkeypatch.setattr(sys, "stdin", _Standard(b"of the other one"))
    with exclusive(state / "lock", what="it"), pytest.raises(AlmError, match="is being worked on by"):
        prepare(config, out=out)
    assert (state / SPOOL).read_bytes() == b"of the one that runs"
    prepare(config, out=out)
    assert [document.text for document in read_documents(find([out]))] == ["of the other one"]
    monkeypatch.setattr(sys, "stdin", _Standard(b"of the other one"))
    prepare(config, out=out)  # up to date
    assert not (state / SPOOL).exists()


def test_jobs_cannot_share_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", _Standard(b"text"))
    with pytest.raises(ConfigError, match="jobs cannot share"):
        prepare(_corpus(stdin={"kind": "stdin"}), out=tmp_path / "out", share=(0, 2))
    assert not (tmp_path / "out").exists()


def test_standard_input_that_cannot_be_read_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, os.strerror(5))

    standard = _Standard(b"")
    standard.buffer = Broken()
    monkeypatch.setattr(sys, "stdin", standard)
    with pytest.raises(InputError, match="standard input cannot be read"):
        prepare(_corpus(stdin={"kind": "stdin"}), out=tmp_path / "out")


def test_jobs_that_share_a_source_work_at_once_and_have_one_plan(tmp_path: Path) -> None:
    config, plans = _corpus(a=_files(_texts(tmp_path, "a", 12))), set[bytes]()
    prepare(config, out=tmp_path / "alone", unit_bytes=UNIT)
    out = tmp_path / "shared"
    shares: list[Share] = [(number, 3) for number in range(3)]

    def job(share: Share) -> None:
        prepare(config, out=out, unit_bytes=UNIT, share=share)
        plans.add((out / ".alm" / "a" / "plan.json").read_bytes())

    assert _at_once(*(lambda share=share: job(share) for share in shares)) == [None] * 3
    assert len(plans) == 1
    prepare(config, out=out, unit_bytes=UNIT)
    assert _made(out) == _made(tmp_path / "alone")


def test_no_process_finishes_while_jobs_share(tmp_path: Path) -> None:
    config, out = _corpus(a=_files(_texts(tmp_path, "a"))), tmp_path / "out"
    with exclusive(out / ".alm" / "a" / "share-0-of-2.lock", what="a share"):
        with pytest.raises(AlmError, match="is being worked on by"):
            prepare(config, out=out, unit_bytes=UNIT)
        with pytest.raises(AlmError, match="share 0 of 2 of source `a`"):
            prepare(config, out=out, unit_bytes=UNIT, share=(0, 2))
        prepare(config, out=out, unit_bytes=UNIT, share=(1, 2))
    prepare(config, out=out, unit_bytes=UNIT)
