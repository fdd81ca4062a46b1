"""The engine that runs a compiled TensorRT plan on a GPU.

It opens a plan that `gridit compile` put into the cache, keeps one execution context and one set of buffers for each
bucket, and binds their addresses once, so a bucket can be a CUDA graph. All contexts share one scratch memory, since
runs follow one another. Nothing is built here. What it asks of TensorRT and of CUDA goes through two small protocols,
so a twin can check every name, shape, address and lifetime without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models import flavours
from models.bundle import Bundle
from models.engine import EngineUnavailable, NetName, Precision, Rows
from models.engine_cache import EngineCache, PlanDamaged
from models.export import MODULATION, OUT, X, source_digest
from models.flavours import Flavour, Log
from models.spec import Codec, NetSpec, Stage

_CUDA_UNUSABLE = "cudaError"
"""In a flavour's own words when it is CUDA, and not the plan, that fails."""


class ExecutionFailed(RuntimeError):
    """TensorRT refused a call while a plan was prepared or run; the message holds its own."""


class Runtime(Protocol):
    """What running takes of a flavour."""

    name: str
    log: Log
    captures: bool

    def open(self, plan: bytes) -> Any: ...
    def diagnose(self, plan: bytes) -> tuple[str, ...]: ...
    def runtime_config(self, engine: Any) -> Any: ...


class Gpu(Protocol):
    """What running takes of CUDA: memory and one stream."""

    device: torch.device
    handle: int
    """The stream, as TensorRT wants it."""

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        """A buffer on the device."""

    def ordered(self) -> AbstractContextManager[None]:
        """Work inside is on the stream, after what the caller has begun and before what the caller begins next."""

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph of `launch`, to be called inside `ordered`."""

    def synchronize(self) -> None:
        """Wait for the stream."""


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A batch size with its context and the buffers that are bound to it."""

    context: Any
    x: Tensor
    modulation: Tensor
    out: Tensor
    launch: Callable[[], None]


class TensorRTEngine:
    """A plan, ready to run in its buckets."""

    name = "tensorrt"

    def __init__(
        self,
        plan: bytes,
        *,
        spec: NetSpec,
        runtime: Runtime,
        gpu: Gpu,
        precision: Precision,
        buckets: tuple[int, ...],
    ) -> None:
        """`plan` is of the net that `spec` describes. Nothing is opened before `prepare`."""
        self.device, self.precision, self.buckets = gpu.device, precision, buckets
        self._plan: bytes | None = plan
        self._spec, self._runtime, self._gpu = spec, runtime, gpu
        self._engine: Any = None
        self._ready: dict[int, _Bucket] = {}

    def prepare(self) -> None:
        """Open the plan, bind and run every bucket once. `EngineUnavailable` says why a plan does not open here."""
        if self._ready:
            return
        assert self._plan is not None, "the engine is closed"
        self._engine = opened(self._plan, self._runtime)
        _check_tensors(self._engine)
        scratch = self._gpu.zeros((max(1, self._engine.device_memory_size_v2),), dtype=torch.uint8)
        self._ready = {rows: self._bucket(self._engine, rows, scratch) for rows in self.buckets}
        self._plan = None  # the device has it now

    @torch.inference_mode()
    def run(self, batch: Rows) -> Tensor:
        """One forward pass in the bucket of that size; the answer is the bucket's own buffer."""
        bucket = self._ready[len(batch.x)]
        assert batch.modulation is not None
        with self._gpu.ordered():
            bucket.x.copy_(batch.x)
            bucket.modulation.copy_(batch.modulation)
            bucket.launch()
        return bucket.out

    def close(self) -> None:
        """Wait for the device, then let contexts and buffers go, and the engine after them."""
        if self._ready:
            self._gpu.synchronize()
        self._ready, self._plan = {}, None
        self._engine = None

    def _bucket(self, engine: Any, rows: int, scratch: Tensor) -> _Bucket:
        spec, runtime = self._spec, self._runtime
        x = self._buffer(rows, spec.in_channels, spec.input_size, spec.input_size)
        modulation = self._buffer(rows, 6 * spec.depth + 2, spec.width)
        out = self._buffer(rows, spec.out_channels, spec.input_size, spec.input_size)
        context = engine.create_execution_context(runtime.runtime_config(engine))
        self._must(context is not None, "no execution context")
        profile = profile_for(engine, rows)
        self._must(context.set_optimization_profile_async(profile, self._gpu.handle), f"profile {profile} not set")
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
        for name, tensor in ((X, x), (MODULATION, modulation)):
            self._must(context.set_input_shape(name, tuple(tensor.shape)), f"shape of {name} not set")
        found = tuple(context.get_tensor_shape(OUT))
        self._must(found == tuple(out.shape), f"{OUT} has shape {found}, not {tuple(out.shape)}")
        for name, tensor in ((X, x), (MODULATION, modulation), (OUT, out)):
            self._must(context.set_tensor_address(name, tensor.data_ptr()), f"address of {name} not set")

        def launch(scratch: Tensor = scratch) -> None:  # keeps the shared scratch alive as long as the bucket
            self._must(context.execute_async_v3(self._gpu.handle), "a run was not enqueued")

        with self._gpu.ordered():
            launch()  # kernels are finished and loaded at the first run, which no graph may record
        self._gpu.synchronize()
        return _Bucket(context, x, modulation, out, launch if runtime.captures else self._gpu.record(launch))

    def _buffer(self, *shape: int) -> Tensor:
        return self._gpu.zeros(shape, dtype=torch.float32)

    def _must(self, done: object, what: str) -> None:
        if not done:
            raise ExecutionFailed(f"{self._runtime.name}: {what}: {'; '.join(self._runtime.log.problems)}")


class Cuda:
    """A GPU, through torch; it must be the process's current one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        self.handle = int(self._stream.cuda_stream)

    def zeros(self, shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @contextmanager
    def ordered(self) -> Iterator[None]:
        caller = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            yield
        caller.wait_stream(self._stream)

    def record(self, launch: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            launch()
        return graph.replay

    def synchronize(self) -> None:
        self._stream.synchronize()


def create(
    bundle: Bundle, *, net: NetName, precision: Precision, buckets: tuple[int, ...], device: torch.device
) -> TensorRTEngine:
    """From the cache, for the GPU `device`. `EngineUnavailable` says what is missing and how to get it."""
    flavour = flavours.detect()
    flavours.capability()
    if device.type != "cuda":
        raise EngineUnavailable("TensorRT needs a GPU and the device is the CPU; set GRIDIT_DEVICE=cuda, or auto")
    if isinstance(net, Codec):
        raise EngineUnavailable("autoencoders are not compiled")
    plan = find(bundle, flavour, here=flavour.here(), stage=net, precision=precision, buckets=buckets)
    return TensorRTEngine(
        plan, spec=bundle.spec.nets[net], runtime=flavour, gpu=Cuda(device), precision=precision, buckets=buckets
    )


def find(
    bundle: Bundle,
    flavour: Flavour,
    *,
    here: str,
    stage: Stage,
    precision: Precision,
    buckets: tuple[int, ...],
    cache: EngineCache | None = None,
) -> bytes:
    """The plan of a net for the GPU `here`: of several the one for the fewest targets, then with the most profiles.

    `EngineUnavailable` with the command that makes one, if there is none or it is not what was built.
    """
    cache = cache or EngineCache.default()
    target = here.partition(" ")[0]
    command = f"gridit compile {bundle.path} --engine tensorrt --target {target} --precision {precision}"
    source = source_digest(bundle.net(stage), precision=precision)
    found = [
        record
        for record in cache.records()
        if record.source == source
        and (record.recipe.flavour, record.recipe.version) == (flavour.name, flavour.version)
        and here in record.recipe.targets
        and all(record.recipe.serves(rows) for rows in buckets)
    ]
    if not found:
        what = f"{precision} plan of the {stage} net for {here}, {flavour.name} {flavour.version}"
        raise EngineUnavailable(f"no {what} in {cache.root}; make it with: {command}")
    try:
        return cache.plan(min(found, key=lambda record: (len(record.recipe.targets), -len(record.recipe.profiles))))
    except PlanDamaged as error:
        raise EngineUnavailable(f"{error}; make it again with: {command} --on-damage rebuild") from error


def opened(plan: bytes, runtime: Runtime) -> Any:
    """The `ICudaEngine` of a plan. `EngineUnavailable` tells a machine that cannot run it from a plan that is bad."""
    runtime.log.clear()
    engine = runtime.open(plan)
    if engine is not None:
        return engine
    said = "; ".join(runtime.log.problems) or "no reason given"
    if _CUDA_UNUSABLE in said:
        raise EngineUnavailable(f"{runtime.name} finds no usable NVIDIA driver or GPU; the plan was not judged: {said}")
    found = runtime.diagnose(plan)
    if "UNSUPPORTED_CC" in found:
        raise EngineUnavailable(f"the plan was built for GPUs of another compute capability than this one: {said}")
    raise EngineUnavailable(f"{runtime.name} does not open the plan ({', '.join(found) or 'no diagnosis'}): {said}")


def profile_for(engine: Any, rows: int) -> int:
    """The profile whose range holds `rows`, the narrowest of several. `EngineUnavailable` if there is none."""
    widths: dict[int, int] = {}
    for index in range(engine.num_optimization_profiles):
        least, _, most = (shape[0] for shape in engine.get_tensor_profile_shape(X, index))
        if least <= rows <= most:
            widths[index] = most - least
    if not widths:
        raise EngineUnavailable(f"the plan has no profile for a batch of {rows}; compile it with that bucket")
    return min(widths, key=lambda index: widths[index])


def _check_tensors(engine: Any) -> None:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: (engine.get_tensor_mode(name).name, engine.get_tensor_dtype(name).name) for name in names}
    wanted = {X: ("INPUT", "FLOAT"), MODULATION: ("INPUT", "FLOAT"), OUT: ("OUTPUT", "FLOAT")}
    if found != wanted:
        raise EngineUnavailable(f"the plan's tensors are {found}, not {wanted}")
