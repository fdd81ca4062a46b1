"""What TensorRT is to make: for which GPUs, in which precision, for which batch sizes. Checked before any work.

Each bucket gets an optimization profile of its own, so every kernel knows its shapes; measured, that costs 1.6 to 3.3
times the plan's size and 3 to 4 times the build of one wide profile, for weights are shared. Nothing is built here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from models.compiling import flavours
from models.compiling.compiler import FLAGS
from models.compiling.engine_cache import Profile, Recipe
from models.compiling.export import carried
from models.compiling.flavours import Flavour
from models.engine import ALONE, BUCKETS, Precision
from models.graph import Graph
from models.spec import Codec

MOST_ROWS = 1024
"""Of a bucket."""
OLDEST = {Precision.BF16: 80, Precision.FP8: 89}
"""The compute capability from which on GPUs know a precision."""


class Profiles(StrEnum):
    """How buckets become optimization profiles."""

    PER_BUCKET = "per-bucket"
    ONE = "one"


@dataclass(frozen=True, slots=True)
class Order:
    """What to compile graphs to."""

    flavour: Flavour
    targets: tuple[str, ...]
    """As `Flavour.targets` gives them."""
    precision: Precision
    profiles: tuple[Profile, ...]

    def of(self, graph: Graph) -> Order:
        """The same for one graph: half an autoencoder runs one image at a time, and is never quantised."""
        if not isinstance(graph.net, Codec):
            return self
        return replace(
            self, precision=carried(self.precision, graph.net), profiles=ranges(ALONE, profiles=Profiles.ONE)
        )

    def recipe(self, onnx_sha256: str, *, quantisation: str | None = None) -> Recipe:
        """The order for one graph; `quantisation` is ignored where the precision is not quantised."""
        return Recipe(
            onnx_sha256=onnx_sha256,
            flavour=self.flavour.name,
            version=self.flavour.version,
            targets=self.targets,
            profiles=self.profiles,
            precision=self.precision,
            quantisation=quantisation if self.precision.quantised else None,
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
    """Check what is asked for. ValueError says what this flavour, precision or target cannot do."""
    if precision is Precision.FP32:
        raise ValueError("TensorRT has no fused attention in fp32; ask for fp16 or bf16, or use the torch engine")
    if precision is Precision.INT8:
        raise ValueError("int8 is for CPUs (--engine openvino); TensorRT takes fp16, bf16 or fp8")
    final = flavour.targets(targets)
    old = [target for target in final if flavours.number(target) < OLDEST.get(precision, 0)]
    if old:
        remedy = "ask for fp16, or leave that target out"
        raise ValueError(f"{', '.join(old)} has no {precision}, which sm{OLDEST[precision]} and later have; {remedy}")
    return Order(flavour, final, precision, ranges(buckets, profiles=profiles))


def ranges(buckets: Sequence[int], *, profiles: Profiles) -> tuple[Profile, ...]:
    """Buckets -> the profiles that serve them, ascending. ValueError if they are not batch sizes."""
    buckets = sorted(set(buckets))
    wrong = [size for size in buckets if not 1 <= size <= MOST_ROWS]
    if wrong or not buckets:
        found = f"{wrong[0]} is no batch size" if wrong else "none are named"
        raise ValueError(f"buckets: {found}; choose some of 1 to {MOST_ROWS}")
    if profiles is Profiles.PER_BUCKET:
        return tuple(Profile(least=size, best=size, most=size) for size in buckets)
    return (Profile(least=buckets[0], best=buckets[len(buckets) // 2], most=buckets[-1]),)
