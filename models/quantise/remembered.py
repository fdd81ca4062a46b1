"""A verdict that the engine cache remembers: nets that were accepted once are not judged again.

Plans of the same weights in the same precision hold the digest of their scales and what the quality gate said. That is
enough to find them, and to build others of the same nets: those are quantised again, and must come out the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from models.bundle import Bundle
from models.compiling.engine_cache import Quality, Record
from models.compiling.export import source_digest
from models.engine import EngineUnavailable, Precision
from models.graph import Graph, Part, graphs


class Made(Protocol):
    """Nets in 8 bits."""

    @property
    def digest(self) -> str: ...
    def onnx(self, onnx: bytes, graph: Graph) -> bytes: ...
    def model(self, graph: Graph) -> Any: ...


class OtherScales(EngineUnavailable):
    """Nets that were accepted once come out otherwise now."""

    def __init__(self, bundle: Bundle, precision: Precision) -> None:
        super().__init__(
            f"{precision} scales of {bundle.spec.name} come out otherwise than when its quality gate accepted them, on "
            f"another device or with other versions; remove those plans with gridit engines rm and compile again"
        )


@dataclass
class Remembered:
    """Digest and verdict; the nets only when they are asked for."""

    bundle: Bundle
    precision: Precision
    digest: str
    quality: Quality
    making: Iterator[str | Made]
    """Calibrates and quantises in one way after another, when driven."""
    _made: Made | None = field(default=None)

    def onnx(self, onnx: bytes, graph: Graph) -> bytes:
        """As `Prepared.onnx`. `OtherScales` if the nets are not those that were judged."""
        return self._nets().onnx(onnx, graph)

    def model(self, graph: Graph) -> Any:
        """As `Prepared.model`. `OtherScales` likewise."""
        return self._nets().model(graph)

    def _nets(self) -> Made:
        if self._made is None:
            made = (one for one in self.making if not isinstance(one, str))
            self._made = next((one for one in made if one.digest == self.digest), None)
        if self._made is None:
            raise OtherScales(self.bundle, self.precision)
        return self._made


def recall(bundle: Bundle, precision: Precision, records: Iterable[Record]) -> tuple[str, Quality] | None:
    """Digest and verdict of accepted plans, if there is one of every net's whole graph with the same scales."""
    likely = [record for record in records if record.recipe.precision is precision and _accepted(record)]
    if not likely:
        return None  # a digest of all weights takes its time
    whole = (graph for stage in bundle.spec.stages for graph in graphs(bundle, stage) if graph.part is Part.WHOLE)
    sources = [source_digest(graph, precision=precision) for graph in whole]
    for record in likely:
        alike = {other.source for other in likely if other.recipe.quantisation == record.recipe.quantisation}
        if record.recipe.quantisation is not None and alike.issuperset(sources) and record.quality is not None:
            return record.recipe.quantisation, record.quality
    return None


def _accepted(record: Record) -> bool:
    return record.quality is not None and record.quality.accepted
