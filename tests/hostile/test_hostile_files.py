"""Every artifact mutated: the functions that read it refuse, or return what they would have, in bounded time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile import reading

from alm.cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="the watchdog is a signal of POSIX"),
]
MUTATIONS = int(os.environ.get("ALM_HOSTILE_MUTATIONS", "300"))  # `nox -s hostile` asks for more
SEED = int(os.environ.get("ALM_HOSTILE_SEED", "0"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")

    def command(*arguments: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        assert not caught.value.code, arguments

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        reading.make(root, command)
    return root


@pytest.mark.timeout(0)
def test_no_mutation_crashes_hangs_or_changes_a_result_silently(
    made: Path, record_property: Callable[[str, object], None]
) -> None:
    outcome = reading.attack(made, mutations_wanted=MUTATIONS, seed=SEED)
    record_property("outcomes", dict(outcome.counts))  # `--junit-xml` writes them down
    assert outcome.violations == []
    assert outcome.counts["refused"] > MUTATIONS / 4


def test_something_else_than_a_file_in_its_place_is_refused(made: Path) -> None:
    for name, path in reading.files_of(made):
        for kind in reading.replaced(path, made):
            for reader in reading.READERS[name]:
                found = reading.judged(reader, made, None, may_differ=True)
                assert found in ("refused", "allowed", "equal"), (path, kind, found)
