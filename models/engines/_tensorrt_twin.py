"""A twin of TensorRT's execution half that needs no GPU: the same calls, answered by ONNX Runtime on the CPU.

It keeps TensorRT's rules and is stricter about them: a call with a wrong name, shape or profile is refused as
TensorRT refuses it, and what would be undefined behaviour there (a dead or short buffer, a foreign stream, a run that
is not ordered after the caller's work, an engine gone before its contexts, the recording of a run that was never run)
raises `TwinViolation`. A recorded run goes to the addresses it was recorded with, as a CUDA graph does. Its "plan" is
the ONNX graph with its profiles. It says nothing about speed or about TensorRT's numerics.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any

import onnxruntime

from models.compiling.engine_cache import Profile
from models.compiling.flavours import Log
from models.engines._twin_gpu import TwinGpu, TwinViolation

SCRATCH_PER_ROW = 1024
"""Bytes of scratch memory a row is said to need."""


class _Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class _Type(Enum):
    FLOAT = "tensor(float)"
    HALF = "tensor(float16)"


def pack(onnx: bytes, profiles: Sequence[Profile]) -> bytes:
    """A plan for the twin."""
    return json.dumps([profile.model_dump() for profile in profiles]).encode() + b"\n" + onnx


class TwinRuntime:
    """The twin of a flavour, as far as running goes."""

    name = "tensorrt-twin"
    captures = False

    def __init__(self, gpu: TwinGpu) -> None:
        self.gpu, self.log = gpu, Log()

    def open(self, plan: bytes) -> TwinEngine | None:
        """None, and a problem in the log, if the bytes are no plan."""
        header, _, onnx = plan.partition(b"\n")
        try:
            profiles = tuple(Profile.model_validate(profile) for profile in json.loads(header))
        except ValueError as error:
            self.log.problems.append(f"Serialization: {error}")
            return None
        return TwinEngine(onnx, profiles, self)

    def diagnose(self, plan: bytes) -> tuple[str, ...]:
        """It knows one disease."""
        return ("MALFORMED_ENGINE",)

    def runtime_config(self, engine: TwinEngine) -> Any:
        """Nothing to configure."""
        return SimpleNamespace()


class TwinEngine:
    """`ICudaEngine`."""

    def __init__(self, onnx: bytes, profiles: tuple[Profile, ...], runtime: TwinRuntime) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.profiles, self.runtime = profiles, runtime
        self.inputs: dict[str, Any] = {tensor.name: tensor for tensor in self.session.get_inputs()}
        self.outputs: dict[str, Any] = {tensor.name: tensor for tensor in self.session.get_outputs()}
        self.num_optimization_profiles = len(profiles)
        self.num_io_tensors = len(self.inputs) + len(self.outputs)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return SCRATCH_PER_ROW * self.profiles[index].most

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_mode(self, name: str) -> _Mode:
        return _Mode.INPUT if name in self.inputs else _Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> _Type:
        return _Type({**self.inputs, **self.outputs}[name].type)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        profile, rest = self.profiles[index], tuple(self.inputs[name].shape[1:])
        return [(rows, *rest) for rows in (profile.least, profile.best, profile.most)]

    def create_execution_context(self, runtime_config: Any) -> TwinContext:
        return TwinContext(self)


@dataclass(frozen=True, slots=True)
class _Scratch:
    address: int = 0
    size: int = 0


class TwinContext:
    """`IExecutionContext`. Like the real one it does not keep its engine alive."""

    def __init__(self, engine: TwinEngine) -> None:
        self._engine, self._runtime = weakref.ref(engine), engine.runtime
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = _Scratch()
        self._ran: tuple[int, dict[str, tuple[int, ...]]] | None = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        """Forgets the shapes that were set before, as the real one does."""
        self._on(stream)
        self._profile, self._shapes = index, {}
        return self._accept(0 <= index < len(self._living().profiles), f"no profile {index}")

    def set_device_memory(self, memory: int, size: int) -> None:
        self._scratch = _Scratch(memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if not self._accept(name in self._living().inputs, f"{name} is no input"):
            return False
        least, _, most = self._living().get_tensor_profile_shape(name, self._profile)
        within = len(shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
        )
        self._shapes[name] = shape
        return self._accept(within, f"{name} {shape} is not within {least}..{most}")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """-1 for a batch that no input has told."""
        if name in self._shapes:
            return self._shapes[name]
        batch = next((shape[0] for shape in self._shapes.values()), -1)
        engine = self._living()
        return (batch, *{**engine.inputs, **engine.outputs}[name].shape[1:])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        engine = self._living()
        self._addresses[name] = memory
        return self._accept(name in engine.inputs or name in engine.outputs, f"{name} is no tensor of the engine")

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Runs at once. False if a shape or an address was never set or the batches differ."""
        self._on(stream_handle)
        engine, gpu = self._living(), self._runtime.gpu
        unset = [n for n in (*engine.inputs, *engine.outputs) if n not in self._addresses]
        unset += [n for n in engine.inputs if n not in self._shapes]
        batches = {shape[0] for shape in self._shapes.values()}
        if not self._accept(not unset and len(batches) == 1, f"not set: {unset}; batches: {sorted(batches)}"):
            return False
        run = partial(_run, weakref.ref(self), dict(self._shapes), dict(self._addresses), self._scratch)
        if gpu.recording is None:
            gpu.enqueue("a run")
            run()
            self._ran = self._profile, dict(self._shapes)
        elif self._ran == (self._profile, self._shapes):
            gpu.recording.append(run)
        else:
            raise TwinViolation("a run was recorded that was never run: its kernels are not loaded")
        return True

    def compute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: _Scratch) -> None:
        """What the device does when it comes to a run."""
        engine, gpu = self._living(), self._runtime.gpu
        if scratch.size < engine.get_device_memory_size_for_profile_v2(self._profile):
            raise TwinViolation(f"{scratch.size} bytes of scratch memory are too few")
        gpu.require(scratch.address, scratch.size)
        feeds = {name: gpu.floats(addresses[name], shapes[name]) for name in engine.inputs}
        for name, value in zip(engine.outputs, engine.session.run(list(engine.outputs), feeds), strict=True):
            gpu.floats(addresses[name], value.shape)[...] = value

    def _on(self, stream: int) -> None:
        if stream != self._runtime.gpu.handle:
            raise TwinViolation("work was enqueued on another stream")

    def _living(self) -> TwinEngine:
        engine = self._engine()
        if engine is None:
            raise TwinViolation("the engine is gone before its context")
        return engine

    def _accept(self, good: bool, problem: str) -> bool:  # noqa: FBT001
        if not good:
            self._runtime.log.problems.append(problem)
        return good


def _run(
    context: weakref.ref[TwinContext],
    shapes: dict[str, tuple[int, ...]],
    addresses: dict[str, int],
    scratch: _Scratch,
) -> None:
    """A CUDA graph does not keep the context alive that it was recorded with."""
    living = context()
    if living is None:
        raise TwinViolation("the context is gone before the graph that was recorded with it")
    living.compute(shapes, addresses, scratch)
