"""Several ranks under torchrun's launcher: same batches and gradients, exact resumes, one word when it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranked
import torch

from alm.checkpoint.load import load_checkpoint
from alm.training.monitoring import metrics
from alm.training.pretrain import pretrain

# fp32 sums of a step's gradients in another order, next to the largest gradient of the same matrix.
GRADIENT_TOLERANCE = 2e-6
# What that becomes in weights after four steps, which move a weight by its gradient at most (SMOOTH).
WEIGHT_TOLERANCE = 2e-5
# The same with Muon, whose polynomials enlarge what is small in a gradient, and with it roundings.
MUON_TOLERANCE = 1e-4
# The same in fp16, whose roundings differ where sums do.
HALF_TOLERANCE = 1e-3
# Of all parts, which calm take half a minute: processes that wait for each other wait long where others compute too.
LONGEST_SECONDS = 1200
# Sizes come in the order in which they need each other: 3 ranks resume a run of 2.
CHECKS = ("checks-2", "checks-3", "checks-4")
ENDS = ("killed-3", "signalled-2", "error-2", "bug-2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX"),
    pytest.mark.timeout(1400),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def ended(data: Path, out: Path) -> dict[str, dict[str, Any]]:
    """How each part of `tests/ranked.py` ended: the exit codes of the ranks that failed, and their stderr."""
    tests = Path(ranked.__file__).parent
    subprocess.run(
        [sys.executable, ranked.__file__, str(data), str(out), *CHECKS, *ENDS],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
        timeout=LONGEST_SECONDS, check=True,
    )  # fmt: skip
    return {part: json.loads((out / f"{part}.json").read_text()) for part in (*CHECKS, *ENDS)}


@pytest.fixture(scope="module")
def each(ended: dict[str, dict[str, Any]], out: Path) -> dict[int, dict[str, Any]]:
    """What the ranks found, by their number."""
    for part in CHECKS:
        assert ended[part]["codes"] == {}, ended[part]["stderr"]
    return {size: json.loads((out / f"found-{size}.json").read_text()) for size in (2, 3, 4)}


@pytest.fixture(scope="module")
def two(each: dict[int, dict[str, Any]]) -> dict[str, Any]:
    return each[2]


@pytest.fixture(scope="module")
def three(each: dict[int, dict[str, Any]]) -> dict[str, Any]:
    return each[3]


@pytest.fixture(scope="module")
def four(each: dict[int, dict[str, Any]]) -> dict[str, Any]:
    return each[4]


@pytest.fixture(scope="module")
def alone(data: Path, out: Path) -> dict[str, str]:
    """Hashes of the runs of one process."""
    found = {kind: ranked.trained(kind, data, out) for kind in ("ddp", "tree", "ddp8")}
    assert ranked.resumed("ddp", data, out) == found["ddp"]
    return found


def test_ranks_hear_each_other(each: dict[int, dict[str, Any]]) -> None:
    for size, found in each.items():
        said = found["spoken"]
        assert said["sum"] == [size * (size + 1) / 2, 10.0 * size]
        assert said["greatest"] == size - 1
        assert said["gathered"] == [{"rank": rank} for rank in range(size)]
        assert said["from_main"] == "rank 0"
    assert [each[size]["spoken"]["exchanged"] for size in (2, 4)] == [[1.0, 0.0], [1.0, 0.0, 3.0, 2.0]]


def test_muon_on_parts_is_muon_on_whole_matrices(each: dict[int, dict[str, Any]]) -> None:
    assert [found["muon"] for found in each.values()] == [True] * 3


def test_gradients_are_those_of_one_process(each: dict[int, dict[str, Any]]) -> None:
    for size, found in each.items():
        for kind, compared in found["gradients"].items():
            assert compared["worst"] <= (0.0 if kind == "tree" else GRADIENT_TOLERANCE), (size, kind)
            for ours, theirs in (compared["loss"], compared["norm"]):
                assert ours == pytest.approx(theirs, rel=GRADIENT_TOLERANCE), (size, kind)


def test_the_score_is_the_same_to_the_last_bit(each: dict[int, dict[str, Any]]) -> None:
    for found in each.values():
        assert len(set(map(tuple, [found["score_alone"], *found["scores"].values()]))) == 1
    assert len({tuple(found["score_alone"]) for found in each.values()}) == 1


def test_resuming_is_exact_at_every_number_of_ranks(each: dict[int, dict[str, Any]]) -> None:
    for size, found in each.items():
        for kind, bits in found["resumed"].items():
            assert bits == found["trained"][kind], (size, kind)


def test_a_reproducible_run_has_the_same_bits_at_1_2_and_4_ranks(
    two: dict[str, Any], four: dict[str, Any], alone: dict[str, str], out: Path
) -> None:
    assert two["trained"]["tree"] == four["trained"]["tree"] == alone["tree"]
    losses = [[row.get("loss") for row in metrics.read(out / f"tree-{size}")] for size in (1, 2, 4)]
    assert losses[0] == losses[1] == losses[2]
    # What it is measured against: the plain way differs.
    assert two["trained"]["ddp8"] != alone["ddp8"]


def test_weights_are_those_of_one_process_but_for_rounding(
    each: dict[int, dict[str, Any]], alone: dict[str, str], out: Path
) -> None:
    expected = load_checkpoint(out / "ddp-1" / "ckpt-last.pt")
    muons = [load_checkpoint(out / name / "ckpt-last.pt").model for name in ("muon-2", "muon-fsdp-2", "muon-fsdp-3")]
    for key, tensor in muons[0].items():
        for other in muons[1:]:
            assert torch.allclose(other[key], tensor, atol=MUON_TOLERANCE), key
    halves = [load_checkpoint(out / name / "ckpt-last.pt") for name in ("half-2", "half-fsdp-2")]
    assert halves[0].loss_scaler == halves[1].loss_scaler == {"scale": 2.0**18, "good_steps": 0}
    for key, tensor in halves[0].model.items():
        assert torch.allclose(tensor, halves[1].model[key], atol=HALF_TOLERANCE), key
    for name in ("ddp-2", "ddp-3", "fsdp-2", "fsdp-3"):
        found = load_checkpoint(out / name / "ckpt-last.pt")
        assert list(found.model) == list(expected.model)
        assert len(found.rng) == int(name[-1])
        for key, tensor in found.model.items():
            assert torch.allclose(tensor, expected.model[key], atol=WEIGHT_TOLERANCE), (name, key)


def test_a_checkpoint_loads_at_any_number_of_ranks_and_either_way_of_sharing(
    data: Path, out: Path, two: dict[str, Any], three: dict[str, Any], tmp_path: Path
) -> None:
    middle = f"ckpt-step{ranked.STOP:06d}.pt"
    assert three["loaded"] == ranked.bits(out / "ddp-2", middle)
    run = out / "fsdp-2"
    assert ranked.loaded(ranked.config_of("ddp"), data, run) == ranked.bits(run, middle)


def test_all_ranks_hear_that_a_run_has_another_length(two: dict[str, Any]) -> None:
    found = two["kept_in_time"]
    assert found["steps"] == 10  # by the clock of the main rank
    assert found["bits"][0] == found["bits"][1]


def test_only_the_main_rank_writes(each: dict[int, dict[str, Any]], alone: dict[str, str], out: Path) -> None:
    for size in (2, 3):
        assert {path.name for path in (out / f"ddp-{size}").iterdir()} == {
            path.name for path in (out / "ddp-1").iterdir()
        }
        rows = metrics.read(out / f"ddp-{size}")
        assert [row["step"] for row in rows] == [row["step"] for row in metrics.read(out / "ddp-1")]


def said(done: dict[str, Any]) -> list[str]:
    """What the ranks say of how it ended."""
    return [line for line in done["stderr"].splitlines() if line.startswith("Error: ")]


def test_a_rank_that_dies_ends_the_others_with_one_message(
    ended: dict[str, dict[str, Any]], data: Path, out: Path
) -> None:
    done = ended["killed-3"]
    # The launcher reports the one that it saw first.
    assert done["codes"]
    assert done["codes"].items() <= {"0": 1, "1": 1, "2": -signal.SIGKILL}.items()
    (line,) = said(done)
    assert "another rank of this run has ended, or no longer answers" in line
    assert "rank 0 of 3: " in line or "rank 1 of 3: " in line
    # The main rank had the weights of the last whole step, and kept them.
    assert (out / "killed" / "ckpt-step000003-interrupt.pt").is_file()
    pretrain(ranked.config_of("ddp"), data=data, out=out / "killed", device_name="cpu")


def test_a_signal_to_one_rank_stops_all_after_the_same_step(ended: dict[str, dict[str, Any]], out: Path) -> None:
    done, run = ended["signalled-2"], out / "signalled"
    (line,) = said(done)
    assert line == f"Error: terminated at step 3; saved `{run / 'ckpt-step000003-interrupt.pt'}`"
    assert done["codes"]["0"] == 143
    assert load_checkpoint(run / "ckpt-last.pt").step == 3


@pytest.mark.parametrize(
    ("part", "line"), [("error-2", "Error: rank 1 of 2: the disk is on fire"), ("bug-2", "on rank 1 of 2")]
)
def test_an_error_on_one_rank_is_told_once_with_its_rank(
    ended: dict[str, dict[str, Any]], part: str, line: str
) -> None:
    done = ended[part]
    assert done["codes"]
    assert line in done["stderr"]
    assert len(said(done)) == 1
    assert "no longer answers" not in done["stderr"]
