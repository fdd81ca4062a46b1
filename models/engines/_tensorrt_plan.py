"""One TensorRT plan on a GPU: opened, checked against its graph's ports, and bound to buffers, once for each bucket.

Addresses are bound once, so a bucket can be a CUDA graph. What is asked of TensorRT and of CUDA goes through two small
protocols, so a twin can check every name, shape, address and lifetime without a GPU. Which plans make an engine is
`models.engines.tensorrt`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.compiling.flavours import Log
from models.engine import EngineUnavailable
from models.engines._cuda import Gpu
from models.graph import Part, Port, X

_CUDA_UNUSABLE = "cudaError"
"""In a flavour's own words when it is CUDA, and not the plan, that fails."""
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|MemoryAllocation", re.IGNORECASE)


class ExecutionFailed(RuntimeError):
    """TensorRT refused a call while a plan was prepared or run; the message holds its own."""


class DeviceFull(ExecutionFailed, torch.OutOfMemoryError):
    """TensorRT refused a call for want of device memory."""


class Runtime(Protocol):
    """What running takes of a flavour."""

    name: str
    log: Log
    captures: bool

    def open(self, plan: bytes) -> Any: ...
    def diagnose(self, plan: bytes) -> tuple[str, ...]: ...
    def runtime_config(self, engine: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph's plan and the graph's ports."""

    name: str
    """`Graph.name`."""
    part: Part
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Bucket:
    """A batch size of a graph, with its context and the buffers that are bound to it.

    It holds what a recorded run needs and does not hold itself: the context, and the memory that all buckets share.
    """

    context: Any
    scratch: Tensor
    inputs: Mapping[str, Tensor]
    outputs: tuple[Tensor, ...]
    launch: Callable[[], None]


class Opened:
    """A plan that the device has."""

    def __init__(self, plan: Plan, *, runtime: Runtime, gpu: Gpu) -> None:
        """`EngineUnavailable` says why it does not open here, or what it has instead of the graph's ports."""
        self.part, self._inputs, self._outputs = plan.part, plan.inputs, plan.outputs
        self._runtime, self._gpu = runtime, gpu
        self._engine = opened(plan.content, runtime)
        _check_tensors(self._engine, plan)

    def scratch(self, rows: int) -> int:
        """Bytes of scratch memory that a batch of that size takes. `EngineUnavailable` if it has no profile."""
        profile = profile_for(self._engine, rows)
        return int(self._engine.get_device_memory_size_for_profile_v2(profile))

    def key(self, rows: int) -> tuple[Part, tuple[int, ...]]:
        """What tells a bucket from others of a net: the part, and the shape of its images."""
        return self.part, (rows, *self._inputs[0].shape)

    def bucket(self, rows: int, *, scratch: Tensor) -> Bucket:
        """Bind, run once, and record. `ExecutionFailed`; `torch.OutOfMemoryError`."""
        inputs = {port.name: self._buffer(rows, port) for port in self._inputs}
        outputs = {port.name: self._buffer(rows, port) for port in self._outputs}
        context = self._context(rows, inputs, scratch)
        for name, tensor in outputs.items():
            found = tuple(context.get_tensor_shape(name))
            self._must(found == tuple(tensor.shape), f"{name} has shape {found}, not {tuple(tensor.shape)}")
        for name, tensor in (inputs | outputs).items():
            self._must(context.set_tensor_address(name, tensor.data_ptr()), f"address of {name} not set")

        def launch() -> None:
            self._must(context.execute_async_v3(self._gpu.handle), "a run was not enqueued")

        return Bucket(context, scratch, inputs, tuple(outputs.values()), self._recorded(launch))

    def _context(self, rows: int, inputs: Mapping[str, Tensor], scratch: Tensor) -> Any:
        context = self._engine.create_execution_context(self._runtime.runtime_config(self._engine))
        self._must(context is not None, "no execution context")
        profile = profile_for(self._engine, rows)
        self._must(context.set_optimization_profile_async(profile, self._gpu.handle), f"profile {profile} not set")
        context.set_device_memory(scratch.data_ptr(), scratch.numel())
        for name, tensor in inputs.items():
            self._must(context.set_input_shape(name, tuple(tensor.shape)), f"shape of {name} not set")
        return context

    def _recorded(self, launch: Callable[[], None]) -> Callable[[], None]:
        with self._gpu.ordered():
            launch()  # kernels are finished and loaded at the first run, which no graph may record
        self._gpu.synchronize()
        return launch if self._runtime.captures else self._gpu.record(launch)

    def _buffer(self, rows: int, port: Port) -> Tensor:
        return self._gpu.zeros((rows, *port.shape), dtype=torch.float32)

    def _must(self, done: object, what: str) -> None:
        if not done:
            said = "; ".join(self._runtime.log.problems)
            failure = DeviceFull if _OUT_OF_MEMORY.search(said) else ExecutionFailed
            raise failure(f"{self._runtime.name}: {what}: {said}")


def opened(plan: bytes, runtime: Runtime) -> Any:
    """The `ICudaEngine` of a plan. `EngineUnavailable` tells a machine that cannot run it from a plan that is bad."""
    runtime.log.clear()
    engine = runtime.open(plan)
    if engine is not None:
        return engine
    said = "; ".join(runtime.log.problems) or "no reason given"
    if _OUT_OF_MEMORY.search(said):
        raise EngineUnavailable(f"the GPU has too little free memory for the plan's {len(plan) / 1e6:.0f} MB: {said}")
    if _CUDA_UNUSABLE in said:
        raise EngineUnavailable(f"{runtime.name} finds no usable NVIDIA driver or GPU; the plan was not judged: {said}")
    found = runtime.diagnose(plan)
    if "UNSUPPORTED_CC" in found:
        raise EngineUnavailable(f"the plan was built for GPUs of another compute capability than this one: {said}")
    raise EngineUnavailable(f"{runtime.name} does not open the plan ({', '.join(found) or 'no diagnosis'}): {said}")


def profile_for(engine: Any, rows: int) -> int:
    """The profile whose range holds `rows`, the narrowest of several. `EngineUnavailable` if there is none."""
    widths: dict[int, int] = {}
    ranges = []
    for index in range(engine.num_optimization_profiles):
        least, _, most = (shape[0] for shape in engine.get_tensor_profile_shape(X, index))
        ranges.append(f"{least}-{most}")
        if least <= rows <= most:
            widths[index] = most - least
    if not widths:
        has = f"the plan has no profile for a batch of {rows}, only for {', '.join(ranges)}"
        raise EngineUnavailable(f"{has}; compile it with that bucket: gridit compile --buckets")
    return min(widths, key=lambda index: widths[index])


def _check_tensors(engine: Any, plan: Plan) -> None:
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: (engine.get_tensor_mode(name).name, engine.get_tensor_dtype(name).name) for name in names}
    wanted = {port.name: ("INPUT", "FLOAT") for port in plan.inputs}
    wanted |= {port.name: ("OUTPUT", "FLOAT") for port in plan.outputs}
    if found != wanted:
        raise EngineUnavailable(f"the tensors of the plan of {plan.name} are {found}, not {wanted}")
