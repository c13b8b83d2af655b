"""A process alone, the words of torchrun, and errors: what needs no second rank."""

from __future__ import annotations

import pytest
import torch

from alm import distributed
from alm.distributed import Place, World, is_lost, place
from alm.errors import ConfigError

TOLD = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_a_process_without_torchrun_is_alone() -> None:
    assert place({}) == place({"RANK": "0", "WORLD_SIZE": "1"}) == Place(rank=0, size=1, local_rank=0, local_size=1)
    with distributed.joined("cpu") as world:
        assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, torch.device("cpu"))


def test_the_place_is_what_torchrun_says() -> None:
    assert place({**TOLD, "LOCAL_WORLD_SIZE": "2"}) == Place(rank=3, size=4, local_rank=1, local_size=2)
    assert not place(TOLD).is_main


@pytest.mark.parametrize("missing", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_half_of_what_torchrun_says_is_refused(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"`WORLD_SIZE` is 4, but `{missing}` is not set") as caught:
        place({name: value for name, value in TOLD.items() if name != missing})
    assert "--nproc" in str(caught.value.hint)


def test_a_place_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="`WORLD_SIZE` is `two`, a number is needed"):
        place({"WORLD_SIZE": "two"})


def test_a_world_of_one_answers_itself() -> None:
    world, values = World(), torch.tensor([1.0, 2.0])
    assert world.sum_(values) is values
    assert values.tolist() == [1.0, 2.0]
    assert (world.greatest(7), world.gathered("x"), world.from_main(lambda: 5)) == (7, ["x"], 5)
    with pytest.raises(ConfigError):
        world.from_main(lambda: place({"WORLD_SIZE": "x"}))


def test_one_device_is_not_shared_by_ranks() -> None:
    with pytest.raises(ConfigError, match="each rank needs its own") as caught:
        distributed._device_of(Place(1, 2, 1, 2), "cuda:0")
    assert caught.value.hint == "use `--device cuda`"
    assert distributed._device_of(Place(1, 2, 1, 2), "cpu") == torch.device("cpu")


def test_more_ranks_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert distributed._device_of(Place(1, 4, 1, 4), "auto") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="4 ranks on this machine need as many GPUs, but it has 2") as caught:
        distributed._device_of(Place(2, 4, 2, 4), "cuda")
    assert "--nproc 2" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:1", True),
        ("NCCL error: remote process exited", True),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
        ("CUDA out of memory", False),
    ],
)
def test_a_lost_rank_is_told_from_other_faults(text: str, lost: bool) -> None:
    assert is_lost(RuntimeError(text)) is lost
