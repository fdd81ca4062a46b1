"""The engine for CPUs: plans of OpenVINO, one for each graph of a net, run with any number of rows.

Inputs are read where torch has them and answers written where torch can read them; every bucket has its own buffers.
It computes in the precision it is told, float32 or bfloat16, or in 8-bit integers where a plan was accepted in them.
Nothing is built here; plans come from the cache, see `models.engines._openvino`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.bundle import Bundle
from models.compiling.engine_cache import EngineCache, PlanDamaged, Record
from models.compiling.export import carried, source_digest
from models.engine import EngineUnavailable, NetName, Precision, Rows
from models.engines._openvino import (
    FLAVOUR,
    check,
    compile_graph,
    convert,
    core,
    here,
    library,
    plan_of,
    properties,
    recipe_of,
    version,
)
from models.graph import Graph, Part, graphs
from models.spec import Codec

__all__ = [
    "CachingOpenVINOEngine",
    "OpenVINOEngine",
    "compile_graph",
    "convert",
    "create",
    "engine_of",
    "find",
    "here",
    "library",
    "plan_of",
    "usable",
    "version",
]

Shape = tuple[int, ...]


class OpenVINOEngine:
    """The plans of half an autoencoder, one for each size of image."""

    name = "openvino"
    device = torch.device("cpu")

    def __init__(
        self, graphs: Sequence[Graph], plans: Mapping[str, bytes], *, precision: Precision, buckets: tuple[int, ...]
    ) -> None:
        """`plans` by `Graph.name`. Nothing is opened before `prepare`."""
        self.precision, self.buckets = precision, buckets
        self._programs = {
            (graph.part, graph.inputs[0].shape): _Program(graph, plans[graph.name], precision) for graph in graphs
        }

    def prepare(self) -> None:
        """Open the plans and run the smallest and the largest bucket of each. `EngineUnavailable` if one cannot be."""
        for program in self._programs.values():
            program.open()
            for rows in {self.buckets[0], self.buckets[-1]}:
                program(*program.zeros(rows))

    def run(self, batch: Rows) -> Tensor:
        """One forward pass in the plan for images of that size."""
        return self._whole(batch)[0]

    def close(self) -> None:
        """Let the plans go."""
        for program in self._programs.values():
            program.close()

    def _whole(self, batch: Rows) -> tuple[Tensor, ...]:
        given = (batch.x,) if batch.modulation is None else (batch.x, batch.modulation)
        return self._programs[Part.WHOLE, tuple(batch.x.shape[1:])](*given)


class CachingOpenVINOEngine(OpenVINOEngine):
    """The two plans of a DiT."""

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """As `run`, and what the deep blocks added."""
        out, deep = self._whole(batch)
        return out, deep

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """The same without the deep blocks."""
        assert batch.modulation is not None, "a DiT is run with its modulation"
        (out,) = self._programs[Part.REUSING, tuple(batch.x.shape[1:])](batch.x, batch.modulation, deep)
        return out


class _Program:
    """A graph's plan, and for each number of rows the buffers that its answer is written to."""

    def __init__(self, graph: Graph, plan: bytes, precision: Precision) -> None:
        self._name, self._inputs, self._outputs = graph.name, graph.inputs, graph.outputs
        self._plan: bytes | None = plan
        self._precision = precision
        self._request: Any = None
        self._buffers: dict[int, tuple[Tensor, ...]] = {}
        self._held: tuple[Tensor, ...] = ()
        """What OpenVINO was last given the addresses of."""

    def open(self) -> None:
        if self._request is not None:
            return
        assert self._plan is not None, "the engine is closed"
        asked = properties(self._precision, threads=torch.get_num_threads())
        try:
            compiled = core().import_model(self._plan, "CPU", asked)
        except RuntimeError as error:
            raise EngineUnavailable(f"OpenVINO does not open the plan of {self._name}: {error}") from error
        self._check(compiled, asked)
        self._request, self._plan = compiled.create_infer_request(), None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        assert self._request is not None, "the engine is closed, or was never prepared"
        self._held = tuple(tensor.detach().float().contiguous() for tensor in inputs)
        outputs = self._answers(len(inputs[0]))
        for index, tensor in enumerate(self._held):
            self._request.set_input_tensor(index, _shared(tensor))
        for index, tensor in enumerate(outputs):
            self._request.set_output_tensor(index, _shared(tensor))
        self._request.infer()
        return outputs

    def zeros(self, rows: int) -> tuple[Tensor, ...]:
        return tuple(torch.zeros(rows, *port.shape) for port in self._inputs)

    def close(self) -> None:
        self._request, self._plan, self._held, self._buffers = None, None, (), {}

    def _answers(self, rows: int) -> tuple[Tensor, ...]:
        if rows not in self._buffers:
            self._buffers[rows] = tuple(torch.empty(rows, *port.shape) for port in self._outputs)
        return self._buffers[rows]

    def _check(self, compiled: Any, asked: Mapping[str, object]) -> None:
        """What is open computes in what was asked for and has the graph's ports."""
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        found = [port.get_names() for port in (*compiled.inputs, *compiled.outputs)]
        wanted = [port.name for port in (*self._inputs, *self._outputs)]
        named = len(found) == len(wanted) and all(name in names for name, names in zip(wanted, found, strict=True))
        if hint != asked["INFERENCE_PRECISION_HINT"] or not named:
            raise EngineUnavailable(f"the plan of {self._name} is another's: it computes in {hint}, with ports {found}")


def usable(device: torch.device, precision: Precision) -> None:
    """`EngineUnavailable` if it cannot run on the device or in the precision, whatever was built."""
    library()
    if device.type != "cpu":
        raise EngineUnavailable(f"OpenVINO serves on the CPU and the device is {device}; set GRIDIT_DEVICE=cpu")
    check(precision)


def create(
    bundle: Bundle,
    *,
    net: NetName,
    precision: Precision,
    buckets: tuple[int, ...],
    device: torch.device,
    cache: EngineCache | None = None,
) -> OpenVINOEngine:
    """From the cache, for this CPU. `EngineUnavailable` says what is missing and how to get it."""
    precision = carried(precision, net)
    usable(device, precision)
    cache, found = cache or EngineCache.default(), graphs(bundle, net)
    records = find(found, precision=precision, cache=cache, path=bundle.path)
    return engine_of(found, records, cache=cache, buckets=buckets)


def engine_of(
    graphs: Sequence[Graph], records: Sequence[Record], *, cache: EngineCache, buckets: tuple[int, ...]
) -> OpenVINOEngine:
    """The engine of a net whose graphs have these records. `EngineUnavailable` if a plan is not what was built."""
    try:
        plans = {record.graph: cache.plan(record) for record in records}
    except PlanDamaged as error:
        raise EngineUnavailable(f"{error}; gridit compile with --on-damage rebuild makes it again") from error
    kind = OpenVINOEngine if isinstance(graphs[0].net, Codec) else CachingOpenVINOEngine
    return kind(graphs, plans, precision=records[0].recipe.precision, buckets=buckets)


def find(graphs: Sequence[Graph], *, precision: Precision, cache: EngineCache, path: Path) -> tuple[Record, ...]:
    """The record of each graph for this CPU and version; those in integers only where their quality was accepted.

    `EngineUnavailable` names the command that makes them, with `path` as the bundle's.
    """
    command = f"gridit compile {path} --engine openvino --precision {precision}"
    records = [_record(graph, precision, cache) for graph in graphs]
    missing = [graph.name for graph, record in zip(graphs, records, strict=True) if record is None]
    if missing:
        what = f"{precision} plan of {', '.join(missing)} for this CPU, {FLAVOUR} {version()}"
        raise EngineUnavailable(f"no {what} in {cache.root}; make it with: {command}")
    return tuple(record for record in records if record is not None)


def _record(graph: Graph, precision: Precision, cache: EngineCache) -> Record | None:
    likely = [record for record in cache.records() if (record.graph, record.recipe.flavour) == (graph.name, FLAVOUR)]
    if not any(record.recipe.precision is precision for record in likely):
        return None  # a digest of all weights takes its time
    source = source_digest(graph, precision=precision)
    wanted = recipe_of(graph, precision=precision, source=source)
    alike = (record for record in likely if record.recipe.model_copy(update={"quantisation": None}) == wanted)
    return next((record for record in alike if not precision.quantised or _accepted(record)), None)


def _accepted(record: Record) -> bool:
    return record.quality is not None and record.quality.accepted


def _shared(tensor: Tensor) -> Any:
    """An `openvino.Tensor` over the same memory, which must outlive its use."""
    return library().Tensor(tensor.numpy(), shared_memory=True)
