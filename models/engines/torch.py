"""The engine that is always there: torch, on the CPU or a GPU.

It runs eagerly on a CPU; on a GPU runs are recorded (`_torch_graphs`); torch's compiler is taken where it is asked for
(`_torch_compiled`). In float32 on a CPU its rows do not depend on the size of the batch or on their place in it, bit
for bit; that is tested, and it is why the patch embedding is unfold + linear and modulation rows are made elsewhere, at
a fixed batch.
"""

from __future__ import annotations

import os
from enum import StrEnum

import torch
from torch import Tensor, nn

from models.bundle import Bundle
from models.engine import ALONE, CachingEngine, Engine, EngineUnavailable, NetName, Precision, Rows
from models.graph import graphs
from models.nn.dit import DiT
from models.spec import Codec, Stage

VARIABLE = "GRIDIT_TORCH_MODE"
"""Environment variable that names the mode."""


class Mode(StrEnum):
    """How a DiT is run."""

    AUTO = "auto"
    """GRAPHS on a GPU, EAGER on a CPU."""
    EAGER = "eager"
    GRAPHS = "graphs"
    COMPILE = "compile"


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
) -> Engine:
    """A net on `device`; half an autoencoder is run eagerly, in float32 whatever the precision."""
    if isinstance(net, Codec):
        return TorchCodec(bundle.codec(net), device=device)
    if precision.quantised:
        raise EngineUnavailable(f"torch does not compute in {precision}; set GRIDIT_PRECISION to auto, fp32 or bf16")
    return _engine(bundle, net, mode=mode_for(device), precision=precision, buckets=buckets, device=device)


def mode_for(device: torch.device) -> Mode:
    """What the environment asks for on this device. `EngineUnavailable` if it cannot be."""
    text = os.environ.get(VARIABLE) or Mode.AUTO
    if text not in tuple(Mode):
        raise EngineUnavailable(f"{VARIABLE} is {text!r}; it must be one of: {', '.join(Mode)}")
    on_gpu = device.type == "cuda"
    if text == Mode.GRAPHS and not on_gpu:
        raise EngineUnavailable(
            f"{VARIABLE}=graphs records runs on a GPU and the device is the CPU; set it to auto, eager or compile"
        )
    return Mode(text) if text != Mode.AUTO else Mode.GRAPHS if on_gpu else Mode.EAGER


def _engine(
    bundle: Bundle, net: Stage, *, mode: Mode, precision: Precision, buckets: tuple[int, ...], device: torch.device
) -> CachingEngine:
    if mode is Mode.GRAPHS:
        from models.engines._cuda import Cuda
        from models.engines._torch_graphs import GraphedTorchEngine

        return GraphedTorchEngine(bundle.net(net), gpu=Cuda(device), precision=precision, buckets=buckets)
    if mode is Mode.COMPILE:
        from models.engines._torch_compiled import CompiledTorchEngine

        parts = graphs(bundle, net)
        return CompiledTorchEngine(bundle.net(net), device=device, precision=precision, buckets=buckets, graphs=parts)
    return TorchEngine(bundle.net(net), device=device, precision=precision, buckets=buckets)
