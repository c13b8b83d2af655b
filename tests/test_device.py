from __future__ import annotations

import contextlib
import itertools
import os
import sys
from pathlib import Path
from types import SimpleNamespace

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


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((6, 1), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")],
)
def test_a_gpu_is_as_precise_as_its_generation_is_fast(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    assert device.fastest_precision(torch.device("cuda", 0))[0] == precision


def test_a_precision_asked_for_is_taken() -> None:
    for precision in ("fp32", "bf16", "fp16"):
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
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with device.autocast(torch.device("cpu"), name):
            assert (a @ a).dtype == dtype
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


def test_the_rate_of_products_is_the_best_of_widths_until_one_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {256: 1e-4, 512: 4e-4, 1024: 4e-3}
    asked: list[int] = []

    def product_seconds(_: object, __: object, width: int) -> float:
        asked.append(width)
        return seconds[width]

    monkeypatch.setattr(device, "_product_seconds", product_seconds)
    device.matmul_rate.cache_clear()
    try:
        rate = device.matmul_rate(torch.device("cpu"), "fp32")
        assert rate == pytest.approx(2 * 512**3 / 4e-4)
        assert asked == [256, 512, 1024]
        assert device.matmul_rate(torch.device("cpu"), "fp32") == rate
        assert len(asked) == 3
    finally:
        device.matmul_rate.cache_clear()


def test_a_rate_is_that_of_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []
    monkeypatch.setattr(device, "_product_seconds", lambda _, dtype, __: seen.append(dtype) or 1.0)
    for precision in ("fp32", "bf16", "fp16"):
        device.measured_matmul_rate(torch.device("cpu"), precision)
    assert list(dict.fromkeys(seen)) == [torch.float32, torch.bfloat16, torch.float16]


def test_a_measured_rate_is_that_of_the_product_that_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, before = itertools.count(0.0, 0.5), torch.get_rng_state()
    monkeypatch.setattr(device, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert device.measured_matmul_rate(torch.device("cpu"), "fp32") == 2 * 256**3 / 0.5
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it a second way")
def test_the_peak_of_memory_is_what_the_kernel_says() -> None:
    held = torch.ones(50_000_000, dtype=torch.uint8)
    told = device.peak_memory_bytes(torch.device("cpu"))
    del held
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert told is not None
    # At times much more: getrusage(2) counts what the process was before it became Python.
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0.98 * int(line.split()[1]) * 1024 < told < everything


def test_a_system_that_tells_no_peak_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert device.peak_memory_bytes(torch.device("cpu")) is None


def test_a_gpu_is_asked_for_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("torch.use_deterministic_algorithms", asked.append)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    device.set_deterministic(torch.device("cpu"))
    assert (asked, "CUBLAS_WORKSPACE_CONFIG" in os.environ) == ([], False)
    device.set_deterministic(torch.device("cuda", 0))
    assert (asked, os.environ["CUBLAS_WORKSPACE_CONFIG"]) == ([True], ":4096:8")
