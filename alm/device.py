"""Which device, and which precision is really fast there.

`auto` takes cuda, then mps, then cpu. Precision `auto` takes what the hardware computes fast in; where a flag does not
settle that, it is measured: here by a short matrix product, for a run by its own model (`alm/training/precision.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
import time
from dataclasses import dataclass
from typing import Literal, cast

import torch

from alm import available
from alm.errors import AlmError, ConfigError

Precision = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Below this gain the risk of the smaller format is not worth it.
BF16_MIN_SPEEDUP = 1.2
_PROBE_WIDTH = 512
_PROBE_ROUNDS = 6
_RATE_WIDTHS = (256, 512, 1024, 2048, 4096)
_RATE_ROUNDS = 3
# From here on a wider product would be no faster, only longer.
_LONG_PRODUCT_SECONDS = 0.002
_PRODUCTS_IN_A_ROW = 8  # so that waiting for a GPU is a small part
_HINT = "run `alm device` to see what PyTorch can use here"


@dataclass(frozen=True)
class DeviceReport:
    """One device as PyTorch sees it. `memory_bytes` is None where it is not told."""

    name: str
    available: bool
    detail: str
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Choice:
    """A device with the precision chosen for it, and why."""

    device: torch.device
    precision: Precision
    device_reason: str
    precision_reason: str


def choose(device: str = "auto", *, precision: str = "auto") -> Choice:
    """The device and precision to use, on the processors there are. `ConfigError` for a name PyTorch does not know."""
    keep_to_processors()
    chosen, device_reason = _device(device)
    if precision != "auto":
        return Choice(chosen, cast(Precision, precision), device_reason, "asked for")
    fastest, precision_reason = fastest_precision(chosen)
    return Choice(chosen, fastest, device_reason, precision_reason)


def _device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "a CUDA device is there"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's Metal is there and CUDA is not"
        return torch.device("cpu"), "neither CUDA nor Apple's Metal is there"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"`{name}` is no device: use auto, cuda, cuda:N, mps or cpu", hint=_HINT) from error
    _refuse_absent(device)
    return device, "asked for"


def _refuse_absent(device: torch.device) -> None:
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError("no CUDA device is available", hint=_HINT)
        if device.index is not None and device.index >= torch.cuda.device_count():
            raise ConfigError(f"`{device}` does not exist: there are {torch.cuda.device_count()}", hint=_HINT)
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("Apple's Metal (mps) is not available", hint=_HINT)
    elif device.type != "cpu":
        raise ConfigError(f"`{device.type}` is not supported: use auto, cuda, mps or cpu", hint=_HINT)


def known_precision(device: torch.device) -> tuple[Precision, str] | None:
    """The fastest safe precision of `device`, and why; None where it has to be measured."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (8, 0):
            return "bf16", "this GPU has bf16 hardware"
        if capability >= (7, 0):
            return "fp16", "this GPU has fp16 hardware, and none for bf16"
        return "fp32", "this GPU has neither bf16 nor fp16 hardware that is fast"
    if device.type == "cpu" and not _cpu_has_bf16():
        return "fp32", "this CPU has no bf16 hardware"
    return None


def fastest_precision(device: torch.device) -> tuple[Precision, str]:
    """The fastest safe precision of `device`, and why. Takes a fraction of a second where it must measure."""
    return known_precision(device) or by_speedup(_bf16_speedup(device), "a matrix product")


def by_speedup(speedup: float | None, what: str) -> tuple[Precision, str]:
    """The precision in which `what` was measured to be fast, where bf16 takes 1 / `speedup` of the time of fp32.

    None is where bf16 does not run.
    """
    if speedup is None:
        return "fp32", "bf16 does not run here"
    if speedup >= BF16_MIN_SPEEDUP:
        return "bf16", f"measured: {what} is {speedup:.1f} times as fast in bf16"
    return "fp32", f"measured: {what} is only {speedup:.2f} times as fast in bf16"


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 at all. Arm does from v8.6 on and tells nobody: measuring settles it."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return True
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, flag, bool)() for flag in flags)  # private: absent in other versions is False


def _bf16_speedup(device: torch.device) -> float | None:
    """Seconds of a square product in fp32 over those in bf16: the best of each, taken in turn."""
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    try:
        for _ in range(_PROBE_ROUNDS):
            for dtype in best:
                best[dtype] = min(best[dtype], _matmul_seconds(device, dtype))
    except (RuntimeError, TypeError):  # older Metal refuses the type
        return None
    return best[torch.float32] / best[torch.bfloat16]


def _matmul_seconds(device: torch.device, dtype: torch.dtype) -> float:
    matrix = torch.ones(_PROBE_WIDTH, _PROBE_WIDTH, dtype=dtype, device=device)
    started = time.perf_counter()
    product = matrix @ matrix
    product[0, 0].item()  # waits for the device
    return time.perf_counter() - started


@functools.cache
def matmul_rate(device: torch.device, precision: Precision) -> float:
    """FLOPs a second of matrix products in `precision`, what a run's speed is held against: measured once a process."""
    return measured_matmul_rate(device, precision)


def measured_matmul_rate(device: torch.device, precision: Precision) -> float:
    """The best rate of wider and wider products until one is long enough: a fraction of a second."""
    dtype = DTYPES[precision]
    best = 0.0
    for width in _RATE_WIDTHS:
        seconds = min(_products_seconds(device, dtype, width) for _ in range(_RATE_ROUNDS))
        best = max(best, 2 * width**3 / seconds)
        if seconds > _LONG_PRODUCT_SECONDS:
            break
    return best


def _products_seconds(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Seconds of one product of random matrices: constant ones take less power and are multiplied faster on a GPU."""
    draw = torch.Generator().manual_seed(width)
    left, right = (torch.randn(width, width, generator=draw).to(device, dtype) for _ in range(2))
    products = 1 if device.type == "cpu" else _PRODUCTS_IN_A_ROW
    float(left[0, 0])  # waits for the device
    started = time.perf_counter()
    for _ in range(products):
        product = left @ right
    float(product[0, 0])
    return (time.perf_counter() - started) / products


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory held so far: by tensors on CUDA, by Metal's allocator, elsewhere by the whole process.

    None on Windows, which does not tell a process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # of getrusage(2): bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """The context in which a forward computes in `precision`; weights stay fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def reports() -> list[DeviceReport]:
    """Every device PyTorch knows of, present or not."""
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
    """All memory of the device, of this machine where it has none of its own; None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return available.all_memory_bytes()


def available_bytes(device: torch.device) -> int | None:
    """Memory that a run on `device` can have beside what is in use; None where it is not known.

    CUDA: what is free. Metal: what it recommends, less what this process has. CPU: what this process can have.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return max(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), 0)
    return available.memory_bytes()


def resident_bytes() -> int:
    """Memory that this process has now; the most that it had where no more is known, 0 where not even that."""
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
    """Use no more threads than processors may be kept busy, once in a process: PyTorch knows of no quota.

    OMP_NUM_THREADS is a person's own choice and stays.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        set_threads(min(torch.get_num_threads(), available.usable_processors()))


def set_threads(threads: int) -> None:
    """Use `threads` CPU threads in this process: sums are only equal bit for bit at an equal number."""
    try:
        torch.set_num_threads(threads)
    except RuntimeError as error:
        raise AlmError(f"PyTorch refuses {threads} threads: {error}") from error


# glibc's names for them, from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Have the C library keep large blocks that are freed, for the whole process; whether it could be told.

    glibc gives them back to the system, so that each step of a training on the CPU maps the same memory anew, page by
    page. Other libraries have no such setting.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: _TOP_PAD_BYTES}
    took = [mallopt(name, value) for name, value in settings.items()]
    return all(took)


def give_back_freed_memory() -> None:
    """Have the C library give the system what `keep_freed_memory` kept, where it can be told."""
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def wait_for(device: torch.device) -> None:
    """Return when `device` has done all that it was given: before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def set_deterministic(device: torch.device) -> None:
    """Use, in this process, kernels that add up in a fixed order. A CPU at a fixed number of threads does anyway."""
    if device.type == "cuda":
        # Read by cuBLAS at its first product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def environment(choice: Choice) -> dict[str, str]:
    """What else decides the bits of a run: machine, versions, threads."""
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
