"""From a graph to a TensorRT plan, through the cache.

What is exported is compared with torch before it is built. Every attention of a DiT must come out fused, which is
counted, not hoped for. That of an autoencoder is only counted: its single head is as wide as the net (512 channels in
the published one, and fused kernels end at 256), and a forward has one among dozens of convolutions.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from models.compiling.compiler import BuildFailed, Built
from models.compiling.compiler import build as build_plan
from models.compiling.engine_cache import EngineCache, PlanDamaged, Quality, Recipe, Record, plan_name
from models.compiling.export import export, parity, source_digest, verifiable
from models.compiling.orders import Order
from models.engine import Precision
from models.graph import Graph
from models.parity import LIMITS
from models.spec import Codec


class OnDamage(StrEnum):
    """What to do about an entry of the cache that cannot be used."""

    REFUSE = "refuse"
    REBUILD = "rebuild"


class Outcome(StrEnum):
    """Where a plan came from."""

    HIT = "hit"
    BUILT = "built"


class Doing(StrEnum):
    """Phases of a compilation, as far as they are needed."""

    CHECK = "check"
    WAIT = "wait"
    """For another process that builds the same."""
    EXPORT = "export"
    VERIFY = "verify"
    QUANTISE = "quantise"
    BUILD = "build"
    MEASURE = "measure"


class FusionLost(BuildFailed):
    """A plan was built, but not every attention in it is fused, so it would be slow; it is not kept."""


class ExportWrong(BuildFailed):
    """What was exported does not compute what the graph computes."""


class Prepared(Protocol):
    """A bundle's nets made ready for a quantised precision, and judged: what `models.quantise.prepare` gives."""

    @property
    def digest(self) -> str:
        """SHA-256 of all scales."""

    @property
    def quality(self) -> Quality:
        """What the bundle's quality gate said."""

    def onnx(self, onnx: bytes, graph: Graph) -> bytes:
        """What was exported of a graph in `Precision.dtype`, with its scales: for float8."""

    def model(self, graph: Graph) -> Any:
        """The `openvino.Model` of a graph: for 8-bit integers."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan in the cache."""

    record: Record
    outcome: Outcome


def compile_graph(
    graph: Graph,
    order: Order,
    *,
    cache: EngineCache,
    bundle: str,
    on_damage: OnDamage = OnDamage.REFUSE,
    prepared: Prepared | None = None,
) -> Iterator[Doing | Compiled]:
    """Yield the phases to come as they begin, then the plan in the cache.

    A hit exports nothing: the graph's digest finds the plan. `prepared` is needed where the precision is a quantised
    one. `PlanDamaged` if the plan is not what was built and `on_damage` is to refuse; `BuildFailed` if
    no good plan can be made.
    """
    order = order.of(graph)
    prepared = prepared if order.precision.quantised else None
    assert prepared or not order.precision.quantised, "a quantised precision takes scales"
    source, digest = source_digest(graph, precision=order.precision), prepared.digest if prepared else None
    with cache.building(order.recipe(source, quantisation=digest).key) as turn:
        if not turn.mine:
            yield Doing.WAIT
            turn.wait()
        known = _known(order, source, cache, quantisation=digest)
        if known is not None and _usable(known, cache, on_damage):
            yield Compiled(known, Outcome.HIT)
            return
        exported = yield from _exported(graph, order, prepared)
        yield Doing.BUILD
        built = build(exported.onnx, order, graph=graph)
        recipe = order.recipe(_sha256(exported.onnx), quantisation=digest)
        record = _record(graph, recipe, source=source, exported=exported, built=built)
        record = record.model_copy(update={"bundle": bundle, "quality": prepared.quality if prepared else None})
        cache.store(record, built.plan)
        yield Compiled(record, Outcome.BUILT)


def build(onnx: bytes, order: Order, *, graph: Graph) -> Built:
    """A plan of what was exported of `graph`. `FusionLost`, or `BuildFailed` if there is none."""
    built = build_plan(onnx, order.flavour, targets=order.targets, profiles=order.profiles)
    if built.fused_attentions != graph.attentions and not isinstance(graph.net, Codec):
        raise FusionLost(f"{graph.name}: {built.fused_attentions:g} of {graph.attentions} attentions are fused")
    return built


@dataclass(frozen=True, slots=True)
class _Exported:
    onnx: bytes
    parity: float | None
    seconds: float


def _exported(graph: Graph, order: Order, prepared: Prepared | None) -> Generator[Doing, None, _Exported]:
    """The phases up to an ONNX graph that computes what it shall; that is the generator's value."""
    yield Doing.EXPORT
    started = time.perf_counter()
    onnx = export(graph, precision=order.precision)
    seconds = time.perf_counter() - started
    gap = None
    if verifiable(order.precision):
        yield Doing.VERIFY
        gap = verified(onnx, graph, precision=order.precision)
    if prepared:
        yield Doing.QUANTISE
        onnx = prepared.onnx(onnx, graph)
        gap = parity(onnx, graph)  # what was lost, the quality gate judges
    return _Exported(onnx, gap, seconds)


def verified(onnx: bytes, graph: Graph, *, precision: Precision) -> float:
    """The gap between ONNX Runtime and torch. `ExportWrong` if it is wider than the precision explains."""
    gap, limit = parity(onnx, graph), LIMITS[Precision.FP16 if precision.quantised else precision]
    if not gap <= limit:  # so that NaN fails
        raise ExportWrong(
            f"{graph.name}: exported in {precision} it differs from torch by {gap:.2g}, more than {limit:.2g}; "
            "if the weights are too large for fp16, ask for bf16"
        )
    return gap


def _record(graph: Graph, recipe: Recipe, *, source: str, exported: _Exported, built: Built) -> Record:
    plan_sha256 = _sha256(built.plan)
    return Record(
        recipe=recipe,
        source=source,
        bundle="",
        net=graph.net,
        graph=graph.name,
        plan=plan_name(recipe, plan_sha256),
        plan_sha256=plan_sha256,
        plan_bytes=len(built.plan),
        onnx_bytes=len(exported.onnx),
        export_seconds=round(exported.seconds, 3),
        build_seconds=round(built.seconds, 3),
        kernels=built.kernels,
        fused_attentions=int(built.fused_attentions),
        depth=graph.attentions,
        exported_parity=exported.parity,
    )


def _known(order: Order, source: str, cache: EngineCache, *, quantisation: str | None) -> Record | None:
    for record in cache.find(source, flavour=order.flavour.name, version=order.flavour.version):
        if record.recipe == order.recipe(record.recipe.onnx_sha256, quantisation=quantisation):
            return record
    return None


def _usable(record: Record, cache: EngineCache, on_damage: OnDamage) -> bool:
    try:
        cache.plan(record)
    except PlanDamaged:
        if on_damage is OnDamage.REFUSE:
            raise
        return False
    return True


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
