"""The engine seam: one net on one device, run in fixed buckets of rows.

An engine never sees a job, a time or a label: a row is an image and its modulation rows, which `models.evaluator`
makes from (time, label). The engines themselves are files of `models.engines`; what compilers are given of a net is
`models.graph`. Half an autoencoder is a net too, without modulation and in buckets of one row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from models.spec import Codec, Stage

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Rows per run, unless a bundle or device says otherwise."""
ALONE: tuple[int, ...] = (1,)
"""Rows per run of half an autoencoder: a convolution's bits may depend on its batch."""


NetName = Stage | Codec
"""A net of a bundle: a stage's DiT, or half of its autoencoder."""


class Precision(StrEnum):
    """What the net computes in. Inputs and outputs are float32 whatever it is."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    FP8 = "fp8"
    """Linear layers in float8 e4m3 with recorded scales, the rest in float16."""
    INT8 = "int8"
    """Linear layers in 8-bit integers with recorded scales, the rest in float32."""

    @property
    def quantised(self) -> bool:
        """Whether scales are needed, and the quality gate says if it will do."""
        return self in (Precision.FP8, Precision.INT8)

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of activations, and of weights that are not quantised."""
        types = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float16}
        return types.get(self.value, torch.float32)


@dataclass(frozen=True, slots=True)
class Rows:
    """A bucketful of evaluations of one net."""

    x: Tensor
    """(n, C, S, S) float32, on the engine's device."""
    modulation: Tensor | None = None
    """(n, 6*depth + 2, D) float32, on the engine's device; None for half an autoencoder."""


class Engine(Protocol):
    """One net, ready to run. Not thread safe: one device thread calls it."""

    name: str
    device: torch.device
    precision: Precision
    buckets: tuple[int, ...]

    def prepare(self) -> None:
        """Load and warm up every bucket; may take minutes."""

    def run(self, batch: Rows) -> Tensor:
        """(n, out, S, S) float32, valid until the next run. `len(batch.x)` is one of `buckets`."""

    def close(self) -> None:
        """Give the device's memory back; repeat-safe."""


@runtime_checkable
class CachingEngine(Engine, Protocol):
    """An engine that can leave out a net's deep blocks and add what they added at an earlier step."""

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """As `run`, and what the deep blocks added: (n, T, D); both valid until the next run."""

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """As `run`, with what the deep blocks added before."""


class EngineUnavailable(RuntimeError):
    """The engine asked for cannot run here; the message says why and what to do."""
