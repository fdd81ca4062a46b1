"""Plans built for the GPU of this machine compute there what torch computes on the CPU, and the CPU never waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from models import parity
from models.builds.compile import Done, compile_bundle
from models.bundle import Bundle
from models.compiling import flavours
from models.compiling.engine_cache import VARIABLE, EngineCache
from models.compiling.flavours import CURRENT
from models.engine import ALONE, CachingEngine, EngineUnavailable, NetName, Precision, Rows
from models.engines import create
from models.graph import DEEP, MODULATION, Graph, Part, X, graphs
from models.spec import Codec, Stage
from tests.codecs import latent_bundle, needs_diffusers
from tests.exported import needs_export

pytestmark = [
    needs_export,
    needs_diffusers,
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

BUCKETS = (1, 4)
PRECISIONS = (Precision.FP16, Precision.BF16)


@pytest.fixture(scope="module", params=PRECISIONS)
def compiled(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bundle, Precision]]:
    """A bundle on latents, compiled for this GPU into the default cache."""
    try:
        flavours.detect().targets([CURRENT])
    except (EngineUnavailable, ValueError) as error:
        pytest.skip(str(error))
    root = tmp_path_factory.mktemp("engines")
    bundle = latent_bundle(root / "latent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(root / "cache"))
        facts = list(compile_bundle(bundle.path, precision=request.param, buckets=BUCKETS, cache=EngineCache.default()))
        assert all(fact.record.measured for fact in facts if isinstance(fact, Done))
        yield bundle, request.param


def on_gpu(graph: Graph, rows: int, device: torch.device) -> dict[str, torch.Tensor]:
    return {port.name: tensor.to(device) for port, tensor in zip(graph.inputs, graph.example(rows), strict=True)}


@pytest.mark.parametrize("net", [*Stage, *Codec])
def test_every_graph_computes_what_torch_computes(compiled: tuple[Bundle, Precision], net: NetName) -> None:
    bundle, precision = compiled
    buckets = BUCKETS if isinstance(net, Stage) else ALONE
    engine = create("tensorrt", bundle=bundle, net=net, precision=precision, buckets=buckets)
    assert isinstance(engine, CachingEngine) == isinstance(net, Stage)
    engine.prepare()
    for graph in graphs(bundle, net):
        parity.check(engine, graph)
    engine.close()


@pytest.mark.parametrize("stage", list(Stage))
def test_a_run_makes_the_cpu_wait_for_nothing(compiled: tuple[Bundle, Precision], stage: Stage) -> None:
    bundle, precision = compiled
    engine: Any = create("tensorrt", bundle=bundle, net=stage, precision=precision, buckets=BUCKETS)
    engine.prepare()
    reusing = next(graph for graph in graphs(bundle, stage) if graph.part is Part.REUSING)
    given = [on_gpu(reusing, rows, engine.device) for rows in BUCKETS]
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for inputs in given:
            batch = Rows(inputs[X], inputs[MODULATION])
            engine.run(batch)
            engine.run_keeping(batch)
            engine.run_reusing(batch, inputs[DEEP])
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    engine.close()
