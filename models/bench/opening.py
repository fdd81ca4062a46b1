"""Our engines, opened for measuring: their plans made where there are none, and scales that nobody judged, said so.

Engines that need a plan are given one by `models.builds.compile`, once: the engine cache keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from models import devices, engines
from models.bundle import Bundle
from models.engine import Engine, EngineUnavailable, NetName, Precision
from models.evaluator import Evaluator
from models.spec import BundleSpec, Codec, Stage

TORCH = "torch"
CANNOT = Exception
"""Whatever keeps an engine from running, whoever raises it: it is told, and the others are measured."""
UNJUDGED = ("openvino", Precision.INT8)
"""What can be run by scales that no quality gate has accepted."""


@dataclass(frozen=True, slots=True)
class Place:
    """A net to be run, and how."""

    bundle: Bundle
    net: NetName
    buckets: tuple[int, ...]
    device: torch.device


def nets_of(spec: BundleSpec) -> tuple[NetName, ...]:
    """All that a bundle has."""
    codecs: tuple[NetName, ...] = tuple(Codec) if spec.autoencoder else ()
    return (*spec.stages, *codecs)


def plain(device: torch.device) -> tuple[Precision, ...]:
    """What torch itself runs nets in on a device."""
    if device.type == devices.GPU:
        return Precision.FP32, Precision.BF16, Precision.FP16
    return Precision.FP32, Precision.BF16


def open_engine(name: str, place: Place, precision: Precision) -> Engine:
    """The engine, prepared, its plan made first where there is none. Errors: those of `CANNOT`."""
    create = partial(
        engines.create,
        name,
        bundle=place.bundle,
        net=place.net,
        precision=precision,
        buckets=place.buckets,
        device=place.device,
    )
    try:
        engine = create()
    except EngineUnavailable:
        if name == TORCH:
            raise
        _make_plan(name, place, precision)  # which says what keeps it, if it is not the plan
        engine = create()
    engine.prepare()
    return engine


def _make_plan(name: str, place: Place, precision: Precision) -> None:
    from models.builds.compile import compile_bundle

    for _ in compile_bundle(place.bundle.path, engine=name, precision=precision, buckets=place.buckets):
        pass


def open_unjudged(place: Place) -> Engine:
    """A DiT in 8-bit integers by OpenVINO, whose pictures were held against nothing; no bundle is served so."""
    from models.quantise import preparing as quantising

    assert isinstance(place.net, Stage), "halves of an autoencoder are not quantised"
    tried = quantising.candidates(place.bundle, Precision.INT8)
    made = next(each for each in tried if isinstance(each, quantising.Quantised))
    nets = quantising.nets_of(place.bundle, made)
    for net, one in nets.items():
        if net is not place.net:
            one.close()
    evaluator = nets[place.net]
    assert isinstance(evaluator, Evaluator), "a stage has an evaluator of its own"
    return evaluator.engine


def first_line(error: Exception) -> str:
    """Enough of an error for a table."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
