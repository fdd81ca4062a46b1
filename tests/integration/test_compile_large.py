"""Nets of real size become plans for named GPUs on a machine that has none: the demo bundle, DiT-S/2, DiT-XL/2.

What the largest one takes is printed, for the documentation. Nothing here runs a plan.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from models.builds.compile import Done, Phase, compile_bundle, graph_count
from models.compiling.build import Compiled, Doing, compile_graph
from models.compiling.engine_cache import EngineCache, Record
from models.compiling.orders import Order, Profiles
from models.engine import Precision
from models.graph import Graph, Part, graphs_of
from models.nn.dit import DiT
from models.parity import LIMITS
from models.spec import NetSpec, Prediction, ScheduleName, Stage
from models.terminal import DEMO
from tests.codecs import latent_bundle, needs_diffusers
from tests.exported import needs_export
from tests.ordered import needs_rtx, small
from tests.tiny import awake

pytestmark = [needs_export, needs_rtx, pytest.mark.engines, pytest.mark.timeout(900)]

BUCKETS = (1, 2, 4, 8)
PRECISIONS = (Precision.FP16, Precision.BF16)
FUSED_IN = {Precision.FP16: Profiles.PER_BUCKET, Precision.BF16: Profiles.ONE}
"""Both ways, one with each precision."""


def transformer(*, width: int, depth: int, heads: int, side: int) -> tuple[Graph, ...]:
    """The graphs of a net of the published kind over 4 latent channels in 2 x 2 patches, with random weights."""
    spec = NetSpec(
        file="net.safetensors",
        sha256="0" * 64,
        input_size=side,
        patch=2,
        in_channels=4,
        out_channels=8,
        width=width,
        depth=depth,
        heads=heads,
        classes=0,
        prediction=Prediction.EPSILON,
        learned_variance=True,
        schedule=ScheduleName.LINEAR,
        time_scale=1,
    )
    return graphs_of(Stage.COARSE, awake(DiT(spec)))


def compiled(graph: Graph, order: Order, cache: EngineCache) -> Record:
    facts = list(compile_graph(graph, order, cache=cache, bundle="large"))
    (record,) = [fact.record for fact in facts if isinstance(fact, Compiled)]
    return record


def judged(record: Record, *, precision: Precision) -> None:
    assert record.fused_attentions == record.depth > 0
    if precision is Precision.BF16:
        assert record.exported_parity is None
    else:
        assert record.exported_parity is not None
        assert record.exported_parity <= LIMITS[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_demo_bundle(precision: Precision, tmp_path: Path) -> None:
    cache, profiles = EngineCache(tmp_path / "engines"), FUSED_IN[precision]

    def again() -> list[Phase | Done]:
        options = {"targets": ["sm89"], "precision": precision, "buckets": BUCKETS, "profiles": profiles}
        return list(compile_bundle(DEMO, cache=cache, **options))  # type: ignore[arg-type]

    records = [fact.record for fact in again() if isinstance(fact, Done)]
    assert [record.graph for record in records] == [f"{stage}-{part}" for stage in Stage for part in Part]
    for record in records:
        judged(record, precision=precision)
        assert all(record.recipe.serves(rows) for rows in BUCKETS)
    assert {fact.doing for fact in again() if isinstance(fact, Phase)} == {Doing.CHECK}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_small_transformer(precision: Precision, tmp_path: Path) -> None:
    cache, order = EngineCache(tmp_path), small(precision=precision, buckets=BUCKETS, profiles=FUSED_IN[precision])
    for graph in transformer(width=384, depth=12, heads=6, side=32):
        judged(compiled(graph, order, cache), precision=precision)


@needs_diffusers
def test_a_bundle_on_latents(tmp_path: Path) -> None:
    bundle, cache = latent_bundle(tmp_path / "latent"), EngineCache(tmp_path / "engines")
    facts = list(compile_bundle(bundle.path, cache=cache, targets=["sm89"], buckets=[1, 8], profiles=Profiles.ONE))
    records = [fact.record for fact in facts if isinstance(fact, Done)]
    assert len({record.graph for record in records}) == len(records) == graph_count(bundle.spec)
    assert max(fact.index for fact in facts if isinstance(fact, Phase)) == len(records)
    assert {record.net for record in records} == {*Stage, "encoder", "decoder"}


def test_the_largest_published_transformer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DiT-XL/2 over 64 x 64 latents: 1024 tokens."""
    whole, _ = transformer(width=1152, depth=28, heads=16, side=64)
    order, began = small(buckets=[1, 8, 32], profiles=Profiles.ONE), time.perf_counter()
    record = compiled(whole, order, EngineCache(tmp_path / "engines"))
    judged(record, precision=Precision.FP16)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    with capsys.disabled():
        print(f"\nDiT-XL/2, 1024 tokens, fp16, sm89, one profile of 1-32 rows: {time.perf_counter() - began:.0f} s")
        print(f"export {record.export_seconds:.0f} s, build {record.build_seconds:.0f} s, {record.kernels} kernels")
        print(f"plan {record.plan_bytes / 1e6:.0f} MB, peak memory {peak:.1f} GB, parity {record.exported_parity:.1e}")
