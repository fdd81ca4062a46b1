"""The engine seam: one net on one device, run in fixed buckets of rows.

An engine never sees a job, a time or a label: a row is an image and its modulation rows, which
`models.evaluator` makes from (time, label). Each engine is one file of this folder and its name is the
file's name; `create` imports it when it is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Protocol

import torch as pytorch  # in this package the plain name is our own engine's module
from torch import Tensor

from models.bundle import Bundle
from models.spec import Stage

BUCKETS = (1, 2, 4, 8, 16, 32)
"""Rows per run, unless a bundle or device says otherwise."""


class Precision(StrEnum):
    """What the net computes in. Inputs and outputs are float32 whatever it is."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"

    @property
    def dtype(self) -> pytorch.dtype:
        """The torch type of weights and activations."""
        return {"fp32": pytorch.float32, "fp16": pytorch.float16, "bf16": pytorch.bfloat16}[self.value]


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
    device: pytorch.device
    precision: Precision
    buckets: tuple[int, ...]

    def prepare(self) -> None:
        """Load and warm up every bucket; may take minutes."""

    def run(self, batch: Rows) -> Tensor:
        """(n, out, S, S) float32, valid until the next run. `len(batch.x)` is one of `buckets`."""

    def close(self) -> None:
        """Give the device's memory back; repeat-safe."""


class EngineUnavailable(RuntimeError):
    """The engine asked for cannot run here; the message says why and what to do."""


def names() -> tuple[str, ...]:
    """Every engine there is, by its file."""
    here = Path(__file__).parent
    return tuple(sorted(f.stem for f in here.glob("*.py") if not f.stem.startswith("_")))


def create(
    name: str, *, bundle: Bundle, stage: Stage, precision: Precision, buckets: Sequence[int] = BUCKETS
) -> Engine:
    """The engine `name` for one net of a bundle, not yet prepared. `EngineUnavailable` if it cannot run here."""
    if name not in names():
        raise EngineUnavailable(f"engine {name!r} is unknown; there are: {', '.join(names())}")
    module = import_module(f"models.engines.{name}")
    engine: Engine = module.create(bundle, stage=stage, precision=precision, buckets=tuple(buckets))
    return engine


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it was taken."""

    engine: Engine
    reason: str


def select(bundle: Bundle, stage: Stage, *, engine: str = "auto", precision: str = "auto") -> Choice:
    """The engine asked for, or with "auto" TensorRT where a GPU and a compiled plan are at hand, else torch.

    Precision "auto" is float32 on a CPU and bfloat16 on a GPU. `EngineUnavailable` if what was asked for cannot run.
    """
    chosen = _precision(precision)
    if engine != "auto":
        return Choice(create(engine, bundle=bundle, stage=stage, precision=chosen), "asked for")
    if not pytorch.cuda.is_available():
        return Choice(create("torch", bundle=bundle, stage=stage, precision=chosen), "no GPU here")
    try:
        return Choice(create("tensorrt", bundle=bundle, stage=stage, precision=chosen), "compiled for this GPU")
    except EngineUnavailable as error:
        return Choice(create("torch", bundle=bundle, stage=stage, precision=chosen), str(error))


def _precision(name: str) -> Precision:
    if name != "auto":
        return Precision(name)
    return Precision.BF16 if pytorch.cuda.is_available() else Precision.FP32
