"""What a quickstart makes of a time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from alm.errors import ArtifactError
from alm.model.count import count
from alm.quickstart import recipe as recipes
from alm.quickstart.recipe import SEQ_LEN, VOCAB_SIZE, Recipe, for_compute

END = 4.0


def preset_flops() -> float:
    config = Recipe().config(f"model.vocab_size={VOCAB_SIZE}")
    tokens = config.training.max_steps * config.training.micro_batch_size * SEQ_LEN
    return tokens * count(config.model).training_flops_per_token(SEQ_LEN)


def parameters(recipe: Recipe) -> int:
    return count(recipe.config(f"model.vocab_size={VOCAB_SIZE}").model).total


def at(seconds: float, *, speed: float) -> Recipe:
    return for_compute(seconds, END, speed)


SPEED = preset_flops() / 85  # of a device on which a quickstart takes about two minutes


def test_with_the_time_of_the_preset_it_is_the_preset() -> None:
    found = at(120, speed=SPEED)
    assert found.overrides == ()
    assert (found.budget, found.end) == (120, END)
    assert found.steps is not None
    assert 0.8 < found.steps / Recipe().config().training.max_steps < 1.2


def test_models_grow_with_the_square_root_of_the_compute() -> None:
    quarter, sixteen, much = (at(120, speed=SPEED * times) for times in (1 / 4, 16, 256))
    own = parameters(Recipe())
    for found, times in ((quarter, 1 / 2), (sixteen, 4), (much, 16)):
        assert times / 1.6 < parameters(found) / own < times * 1.6, found.overrides


def test_more_time_is_a_larger_model_and_more_tales_and_both_have_their_ends() -> None:
    found = [at(seconds, speed=SPEED) for seconds in (2, 30, 120, 600, 3600, 36_000, 1e7)]
    assert all(parameters(a) <= parameters(b) and a.tales <= b.tales for a, b in pairwise(found))
    assert found[0].tales == recipes.FEWEST_TALES
    assert found[-1].tales == recipes.MOST_TALES


def test_a_tale_is_seen_about_once() -> None:
    found = at(600, speed=SPEED)
    per_token = count(found.config(f"model.vocab_size={VOCAB_SIZE}").model).training_flops_per_token(SEQ_LEN)
    tokens = SPEED * 600 / per_token
    assert 0.6 < found.tales * recipes.TOKENS_PER_TALE / tokens < 1.0


def test_heads_of_every_size_share_keys_evenly() -> None:
    for seconds in (2, 10, 30, 60, 120, 300, 600, 1800, 3600, 36_000):
        model = at(seconds, speed=SPEED).config(f"model.vocab_size={VOCAB_SIZE}").model
        assert model.head_width == 32
        assert model.n_heads % model.n_kv_heads == 0


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for recipe in (Recipe(), at(600, speed=SPEED)):
        recipes.write(recipe, tmp_path / "new" / recipes.NAME)
        assert recipes.read(tmp_path / "new" / recipes.NAME) == recipe


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tales": 5, "overrides": [], "colour": 1}'])
def test_a_file_of_something_else_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / recipes.NAME).write_text(text)
    with pytest.raises(ArtifactError, match="is not what a quickstart writes") as caught:
        recipes.read(tmp_path / recipes.NAME)
    assert caught.value.hint == "run `alm quickstart --fresh`"


@pytest.mark.parametrize("steps", [1, 2, 20, 98])
def test_fewer_steps_have_a_shorter_warm_up(steps: int) -> None:
    changes = recipes.with_steps(Recipe(), steps)
    assert changes == [f"training.max_steps={steps}", f"scheduler.warmup_steps={steps // 5}"]
    assert Recipe().config(*changes).training.max_steps == steps
    assert recipes.with_steps(Recipe(), 100) == ["training.max_steps=100"]
