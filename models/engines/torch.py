"""The engine that is always there: torch, eager, on the CPU or a GPU.

In float32 on a CPU its rows do not depend on the size of the batch or on their place in it, bit for bit; that is
tested, and it is why the patch embedding is unfold + linear and modulation rows are made elsewhere, at a fixed batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.bundle import Bundle
from models.engine import Precision, Rows
from models.nn.dit import DiT
from models.spec import Stage


class TorchEngine:
    """A `DiT` run eagerly under inference mode."""

    name = "torch"

    def __init__(self, net: DiT, *, device: torch.device, precision: Precision, buckets: tuple[int, ...]) -> None:
        """Take the net over: it is moved to `device` and cast to `precision`."""
        self.device, self.precision, self.buckets = device, precision, buckets
        self._net: DiT | None = net.eval().to(device=device, dtype=precision.dtype)

    def prepare(self) -> None:
        """Run the smallest and the largest bucket once."""
        for rows in {self.buckets[0], self.buckets[-1]}:
            self.run(self._zeros(rows))

    @torch.inference_mode()
    def run(self, batch: Rows) -> Tensor:
        """One forward pass of the part of the net that follows the modulation."""
        return self._open.denoise(*self._cast(batch)).float()

    @torch.inference_mode()
    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """The same, and what the deep blocks added."""
        out, deep = self._open.denoise_keeping(*self._cast(batch))
        return out.float(), deep

    @torch.inference_mode()
    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """The same without the deep blocks."""
        return self._open.denoise_reusing(*self._cast(batch), deep).float()

    @property
    def _open(self) -> DiT:
        assert self._net is not None, "the engine is closed"
        return self._net

    def _cast(self, batch: Rows) -> tuple[Tensor, Tensor]:
        return batch.x.to(self.precision.dtype), batch.modulation.to(self.precision.dtype)

    def close(self) -> None:
        """Let the weights go."""
        self._net = None

    def _zeros(self, rows: int) -> Rows:
        spec = self._open.spec
        x = torch.zeros(rows, spec.in_channels, spec.input_size, spec.input_size, device=self.device)
        return Rows(x, torch.zeros(rows, 6 * spec.depth + 2, spec.width, device=self.device))


def create(
    bundle: Bundle, *, stage: Stage, precision: Precision, buckets: tuple[int, ...], device: torch.device
) -> TorchEngine:
    """The net of a stage on `device`."""
    return TorchEngine(bundle.net(stage), device=device, precision=precision, buckets=buckets)
