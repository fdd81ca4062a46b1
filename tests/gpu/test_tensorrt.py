"""A plan built for the GPU of this machine computes there what torch computes on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import bundle as bundles
from models import flavours
from models.compile import compile_bundle
from models.engine import EngineUnavailable, Precision, Rows
from models.engine_cache import VARIABLE, EngineCache
from models.engines import create
from models.export import example
from models.flavours import CURRENT
from models.spec import Stage
from tests.exported import needs_export, net
from tests.tiny import tiny_spec

pytestmark = [
    needs_export,
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

BUCKETS = (1, 4)
BOUNDS = {Precision.FP16: 0.015, Precision.BF16: 0.05}


@pytest.mark.parametrize("precision", BOUNDS)
def test_every_bucket_computes_what_torch_computes(
    precision: Precision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        flavours.detect().targets([CURRENT])
    except (EngineUnavailable, ValueError) as error:
        pytest.skip(str(error))
    monkeypatch.setenv(VARIABLE, str(tmp_path / "engines"))
    nets = {stage: net(stage).state_dict() for stage in Stage}
    bundle = bundles.write(tmp_path / "tiny", spec=tiny_spec(), nets=nets, dtype=torch.float32)
    list(compile_bundle(bundle.path, precision=precision, buckets=BUCKETS, cache=EngineCache.default()))
    for stage in Stage:
        engine = create("tensorrt", bundle=bundle, net=stage, precision=precision, buckets=BUCKETS)
        engine.prepare()
        for seed, rows in enumerate((*BUCKETS, *BUCKETS)):
            x, modulation = example(net(stage).spec, rows=rows, seed=seed)
            with torch.inference_mode():
                expected = net(stage).denoise(x, modulation)
            out = engine.run(Rows(x.to(engine.device), modulation.to(engine.device))).cpu()
            assert float((out - expected).norm() / expected.norm()) <= BOUNDS[precision]
        engine.close()
