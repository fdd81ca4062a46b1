"""A bundle's nets made ready for a quantised precision: calibrated, quantised and judged, before anything is built.

Only whole DiTs are quantised. The graphs that reuse features run two blocks of a net, the first and the last, and
stay as they are, as do halves of an autoencoder. What builds plans takes its graphs through `Prepared`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from models import alone, devices
from models.bundle import Bundle
from models.compiling.engine_cache import Quality, Record
from models.engine import BUCKETS, Engine, Precision
from models.engines.torch import TorchEngine
from models.evaluator import Evaluator, Nets
from models.graph import Graph, Part, graphs
from models.quantise import fp8, qdq, quality
from models.quantise.calibration import calibrate
from models.quantise.fp8 import Scales
from models.quantise.quality import QualityRefused, Standard
from models.quantise.remembered import Remembered, recall
from models.spec import Codec, Stage

RECIPE = 1
"""Raise it when the same bundle would be quantised otherwise; part of every digest."""


@dataclass(frozen=True)
class Quantised:
    """The nets of a bundle in 8 bits, not yet judged."""

    digest: str
    """SHA-256 of all that decides the scales."""
    scales: Mapping[Stage, Scales] = field(default_factory=dict)
    """For float8."""
    models: Mapping[str, Any] = field(default_factory=dict)
    """For integers: the `openvino.Model` by `Graph.name`."""
    graphs: tuple[Graph, ...] = ()
    """Whose weights the models share."""

    def onnx(self, onnx: bytes, graph: Graph) -> bytes:
        """What was exported of a graph in float16, with its layers in float8."""
        return qdq.quantised(onnx, self.scales[_stage(graph)]) if quantisable(graph) else onnx

    def model(self, graph: Graph) -> Any:
        """The `openvino.Model` of a graph, with its layers in integers."""
        from models.engines.openvino import convert

        return self.models[graph.name] if quantisable(graph) else convert(graph)


@dataclass(frozen=True)
class Prepared:
    """The same, judged and accepted."""

    nets: Quantised
    quality: Quality

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the scales."""
        return self.nets.digest

    def onnx(self, onnx: bytes, graph: Graph) -> bytes:
        """As `Quantised.onnx`."""
        return self.nets.onnx(onnx, graph)

    def model(self, graph: Graph) -> Any:
        """As `Quantised.model`."""
        return self.nets.model(graph)


def prepare(
    bundle: Bundle,
    precision: Precision,
    *,
    data: Path | None = None,
    sequences: int = quality.SEQUENCES,
    known: Iterable[Record] = (),
) -> Generator[str, None, Prepared | Remembered]:
    """Yield what is being done, return what builds need; takes minutes, unless accepted plans are `known`.

    Where there are several ways to quantise, the first that the quality gate accepts is taken. `QualityRefused` if it
    accepts none, `NoReference` if it cannot judge: see `models.quantise.quality.standard` for `data`.
    `EngineUnavailable` if a package is missing.
    """
    if found := recall(bundle, precision, known):
        return Remembered(bundle, precision, *found, making=candidates(bundle, precision))
    quality.refused_without_reference(bundle.spec, data)
    with TemporaryDirectory(prefix="gridit-reference-") as folder, _closing(alone.evaluators(bundle)) as plain:
        beside: Standard | None = None
        for step in candidates(bundle, precision):
            if isinstance(step, str):
                yield step
                continue
            beside = beside or (
                yield from quality.standard(bundle.spec, plain, work=Path(folder), data=data, sequences=sequences)
            )
            with _closing(nets_of(bundle, step)) as small:
                verdict = yield from quality.judge(beside, small)
            if not verdict.lost:
                return Prepared(step, verdict.quality)
    raise QualityRefused(precision, verdict)


def candidates(bundle: Bundle, precision: Precision) -> Iterator[str | Quantised]:
    """What is being done, and the nets in 8 bits, the boldest way first."""
    if precision is Precision.INT8:
        from models.quantise import int8

        int8.available()
    calibration = yield from calibrate(bundle)
    yield "quantise"
    if precision is Precision.FP8:
        scales = {stage: fp8.scales(bundle.net(stage), rows) for stage, rows in calibration.rows.items()}
        yield Quantised(_digest(*(one.digest for one in scales.values())), scales=scales)
        return
    assert precision is Precision.INT8, f"{precision} takes no scales"
    for untouched in int8.UNTOUCHED:
        whole = tuple(_whole(bundle, stage) for stage in bundle.spec.stages)
        models = {
            graph.name: int8.quantised(graph, calibration.rows[_stage(graph)], untouched=untouched) for graph in whole
        }
        yield Quantised(_digest(calibration.digest, int8.settings(untouched)), models=models, graphs=whole)


def nets_of(bundle: Bundle, nets: Quantised) -> Nets:
    """The quantised nets as they will serve, to be judged: integers by OpenVINO, float8 as torch emulates it."""
    engines = {stage: _engine(bundle, stage, nets) for stage in bundle.spec.stages}
    for engine in engines.values():
        engine.prepare()
    evaluators = {stage: Evaluator(bundle.net(stage), engine) for stage, engine in engines.items()}
    return evaluators | alone.codecs(bundle, device=evaluators[Stage.COARSE].device)


def quantisable(graph: Graph) -> bool:
    """Whether a graph has layers in 8 bits."""
    return graph.part is Part.WHOLE and not isinstance(graph.net, Codec)


@contextmanager
def _closing(nets: Nets) -> Iterator[Nets]:
    try:
        yield nets
    finally:
        for net in nets.values():
            net.close()


def _engine(bundle: Bundle, stage: Stage, nets: Quantised) -> Engine:
    if nets.scales:
        net = fp8.emulate(bundle.net(stage), nets.scales[stage])
        return TorchEngine(net, device=devices.use(), precision=Precision.FP32, buckets=BUCKETS)
    from models.engines.openvino import OpenVINOEngine, plan_of

    graph = next(graph for graph in nets.graphs if graph.net is stage)
    plan = plan_of(nets.models[graph.name], precision=Precision.INT8)
    return OpenVINOEngine([graph], {graph.name: plan}, precision=Precision.INT8, buckets=BUCKETS)


def _whole(bundle: Bundle, stage: Stage) -> Graph:
    return next(graph for graph in graphs(bundle, stage) if quantisable(graph))


def _stage(graph: Graph) -> Stage:
    assert isinstance(graph.net, Stage)
    return graph.net


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join((str(RECIPE), *parts)).encode()).hexdigest()
