"""The engine that runs compiled TensorRT plans on a GPU.

It opens what `gridit compile` put into the cache, a plan for each graph of a net, and keeps one execution context and
one set of buffers for each graph and bucket. All contexts share one scratch memory, since runs follow one another.
Nothing is built here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.bundle import Bundle
from models.compiling import flavours
from models.compiling.engine_cache import EngineCache, PlanDamaged, Record
from models.compiling.export import carried, source_digest
from models.compiling.flavours import Flavour
from models.engine import EngineUnavailable, NetName, Precision, Rows
from models.engines._cuda import Cuda, Gpu
from models.engines._tensorrt_plan import Bucket, Opened, Plan, Runtime
from models.graph import DEEP, MODULATION, Graph, Part, X, graphs

_log = logging.getLogger(__name__)


class TensorRTEngine:
    """The plans of one net, ready to run in its buckets; images of several sizes, where the plans are for several."""

    name = "tensorrt"

    def __init__(
        self, plans: Sequence[Plan], *, runtime: Runtime, gpu: Gpu, precision: Precision, buckets: tuple[int, ...]
    ) -> None:
        """Nothing is opened before `prepare`. `buckets` ascend."""
        self.device, self.precision, self.buckets = gpu.device, precision, buckets
        self._plans: tuple[Plan, ...] | None = tuple(plans)
        self._runtime, self._gpu = runtime, gpu
        self._opened: tuple[Opened, ...] = ()
        self._ready: dict[tuple[Part, tuple[int, ...]], Bucket] = {}

    def prepare(self) -> None:
        """Open the plans, bind and run every bucket once. `EngineUnavailable` says why that cannot be here.

        Where the device has too little memory, the largest buckets are left out, and `buckets` says which are there.
        """
        if self._ready:
            return
        assert self._plans is not None, "the engine is closed"
        self._opened = tuple(Opened(plan, runtime=self._runtime, gpu=self._gpu) for plan in self._plans)
        while (problem := self._bind()) is not None:
            self._gpu.release()
            if len(self.buckets) == 1:
                self.close()
                raise EngineUnavailable(f"the GPU has too little memory for a batch of {self.buckets[0]}: {problem}")
            self._leave_out(problem)
        self._plans = None  # the device has them now

    def run(self, batch: Rows) -> Tensor:
        """One forward pass in the bucket of that size; the answer is the bucket's own buffer."""
        return self._run(Part.WHOLE, batch)[0]

    def close(self) -> None:
        """Wait for the device, then let contexts and buffers go, and the plans after them."""
        if self._ready:
            self._gpu.synchronize()
        self._ready, self._plans = {}, None
        self._opened = ()

    @torch.inference_mode()
    def _run(self, part: Part, batch: Rows, deep: Tensor | None = None) -> tuple[Tensor, ...]:
        bucket = self._ready[part, tuple(batch.x.shape)]
        given = {X: batch.x, MODULATION: batch.modulation, DEEP: deep}
        with self._gpu.ordered():
            for name, buffer in bucket.inputs.items():
                tensor = given[name]
                assert tensor is not None, f"{part} is run with {name}"
                buffer.copy_(tensor)
            bucket.launch()
        return bucket.outputs

    def _bind(self) -> str | None:
        """Make every bucket ready. If the memory does not suffice, none is, and what was said about it is returned."""
        needed = max(plan.scratch(rows) for plan in self._opened for rows in self.buckets)
        try:
            scratch = self._gpu.zeros((max(1, needed),), dtype=torch.uint8)
            for rows in self.buckets:
                self._ready |= {plan.key(rows): plan.bucket(rows, scratch=scratch) for plan in self._opened}
        except torch.OutOfMemoryError as error:
            self._ready = {}
            return str(error)
        return None

    def _leave_out(self, problem: str) -> None:
        *kept, dropped = self.buckets
        self.buckets = tuple(kept)
        fields = {"action": "engine.bucket_left_out", "bucket": dropped, "largest": kept[-1], "reason": problem}
        _log.warning("too little GPU memory for a bucket", extra=fields)


class CachingTensorRTEngine(TensorRTEngine):
    """The same for a net that has a plan for each of its parts."""

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        """As `run`, and what the deep blocks added; both are the bucket's own buffers."""
        out, deep = self._run(Part.WHOLE, batch)
        return out, deep

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        """As `run`, with what the deep blocks added before."""
        return self._run(Part.REUSING, batch, deep)[0]


def create(
    bundle: Bundle,
    *,
    net: NetName,
    precision: Precision,
    buckets: tuple[int, ...],
    device: torch.device,
    cache: EngineCache | None = None,
) -> TensorRTEngine:
    """From `cache`, or the default one, for the GPU `device`. `EngineUnavailable` says what is missing."""
    flavour = flavours.detect()
    flavours.capability()
    if device.type != "cuda":
        raise EngineUnavailable("TensorRT needs a GPU and the device is the CPU; set GRIDIT_DEVICE=cuda, or auto")
    parts, here = graphs(bundle, net), flavour.here()
    cache, precision = cache or EngineCache.default(), carried(precision, net)
    records = find(parts, flavour, here=here, precision=precision, buckets=buckets, cache=cache, path=bundle.path)
    plans = plans_of(parts, records, cache=cache, path=bundle.path)
    return engine_of(plans, runtime=flavour, gpu=Cuda(device), precision=precision, buckets=buckets)


def engine_of(
    plans: Sequence[Plan], *, runtime: Runtime, gpu: Gpu, precision: Precision, buckets: tuple[int, ...]
) -> TensorRTEngine:
    """An engine of the plans of one net; it reuses features if there is a plan for that."""
    caching = any(plan.part is Part.REUSING for plan in plans)
    kind = CachingTensorRTEngine if caching else TensorRTEngine
    return kind(plans, runtime=runtime, gpu=gpu, precision=precision, buckets=buckets)


def find(
    graphs: Sequence[Graph],
    flavour: Flavour,
    *,
    here: str,
    precision: Precision,
    buckets: tuple[int, ...],
    cache: EngineCache,
    path: Path,
) -> tuple[Record, ...]:
    """The plan of each graph of a net for the GPU `here`: of several the one for the fewest targets, then with the
    most profiles. Of quantised ones only what the bundle's quality gate accepted.

    `EngineUnavailable` with the command that makes them if one is missing; `path` is the bundle's.
    """
    found = []
    for graph in graphs:
        known = [
            record
            for record in candidates(graph, flavour, here=here, precision=precision, cache=cache)
            if all(record.recipe.serves(rows) for rows in buckets)
        ]
        if not known:
            what = f"{precision} plan of {graph.name} for {here}, {flavour.name} {flavour.version}"
            command = _command(path, here.partition(" ")[0], precision)
            raise EngineUnavailable(f"no {what} in {cache.root}; make it with: {command}")
        found.append(min(known, key=lambda record: (len(record.recipe.targets), -len(record.recipe.profiles))))
    return tuple(found)


def candidates(
    graph: Graph, flavour: Flavour, *, here: str, precision: Precision, cache: EngineCache
) -> tuple[Record, ...]:
    """Every plan of a graph that this flavour can run on the GPU `here`, whatever its buckets."""
    source = source_digest(graph, precision=precision)
    return tuple(
        record
        for record in cache.find(source, flavour=flavour.name, version=flavour.version)
        if here in record.recipe.targets and (not precision.quantised or (record.quality and record.quality.accepted))
    )


def plans_of(graphs: Sequence[Graph], records: Sequence[Record], *, cache: EngineCache, path: Path) -> tuple[Plan, ...]:
    """What the records vouch for, of graphs in the same order. `EngineUnavailable` if a plan is not what was built."""
    return tuple(
        Plan(graph.name, graph.part, graph.inputs, graph.outputs, _content(record, cache, path))
        for graph, record in zip(graphs, records, strict=True)
    )


def _content(record: Record, cache: EngineCache, path: Path) -> bytes:
    try:
        return cache.plan(record)
    except PlanDamaged as error:
        target = record.recipe.targets[0].partition(" ")[0]
        command = _command(path, target, record.recipe.precision)
        raise EngineUnavailable(f"{error}; make it again with: {command} --on-damage rebuild") from error


def _command(path: Path, target: str, precision: Precision) -> str:
    return f"gridit compile {path} --engine tensorrt --target {target} --precision {precision}"
