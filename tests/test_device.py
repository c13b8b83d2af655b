from __future__ import annotations

import contextlib
import os

import pytest
import torch

from alm import device
from alm.errors import ConfigError


def test_auto_takes_cuda_then_mps_then_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device._device("auto")[0].type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device._device("auto")[0].type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert device._device("auto")[0].type == "cpu"


@pytest.mark.parametrize(
    ("has_bf16", "speedup", "precision"),
    [(False, 9.0, "fp32"), (True, 2.0, "bf16"), (True, 1.05, "fp32"), (True, None, "fp32")],
)
def test_a_cpu_is_as_precise_as_its_hardware_is_fast(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, speedup: float | None, precision: str
) -> None:
    monkeypatch.setattr(device, "_cpu_has_bf16", lambda: has_bf16)
    monkeypatch.setattr(device, "_bf16_speedup", lambda _: speedup)
    found, reason = device.fastest_precision(torch.device("cpu"))
    assert found == precision
    assert reason


def test_a_precision_asked_for_is_taken() -> None:
    for precision in ("fp32", "bf16"):
        assert device.choose("cpu", precision=precision).precision == precision


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "xla", "meta"])
def test_a_device_that_is_none_is_told(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        device.choose(name)
    assert "alm device" in str(caught.value.hint)


def test_absent_hardware_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device"):
        device.choose("cuda")
    with pytest.raises(ConfigError, match="mps"):
        device.choose("mps")


def test_the_forward_computes_in_the_precision_chosen() -> None:
    a = torch.ones(2, 2)
    with device.autocast(torch.device("cpu"), "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    assert isinstance(device.autocast(torch.device("cpu"), "fp32"), contextlib.nullcontext)


def test_reports_and_environment_name_this_machine() -> None:
    reports = {report.name.split(":")[0]: report for report in device.reports()}
    assert set(reports) >= {"cpu", "mps", "cuda"}
    assert reports["cpu"].available
    environment = device.environment(device.choose("cpu", precision="fp32"))
    assert all(type(value) is str for value in environment.values())  # subclasses of str do not load safely
    assert environment["device"] == "cpu"


def test_full_memory_is_recognised() -> None:
    assert device.is_out_of_memory(torch.OutOfMemoryError("x"))
    assert device.is_out_of_memory(MemoryError())
    assert device.is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not device.is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not device.is_out_of_memory(ValueError("out of memory"))


def test_a_gpu_is_asked_for_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("torch.use_deterministic_algorithms", asked.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    device.set_deterministic(torch.device("cpu"))
    assert (asked, "CUBLAS_WORKSPACE_CONFIG" in os.environ) == ([], False)
    device.set_deterministic(torch.device("cuda", 0))
    assert (asked, os.environ["CUBLAS_WORKSPACE_CONFIG"]) == ([True], ":4096:8")
