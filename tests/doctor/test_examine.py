"""All checks together: one that ends in an error has failed, and the others go on."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import write_packed
from cases import for_each
from checked import fails

from alm.device import Choice
from alm.doctor import checkpoints, end_to_end, examine, loading, tokenizing
from alm.doctor.check import Check, guarded, judged
from alm.errors import AlmError, ArtifactError, InputError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
FP32 = Choice(CPU, "fp32", "", "there is nothing else")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds are not measured, and memory, disk and processors are enough for what is asked of them."""
    monkeypatch.setattr(loading, "model_rate", lambda *_, **__: 1.0)
    monkeypatch.setattr(loading, "loader_rate", lambda *_, **__: 100.0)
    monkeypatch.setattr(examine, "available_bytes", lambda _: 10**11)
    monkeypatch.setattr(examine.environment, "free_space", lambda _: 10**11)
    monkeypatch.setattr(examine.torch, "get_num_threads", lambda: 1)


@pytest.mark.usefixtures("quick")
def test_a_sound_machine_passes_every_check_and_nothing_stays(tmp_path: Path) -> None:
    found = list(examine.examine(FP32, out=tmp_path))
    assert [check for check in found if check.outcome == "failed"] == []
    names = [check.name for check in found]
    assert len(set(names)) == len(names) >= 25
    skipped = [check.name for check in found if check.outcome == "skipped"]
    assert skipped == ["precision, first losses", "precision, speed", "device against CPU"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_a_chosen_bf16_is_held_against_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine.precision, "speeds", lambda *_: (2.0, 1.0))
    names = {}
    for name, check in examine._checks(Choice(CPU, "bf16", "", "asked for"), Path(), None, lambda event: None):
        if name.startswith("precision"):
            names[name] = check()
    assert [check.outcome for check in names.values()] == ["ok", "ok"]
    assert names["precision, speed"].is_note


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_check_that_crashes_fails_by_its_error_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> Check:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(end_to_end, "first_loss", crash)
    monkeypatch.setattr(tokenizing, "tokenizers", crash)
    found = {check.name: check for check in examine.examine(FP32, out=tmp_path)}
    failed = {name for name, check in found.items() if check.outcome == "failed"}
    assert failed == {end_to_end.FIRST_LOSS, tokenizing.ROUND_TRIP, tokenizing.KERNELS}
    fails(found[end_to_end.FIRST_LOSS], "RuntimeError: CUDA error: no kernel image", "pytorch.org")


def raising(error: BaseException) -> Callable[[], Check]:
    def check() -> Check:
        raise error

    return check


@for_each(
    "error, device, cause, cure",
    [
        (RuntimeError("unknown"), CUDA, "RuntimeError: unknown", "add `--device cpu`"),
        (RuntimeError("unknown"), CPU, "RuntimeError: unknown", "pip install --force-reinstall torch"),
        (RuntimeError(""), CPU, "it says nothing", "report it"),
        (MemoryError(), CPU, "MemoryError", "end other programs"),
        (RuntimeError("CUDA out of memory. Tried"), CUDA, "out of memory", "end other programs"),
        (
            NotImplementedError("The operator 'x' is not currently implemented for the MPS device."),
            MPS,
            "NotImplementedError",
            "export PYTORCH_ENABLE_MPS_FALLBACK=1",
        ),
        (RuntimeError("Failed to find C compiler"), CUDA, "C compiler", "training.compile=false"),
        (OSError(errno.EROFS, "Read-only file system", "/x/y"), CPU, "Read-only", "check `/x/y`"),
        (ImportError("no module"), CPU, "ImportError", "pip install --force-reinstall a-lm"),
        (ArtifactError("it is damaged", hint="alm pack"), CPU, "it is damaged", "alm pack"),
    ],
)
def test_an_error_is_a_failure_with_a_cure(error: Exception, device: torch.device, cause: str, cure: str) -> None:
    check = guarded("a law", raising(error), device)
    fails(check)
    assert check.name == "a law"
    assert cause in str(check.cause)
    assert cure in str(check.cure)


def test_an_interrupt_is_no_failure() -> None:
    with pytest.raises(KeyboardInterrupt):
        guarded("a law", raising(KeyboardInterrupt()), CPU)


def test_a_judgement_keeps_cause_and_cure_only_where_it_fails() -> None:
    words: dict[str, Any] = {"measured": "1", "wanted": "2", "cause": "why", "cure": "what"}
    assert judged("a", holds=True, **words) == Check("a", "ok", "1", "2")
    assert judged("a", holds=False, **words) == Check("a", "failed", "1", "2", "why", "what")


def test_checkpoints_go_to_the_disk_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def law(config: object, choice: Choice, folder: Path) -> Check:
        seen.append(folder)
        return Check("x", "ok", "")

    monkeypatch.setattr(checkpoints, "round_trips", law)
    monkeypatch.setattr(checkpoints, "resumes_exactly", law)
    for out in (tmp_path, tmp_path / "not" / "there"):
        checks = dict(examine._checks(FP32, examine._existing(out), None, lambda event: None))
        checks[checkpoints.SAVED]()
        checks[checkpoints.RESUMED]()
    assert {folder.parent for folder in seen} == {tmp_path}
    assert not any(folder.exists() for folder in seen)


def test_what_cannot_be_meant_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(InputError, match="is a file, but a folder is needed"):
        examine.examine(FP32, out=tmp_path / "a-file")
    with pytest.raises(AlmError, match="holds no packed data"):
        examine.examine(FP32, out=tmp_path, data=tmp_path / "nothing")


def test_given_data_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, _ = write_packed(tmp_path)
    monkeypatch.setattr(loading, "model_rate", lambda stream, choice, *, vocab_size: float(vocab_size))
    monkeypatch.setattr(loading, "loader_rate", lambda stream, choice: float(stream.seq_len))
    fails(examine._loader(FP32, packed), "16 rows/s read, 300 used", f"`{packed}` gives rows more slowly")
