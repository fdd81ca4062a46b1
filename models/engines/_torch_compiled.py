"""The torch engine through torch.compile: a compiled function for each bucket, checked before it serves.

Fused loops round otherwise than eager kernels do, and rows of different buckets may differ in their last bits: it
serves where it is asked for by name only (GRIDIT_TORCH_MODE).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from models import parity
from models.engine import EngineUnavailable, Precision, Rows
from models.engines.torch import TorchEngine
from models.graph import Graph
from models.nn.dit import DiT

REMEDY = "install a C++ compiler (g++ or clang++; on a GPU also triton), or set GRIDIT_TORCH_MODE=eager"
SAID = 400
"""Characters that are told of what the compiler says."""

T = TypeVar("T")


class CompiledTorchEngine(TorchEngine):
    """A `DiT` run by what torch's compiler makes of it."""

    name = "torch-compiled"

    def __init__(
        self,
        net: DiT,
        *,
        device: torch.device,
        precision: Precision,
        buckets: tuple[int, ...],
        graphs: Sequence[Graph],
    ) -> None:
        """As the eager engine; `graphs` of the same net are what it is checked against."""
        super().__init__(net, device=device, precision=precision, buckets=buckets)
        self._graphs = tuple(graphs)
        self._plain = _compiled(self._open.denoise)
        self._keeping = _compiled(self._open.denoise_keeping)
        self._reusing = _compiled(self._open.denoise_reusing)

    def prepare(self) -> None:
        """Compile every bucket and check the numbers; minutes. `EngineUnavailable` says what is missing or wrong."""
        try:
            for rows in self.buckets:
                self.run(self._zeros(rows))
            for graph in self._graphs:
                parity.check(self, graph)
        except EngineUnavailable:
            raise
        except Exception as error:
            words = " ".join(str(error).split())[:SAID]
            raise EngineUnavailable(f"torch.compile failed: {type(error).__name__}: {words}; {REMEDY}") from error
        self._graphs = ()

    @torch.inference_mode()
    def run(self, batch: Rows) -> Tensor:
        """One forward pass of the part of the net that follows the modulation."""
        return self._plain(*self._cast(batch)).float()

    @torch.inference_mode()
    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """The same, and what the deep blocks added."""
        out, deep = self._keeping(*self._cast(batch))
        return out.float(), deep

    @torch.inference_mode()
    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """The same without the deep blocks."""
        return self._reusing(*self._cast(batch), deep).float()


def _compiled(function: Callable[..., T]) -> Callable[..., T]:
    """One function for each shape; nothing is compiled before it is called."""
    return torch.compile(function, dynamic=False, fullgraph=True)
