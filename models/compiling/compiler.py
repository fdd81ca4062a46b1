"""ONNX in, a TensorRT plan out. Nothing is looked up or kept here, see `models.compiling.build`.

Networks are strongly typed: the graph's own types are the precision. What was built is read from the compiler's list
of layers, since a plan cannot be opened where there is no GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.compiling import flavours
from models.compiling.engine_cache import Profile
from models.compiling.flavours import Flavour

FLAGS = ("strongly_typed", "detailed")
"""What a plan is built with beside its profiles and targets; part of its key."""


class BuildFailed(RuntimeError):
    """No plan was made of a graph; the message says what TensorRT said."""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan just made."""

    plan: bytes
    seconds: float
    kernels: int
    """Launches of one forward: the mean over the profiles."""
    fused_attentions: float
    """Of one forward: the mean over the profiles."""


def build(onnx: bytes, flavour: Flavour, *, targets: Sequence[str], profiles: Sequence[Profile]) -> Built:
    """A plan of an ONNX graph for `targets`, as `Flavour.targets` gives them. `BuildFailed` if there is none."""
    started = time.perf_counter()
    plan = _serialize(onnx, flavour, targets, profiles)
    seconds = time.perf_counter() - started
    found = flavours.count(flavour.listing(plan))
    return Built(plan, seconds, found.total // len(profiles), found.fused_attentions / len(profiles))


def _serialize(onnx: bytes, flavour: Flavour, targets: Sequence[str], profiles: Sequence[Profile]) -> bytes:
    trt = flavour.trt
    flavour.log.clear()
    builder = trt.Builder(flavour.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, flavour.logger)
    if not parser.parse(onnx):
        raise BuildFailed("; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers must have names to be counted
    flavour.aim(config, targets)
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, network, profile))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed("; ".join(flavour.log.problems) or "TensorRT gave no reason")
    return bytes(plan)


def _profile(builder: Any, network: Any, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        made.set_shape(tensor.name, *((batch, *rest) for batch in (profile.least, profile.best, profile.most)))
    return made
