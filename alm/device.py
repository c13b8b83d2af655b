"""Devices, their memory and speed, and the precision that is fast on them.

Device `auto` is cuda, else mps, else cpu. Precision `auto` is the one that the hardware is fast in. If no flag of the
hardware says so, it is measured: here by a short matrix product, for a run by its own model
(`alm/training/sizing/autotune.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch

from alm import available
from alm.errors import AlmError, ConfigError

Key = TypeVar("Key")
Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# A smaller gain is not worth the risk of the smaller format.
BF16_MIN_SPEEDUP = 1.2
_PROBE_WIDTH = 512
_PROBE_ROUNDS = 6
_RATE_WIDTHS = (256, 512, 1024, 2048, 4096)
_RATE_ROUNDS = 3
# A product that takes this long runs at the full rate: a wider one would only take longer.
_LONG_PRODUCT_SECONDS = 0.002
_PRODUCTS_IN_A_ROW = 8  # so that the time to wait for a GPU is a small part
_HINT = "run `alm device` to see what PyTorch can use here"


@dataclass(frozen=True)
class DeviceReport:
    """One device as PyTorch sees it. `memory_bytes` is None if unknown."""

    name: str
    available: bool
    detail: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Choice:
    """A device and the precision chosen for it, with reasons."""

    device: torch.device
    precision: Precision
    device_reason: str
    precision_reason: str


def choose(device: str = "auto", *, precision: str = "auto") -> Choice:
    """Choose the device and precision, and limit threads to usable processors. `ConfigError` for an unknown device."""
    keep_to_processors()
    chosen, device_reason = _device(device)
    if precision != "auto":
        return Choice(chosen, cast(Precision, precision), device_reason, "requested")
    fastest, precision_reason = fastest_precision(chosen)
    return Choice(chosen, fastest, device_reason, precision_reason)


def _device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "a CUDA device is available"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's Metal is available and CUDA is not"
        return torch.device("cpu"), "neither CUDA nor Apple's Metal is available"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device `{name}`: use auto, cuda, cuda:N, mps or cpu", hint=_HINT) from error
    _refuse_absent(device)
    return device, "requested"


def _refuse_absent(device: torch.device) -> None:
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("no CUDA device is available", hint=_HINT)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ConfigError(
                f"`{device}` does not exist: this machine has {torch.cuda.device_count()} CUDA devices", hint=_HINT
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("Apple's Metal (mps) is not available", hint=_HINT)
    elif device.type != "cpu":
        raise ConfigError(f"`{device.type}` is not supported: use auto, cuda, mps or cpu", hint=_HINT)


def known_precision(device: torch.device) -> tuple[Precision, str] | None:
    """Return the fastest safe precision of `device`, and why; None if it has to be measured."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return "bf16", "this GPU has bf16 hardware"
        if capability >= (7, 0):
            return "fp16", "this GPU has fp16 hardware, but no bf16 hardware"
        return "fp32", "this GPU has no fast bf16 or fp16 hardware"
    if device.type == "cpu" and not _cpu_has_bf16():
        return "fp32", "this CPU has no bf16 hardware"
    return None


def fastest_precision(device: torch.device) -> tuple[Precision, str]:
    """Return the fastest safe precision of `device`, and why. Measuring, if needed, takes a fraction of a second."""
    return known_precision(device) or by_speedup(_bf16_speedup(device), "a matrix product")


def by_speedup(speedup: float | None, what: str) -> tuple[Precision, str]:
    """Choose a precision by the measured `speedup` of `what` in bf16 over fp32; None if bf16 does not run."""
    if speedup is None:
        return "fp32", "bf16 does not run here"
    if speedup >= BF16_MIN_SPEEDUP:
        return "bf16", f"measured: {what} is {speedup:.1f} times as fast in bf16"
    return "fp32", f"measured: {what} is only {speedup:.2f} times as fast in bf16"


def _cpu_has_bf16() -> bool:
    """Whether the CPU may multiply bf16. Arm v8.6 and later do but report nothing, so the answer there is measured."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, bool)() for flag in flags)  # private: absent in other versions is False


def _bf16_speedup(device: torch.device) -> float | None:
    """Measure the time of a square product in fp32 relative to bf16: the best of each, taken in turn."""
    try:
        ones = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, device=device)
        matrices = [ones.to(dtype) for dtype in (torch.float32, torch.bfloat16)]
        products = {matrix.dtype: functools.partial(torch.matmul, matrix, matrix) for matrix in matrices}
        best = best_seconds(products, device, rounds=_PROBE_ROUNDS, warm_up=0)
    except (RuntimeError, TypeError):  # older versions of Metal refuse the type
        return None
    return best[torch.float32] / best[torch.bfloat16]


def best_seconds(
    actions: Mapping[Key, Callable[[], object]],
    device: torch.device,
    *,
    rounds: int,
    warm_up: int = 1,
    calls: int = 1,
    most_seconds: float = math.inf,
) -> dict[Key, float]:
    """Return the seconds of a call of each action: the best of `rounds`, after `warm_up` calls that do not count.

    A round makes `calls` of each action before it waits for the device. The actions take turns, so that load on the
    machine affects all of them. No round starts after `most_seconds`.
    """
    best = dict.fromkeys(actions, math.inf)
    began = time.perf_counter()
    for _ in range(warm_up):
        for action in actions.values():
            action()
    for _ in range(rounds):
        for key, action in actions.items():
            wait_for(device)
            started = time.perf_counter()
            for _ in range(calls):
                action()
            wait_for(device)
            best[key] = min(best[key], (time.perf_counter() - started) / calls)
        if time.perf_counter() - began > most_seconds:
            break
    return best


@functools.cache
def matmul_rate(device: torch.device, precision: Precision) -> float:
    """Return the FLOPs per second of matrix products in `precision`, the base of MFU. Measured once per process."""
    return measured_matmul_rate(device, precision)


def measured_matmul_rate(device: torch.device, precision: Precision) -> float:
    """Measure the best rate of wider and wider products until one takes long enough: a fraction of a second."""
    dtype = DTYPES[precision]
    best = 0.0
    for width in _RATE_WIDTHS:
        seconds = _product_seconds(device, dtype, width)
        best = max(best, 2 * width**3 / seconds)
        if seconds > _LONG_PRODUCT_SECONDS:
            break
    return best


def _product_seconds(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Measure the seconds of one product of random matrices: constant ones take less power, so a GPU runs faster."""
    draw = torch.Generator().manual_seed(width)
    left, right = (torch.randn(width, width, generator=draw).to(device, dtype) for _ in range(2))
    calls = 1 if device.type == "cpu" else _PRODUCTS_IN_A_ROW
    product = functools.partial(torch.matmul, left, right)
    return best_seconds({width: product}, device, rounds=_RATE_ROUNDS, warm_up=0, calls=calls)[width]


def peak_memory_bytes(device: torch.device) -> int | None:
    """Return the peak memory so far: of tensors on CUDA, of Metal's allocator, elsewhere of the process.

    None on Windows, where it is unknown.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2) counts bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a forward pass computes in `precision`; weights stay fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def reports() -> list[DeviceReport]:
    """List every kind of device that PyTorch supports, available or not."""
    return [*_cuda_reports(), _mps_report(), _cpu_report()]


def _cuda_reports() -> list[DeviceReport]:
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "this PyTorch is built without CUDA"
        return [DeviceReport("cuda", False, f"no device; {build}")]
    found = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        detail = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
        found.append(DeviceReport(f"cuda:{index}", True, detail, properties.total_memory))
    return found


def _mps_report() -> DeviceReport:
    if torch.backends.mps.is_available():
        return DeviceReport("mps", True, f"Apple Metal on {platform.processor() or platform.machine()}")
    built = "built in, but no device" if torch.backends.mps.is_built() else "this PyTorch is built without it"
    return DeviceReport("mps", False, built)


def _cpu_report() -> DeviceReport:
    capability = torch.backends.cpu.get_cpu_capability()
    cores = f"{available.usable_processors()} of {os.cpu_count()} cores"
    detail = f"{platform.machine()}, {cores}, {torch.get_num_threads()} threads, {capability}"
    return DeviceReport("cpu", True, detail, memory_bytes(torch.device("cpu")))


def memory_bytes(device: torch.device) -> int | None:
    """Return all memory of the device, or of the machine if the device shares it; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return available.all_memory_bytes()


def available_bytes(device: torch.device) -> int | None:
    """Return the memory that a run on `device` can still allocate; None if unknown.

    CUDA: free memory. Metal: its recommended maximum minus this process's use. CPU: `available.memory_bytes`.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    return available.memory_bytes()


def resident_bytes() -> int:
    """Return the memory of this process now; its peak if only that is known, 0 if nothing is."""
    now = available.resident_bytes()
    return now if now is not None else peak_memory_bytes(torch.device("cpu")) or 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the device, or the machine, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("DefaultCPUAllocator", "out of memory", "not enough memory", "ALLOC_FAILED")
    )


@functools.cache
def keep_to_processors() -> None:
    """Limit threads to the usable processors, once per process: PyTorch ignores a container's CPU quota.

    OMP_NUM_THREADS is the user's own choice and takes precedence.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        set_threads(min(torch.get_num_threads(), available.usable_processors()))


def set_threads(threads: int) -> None:
    """Use `threads` CPU threads in this process. Sums are bit-for-bit equal only for the same number of threads."""
    try:
        torch.set_num_threads(threads)
    except RuntimeError as error:
        raise AlmError(f"PyTorch refuses {threads} threads: {error}") from error


# Numbers of glibc's parameters M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD and M_MMAP_MAX, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_TOP_PAD_BYTES, _LARGE_BYTES = 64 * 2**20, 2**20


def keep_freed_memory() -> bool:
    """Make the C library keep large freed blocks, for this process; return whether that worked.

    By default glibc gives them back to the system, so that each training step on the CPU maps the same memory again,
    page by page. Other C libraries have no such setting.
    """
    # mallopt(3): no blocks by mmap, which are unmapped when freed; the heap is not trimmed, and grows in large pieces.
    return _set_malloc({_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _TOP_PAD_BYTES})


def give_back_large_blocks() -> bool:
    """Make the C library give large blocks back to the system when they are freed; return whether that worked.

    By default glibc keeps them once it has seen some freed, and what is still in use among them keeps gaps: two models
    that are in memory one after the other take more than the larger one.
    """
    return _set_malloc({_MMAP_THRESHOLD: _LARGE_BYTES})


def _set_malloc(settings: dict[int, int]) -> bool:
    """Set parameters of glibc's malloc for this process; return whether that worked."""
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    took = [mallopt(name, value) for name, value in settings.items()]
    return all(took)


def give_back_freed_memory() -> None:
    """Give memory kept by `keep_freed_memory` back to the system, if the C library can."""
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def wait_for(device: torch.device) -> None:
    """Wait until `device` has finished all queued work, before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def unchanged_random_state(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return a context after which PyTorch's random generators, of CPU and `device`, are as before."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def set_deterministic(device: torch.device) -> None:
    """Use kernels that sum in a fixed order, for this process. A CPU with a fixed number of threads always does."""
    if device.type == "cuda":
        # cuBLAS reads it at its first product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def environment(choice: Choice) -> dict[str, str]:
    """Describe what else determines the bits of a run: machine, versions, threads."""
    device = choice.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str, which `weights_only` loading refuses
        "platform": platform.platform(),
        "device": device.type,
        "device_name": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": choice.precision,
        "threads": str(torch.get_num_threads()),
    }
