"""Weights of a folder of safetensors files, one or several, and their numbers in other types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alm.errors import InputError, shell
from alm.files.parse import read_json
from alm.files.tensors import described, opened

WEIGHTS_NAME, INDEX_NAME = "model.safetensors", "model.safetensors.index.json"
_INDEX_BYTES = 16 << 20  # the index of a model with 1,000 layers has 2 MB
_NAME_BYTES = 255
_MAPPED_BYTES = 64 << 20  # of a file that are in memory at a time
_BLOBS = "blobs"  # folder of the hub's cache for the files that a snapshot links to
_STORED_DTYPES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def narrowed(weights: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return the tensors with their values rounded to `dtype`."""
    return {name: tensor.to(DTYPES[dtype]) for name, tensor in weights.items()}


def round_values(weights: dict[str, Tensor], dtype: str) -> None:
    """Round the values of fp32 tensors to those of `dtype`, in place."""
    for tensor in weights.values():
        tensor.copy_(tensor.to(DTYPES[dtype]))


def bounds(tensor: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value, NaN if there is one, without memory for a copy."""
    least, most = tensor.aminmax()
    return least.item(), most.item()


def too_large(weights: dict[str, Tensor], dtype: str) -> list[str]:
    """Report the first tensor with a value that `dtype` cannot hold; usually empty."""
    largest = torch.finfo(DTYPES[dtype]).max
    found = [name for name, tensor in weights.items() if max(map(abs, bounds(tensor))) > largest]
    return [f"`{found[0]}` has values beyond {largest:,.0f}, the largest of {dtype}"] if found else []


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a folder by name; only their descriptions are read before `tensors` is called."""

    files: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    dtype: str

    @classmethod
    def of(cls, folder: Path) -> StoredWeights:
        """Read the descriptions in `folder`; `InputError` if it has no weights, or they are damaged."""
        paths = _files(folder)
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: set[str] = set()
        for path in paths:
            for name, shape, dtype in described(path):
                if name in shapes:
                    raise InputError(f"`{folder}` stores `{name[:120]}` twice", hint=_look(folder))
                shapes[name] = shape
                dtypes.add(dtype)
        unknown = sorted(dtypes - _STORED_DTYPES.keys())
        if unknown:
            raise InputError(
                f"`{folder}` stores numbers as {unknown[0]}, but alm reads only {', '.join(_STORED_DTYPES)}",
                hint="convert the weights to bfloat16 with the tool that wrote them",
            )
        return cls(tuple(paths), shapes, ", ".join(sorted(_STORED_DTYPES[dtype] for dtype in dtypes)))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor with its name, in fp32 and in memory of its own."""
        for path in self.files:
            for name, shape, _ in list(described(path)):
                yield name, _in_fp32(path, name, shape)


def _in_fp32(path: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """Read a tensor in parts, each from a new map of the file: what was read of a map stays in memory with it."""
    values = torch.empty(shape)
    rows = values if shape else values[None]
    step = max(1, _MAPPED_BYTES // max(1, rows[:1].nbytes))
    for start in range(0, len(rows), step):
        with opened(path) as file:
            part = file.get_slice(name)[start : start + step] if shape else file.get_tensor(name)
            rows[start : start + step] = part
    return values


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_NAME).is_file():
        return [_kept_inside(folder / WEIGHTS_NAME)]
    index = folder / INDEX_NAME
    if not index.is_file():
        raise InputError(
            f"`{folder}` has no `{WEIGHTS_NAME}` and no `{INDEX_NAME}`",
            hint="other formats may run code when they are read: save it with `save_pretrained` of transformers",
        )
    names = _indexed(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"`{folder / missing[0]}` is missing, which `{index}` names", hint=_look(folder))
    return [_kept_inside(folder / name) for name in names]


def _look(folder: Path) -> str:
    return f"run `{shell('ls', '-l', folder)}`"


def _kept_inside(path: Path) -> Path:
    """Return `path`; `InputError` for a link out of its folder, except into the hub's cache."""
    folder, target = path.parent.resolve(), path.resolve()
    repository = folder.parent.parent
    is_shared = target.parent.parent == repository.parent / _BLOBS  # by the repositories of the cache
    if target.parent not in (folder, repository / _BLOBS) and not is_shared:
        raise InputError(f"`{path}` is a link to `{target}`, out of its folder", hint=_look(path.parent))
    return path


def _indexed(index: Path) -> list[str]:
    """Return the files that an index names; `InputError` unless all of them are beside it."""
    values = read_json(index, most=_INDEX_BYTES)
    named = values.get("weight_map") if isinstance(values, dict) else None
    hint = f"run `{shell('head', '-c', '200', index)}`"
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise InputError(f"`{index}` is damaged: its `weight_map` does not name a file for each tensor", hint=hint)
    names = sorted(set(named.values()))
    outside = [name for name in names if not _is_plain(name)]
    if outside:
        raise InputError(f"`{index}` names `{outside[0][:120]}`, which is not beside it", hint=hint)
    return names


def _is_plain(name: str) -> bool:
    """Whether `name` is a plain file name, here and on Windows."""
    is_one = Path(name).name == name and not {"/", "\\", ":"} & set(name)
    return is_one and name.isprintable() and len(name.encode()) <= _NAME_BYTES
