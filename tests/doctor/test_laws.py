"""Each law of the model passes where it holds, and fails on a planted fault, with a cause and a cure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checked import fails, notes, passes
from torch import Tensor

from alm import device
from alm.device import DTYPES, Choice, Precision
from alm.doctor import end_to_end, examine, layers, models, precision
from alm.doctor.tolerance import distance, rounding
from alm.generation.backends.fixed_shape_rows import FixedShapeRows
from alm.generation.backends.numba_rows import NumbaRows
from alm.generation.backends.torch_rows import TorchRows
from alm.model.attention import MaskSpec, attend
from alm.model.init import initialize
from alm.model.kv_cache import LayerCache
from alm.model.positions import Placement, Rotary, Rotation
from alm.model.transformer import Transformer
from alm.optim.groups import PEAK_LR
from alm.training.state import init_state

CPU = torch.device("cpu")
FP32 = Choice(CPU, "fp32", "", "asked for")
BF16 = Choice(CPU, "bf16", "", "asked for")
FP16 = Choice(CPU, "fp16", "", "asked for")
PRECISIONS = pytest.mark.parametrize("choice", [FP32, BF16, FP16], ids=["fp32", "bf16", "fp16"])


def new_model(config: Any = None) -> Transformer:
    model = Transformer(config or models.plain())
    initialize(model, seed=1)
    return model


# ---- learning ----------------------------------------------------------------------------------------------


@PRECISIONS
def test_the_first_loss_of_a_sound_model_passes(choice: Choice) -> None:
    passes(end_to_end.first_loss(new_model(), models.batch(models.plain()), choice))


@pytest.mark.parametrize("factor", [100.0, math.nan])
def test_a_model_that_guesses_unevenly_at_first_fails(factor: float) -> None:
    model = new_model()
    with torch.no_grad():
        model.model.norm.weight.mul_(factor)
    fails(
        end_to_end.first_loss(model, models.batch(model.config), FP32), "guess evenly", "pip install --force-reinstall"
    )


@PRECISIONS
def test_every_parameter_of_every_kind_gets_a_gradient(choice: Choice) -> None:
    config = models.with_everything()
    check = end_to_end.gradients(new_model(config), models.batch(config), choice)
    passes(check)
    names = [name for name, _ in new_model(config).named_parameters()]
    assert check.measured.startswith(f"{len(names)} of {len(names)}")
    for part in ("router", "q_norm", "x0_scale", "value_scale", "smear", "lm_head", "small", "large"):
        assert any(part in name for name in names), part


def test_a_router_without_gradient_fails_by_name() -> None:
    config = models.with_everything()
    model = new_model(config)
    model.model.layers[0].mlp.router.weight.requires_grad_(False)
    fails(end_to_end.gradients(model, models.batch(config), FP32), "layers.0.mlp.router.weight", "breaks off")


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_gradients_that_are_nothing_or_no_number_fail(value: float) -> None:
    model = new_model()
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
    fails(end_to_end.gradients(model, models.batch(model.config), FP32), "`model.embed_tokens.weight`", "more")


@pytest.mark.sampled(1)
@PRECISIONS
def test_one_batch_is_learned_by_heart(choice: Choice) -> None:
    config = models.plain()
    passes(end_to_end.overfitted(init_state(models.run_of(config), choice), models.batch(config), choice))


def test_an_optimizer_that_goes_nowhere_or_uphill_fails() -> None:
    config = models.plain()
    for sign in (0.0, -1.0):
        state = init_state(models.run_of(config), FP32)
        for group in state.optimizer.param_groups:
            group["peak_lr"] *= sign
        fails(end_to_end.overfitted(state, models.batch(config), FP32), "does not follow the gradients")


# ---- positions ---------------------------------------------------------------------------------------------

TURNS: dict[str, Callable[[Rotation], Placement]] = {
    "stretched": lambda r: Rotation(r.cos * 1.001, r.sin * 1.001),
    "one half turned": lambda r: Rotation(r.cos, torch.zeros_like(r.sin)),
}
PLACES: dict[str, Callable[[Tensor], Tensor]] = {
    "no turn": torch.zeros_like,
    "faster and faster": lambda places: places**1.1,
    "a place twice": lambda places: places - (places > 500).float(),
    "narrow digits": lambda places: places.bfloat16().float(),
}
ROPE: dict[str, Any] = {"tokens": 1024, "width": 16, "device": CPU}


def rotary() -> Rotary:
    return Rotary(10000.0 ** -(torch.arange(0, 16, 2) / 16), max_positions=1024)


def test_a_rotation_keeps_lengths_and_counts_distances() -> None:
    passes(layers.keeps_lengths(rotary(), **ROPE))
    passes(layers.counts_distances(rotary(), **ROPE))


@pytest.mark.parametrize("turn", TURNS)
def test_what_is_no_rotation_fails(turn: str) -> None:
    sound = rotary()
    fails(layers.keeps_lengths(lambda start, length: TURNS[turn](sound(start, length)), **ROPE), "stretched")


@pytest.mark.parametrize("places", PLACES)
def test_turning_by_anything_but_the_place_fails(places: str) -> None:
    sound = rotary()
    angles = torch.outer(PLACES[places](torch.arange(1024.0)), sound.frequencies)[:, None]
    check = layers.counts_distances(lambda start, length: Rotation(angles.cos(), angles.sin()), **ROPE)
    fails(check, "cannot know their order" if places == "no turn" else "in proportion")


# ---- cached decoding ---------------------------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize("config", [models.plain(), models.with_everything()], ids=["plain", "everything"])
def test_cached_decoding_is_the_full_forward(config: Any, choice: Choice) -> None:
    passes(end_to_end.cache_agrees(models.random_model(config, CPU), models.ids(config), choice))


def off_by_one(cache: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = LayerCache.append(cache, k, v)
    return (keys, values.roll(1, dims=2)) if k.shape[2] == 1 else (keys, values)


def forgetful(cache: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    keys, values = LayerCache.append(cache, k, v)
    return keys[:, :, 1:], values[:, :, 1:]


def overwritten(cache: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    cache.length -= int(k.shape[2] == 1)
    return LayerCache.append(cache, k, v)


@PRECISIONS
@pytest.mark.parametrize("fault", [off_by_one, forgetful, overwritten])
def test_a_cache_that_is_off_by_one_fails(
    fault: Callable[[LayerCache, Tensor, Tensor], tuple[Tensor, Tensor]], choice: Choice
) -> None:
    config = models.plain()
    model = models.random_model(config, CPU)
    dtype = DTYPES[choice.precision]
    with torch.inference_mode():
        cache = end_to_end.KVCache(config, batch_size=2, max_tokens=models.TOKENS, dtype=dtype)
    for layer in cache.layers:
        layer.append = partial(fault, layer)  # type: ignore[method-assign]
    fails(end_to_end.cache_agrees(model, models.ids(config), choice, cache=cache), "one by one")


@pytest.mark.parametrize("way", [TorchRows, NumbaRows, FixedShapeRows])
def test_rows_are_the_full_forward(way: Any) -> None:
    model = models.random_model(models.plain(), CPU)
    passes(
        end_to_end.backend_agrees(
            model, models.ids(models.plain()), FP32, way(model, count=2, max_tokens=models.TOKENS)
        )
    )


@pytest.mark.parametrize("fault", ["place", "row", "weights"])
def test_rows_that_go_wrong_are_found(fault: str) -> None:
    model = models.random_model(models.plain(), CPU)
    rows = NumbaRows(model, count=2, max_tokens=models.TOKENS + 1)
    step = rows.step

    def faulty(numbers: Any, ids: Any) -> Any:
        if fault == "place" and rows._lengths[0] == 40:
            rows._lengths[0] += 1
        return step(numbers, ids[::-1] if fault == "row" else ids)

    rows.step = faulty  # type: ignore[method-assign]
    if fault == "weights":
        rows._head = dataclasses.replace(rows._head, numbers=rows._head.numbers * np.float32(1.001))
    fails(end_to_end.backend_agrees(model, models.ids(models.plain()), FP32, rows), "ALM_KERNELS=never")


# ---- attention ---------------------------------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize("case", layers.CASES, ids=lambda case: case.name)
def test_attention_agrees_with_the_plain_one(case: layers.Case, choice: Choice) -> None:
    passes(layers.attention_agrees(attend, case, choice))


def test_the_cases_take_each_way_that_a_cpu_has() -> None:
    ways = [layers.attention_agrees(attend, case, FP32).measured.partition(":")[0] for case in layers.CASES]
    assert ways == ["in blocks", "PyTorch's kernel", "in blocks", "PyTorch's, masked", "in blocks"]


def sees_the_future(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
    later = torch.zeros_like(v)
    later[:, :, :-1] = 0.3 * v[:, :, 1:]
    return attend(q, k, v + later, rules)


def unscaled(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
    return attend(q * 1.2, k, v, rules)


def swapped_heads(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
    return attend(q.flip(1), k, v, rules)


@PRECISIONS
@pytest.mark.parametrize("fault", [sees_the_future, unscaled, swapped_heads])
@pytest.mark.parametrize("case", layers.CASES, ids=lambda case: case.name)
def test_attention_that_is_wrong_fails(case: layers.Case, fault: layers.Attend, choice: Choice) -> None:
    fails(
        layers.attention_agrees(fault, case, choice), f"of {case.tokens} tokens", "pip install --force-reinstall torch"
    )


@pytest.mark.parametrize(
    "change",
    [{"window": 41}, {"slopes": None}, {"documents": None}],
    ids=["a window too wide by one", "no slopes", "no documents"],
)
def test_attention_that_forgets_a_rule_fails(change: dict[str, Any]) -> None:
    def forgetful_attend(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
        return attend(q, k, v, dataclasses.replace(rules, **change))

    case = next(case for case in layers.CASES if case.is_restricted)
    fails(layers.attention_agrees(forgetful_attend, case, FP32), "windows, documents and slopes")


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 1.1


@PRECISIONS
def test_a_gradient_of_attention_that_is_wrong_fails(choice: Choice) -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor, rules: MaskSpec) -> Tensor:
        return attend(q, _WrongBackward.apply(k), v, rules)

    fails(layers.attention_agrees(wrong, layers.CASES[0], choice), "keys' gradient")


# ---- precision ---------------------------------------------------------------------------------------------


def losses(choice: Choice, *, seed: int = 0) -> list[float]:
    config = models.plain()
    return precision.first_losses(config, choice, models.batch(config, seed=seed))


def compared(found: list[float], wanted: list[float], kind: Precision = "bf16") -> Any:
    return precision.same_losses(found, wanted, models.plain(), kind, targets=192)


NARROW = pytest.mark.parametrize("choice", [BF16, FP16], ids=["bf16", "fp16"])


@NARROW
@pytest.mark.parametrize("seed", [0, 404])  # whatever the text: no update may turn on a rounding
def test_a_narrow_precision_has_the_first_losses_of_fp32(seed: int, choice: Choice) -> None:
    exact = losses(FP32, seed=seed)
    found = losses(choice, seed=seed)
    assert found != exact
    assert exact[-1] < 0.9 * exact[0]  # so that a wrong update shows
    passes(compared(found, exact, choice.precision))


@NARROW
def test_updates_that_a_narrow_precision_shortens_fail(choice: Choice, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, sound = losses(FP32), precision.step_loss

    def short(state: Any, batch: Any, chosen: Choice) -> float:
        for group in state.optimizer.param_groups:
            group[PEAK_LR] *= 0.97
        return sound(state, batch, chosen)

    monkeypatch.setattr(precision, "step_loss", short)
    fails(compared(losses(choice), exact, choice.precision), "loses more accuracy than rounding explains")


@pytest.mark.parametrize("fault", [lambda loss: loss * 1.01, lambda loss: loss - 0.1, lambda loss: math.nan])
def test_a_precision_that_loses_more_than_its_digits_fails(fault: Callable[[float], float]) -> None:
    exact = losses(FP32)
    found = [*exact[:-1], fault(exact[-1])]
    fails(compared(found, exact), "loses more accuracy than rounding explains", "--set training.precision=fp32")


def test_a_slow_precision_is_noted_and_a_fast_one_is_not() -> None:
    passes(precision.fast_enough(1.0, 2.0, "bf16"))
    passes(precision.fast_enough(1.2, 1.0, "bf16"))
    check = precision.fast_enough(3.0, 1.0, "bf16")
    notes(check, "fp32 is faster", "--set training.precision=fp32")
    assert "0.33 times as fast" in check.measured


def test_steps_are_timed_in_turn_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"bf16": [9.0, 2.0, 3.0, 4.0], "fp32": [5.0, 1.5, 1.0, 2.0]}
    order: list[str] = []
    now = [0.0]

    def step(state: Any, batch: Any, choice: Choice) -> float:
        order.append(choice.precision)
        now[0] += times[choice.precision].pop(0)
        return 0.0

    monkeypatch.setattr(precision, "step_loss", step)
    monkeypatch.setattr(device, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    config = models.plain()
    state = init_state(models.run_of(config), FP32)
    assert precision.step_seconds([(state, BF16), (state, FP32)], models.batch(config)) == [2.0, 1.0]
    assert order == ["bf16", "fp32"] * 4


# ---- device against CPU ------------------------------------------------------------------------------------


def test_the_same_pass_twice_is_the_same() -> None:
    config = models.plain()
    made = precision.forward_backward(config, models.batch(config), CPU)
    assert set(made.gradients) == {name for name, _ in Transformer(config).named_parameters()}
    passes(precision.same_as_cpu(made, made, config, device="cuda"))


def narrowed(gradient: Tensor) -> Tensor:
    """As TF32 does: ten digits after the point."""
    return (gradient.view(torch.int32) & ~0x1FFF).view(torch.float32)


FAULTS: dict[str, Callable[[precision.PassResult], precision.PassResult]] = {
    "logits": lambda p: dataclasses.replace(p, logits=narrowed(p.logits.detach())),
    "loss": lambda p: dataclasses.replace(p, loss=p.loss.detach() * 1.0001),
    "gradient of `model.norm.weight`": lambda p: dataclasses.replace(
        p, gradients={**p.gradients, "model.norm.weight": narrowed(p.gradients["model.norm.weight"])}
    ),
    "gradient of `model.layers.0.mlp.up_proj.weight`": lambda p: dataclasses.replace(
        p, gradients={n: g for n, g in p.gradients.items() if n != "model.layers.0.mlp.up_proj.weight"}
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_device_that_computes_another_thing_fails_by_name(what: str) -> None:
    config = models.plain()
    made = precision.forward_backward(config, models.batch(config), CPU)
    fails(precision.same_as_cpu(FAULTS[what](made), made, config, device="cuda"), f"the {what} differs", "TF32")


def test_on_a_cpu_there_is_nothing_to_compare() -> None:
    assert examine._against_cpu(FP32).outcome == "skipped"


# ---- distances ---------------------------------------------------------------------------------------------


def test_distance_is_relative_and_infinite_where_nothing_compares() -> None:
    assert distance(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)
    assert distance(torch.zeros(2), torch.zeros(2)) == 0
    assert distance(torch.tensor([math.nan, 1.0]), torch.ones(2)) == math.inf
    assert distance(torch.ones(2), torch.ones(3)) == math.inf


def test_bounds_grow_with_the_unit_of_the_precision_and_the_root_of_the_depth() -> None:
    config = models.plain()
    deep = config.model_copy(update={"n_layers": 9})
    assert rounding(config, "bf16") > 1000 * rounding(config, "fp32")
    assert rounding(deep, "bf16") / rounding(config, "bf16") == pytest.approx(math.sqrt(148 / 36))
