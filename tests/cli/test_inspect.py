"""What `alm info` takes a path for, and how often it reads it for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import logged_row, write_run

from alm import files
from alm.cli.inspect import inspect
from alm.errors import ArtifactError
from alm.files import parse

LARGE = 100_000


def test_metadata_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_run(tmp_path / "run", [logged_row(1, 2.0)]) / "run.json"
    values = json.loads(path.read_bytes()) | {"later": "x" * LARGE}
    values.pop("checksum", None)
    path.write_text(json.dumps(values))
    read = []

    def counted(data: bytes, **keys: Any) -> Any:
        read.append(len(data))
        return parse_json(data, **keys)

    parse_json = files.parse_json
    for module in (files, parse):
        monkeypatch.setattr(module, "parse_json", counted)
    assert inspect(path.parent).what == "run"
    assert sum(size > LARGE for size in read) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (json.dumps({"a": "x" * LARGE, "format": "alm-run"}), "`config`: Field required"),
        (json.dumps({"a": "x" * LARGE, "format": "alm-clean"}), "is not an artifact"),
        (json.dumps({"format": "alm-clean", "a": "x" * LARGE}), "`config`: Field required"),
        (json.dumps({"format": "alm-run", "a": "x" * LARGE}), "`config`: Field required"),
        (json.dumps({"format": "alm-run"}), "`config`: Field required"),
        (json.dumps({"a": {"format": "alm-run"}}), "is not an artifact"),
        (json.dumps([1] * LARGE), "is not metadata"),
        ("[]", "is not metadata"),
        ("\0" * LARGE, "is damaged"),
        ('{"format": "alm-run"', "is damaged"),
        ('{"format": "alm-run"' + " " * LARGE, "is damaged"),
    ],
)
def test_a_file_is_what_its_format_says(tmp_path: Path, data: str, said: str) -> None:
    (tmp_path / "run.json").write_text(data)
    with pytest.raises(ArtifactError, match=said):
        inspect(tmp_path)
