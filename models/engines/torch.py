"""The engine that is always there: torch, eager, on the CPU or a GPU.

In float32 on a CPU its rows do not depend on the size of the batch or on their place in it, bit for bit; that is
tested, and it is why the patch embedding is unfold + linear and modulation rows are made elsewhere, at a fixed batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.engine import ALONE, NetName, Precision, Rows
from models.nn.dit import DiT
from models.spec import Codec


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
        assert batch.modulation is not None, "a DiT is run with its modulation"
        return batch.x.to(self.precision.dtype), batch.modulation.to(self.precision.dtype)

    def close(self) -> None:
        """Let the weights go."""
        self._net = None

    def _zeros(self, rows: int) -> Rows:
        spec = self._open.spec
        x = torch.zeros(rows, spec.in_channels, spec.input_size, spec.input_size, device=self.device)
        return Rows(x, torch.zeros(rows, 6 * spec.depth + 2, spec.width, device=self.device))


class TorchCodec:
    """Half an autoencoder, row by row in float32."""

    name = "torch"
    precision = Precision.FP32
    buckets = ALONE

    def __init__(self, half: nn.Module, *, device: torch.device) -> None:
        """Take the half over: it is moved to `device`."""
        self.device = device
        self._half: nn.Module | None = half.eval().to(device)

    def prepare(self) -> None:
        """There is nothing to do."""

    @torch.inference_mode()
    def run(self, batch: Rows) -> Tensor:
        """One image."""
        assert self._half is not None, "the engine is closed"
        out: Tensor = self._half(batch.x)
        return out

    def close(self) -> None:
        """Let the weights go."""
        self._half = None


def create(
    bundle: Bundle, *, net: NetName, precision: Precision, buckets: tuple[int, ...], device: torch.device
) -> TorchEngine | TorchCodec:
    """A net on `device`; half an autoencoder is float32 whatever the precision."""
    if isinstance(net, Codec):
        return TorchCodec(bundle.codec(net), device=device)
    return TorchEngine(bundle.net(net), device=device, precision=precision, buckets=buckets)
