"""A twin of CUDA graphs for torch's own operations: what is recorded is done again on the same memory, and only that.

As on a GPU, Python is not asked a second time: a value that the recorded code took from anywhere but its buffers stays
what it was. A replay that reads or writes a buffer that nobody holds any more raises `TwinViolation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.engines._twin_gpu import TwinGpu


class TwinRecorder(TwinGpu):
    """A twin GPU whose graphs hold torch's operations."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        recording = _Recording()
        self.recording = []
        try:
            with recording:
                launch()
        finally:
            self.recording = None
        used = [place for place in recording.places if self._holds(*place)]

        def replay() -> None:
            self.enqueue("a replay")
            for address, size in used:
                self.require(address, size)
            recording.replay()

        return replay

    def _holds(self, address: int, size: int) -> bool:
        living = [(start, length) for start, length, ref in self._buffers if ref() is not None]
        return any(start <= address and address + size <= start + length for start, length in living)


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of one run, with the memory that they worked on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: set[tuple[int, int]] = set()
        """(address, bytes) of all that was read or written."""
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        out = func(*args, **given)
        self._steps.append((func, args, given, out))
        self.places |= {(t.data_ptr(), t.nbytes) for t in _tensors((args, given)) if t.is_contiguous()}
        return out

    @torch.inference_mode()
    def replay(self) -> None:
        """Do all of it again; results go where they went before."""
        for function, args, given, out in self._steps:
            again = function(*args, **given)
            for old, new in zip(_tensors(out), _tensors(again), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
