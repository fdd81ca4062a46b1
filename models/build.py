"""From ONNX to a TensorRT plan, and from a net to a plan through the cache.

Networks are strongly typed: the graph's own types are the precision. Each bucket gets an optimization profile of its
own, so every kernel knows its shapes; measured, that costs 1.6 to 3.3 times the plan's size and 3 to 4 times the build
of one wide profile, for weights are shared. Every attention must come out fused, which is counted, not hoped for.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from models import flavours
from models.engine import BUCKETS, Precision
from models.engine_cache import EngineCache, PlanDamaged, Profile, Recipe, Record, plan_name
from models.export import MODULATION, OUT, X, export, source_digest
from models.flavours import Flavour
from models.nn.dit import DiT

FLAGS = ("strongly_typed", "detailed")
"""What a plan is built with beside its profiles and targets; part of its key."""


class Profiles(StrEnum):
    """How buckets become optimization profiles."""

    PER_BUCKET = "per-bucket"
    ONE = "one"


class OnDamage(StrEnum):
    """What to do about an entry of the cache that cannot be used."""

    REFUSE = "refuse"
    REBUILD = "rebuild"


class Outcome(StrEnum):
    """Where a plan came from."""

    HIT = "hit"
    BUILT = "built"


class BuildFailed(RuntimeError):
    """TensorRT made no plan of a graph; the message is its own."""


class FusionLost(BuildFailed):
    """A plan was built, but not every attention in it is fused, so it would be slow; it is not kept."""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan just made."""

    plan: bytes
    seconds: float
    kernels: int
    """Launches of one forward: the mean over the profiles."""
    fused_attentions: int
    """Of one forward."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A plan in the cache."""

    record: Record
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Order:
    """What to compile nets to."""

    flavour: Flavour
    targets: tuple[str, ...]
    """As `Flavour.targets` gives them."""
    precision: Precision
    profiles: tuple[Profile, ...]

    def recipe(self, onnx_sha256: str) -> Recipe:
        """The order for one graph."""
        return Recipe(
            onnx_sha256=onnx_sha256,
            flavour=self.flavour.name,
            version=self.flavour.version,
            targets=self.targets,
            profiles=self.profiles,
            precision=self.precision,
            flags=FLAGS,
        )


def order(
    flavour: Flavour,
    *,
    targets: Sequence[str],
    precision: Precision,
    buckets: Sequence[int] = BUCKETS,
    profiles: Profiles = Profiles.PER_BUCKET,
) -> Order:
    """Check what is asked for. ValueError says what this flavour or precision cannot do."""
    if precision is Precision.FP32:
        raise ValueError("TensorRT has no fused attention in fp32; ask for fp16 or bf16, or use the torch engine")
    final = flavour.targets(targets)
    if precision is Precision.BF16 and "sm75" in final:
        raise ValueError("sm75 has no bfloat16; ask for fp16, or leave it out")
    return Order(flavour, final, precision, ranges(buckets, profiles=profiles))


def ranges(buckets: Sequence[int], *, profiles: Profiles) -> tuple[Profile, ...]:
    """Buckets -> the profiles that serve them, ascending."""
    buckets = sorted(set(buckets))
    if profiles is Profiles.PER_BUCKET:
        return tuple(Profile(least=size, best=size, most=size) for size in buckets)
    return (Profile(least=buckets[0], best=buckets[len(buckets) // 2], most=buckets[-1]),)


def compile_net(
    net: DiT, order: Order, *, cache: EngineCache, bundle: str, name: str, on_damage: OnDamage = OnDamage.REFUSE
) -> Iterator[str | Compiled]:
    """Yield the phases to come ("export", "build") as they begin, if any, then the plan in the cache.

    A hit exports nothing: the net's digest finds the plan. `PlanDamaged` if it is not what was built and `on_damage`
    is to refuse; `BuildFailed` if TensorRT makes no good plan.
    """
    source = source_digest(net, precision=order.precision)
    known = _known(order, source, cache)
    if known is not None and _usable(known, cache, on_damage):
        yield Compiled(known, Outcome.HIT)
        return
    yield "export"
    started = time.perf_counter()
    onnx = export(net, precision=order.precision)
    exported = time.perf_counter() - started
    yield "build"
    built = build(onnx, order, depth=net.spec.depth)
    recipe = order.recipe(hashlib.sha256(onnx).hexdigest())
    plan_sha256 = hashlib.sha256(built.plan).hexdigest()
    record = Record(
        recipe=recipe,
        source=source,
        bundle=bundle,
        net=name,
        graph=f"{name}-whole",
        plan=plan_name(recipe, plan_sha256),
        plan_sha256=plan_sha256,
        plan_bytes=len(built.plan),
        onnx_bytes=len(onnx),
        export_seconds=round(exported, 3),
        build_seconds=round(built.seconds, 3),
        kernels=built.kernels,
        fused_attentions=built.fused_attentions,
        depth=net.spec.depth,
    )
    cache.store(record, built.plan)
    yield Compiled(record, Outcome.BUILT)


def build(onnx: bytes, order: Order, *, depth: int) -> Built:
    """A plan of a graph with `depth` attentions. `FusionLost` if fewer are fused, `BuildFailed` if there is none."""
    started = time.perf_counter()
    plan = _serialize(onnx, order)
    seconds = time.perf_counter() - started
    kernels = flavours.count(order.flavour.listing(plan))
    wanted = depth * len(order.profiles)
    if kernels.fused_attentions != wanted:
        raise FusionLost(f"{kernels.fused_attentions} of {wanted} attentions are fused")
    return Built(plan, seconds, kernels.total // len(order.profiles), kernels.fused_attentions // len(order.profiles))


def _serialize(onnx: bytes, order: Order) -> bytes:
    flavour, trt = order.flavour, order.flavour.trt
    flavour.log.clear()
    builder = trt.Builder(flavour.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, flavour.logger)
    if not parser.parse(onnx):
        raise BuildFailed("; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers must have names to be counted
    flavour.aim(config, order.targets)
    for profile in order.profiles:
        config.add_optimization_profile(_profile(builder, network, profile))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildFailed("; ".join(flavour.log.problems) or "TensorRT gave no reason")
    return bytes(plan)


def _profile(builder: Any, network: Any, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        assert tensor.name in (X, MODULATION)
        rest = tuple(tensor.shape)[1:]
        made.set_shape(tensor.name, *((batch, *rest) for batch in (profile.least, profile.best, profile.most)))
    assert network.get_output(0).name == OUT
    return made


def _known(order: Order, source: str, cache: EngineCache) -> Record | None:
    for record in cache.records():
        if record.source == source and record.recipe == order.recipe(record.recipe.onnx_sha256):
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
