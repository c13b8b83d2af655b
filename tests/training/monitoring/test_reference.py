"""Reference curves: the band of a few seeds, and which runs may be held against it."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from builders import run_config, write_packed

from alm.artifacts import PackMetadata
from alm.config import presets
from alm.config.load import Part, load
from alm.errors import ArtifactError
from alm.packing.shards import open_packed
from alm.training.config import RunConfig
from alm.training.monitoring import reference
from alm.training.monitoring.reference import Point, Reference, band, data_sha256, deciding, is_alike, matching


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PackMetadata:
    return write_packed(tmp_path_factory.mktemp("data"))[1]


def made(packed: PackMetadata, **changes: object) -> Reference:
    return Reference(
        config=deciding(run_config(**changes)),
        preset="nano",
        data_sha256=data_sha256(packed),
        seeds=(1, 2, 3),
        points=(Point(step=1, mean=2.0, low=1.9, high=2.1),),
    )


def test_the_band_is_a_prediction_interval_for_one_more_seed() -> None:
    scores = [3.0, 3.2, 3.4]  # of standard deviation 0.2
    points = band([[(10, score), (20, score)] for score in scores])
    assert [point.step for point in points] == [10, 20]
    # Student's t of two degrees of freedom leaves 5% above 2.920 (any table).
    half = 2.920 * 0.2 * math.sqrt(4 / 3)
    assert points[0].mean == pytest.approx(3.2)
    assert points[0].high - points[0].mean == pytest.approx(half, abs=1e-4)
    assert points[0].mean - points[0].low == pytest.approx(half, abs=1e-4)


def test_neighbouring_points_share_their_spread() -> None:
    curves = [[(step, 2.0 + (seed if step == 50 else 0)) for step in range(10, 100, 10)] for seed in range(3)]
    halves = {point.step: point.high - point.mean for point in band(curves)}
    alone = statistics.stdev([2.0, 3.0, 4.0]) * 2.920 * math.sqrt(4 / 3)
    # One of five points within two steps of the validations has a spread at all.
    assert [halves[step] for step in (20, 30, 50, 70, 80)] == pytest.approx(
        [0, *[alone / math.sqrt(5)] * 3, 0], abs=1e-3
    )


def test_between_two_points_the_band_is_straight_in_the_logarithm_of_the_step(packed: PackMetadata) -> None:
    points = (Point(step=100, mean=3.0, low=2.8, high=3.2), Point(step=400, mean=2.0, low=1.9, high=2.1))
    known = made(packed).model_copy(update={"points": points})
    assert known.at(100) == points[0]
    assert known.at(400) == points[1]
    between = known.at(200)
    assert between is not None
    assert (between.mean, between.low, between.high) == pytest.approx((2.5, 2.35, 2.65))
    assert known.at(99) is None
    assert known.at(401) is None


def test_a_run_finds_the_reference_of_its_preset(packed: PackMetadata, tmp_path: Path) -> None:
    assert matching(run_config(), packed, folder=tmp_path) is None
    (tmp_path / "nano.json").write_text(made(packed).model_dump_json(exclude={"inputs"}))
    (tmp_path / "other.json").write_text(made(packed, model__d_model=32).model_dump_json())
    found = matching(run_config(), packed, folder=tmp_path)
    assert found is not None
    assert found.config == deciding(run_config())
    other = matching(run_config(model__d_model=32), packed, folder=tmp_path)
    assert other is not None
    assert other.config["model.d_model"] == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"optim__lr": 0.5},
        {"training__seed": 7},
        {"training__precision": "bf16"},
        {"training__gradient_accumulation": 4, "training__micro_batch_size": 1},
        {"validation__interval": 1},
    ],
)
def test_what_the_comparison_is_for_may_differ(
    packed: PackMetadata, tmp_path: Path, changes: dict[str, object]
) -> None:
    (tmp_path / "nano.json").write_text(made(packed).model_dump_json())
    assert matching(run_config(**changes), packed, folder=tmp_path) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"model__n_layers": 2},
        {"training__max_steps": 11},
        {"training__gradient_accumulation": 1},
        {"scheduler__warmup_steps": 1},
        {"validation__bytes": 499},
        {"data__mixture": {"one": 1.0}},
    ],
)
def test_what_shapes_the_curve_may_not(packed: PackMetadata, tmp_path: Path, changes: dict[str, object]) -> None:
    (tmp_path / "nano.json").write_text(made(packed).model_dump_json())
    assert matching(run_config(**changes), packed, folder=tmp_path) is None


def test_other_text_or_rows_of_another_length_have_no_reference(packed: PackMetadata, tmp_path: Path) -> None:
    (tmp_path / "nano.json").write_text(made(packed).model_dump_json())
    for number, changes in enumerate([{"seed": 1}, {"seq_len": 8}, {"documents": 190}]):
        other = write_packed(tmp_path / str(number), **changes)[1]
        assert matching(run_config(), other, folder=tmp_path) is None
    for changes in ({"seq_len": 8}, {"mode": "bestfit"}):  # the same bytes may be cut otherwise
        assert matching(run_config(), packed.model_copy(update=changes), folder=tmp_path) is None
    again = open_packed(write_packed(tmp_path / "elsewhere")[0]).metadata
    assert matching(run_config(), again, folder=tmp_path) is not None


def test_a_damaged_reference_says_how_to_mend_it(packed: PackMetadata, tmp_path: Path) -> None:
    (tmp_path / "nano.json").write_text("{")
    with pytest.raises(ArtifactError, match="nano.json") as caught:
        matching(run_config(), packed, folder=tmp_path)
    assert caught.value.hint == "install `a-lm` again: `pip install --force-reinstall a-lm`"


def test_the_references_that_ship_are_whole_and_of_their_presets_as_they_are() -> None:
    for path in sorted(reference.FOLDER.glob("*.json")):
        known = Reference.model_validate_json(path.read_text("utf-8"))
        assert (known.preset, len(known.seeds)) == (path.stem, 3)
        steps = [point.step for point in known.points]
        assert steps == sorted(set(steps))
        assert steps[-1] == known.config["training.max_steps"]
        assert all(0 < point.low <= point.mean <= point.high for point in known.points)
        size = f"model.vocab_size={known.config['model.vocab_size']}"
        own = Part(presets.find(known.preset))
        is_whole = "training" in own.path.read_text("utf-8")
        parts = [own] if is_whole else [own, Part(presets.find("train"))]
        now = load(RunConfig, parts, overrides=[size])
        assert is_alike(now, known), f"make it anew: {known.command}"


def test_a_setting_that_came_later_counts_where_it_is_not_at_its_default(packed: PackMetadata, tmp_path: Path) -> None:
    older = made(packed)
    older = older.model_copy(update={"config": {k: v for k, v in older.config.items() if k != "model.head_dim"}})
    assert is_alike(run_config(), older)
    assert not is_alike(run_config(model__head_dim=6), older)
    assert not is_alike(run_config(model__d_model=32), older)
