"""What a configuration accepts can be built and planned, whatever was left out; and every number has its bounds."""

from __future__ import annotations

import math
import random
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt
from cases import for_each
from pydantic.fields import FieldInfo

from alm import kinds
from alm.cli.main import main
from alm.config import presets
from alm.config.base import Config, OfKind
from alm.config.load import Part, load
from alm.config.yaml_files import read_yaml, write_yaml
from alm.corpus.config import CorpusConfig
from alm.errors import ConfigError
from alm.generation.config import SamplingConfig
from alm.model.config import ModelConfig
from alm.model.transformer import Transformer
from alm.packing.config import PackConfig
from alm.tokenizers.config import TokenizerConfig
from alm.training.config import RunConfig
from alm.training.plan import plan

ROOTS = (RunConfig, CorpusConfig, PackConfig, TokenizerConfig, SamplingConfig)
PACKAGES = ("alm.corpus.filters", "alm.corpus.adapters", "alm.export.targets", "alm.training.monitoring.sinks")
CASES = 150
# Beyond this a model of the same shape in fewer layers stands for it: layers are alike.
MOST_LAYERS = 3

EDGES: tuple[Any, ...] = (
    0, 1, 2, 3, 5, 7, 64, 100, 256, 1024, 10**6, 10**9, 10**12, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, -1, -(2**63),
    0.0, 0.5, 1.0, 1.5, -0.5, 1e-300, 1e-12, 1e308, -1e308, 5e-324, math.nextafter(1.0, 0.0), "auto", None, True,
    "", [],
)  # fmt: skip


def configs() -> dict[str, type[Config]]:
    """Every configuration that a person can write, by its full name."""
    found: dict[str, type[Config]] = {}
    for root in ROOTS:
        _add(root, found)
    for package in PACKAGES:
        for name in kinds.names(package):
            _add(kinds.load(package, name).Config, found)
    return found


def _add(config: type[Config], found: dict[str, type[Config]]) -> None:
    name = f"{config.__module__}.{config.__qualname__}"
    if name in found:
        return
    found[name] = config
    for field in config.model_fields.values():
        for part in _parts(field.annotation, field.metadata):
            if isinstance(part, OfKind):
                for kind in part.names():
                    _add(part.config_of(kind), found)
            elif isinstance(part, type) and issubclass(part, Config) and part is not Config:
                _add(part, found)


def _parts(annotation: Any, metadata: typing.Iterable[Any] = ()) -> Iterator[Any]:
    """All types and marks that an annotation is made of."""
    yield from metadata
    if get_origin(annotation) is Annotated:
        yield from _parts(get_args(annotation)[0], get_args(annotation)[1:])
    elif get_args(annotation):
        for part in get_args(annotation):
            yield from _parts(part)
    else:
        yield annotation


def _unbounded(annotation: Any, metadata: typing.Iterable[Any] = ()) -> Iterator[str]:
    """The numbers in an annotation without a bound on either side."""
    known = [mark for given in metadata for mark in (given.metadata if isinstance(given, FieldInfo) else [given])]
    if get_origin(annotation) is Annotated:
        yield from _unbounded(get_args(annotation)[0], (*get_args(annotation)[1:], *known))
    elif get_origin(annotation) is typing.Literal:
        return
    elif get_args(annotation):
        for part in get_args(annotation):
            yield from _unbounded(part, known)
    elif annotation in (int, float):
        if not any(isinstance(mark, Le | Lt) for mark in known):
            yield f"{annotation.__name__} without a greatest value"
        if not any(isinstance(mark, Ge | Gt) for mark in known):
            yield f"{annotation.__name__} without a least value"


@for_each("name", sorted(configs()))
def test_every_number_has_bounds(name: str) -> None:
    checked = {"alm.data.config.DataConfig.mixture"}  # by a validator of its own
    found = {
        f"{name}.{field}": list(_unbounded(info.annotation, info.metadata))
        for field, info in configs()[name].model_fields.items()
    }
    assert {field: missing for field, missing in found.items() if missing and field not in checked} == {}


def test_what_validators_see_are_defaults_too() -> None:
    for config in configs().values():
        assert config.model_config.get("validate_default") is True, config


def valid() -> list[dict[str, Any]]:
    """Whole configurations of a run that are right: presets, and one with each kind there is."""
    train = read_yaml(presets.find("train"))
    found = [read_yaml(presets.find(name)) | train for name in ("pico", "1m", "10m", "nano")]
    for field in ("positions", "feedforward", "attention"):
        of_kind = next(mark for mark in ModelConfig.model_fields[field].metadata if isinstance(mark, OfKind))
        found += [{**found[0], "model": {**found[0]["model"], field: {"kind": kind}}} for kind in of_kind.names()]
    for field, package in {"optim": "alm.optim.optimizers", "scheduler": "alm.optim.schedules"}.items():
        found += [{**found[0], field: {"kind": kind}} for kind in kinds.names(package)]
    found.append({**found[0], "training": {**train["training"], "reproducible": True, "micro_batch_size": 4096}})
    return [RunConfig.model_validate(values).model_dump(mode="json") for values in found]


def mutated(values: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """`values` with some keys gone and some set to an edge, at any depth."""
    found = {}
    for key, value in values.items():
        if key == "kind" or draw.random() > 0.35:
            found[key] = mutated(value, draw) if isinstance(value, dict) else value
            if key != "kind" and not isinstance(value, dict) and draw.random() < 0.06:
                found[key] = draw.choice(EDGES)
    return found


def accepted(values: dict[str, Any]) -> RunConfig | None:
    try:
        return load(RunConfig, [], base=values)
    except ConfigError:
        return None


def build_and_plan(config: RunConfig) -> None:
    """What a run does with a configuration before anything is computed."""
    vocab_size = config.model.vocab_size if isinstance(config.model.vocab_size, int) else 1000
    try:
        model = config.model.with_vocab_size(vocab_size)
    except ConfigError:
        return  # what a configuration alone does not say: how many tokens there are
    few = model.model_copy(update={"n_layers": min(model.n_layers, MOST_LAYERS)})
    if few.positions.table_bytes(few) < 2**26:  # tables are made, also on the meta device
        with torch.device("meta"):
            Transformer(few).to("meta")(torch.zeros(1, min(8, few.max_position_embeddings), dtype=torch.int64))
    try:
        found = plan(config, device_name="cpu", is_measured=False)
    except ConfigError:
        return  # what a configuration alone does not say: how long sequences are, how many ranks there are
    assert found.model.parameters > 0
    for number in (found.text.training_flops, *found.memory.memory.values()):
        assert 0 <= number < math.inf


def test_what_is_accepted_is_built_whatever_is_left_out() -> None:
    draw, right, count = random.Random(20), valid(), 0
    for values in right:
        config = accepted(values)
        assert config is not None
        build_and_plan(config)
    for _ in range(CASES):
        values = mutated(draw.choice(right), draw)
        config = accepted(values)
        if config is not None:
            count += 1
            try:
                build_and_plan(config)
            except Exception as error:
                raise AssertionError(write_yaml(values)) from error
    assert CASES // 5 < count < CASES  # neither always refused nor never


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What `alm config check` says of what it refuses."""
    with pytest.raises(SystemExit) as ended:
        main(["config", "check", *words])
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("model.n_layers=1000000000", "model.n_layers"),
        ("model.vocab_size=1000000000000", "model.vocab_size"),
        ("model.max_position_embeddings=1000000000000", "model.max_position_embeddings"),
        ("model.d_model=1000000000", "model.d_model"),
        ("training.seed=9223372036854775808", "training.seed"),
        ("training.max_steps=1" + 30 * "0", "training.max_steps"),
        ("optim.lr=1e308", "optim.lr"),
        ("model.rope_theta=1e308", "model.rope_theta"),
        ("training.gradient_clip_norm=1e308", "training.gradient_clip_norm"),
        ("data.mixture={a: 1e308, b: 1e308}", "data.mixture"),
        ("model.d_model=256", "model.n_heads"),  # the heads are those of the preset
    ],
)
def test_a_number_beyond_its_bounds_is_refused_with_its_field(
    override: str, field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"`{field}" in refusal(["pico", "train", "--set", override], capsys)


def test_a_file_without_some_keys_is_refused_where_their_defaults_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("model: {d_model: 256, n_layers: 2}\n")
    assert "`model.n_heads`: n_heads 6 does not divide d_model 256\n" in refusal([str(file)], capsys)
    file.write_text("training: {max_steps: 10}\nscheduler: {warmup_steps: 8}\n")
    assert "`scheduler`: a warm-up of 8 steps" in refusal([str(file)], capsys)
    file.write_text("training: {micro_batch_size: 1048576}\n")
    assert "gradient_accumulation 4 are more than" in refusal([str(file)], capsys)


def test_many_micro_batches_of_a_reproducible_run_are_planned_at_once() -> None:
    """Every way to cut a step is looked at: once each."""
    values = {"training": {"micro_batch_size": 2**10, "gradient_accumulation": 2**10, "reproducible": True}}
    config = load(RunConfig, [Part(presets.find("pico"))], base=values)
    assert plan(config, device_name="cpu", is_measured=False).memory.gradient_accumulation >= 2**10
