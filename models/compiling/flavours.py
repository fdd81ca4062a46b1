"""TensorRT's two flavours behind one seam: TensorRT proper and TensorRT-RTX, which share an API but for details.

TensorRT tunes on the GPU it is built on; TensorRT-RTX builds without any GPU, for a list of compute capabilities,
and finishes its kernels when a plan is loaded. This module knows how to find a flavour, what it can aim at, and how
to read what it says. Building is `compiling.build`, running is `models.engines.tensorrt`. TensorRT proper follows its
documentation: no machine this is tested on can run it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch

from models.compiling.export import EXTRA
from models.engine import EngineUnavailable

CURRENT = "current"
"""The target that stands for the GPU of this machine."""

_NO_KERNEL = {"shape_call", "wait", "signal"}
"""Types of listed layers that launch nothing."""

_FUSED_ATTENTION = re.compile(r"_\w*mha")
"""Names such as `_gemm_mha_v2_myl0_5`: the compiler's own, which begin with an underscore, not the graph's."""


class Flavour(Protocol):
    """What differs between the flavours, and the module that both offer."""

    name: str
    version: str
    trt: Any
    """The bindings' module."""
    logger: Any
    """Its one `ILogger`, which writes to `log`."""
    log: Log
    captures: bool
    """Whether it makes CUDA graphs of its own accord."""

    def targets(self, asked: Sequence[str]) -> tuple[str, ...]:
        """What was asked for in its final form, as it enters the key of a plan. ValueError, EngineUnavailable."""

    def here(self) -> str:
        """This machine's GPU, as it stands among targets. `EngineUnavailable` without one."""

    def aim(self, config: Any, targets: Sequence[str]) -> None:
        """Set the targets of a builder configuration."""

    def listing(self, plan: bytes) -> str:
        """The detailed layers of the plan that was built last, one line each."""

    def open(self, plan: bytes) -> Any:
        """The `ICudaEngine` of a plan, or None; `log` and `diagnose` say why."""

    def diagnose(self, plan: bytes) -> tuple[str, ...]:
        """Names of what `EngineInvalidityDiagnostics` finds in a plan; empty where it cannot tell."""

    def runtime_config(self, engine: Any) -> Any:
        """How execution contexts are to be made; their scratch memory is the caller's."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """What a listing of layers says."""

    total: int
    """Kernels launched, over all profiles."""
    fused_attentions: int
    """Fused attentions among them, over all profiles."""


def count(listing: str) -> Kernels:
    """Read a listing in TensorRT's one-line format, as the log and the inspector print it."""
    layers = re.findall(r"^Name: (.*?), LayerType: (\w+)", listing, flags=re.MULTILINE)
    types = Counter(kind for _, kind in layers)
    fused = sum(kind == "kgen" and _FUSED_ATTENTION.match(name) is not None for name, kind in layers)
    return Kernels(len(layers) - sum(types[kind] for kind in _NO_KERNEL), fused)


def capability() -> str:
    """The first GPU's compute capability, such as sm89. `EngineUnavailable` without a GPU."""
    if not torch.cuda.is_available():
        why = "was built without CUDA" if torch.version.cuda is None else "sees no CUDA device"
        raise EngineUnavailable(f"no NVIDIA GPU to be used here: torch {torch.__version__} {why}")
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def number(target: str) -> int:
    """The compute capability of a target: 89 of "sm89" and of "sm89 NVIDIA L4 driver 580.1"."""
    return int(target.partition(" ")[0].removeprefix("sm"))


@cache
def detect() -> Flavour:
    """The flavour to use, of those installed: TensorRT proper first where there is a GPU, else TensorRT-RTX first."""
    order: list[type[TensorRT] | type[TensorRTRTX]] = [TensorRT, TensorRTRTX]
    for flavour in order if torch.cuda.is_available() else reversed(order):
        for module in flavour.modules:
            try:
                trt = import_module(module)
            except (ImportError, OSError):  # OSError: the package is there, its libraries are not
                continue
            if hasattr(trt, "Builder"):
                return flavour(trt)
    raise EngineUnavailable(f"TensorRT is not installed; install {EXTRA}")


@dataclass
class Log:
    """What a flavour has said since `clear`: its problems, and the last listing of layers."""

    problems: list[str] = field(default_factory=list)
    layers: str = ""

    def clear(self) -> None:
        """Forget."""
        self.problems, self.layers = [], ""

    def take(self, message: str, *, problem: str | None) -> None:
        """Keep a message if it matters. `problem` names its severity if it is one."""
        if problem is not None:
            self.problems.append(message)
        elif message.startswith("Layers:"):
            self.layers = message


def logger(trt: ModuleType, log: Log) -> Any:
    """An `ILogger` that writes to `log`. A process's first logger is the one that counts, so make one only."""
    bad = {trt.ILogger.Severity.INTERNAL_ERROR: "internal error", trt.ILogger.Severity.ERROR: "error"}

    class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.take(message, problem=bad.get(severity))

    return Logger()


class _Base:
    """What both flavours do alike."""

    name: str
    captures: bool

    def __init__(self, trt: ModuleType) -> None:
        self.trt, self.version, self.log = trt, str(trt.__version__), Log()
        self.logger = logger(trt, self.log)
        self._runtime: Any = None

    def open(self, plan: bytes) -> Any:
        """The runtime is kept: it must outlive the engines it opens."""
        if self._runtime is None:
            self._runtime = self.trt.Runtime(self.logger)
        return self._runtime.deserialize_cuda_engine(plan)

    def diagnose(self, plan: bytes) -> tuple[str, ...]:
        if self._runtime is None or not hasattr(self._runtime, "get_engine_validity"):
            return ()
        _, found = self._runtime.get_engine_validity(plan)
        return tuple(name for name, bit in self.trt.EngineInvalidityDiagnostics.__members__.items() if found & int(bit))

    def runtime_config(self, engine: Any) -> Any:
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        return config


class TensorRTRTX(_Base):
    """TensorRT-RTX: for consumer and workstation GPUs; builds anywhere."""

    name = "tensorrt-rtx"
    modules = ("tensorrt_rtx", "tensorrt_rtx_bindings")
    captures = True

    def targets(self, asked: Sequence[str]) -> tuple[str, ...]:
        """Capabilities, ascending. The GPU of this machine is named by its capability, so its plans can be shared."""
        known = self._capabilities()
        named = {
            _this_gpu("name those to build for, such as --target sm89") if t == CURRENT else t.lower() for t in asked
        }
        unknown = sorted(named - set(known))
        if unknown:
            hint = f"; TensorRT proper ({EXTRA.split(' or ')[0]}) may" if CURRENT in asked else ""
            raise ValueError(f"{self.name} cannot build for {', '.join(unknown)}, only for {', '.join(known)}{hint}")
        return tuple(target for target in known if target in named)

    def here(self) -> str:
        return capability()

    def aim(self, config: Any, targets: Sequence[str]) -> None:
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(self.trt.ComputeCapability.__members__[target.upper()], index)

    def listing(self, plan: bytes) -> str:
        """From the log: without a GPU the plan cannot be opened again."""
        return self.log.layers

    def runtime_config(self, engine: Any) -> Any:
        """Kernels are finished for each batch size when it first runs, which is in `prepare`."""
        config = super().runtime_config(engine)
        config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        eager = self.trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        return config

    def _capabilities(self) -> tuple[str, ...]:
        values = {int(value): name.lower() for name, value in self.trt.ComputeCapability.__members__.items()}
        return tuple(values[number] for number in sorted(values) if values[number].startswith("sm"))


class TensorRT(_Base):
    """TensorRT proper: builds on the GPU that will run the plan, and for that one only."""

    name = "tensorrt"
    modules = ("tensorrt",)
    captures = False

    def targets(self, asked: Sequence[str]) -> tuple[str, ...]:
        """This machine's GPU, which may also be asked for by its capability."""
        gpu = _this_gpu(
            "build where the plan will run, or install gridit-serve[tensorrt-rtx], which needs no GPU to build"
        )
        others = sorted(set(asked) - {CURRENT, gpu})
        if others:
            raise ValueError(f"{self.name} builds for this machine's GPU only ({gpu}), not for {', '.join(others)}")
        return (self.here(),)

    def here(self) -> str:
        """Capability, model and driver: kernels are chosen by timing them."""
        return f"{capability()} {torch.cuda.get_device_name()} driver {_driver()}"

    def aim(self, config: Any, targets: Sequence[str]) -> None:
        """Nothing to say: it builds for the GPU it builds on."""

    def listing(self, plan: bytes) -> str:
        inspector = self.open(plan).create_engine_inspector()
        return str(inspector.get_engine_information(self.trt.LayerInformationFormat.ONELINE))


def _this_gpu(remedy: str) -> str:
    try:
        return capability()
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{error}; {remedy}") from error


def _driver() -> str:
    version = Path("/proc/driver/nvidia/version")
    found = re.search(r"(\d+\.\d+(\.\d+)?)", version.read_text()) if version.exists() else None
    return found[1] if found else "unknown"
