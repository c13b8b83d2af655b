from __future__ import annotations

from pathlib import Path

import pytest
from cases import for_each

from alm.config import presets
from alm.config.load import Part, load
from alm.corpus.config import CorpusConfig
from alm.errors import ConfigError
from alm.training.config import RunConfig


@for_each("name", presets.names())
def test_every_shipped_configuration_is_right(name: str) -> None:
    path = presets.find(name)
    schema = CorpusConfig if "sources:" in path.read_text(encoding="utf-8") else RunConfig
    load(schema, [Part(path)])


def test_a_name_is_a_preset_and_a_slash_makes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pico.yaml").write_text("model: {}\n")
    assert presets.find("pico") == presets.folder() / "pico.yaml"
    assert presets.find("pico.yaml") == Path("pico.yaml")
    assert presets.find("./pico.yaml") == Path("pico.yaml")


def test_an_unknown_preset_names_its_neighbour() -> None:
    with pytest.raises(ConfigError, match=r"no preset is named `pcio` \(did you mean `pico`\?\)"):
        presets.find("pcio")


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        presets.find(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="is a folder"):
        presets.find(f"{tmp_path}/")
