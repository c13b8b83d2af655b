"""The memory that tensors take, watched as they come and go: an oracle for what is counted."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class Live(TorchDispatchMode):
    """The most bytes of tensors that were there at once, looked at after each operation that makes one.

    All of them are looked at each time, because FSDP changes their sizes.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self.most = 0
        for tensor in tensors:
            self._note(tensor)

    def _note(self, tensor: torch.Tensor) -> bool:
        """Remember the storage of a tensor; whether it is a new one."""
        here: torch.Tensor = getattr(tensor, "_local_tensor", tensor)  # what this rank has of a distributed one
        storage = here.untyped_storage()
        known = self._storages.get(storage._cdata)
        is_new = known is None or known() is None  # addresses are used again
        if is_new:
            self._storages[storage._cdata] = weakref.ref(storage)
        return is_new

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        is_new = [self._note(tensor) for tensor in tree_iter(out) if isinstance(tensor, torch.Tensor)]
        if not any(is_new):
            return out
        there = [storage for known in self._storages.values() if (storage := known()) is not None]
        if len(self._storages) > 2 * len(there):
            self._storages = {storage._cdata: weakref.ref(storage) for storage in there}
        self.most = max(self.most, sum(storage.nbytes() for storage in there if storage.device.type != "meta"))
        return out
