"""The torch engine with its runs recorded: one CUDA graph for each bucket and kind of run, on buffers that stay.

A recorded run costs one launch instead of hundreds. It reads and writes the same memory for ever, so there is one set
of buffers, of which a bucket takes the first rows; all graphs share one pool for what lies between, since runs follow
one another. The kernels are those of the eager engine, and so are the numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum

import torch
from torch import Tensor

from models.engine import EngineUnavailable, Precision, Rows
from models.engines._cuda import Gpu
from models.graph import DEEP, MODULATION, OUT, X
from models.nn.dit import DiT

NAMES = (X, MODULATION, DEEP, OUT)

_log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What is run of the net."""

    PLAIN = "plain"
    KEEPING = "keeping"
    REUSING = "reusing"


class GraphedTorchEngine:
    """A `DiT` whose runs are replayed."""

    name = "torch"

    def __init__(self, net: DiT, *, gpu: Gpu, precision: Precision, buckets: tuple[int, ...]) -> None:
        """Take the net over: it is moved to the GPU and cast to `precision`. `buckets` ascend."""
        self.device, self.precision, self.buckets = gpu.device, precision, buckets
        self._gpu = gpu
        self._net: DiT | None = net.eval().to(device=gpu.device, dtype=precision.dtype)
        self._buffers: dict[str, Tensor] = {}
        self._recorded: dict[tuple[Kind, int], Callable[[], None]] = {}

    @torch.inference_mode()
    def prepare(self) -> None:
        """Record a plain run in every bucket, the largest first; the other kinds are recorded when they are first run.

        Where the device has too little memory, the largest buckets are left out, and `buckets` says which are there.
        """
        while not self._recorded:
            try:
                for rows in reversed(self.buckets):
                    self._record(Kind.PLAIN, rows)
            except torch.OutOfMemoryError as error:
                self._leave_out(str(error))

    def run(self, batch: Rows) -> Tensor:
        """One forward pass of the part of the net that follows the modulation; the answer is the engine's buffer."""
        self._replay(Kind.PLAIN, batch)
        return self._rows(OUT, len(batch.x))

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """The same, and what the deep blocks added."""
        self._replay(Kind.KEEPING, batch)
        return self._rows(OUT, len(batch.x)), self._rows(DEEP, len(batch.x))

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """The same without the deep blocks."""
        self._replay(Kind.REUSING, batch, deep)
        return self._rows(OUT, len(batch.x))

    def close(self) -> None:
        """Wait for the device, then let graphs, buffers and weights go."""
        if self._recorded:
            self._gpu.synchronize()
        self._recorded, self._buffers, self._net = {}, {}, None

    @torch.inference_mode()
    def _replay(self, kind: Kind, batch: Rows, deep: Tensor | None = None) -> None:
        assert batch.modulation is not None, "a DiT is run with its modulation"
        rows = len(batch.x)
        if (kind, rows) not in self._recorded:
            self._record(kind, rows)
        with self._gpu.ordered():
            self._rows(X, rows).copy_(batch.x)
            self._rows(MODULATION, rows).copy_(batch.modulation)
            if deep is not None:
                self._rows(DEEP, rows).copy_(deep)
            self._recorded[kind, rows]()

    def _record(self, kind: Kind, rows: int) -> None:
        buffers = {name: self._rows(name, rows) for name in NAMES}

        def launch() -> None:
            self._launch(kind, buffers)

        with self._gpu.ordered():
            launch()  # kernels are chosen and loaded at the first run, which no graph may record
        self._gpu.synchronize()
        with self._gpu.ordered():
            self._recorded[kind, rows] = self._gpu.record(launch)

    def _launch(self, kind: Kind, buffers: Mapping[str, Tensor]) -> None:
        assert self._net is not None, "the engine is closed"
        x, modulation = (buffers[name].to(self.precision.dtype) for name in (X, MODULATION))
        match kind:
            case Kind.PLAIN:
                buffers[OUT].copy_(self._net.denoise(x, modulation))
            case Kind.KEEPING:
                out, deep = self._net.denoise_keeping(x, modulation)
                buffers[OUT].copy_(out)
                buffers[DEEP].copy_(deep)
            case Kind.REUSING:
                buffers[OUT].copy_(self._net.denoise_reusing(x, modulation, buffers[DEEP]))

    def _rows(self, name: str, rows: int) -> Tensor:
        """The first rows of a buffer."""
        if not self._buffers:
            self._buffers = self._allocated(self.buckets[-1])
        return self._buffers[name][:rows]

    def _allocated(self, rows: int) -> dict[str, Tensor]:
        assert self._net is not None, "the engine is closed"
        spec = self._net.spec
        side, full = spec.input_size, torch.float32
        return {
            X: self._gpu.zeros((rows, spec.in_channels, side, side), dtype=full),
            MODULATION: self._gpu.zeros((rows, 6 * spec.depth + 2, spec.width), dtype=full),
            DEEP: self._gpu.zeros((rows, spec.tokens, spec.width), dtype=self.precision.dtype),
            OUT: self._gpu.zeros((rows, spec.out_channels, side, side), dtype=full),
        }

    def _leave_out(self, problem: str) -> None:
        self._recorded, self._buffers = {}, {}
        self._gpu.release()
        *kept, dropped = self.buckets
        if not kept:
            raise EngineUnavailable(
                f"the GPU has too little memory for a batch of {dropped}: {problem}; close what else runs on it, or "
                "set GRIDIT_DEVICE=cpu"
            )
        self.buckets = tuple(kept)
        fields = {"action": "engine.bucket_left_out", "bucket": dropped, "largest": kept[-1], "reason": problem}
        _log.warning("too little GPU memory for a bucket", extra=fields)
