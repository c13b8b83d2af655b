from __future__ import annotations

import pytest
from cases import for_each

from alm import kinds
from alm.config.base import OfKind
from alm.model.config import ModelConfig

PACKAGES = [
    "alm.corpus.adapters",
    "alm.corpus.filters",
    "alm.corpus.sources",
    "alm.tokenizers.models",
    "alm.optim.optimizers",
    "alm.optim.schedules",
]


def test_a_kind_is_a_module_found_by_its_name() -> None:
    assert kinds.names("alm.corpus.sources") == ["files", "huggingface", "stdin", "tale_dialogues", "tales"]


@for_each("package", PACKAGES)
def test_every_kind_has_a_config_that_names_it(package: str) -> None:
    for name in kinds.names(package):
        config = kinds.load(package, name).Config
        assert config.model_fields["kind"].default == name
        assert kinds.load(package, name).__name__ == f"{package}.{name}"


@pytest.mark.parametrize("field", ["positions", "attention", "feedforward"])
def test_a_kind_of_a_closed_set_is_a_class_with_its_name(field: str) -> None:
    of_kind = next(mark for mark in ModelConfig.model_fields[field].metadata if isinstance(mark, OfKind))
    for name in of_kind.names():
        config = of_kind.config_of(name)
        assert config.model_fields["kind"].default == name
        for key, info in config.model_fields.items():
            assert key == "kind" or info.description, f"{field}.{name}.{key}"


@pytest.mark.parametrize("name", ["_base", "no_such", "text.sub", "__init__"])
def test_a_kind_can_be_nothing_outside_its_package(name: str) -> None:
    with pytest.raises(KeyError):
        kinds.load("alm.corpus.sources", name)


@for_each("package", PACKAGES)
def test_every_field_of_every_kind_is_described(package: str) -> None:
    for name in kinds.names(package):
        for field, info in kinds.load(package, name).Config.model_fields.items():
            assert field == "kind" or info.description, f"{package}.{name}.{field}"
