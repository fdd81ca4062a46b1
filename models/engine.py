"""The engine seam: one net on one device, run in fixed buckets of rows.

An engine never sees a job, a time or a label: a row is an image and its modulation rows, which `models.evaluator`
makes from (time, label). The engines themselves are files of `models.engines`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Rows per run, unless a bundle or device says otherwise."""


class Precision(StrEnum):
    """What the net computes in. Inputs and outputs are float32 whatever it is."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of weights and activations."""
        return {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self.value]


@dataclass(frozen=True, slots=True)
class Rows:
    """A bucketful of evaluations of one net."""

    x: Tensor
    """(n, C, S, S) float32, on the engine's device."""
    modulation: Tensor
    """(n, 6*depth + 2, D) float32, on the engine's device."""


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
