"""A twin of a GPU that has none: the CPU's memory, with an account of which buffers live, and a stream that is obeyed.

What would be undefined behaviour on a GPU raises `TwinViolation`: an address where no buffer lives, a run that is not
ordered after the caller's work, memory or waiting while a graph is recorded. It says nothing about speed.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class TwinViolation(AssertionError):
    """The caller did what is undefined behaviour on a GPU."""


class TwinGpu:
    """The CPU's memory, with an account of which buffers live, and one stream."""

    def __init__(self, *, memory: int | None = None) -> None:
        """`memory`: bytes of living buffers from which on there are no more."""
        self.device = torch.device("cpu")
        self.handle = id(self)
        self.recording: list[Callable[[], None]] | None = None
        """Runs that are recorded instead of being run, while a graph is made."""
        self._memory = memory
        self._within = 0
        self._buffers: list[tuple[int, int, weakref.ref[Tensor]]] = []

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        self._not_recording("memory was asked for")
        tensor = torch.zeros(shape, dtype=dtype)
        if self._memory is not None and self.used + tensor.nbytes > self._memory:
            raise torch.OutOfMemoryError(f"the twin has {self._memory} bytes, {self.used} of them in use")
        self._buffers.append((tensor.data_ptr(), tensor.nbytes, weakref.ref(tensor)))
        return tensor

    @contextmanager
    def ordered(self) -> Iterator[None]:
        self._within += 1
        try:
            yield
        finally:
            self._within -= 1

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        runs: list[Callable[[], None]] = []
        self.recording = runs
        try:
            launch()
        finally:
            self.recording = None

        def replay() -> None:
            self.enqueue("a replay")
            for run in runs:
                run()

        return replay

    def enqueue(self, what: str) -> None:
        """`TwinViolation` unless work given to the stream now comes after the caller's."""
        if not self._within:
            raise TwinViolation(f"{what} is not ordered after the caller's work")

    def synchronize(self) -> None:
        self._not_recording("the stream was waited for")

    def release(self) -> None:
        """Python gives memory back by itself."""

    @property
    def used(self) -> int:
        """Bytes of living buffers."""
        return sum(size for _, size, ref in self._buffers if ref() is not None)

    @property
    def alive(self) -> int:
        """Buffers that someone still holds."""
        return sum(ref() is not None for _, _, ref in self._buffers)

    def floats(self, address: int, shape: Sequence[int]) -> NDArray[np.float32]:
        """The memory there as an array. `TwinViolation` unless a living buffer holds all of it."""
        self.require(address, 4 * int(np.prod(shape)))
        pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, tuple(shape))

    def require(self, address: int, size: int) -> None:
        """`TwinViolation` unless a living buffer holds `size` bytes from `address` on."""
        for start, length, ref in self._buffers:
            if ref() is not None and start <= address and address + size <= start + length:
                return
        raise TwinViolation(f"no living buffer holds {size} bytes at {address:#x}")

    def _not_recording(self, what: str) -> None:
        if self.recording is not None:
            raise TwinViolation(f"{what} while a graph was recorded")
