"""What engines with static buffers take of a GPU: memory, one stream, and recorded runs. No engine of its own.

It is a small protocol, so that a twin can check every address and lifetime where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor


class Gpu(Protocol):
    """Memory and one stream."""

    device: torch.device
    handle: int
    """The stream, as CUDA's C interfaces want it."""

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        """A buffer on the device. `torch.OutOfMemoryError`."""

    def ordered(self) -> AbstractContextManager[None]:
        """Work inside is on the stream, after what the caller has begun and before what the caller begins next."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of `launch`, to be called inside `ordered`. What it launches must have run once before.

        What is to outlive the next call of any graph must go to buffers made by `zeros`: the rest of the memory is
        shared.
        """

    def synchronize(self) -> None:
        """Wait for the stream."""

    def release(self) -> None:
        """Give memory that no tensor holds any more back to the device, where others than torch can have it."""


class Cuda:
    """A GPU, through torch; it must be the process's current one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self.handle = int(self._stream.cuda_stream)
        self._pool = torch.cuda.graph_pool_handle()  # recorded runs follow one another and leave nothing in it

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @contextmanager
    def ordered(self) -> Iterator[None]:
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            yield
        caller.wait_stream(self._stream)

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            launch()
        return graph.replay

    def synchronize(self) -> None:
        self._stream.synchronize()

    def release(self) -> None:
        torch.cuda.empty_cache()
