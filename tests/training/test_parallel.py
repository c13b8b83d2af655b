"""How ranks share a step, as far as one process can show it."""

from __future__ import annotations

import re

import pytest
import torch
from builders import run_config
from cases import for_each

from alm.device import Choice
from alm.distributed import Place
from alm.errors import ConfigError
from alm.model.count import count
from alm.training.parallel import TreeSum
from alm.training.run import ranks

CPU = Choice(torch.device("cpu"), "fp32", "", "")


@for_each("number", [1, 2, 4, 8, 16])
def test_a_tree_adds_pairs_and_pairs_of_pairs(number: int) -> None:
    leaves = [torch.randn(50, generator=torch.Generator().manual_seed(seed)) * 10**seed for seed in range(number)]

    def tree(part: list[torch.Tensor]) -> torch.Tensor:
        half = len(part) // 2
        return part[0] if len(part) == 1 else tree(part[:half]) + tree(part[half:])

    counter = TreeSum(leaves)
    assert torch.equal(counter.take(), tree(leaves))
    counter.add(leaves[0])
    assert torch.equal(counter.take(), leaves[0])  # empty in between


def test_the_tree_of_parts_is_the_tree_of_all() -> None:
    leaves = [torch.randn(50, generator=torch.Generator().manual_seed(seed)) for seed in range(8)]
    for parts in (2, 4):
        size = 8 // parts
        sums = [TreeSum(leaves[i * size : (i + 1) * size]).take() for i in range(parts)]
        assert torch.equal(TreeSum(sums).take(), TreeSum(leaves).take())
    in_a_row = leaves[0]
    for leaf in leaves[1:]:
        in_a_row = in_a_row + leaf
    assert not torch.equal(in_a_row, TreeSum(leaves).take())


def test_a_counter_keeps_few_sums() -> None:
    counter = TreeSum()
    for number in range(1, 33):
        counter.add(torch.ones(1))
        assert len(counter._sums) == number.bit_count()


@pytest.mark.parametrize(
    ("micro", "accumulation", "size", "fitting", "regrouped"),
    [
        (2, 4, 3, "2 or 4", [["accumulation=3"], ["accumulation=6"]]),
        (6, 2, 3, "2", [["batch_size=4", "accumulation=3"]]),  # 12 sequences can be cut into 3 times 4
        (1, 6, 4, "3 or 6", [["accumulation=4"], ["accumulation=8"]]),
        (1, 2, 5, "2", [["accumulation=5"]]),
    ],
)
def test_a_step_that_cannot_be_shared_names_what_can(
    micro: int, accumulation: int, size: int, fitting: str, regrouped: list[list[str]]
) -> None:
    config = run_config(training__micro_batch_size=micro, training__gradient_accumulation=accumulation)
    with pytest.raises(ConfigError, match=f"{size} ranks cannot share {accumulation} micro-batches evenly") as caught:
        ranks.check(config, Place(size=size))
    hint = str(caught.value.hint)
    first, *ways = re.findall(r"use ([\d or]+) ranks|`([^`]+)`", hint)
    assert first[0] == fitting
    names = {"batch_size": "training.micro_batch_size", "accumulation": "training.gradient_accumulation"}
    flags = [[f"--set {names[key]}={value}" for key, value in (s.split("=") for s in way)] for way in regrouped]
    assert [way[1] for way in ways] == [" ".join(way) for way in flags]
    assert ("the same batch" in hint) == (len(regrouped[0]) == 2)


def test_every_number_of_ranks_that_divides_is_taken() -> None:
    config = run_config(training__gradient_accumulation=12)
    for size in (1, 2, 3, 4, 6, 12):
        ranks.check(config, Place(size=size))


@pytest.mark.parametrize(
    ("accumulation", "size", "parallel", "phrase"),
    [
        (12, 4, "ddp", "`training.gradient_accumulation` must be a power of two, not 12"),
        (4, 3, "ddp", "ranks must be a power of two, not 3"),
        (4, 2, "fsdp", "needs the full gradient on each rank"),
    ],
)
def test_what_is_not_reproducible_is_refused(accumulation: int, size: int, parallel: str, phrase: str) -> None:
    config = run_config(
        training__gradient_accumulation=accumulation, training__parallel=parallel, training__reproducible=True
    )
    with pytest.raises(ConfigError, match=phrase):
        ranks.check(config, Place(size=size))


def test_auto_is_fsdp_where_the_state_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(model__vocab_size=300)
    needed = 16 * count(config.model).total  # weight, gradient and two moments of four bytes each
    pair = Place(0, 2, 0, 2)
    for memory, expected in ((10 * needed, "ddp"), (2 * needed, "fsdp"), (None, "ddp")):
        monkeypatch.setattr("alm.device.memory_bytes", lambda _, memory=memory: memory)
        assert ranks.choose_parallel(config, CPU, pair) == expected
    monkeypatch.setattr("alm.device.memory_bytes", lambda _: 1)
    assert ranks.choose_parallel(config, CPU, Place()) == "ddp"
    assert ranks.choose_parallel(run_config(model__vocab_size=300, training__parallel="ddp"), CPU, pair) == "ddp"
    assert ranks.choose_parallel(run_config(model__vocab_size=300, training__reproducible=True), CPU, pair) == "ddp"


def test_an_optimizer_of_whole_matrices_is_not_given_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alm.optim.optimizers.adamw.WORKS_ON_PARTS", False)
    monkeypatch.setattr("alm.device.memory_bytes", lambda _: 1)
    pair = Place(0, 2, 0, 2)
    assert ranks.choose_parallel(run_config(model__vocab_size=300), CPU, pair) == "ddp"
    sharded = run_config(training__parallel="fsdp")
    with pytest.raises(ConfigError, match="the optimizer `adamw` needs full matrices") as caught:
        ranks.check(sharded, pair)
    assert "training.parallel=ddp" in str(caught.value.hint)
    ranks.check(sharded, Place())  # alone, it has all of them


def test_ranks_decide_bits_only_where_they_do() -> None:
    pair = Place(0, 2, 0, 2)
    assert ranks.label(run_config(training__parallel="ddp"), Place()) == "1"
    assert ranks.label(run_config(training__parallel="fsdp"), pair) == "2, fsdp"
    assert ranks.label(run_config(training__reproducible=True), pair) == "any"
