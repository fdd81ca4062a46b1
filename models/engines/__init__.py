"""The engine seam: one net on one device, run in fixed buckets of rows.

An engine never sees a job, a time or a label: a row is an image and its modulation rows, which
`models.evaluator` makes from (time, label). Each engine is one file of this folder and its name is the
file's name; `create` imports it when it is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

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


@runtime_checkable
class CachingEngine(Engine, Protocol):
    """An engine that can leave out a net's deep blocks and add what they added at an earlier step."""

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """As `run`, and what the deep blocks added: (n, T, D); both valid until the next run."""

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """As `run`, with what the deep blocks added before."""


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

    Precision "auto": float32 on a CPU; on a GPU bfloat16, but with TensorRT that of the compiled plan, float16 first.
    `EngineUnavailable` if what was asked for cannot run.
    """
    on_gpu = pytorch.cuda.is_available()
    asked = None if precision == "auto" else Precision(precision)
    plain = asked or (Precision.BF16 if on_gpu else Precision.FP32)
    plans = (asked,) if asked else (Precision.FP16, Precision.BF16)
    if engine == "tensorrt":
        return Choice(_compiled(bundle, stage, plans), "asked for")
    if engine != "auto" or not on_gpu:
        name, reason = ("torch", "no GPU here") if engine == "auto" else (engine, "asked for")
        return Choice(create(name, bundle=bundle, stage=stage, precision=plain), reason)
    try:
        return Choice(_compiled(bundle, stage, plans), "compiled for this GPU")
    except EngineUnavailable as error:
        return Choice(create("torch", bundle=bundle, stage=stage, precision=plain), str(error))


def _compiled(bundle: Bundle, stage: Stage, precisions: Sequence[Precision]) -> Engine:
    for precision in precisions[:-1]:
        with suppress(EngineUnavailable):
            return create("tensorrt", bundle=bundle, stage=stage, precision=precision)
    return create("tensorrt", bundle=bundle, stage=stage, precision=precisions[-1])
