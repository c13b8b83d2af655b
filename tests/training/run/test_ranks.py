"""Several ranks, under real torchrun: the same batches and gradients, exact resumes, and one word when it ends."""

from __future__ import annotations

import json
import os
import shutil
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
# What that becomes in weights after six steps, which move a weight by its gradient at most (SMOOTH).
WEIGHT_TOLERANCE = 2e-5
# The same with Muon, whose polynomials enlarge what is small in a gradient, and with it roundings.
MUON_TOLERANCE = 1e-4
# The same in fp16, whose roundings differ where sums do.
HALF_TOLERANCE = 1e-3
# Of one start, which calm takes half a minute: processes that wait for each other wait long where others compute too.
LONGEST_SECONDS = 1200

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals to another process are POSIX"),
    pytest.mark.timeout(1400),
]


def torchrun(part: str, data: Path, out: Path, *, ranks: int) -> subprocess.CompletedProcess[str]:
    """`tests/ranked.py` as so many ranks."""
    tests = Path(ranked.__file__).parent
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *words, ranked.__file__, part, str(data), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
        capture_output=True, text=True, timeout=LONGEST_SECONDS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def found_by(ranks: int, data: Path, out: Path) -> dict[str, Any]:
    done = torchrun("checks", data, out, ranks=ranks)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((out / f"checks-{ranks}.json").read_text())
    return found


@pytest.fixture(scope="module")
def two(data: Path, out: Path) -> dict[str, Any]:
    return found_by(2, data, out)


@pytest.fixture(scope="module")
def three(data: Path, out: Path, two: dict[str, Any]) -> dict[str, Any]:
    shutil.copytree(out / "ddp-2", out / "again-3")
    return found_by(3, data, out)


@pytest.fixture(scope="module")
def four(data: Path, out: Path) -> dict[str, Any]:
    return found_by(4, data, out)


@pytest.fixture(scope="module")
def each(two: dict[str, Any], three: dict[str, Any], four: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {2: two, 3: three, 4: four}


@pytest.fixture(scope="module")
def alone(data: Path, out: Path) -> dict[str, str]:
    """Hashes of the runs of one process, each resumed from its middle."""
    found = {}
    for kind in ("ddp", "tree", "ddp8"):
        result = ranked.resumed(kind, data, out)
        assert result["through"] == result["resumed"]
        found[kind] = result["through"]
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


def test_resuming_is_exact_at_every_number_of_ranks(each: dict[int, dict[str, Any]], alone: dict[str, str]) -> None:
    for size, found in each.items():
        for kind, hashes in found["runs"].items():
            assert hashes["through"] == hashes["resumed"], (size, kind)


def test_a_reproducible_run_has_the_same_bits_at_1_2_and_4_ranks(
    two: dict[str, Any], four: dict[str, Any], alone: dict[str, str], out: Path
) -> None:
    assert two["runs"]["tree"]["through"] == four["runs"]["tree"]["through"] == alone["tree"]
    losses = [[row.get("loss") for row in metrics.read(out / f"tree-{size}")] for size in (1, 2, 4)]
    assert losses[0] == losses[1] == losses[2]
    # What it is measured against: the plain way differs.
    assert two["runs"]["ddp8"]["through"] != alone["ddp8"]


def test_weights_are_those_of_one_process_but_for_rounding(
    each: dict[int, dict[str, Any]], alone: dict[str, str], out: Path
) -> None:
    expected = load_checkpoint(out / "ddp-1" / "ckpt-last.pt")
    muons = [load_checkpoint(out / name / "ckpt-last.pt").model for name in ("muon-2", "muon-fsdp-2", "muon-fsdp-3")]
    for key, tensor in muons[0].items():
        for other in muons[1:]:
            assert torch.allclose(other[key], tensor, atol=MUON_TOLERANCE), key
    halves = [load_checkpoint(out / name / "ckpt-last.pt") for name in ("half-2", "half-fsdp-2")]
    assert halves[0].loss_scaler == halves[1].loss_scaler == {"scale": 2.0**19, "good_steps": 0}
    for key, tensor in halves[0].model.items():
        assert torch.allclose(tensor, halves[1].model[key], atol=HALF_TOLERANCE), key
    for name in ("ddp-2", "ddp-3", "ddp-4", "fsdp-2", "fsdp-3"):
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
    assert found["steps"] == 20  # by the clock of the main rank
    assert found["bits"][0] == found["bits"][1]


def test_only_the_main_rank_writes(each: dict[int, dict[str, Any]], alone: dict[str, str], out: Path) -> None:
    for size in (2, 3, 4):
        assert {path.name for path in (out / f"ddp-{size}").iterdir()} == {
            path.name for path in (out / "ddp-1").iterdir()
        }
        rows = metrics.read(out / f"ddp-{size}")
        assert [row["step"] for row in rows] == [row["step"] for row in metrics.read(out / "ddp-1")]


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What the ranks, not torchrun, say of how it ended."""
    return [line for line in done.stderr.splitlines() if line.startswith("Error: ")]


def test_a_rank_that_dies_ends_the_others_with_one_message(data: Path, tmp_path: Path) -> None:
    done = torchrun("killed", data, tmp_path, ranks=3)
    assert done.returncode != 0
    (line,) = said(done)
    assert "another rank of this run has ended, or no longer answers" in line
    assert "rank 0 of 3: " in line or "rank 1 of 3: " in line
    # The main rank had the weights of the last whole step, and kept them.
    assert (tmp_path / "killed" / "ckpt-step000003-interrupt.pt").is_file()
    pretrain(ranked.config_of("ddp"), data=data, out=tmp_path / "killed", device_name="cpu")


def test_a_signal_to_one_rank_stops_all_after_the_same_step(data: Path, tmp_path: Path) -> None:
    done = torchrun("signalled", data, tmp_path, ranks=2)
    run = tmp_path / "signalled"
    (line,) = said(done)
    assert line == f"Error: terminated at step 3; saved `{run / 'ckpt-step000003-interrupt.pt'}`"
    assert "exitcode  : 143" in done.stderr  # of the main rank, as torchrun tells it
    assert load_checkpoint(run / "ckpt-last.pt").step == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "line"), [("error", "Error: rank 1 of 2: the disk is on fire"), ("bug", "on rank 1 of 2")]
)
def test_an_error_on_one_rank_is_told_once_with_its_rank(data: Path, tmp_path: Path, how: str, line: str) -> None:
    done = torchrun(how, data, tmp_path, ranks=2)
    assert done.returncode != 0
    assert line in done.stderr
    assert len(said(done)) == 1
    assert "no longer answers" not in done.stderr
