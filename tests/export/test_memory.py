"""What reading a model takes of memory, in a process of its own: its weights in fp32 once, and little more."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from alm.export.run import export
from alm.export.targets import gguf, huggingface
from alm.model.config import ModelConfig
from alm.model.init import initialize
from alm.model.transformer import Transformer
from alm.tokenizers.file import Tokenizer

from .conftest import TINY, save

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux can begin to count a peak again"),
]

LARGE: dict[str, Any] = {"d_model": 512, "n_layers": 8, "ffn_hidden_size": 1536, "tie_embeddings": False}
MOST = 1.3
"""The peak as a share of the weights in fp32. Two copies at a time take at least 2, or 1.5 if one is in bf16."""

# The small model comes first: libraries and what they keep are no part of the answer.
PROGRAM = """
import sys
from pathlib import Path

import torch

from alm.device import give_back_freed_memory
from alm.export import weights
from alm.export.importing import import_model
from alm.generation.load import load_model


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def read(path, out):
    if kind == "checkpoint":
        load_model(path, device_name="cpu")
    else:
        assert import_model(path, kind=kind, out=out, compare=compare == "True").comparisons or compare == "False"


torch.set_num_threads(1)
weights._MAPPED_BYTES = 1 << 20  # of the file, which the system may drop
kind, compare, small, large, out = sys.argv[1:]
read(Path(small), Path(out, "small"))
give_back_freed_memory()
Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
before = peak()
read(Path(large), Path(out, "large"))
print(peak() - before)
"""

# Every second block stays in use, so that the heap cannot shrink.
GAPS = """
import sys
from pathlib import Path

import torch

from alm.device import give_back_large_blocks


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


assert sys.argv[1] == "False" or give_back_large_blocks()
torch.ones(30 << 20, dtype=torch.uint8)  # now glibc takes blocks of up to this size from its heap
blocks = [torch.ones(2 << 20, dtype=torch.uint8) for _ in range(100)]
before = resident()
del blocks[::2]
print(before - resident())
"""


def peak_of(folder: Path, kind: str, *, compare: bool, small: Path, large: Path) -> int:
    """The bytes by which the memory of a process grows while it reads the model `large`."""
    words = [kind, str(compare), str(small), str(large), str(folder / "out")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def checkpoint(folder: Path, tokenizer: Tokenizer, dtype: torch.dtype, **changes: Any) -> Path:
    config = ModelConfig.model_validate({**TINY, "vocab_size": tokenizer.vocab_size, **changes})
    model = Transformer(config)
    initialize(model, seed=1)
    return save(folder, config, {name: each.to(dtype) for name, each in model.state_dict().items()}, tokenizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_a_checkpoint(tmp_path: Path, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    small = checkpoint(tmp_path / "small", tokenizer, dtype)
    large = checkpoint(tmp_path / "large", tokenizer, dtype, **LARGE)
    weights = large.stat().st_size * 4 // dtype.itemsize
    assert peak_of(tmp_path, "checkpoint", compare=False, small=small, large=large) < MOST * weights


@pytest.mark.parametrize(
    ("kind", "compare"),
    [
        ("huggingface", False),
        ("huggingface", True),
        ("gguf", False),
        pytest.param("gguf", True, marks=pytest.mark.llamacpp),
    ],
)
def test_of_an_import(tmp_path: Path, tokenizer: Tokenizer, kind: str, compare: bool) -> None:
    if kind == "huggingface":
        pytest.importorskip("transformers")
    large = checkpoint(tmp_path / "large", tokenizer, torch.float32, **LARGE)
    found = []
    for path in (checkpoint(tmp_path / "small", tokenizer, torch.float32), large):
        out = tmp_path / f"{path.parent.name}-{kind}"
        config = gguf.Config(dtype="f16") if kind == "gguf" else huggingface.Config(dtype="bf16")
        export(config, checkpoint=path, out=out, compare=False)
        found.append(next(out.glob("*.gguf")) if kind == "gguf" else out)
    most = MOST * large.stat().st_size
    assert peak_of(tmp_path, kind, compare=compare, small=found[0], large=found[1]) < most


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_blocks_leave_the_process_although_others_stay() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", GAPS, word], capture_output=True, text=True, check=True).stdout)
        for word in ("False", "True")
    )
    assert kept < 10 << 20
    assert given_back > 95 << 20
