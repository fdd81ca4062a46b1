"""What each engine's compiler makes of a graph, behind one seam: TensorRT for GPUs, OpenVINO for this CPU.

Which graphs there are and in which order they are compiled, says `models.builds.compile`; the work itself is in
`models.compiling.build` and `models.engines.openvino`, which is imported when it is chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.compiling import flavours
from models.compiling.build import Compiled, OnDamage, Prepared, compile_graph
from models.compiling.engine_cache import EngineCache, Record
from models.compiling.export import carried
from models.compiling.flavours import CURRENT
from models.compiling.orders import Order, Profiles, order
from models.engine import EngineUnavailable, Precision
from models.graph import Graph


class Compiler(Protocol):
    """One engine's compiler, with all that was ordered of it."""

    @property
    def engine(self) -> str:
        """Whose plans it makes."""

    @property
    def precision(self) -> Precision:
        """What the nets shall compute in."""

    def compile(self, graph: Graph, *, bundle: str, prepared: Prepared | None) -> Iterator[str | Compiled]:
        """The phases to come as they begin, then the plan in the cache."""

    def here(self, records: Sequence[Record]) -> bool:
        """Whether this machine is the one the plans are for."""


def compiler(
    engine: str,
    *,
    targets: Sequence[str],
    precision: Precision,
    buckets: Sequence[int],
    profiles: Profiles,
    on_damage: OnDamage,
    cache: EngineCache,
) -> Compiler:
    """The one asked for. ValueError for what it cannot do, `EngineUnavailable` if it is not installed."""
    if engine == "tensorrt":
        wanted = order(flavours.detect(), targets=targets, precision=precision, buckets=buckets, profiles=profiles)
        return ForTensorRT(wanted, cache, on_damage)
    if engine != "openvino":
        raise ValueError(f"engine {engine} has nothing to compile; openvino and tensorrt have")
    others = sorted(set(targets) - {CURRENT})
    if others:
        raise ValueError(f"openvino compiles for this machine's CPU only (--target current), not {', '.join(others)}")
    return ForOpenVINO(precision, cache, on_damage)


@dataclass(frozen=True, slots=True)
class ForTensorRT:
    """Plans for the GPUs of an order."""

    order: Order
    cache: EngineCache
    on_damage: OnDamage

    @property
    def engine(self) -> str:
        return "tensorrt"

    @property
    def precision(self) -> Precision:
        return self.order.precision

    def compile(self, graph: Graph, *, bundle: str, prepared: Prepared | None) -> Iterator[str | Compiled]:
        return compile_graph(
            graph, self.order, cache=self.cache, bundle=bundle, on_damage=self.on_damage, prepared=prepared
        )

    def here(self, records: Sequence[Record]) -> bool:
        try:
            gpu = self.order.flavour.here()
        except EngineUnavailable:
            return False
        return all(gpu in record.recipe.targets for record in records)


@dataclass(frozen=True, slots=True)
class ForOpenVINO:
    """Plans for the CPU of this machine."""

    precision: Precision
    cache: EngineCache
    on_damage: OnDamage

    @property
    def engine(self) -> str:
        return "openvino"

    def compile(self, graph: Graph, *, bundle: str, prepared: Prepared | None) -> Iterator[str | Compiled]:
        from models.engines._openvino import compile_graph

        precision = carried(self.precision, graph.net)
        return compile_graph(
            graph,
            precision=precision,
            cache=self.cache,
            bundle=bundle,
            on_damage=self.on_damage,
            prepared=prepared if precision.quantised else None,
        )

    def here(self, records: Sequence[Record]) -> bool:
        return True
