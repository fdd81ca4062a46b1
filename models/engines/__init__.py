"""Engines, one file each: the file's name is the engine's, and `create` imports it when it is chosen.

What an engine is, says `models.engine`; which one serves a net on this machine, `select`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch as pytorch  # in this package the plain name is our own engine's module

from models import devices
from models.bundle import Bundle
from models.engine import ALONE, BUCKETS, Engine, EngineUnavailable, NetName, Precision
from models.spec import Stage


def names() -> tuple[str, ...]:
    """Every engine there is, by its file."""
    here = Path(__file__).parent
    return tuple(sorted(f.stem for f in here.glob("*.py") if not f.stem.startswith("_")))


def create(
    name: str,
    *,
    bundle: Bundle,
    net: NetName,
    precision: Precision,
    buckets: Sequence[int] | None = None,
    device: pytorch.device | None = None,
) -> Engine:
    """The engine `name` for one net of a bundle, not yet prepared; without a `device` on the first GPU, else the CPU.

    `EngineUnavailable` if it cannot run here.
    """
    if name not in names():
        raise EngineUnavailable(f"engine {name!r} is unknown; there are: {', '.join(names())}")
    module = import_module(f"models.engines.{name}")
    place = devices.use() if device is None else device
    sizes = tuple(buckets or (BUCKETS if isinstance(net, Stage) else ALONE))
    engine: Engine = module.create(bundle, net=net, precision=precision, buckets=sizes, device=place)
    return engine


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and why it was taken."""

    engine: Engine
    reason: str


def select(
    bundle: Bundle,
    net: NetName,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: pytorch.device | None = None,
) -> Choice:
    """The engine asked for, or with "auto" TensorRT where `device` is a GPU with a compiled plan at hand, else torch.

    Without a `device` it is the first GPU, else the CPU.

    Precision "auto": float32 on a CPU; on a GPU bfloat16, but with TensorRT that of the compiled plan, float16 first.
    `EngineUnavailable` if what was asked for cannot run.
    """
    device = devices.use() if device is None else device
    on_gpu = device.type == devices.GPU
    asked = None if precision == "auto" else Precision(precision)
    plain = asked or (Precision.BF16 if on_gpu else Precision.FP32)
    plans = (asked,) if asked else (Precision.FP16, Precision.BF16)
    if engine == "tensorrt":
        return Choice(_compiled(bundle, net, plans, device), "asked for")
    if engine != "auto" or not on_gpu:
        name, reason = ("torch", "on the CPU") if engine == "auto" else (engine, "asked for")
        return Choice(create(name, bundle=bundle, net=net, precision=plain, device=device), reason)
    try:
        return Choice(_compiled(bundle, net, plans, device), "compiled for this GPU")
    except EngineUnavailable as error:
        return Choice(create("torch", bundle=bundle, net=net, precision=plain, device=device), str(error))


def _compiled(bundle: Bundle, net: NetName, precisions: Sequence[Precision], device: pytorch.device) -> Engine:
    for precision in precisions[:-1]:
        with suppress(EngineUnavailable):
            return create("tensorrt", bundle=bundle, net=net, precision=precision, device=device)
    return create("tensorrt", bundle=bundle, net=net, precision=precisions[-1], device=device)
