from __future__ import annotations

import pytest

from alm import kinds

PACKAGES = [
    "alm.corpus.adapters",
    "alm.corpus.filters",
    "alm.corpus.sources",
    "alm.tokenizers.models",
    "alm.model.attention",
    "alm.model.feedforward",
    "alm.model.positions",
    "alm.optim.optimizers",
    "alm.optim.schedules",
]


def test_a_kind_is_a_module_found_by_its_name() -> None:
    assert kinds.names("alm.corpus.sources") == ["files", "huggingface", "stdin", "tales"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_kind_has_a_config_that_names_it(package: str) -> None:
    for name in kinds.names(package):
        config = kinds.load(package, name).Config
        assert config.model_fields["kind"].default == name
        assert kinds.load(package, name).__name__ == f"{package}.{name}"


@pytest.mark.parametrize("name", ["_base", "no_such", "text.sub", "__init__"])
def test_a_kind_can_be_nothing_outside_its_package(name: str) -> None:
    with pytest.raises(KeyError):
        kinds.load("alm.corpus.sources", name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_field_of_every_kind_is_described(package: str) -> None:
    for name in kinds.names(package):
        for field, info in kinds.load(package, name).Config.model_fields.items():
            assert field == "kind" or info.description, f"{package}.{name}.{field}"
