"""The torch engine's modes: recorded runs on a twin of a GPU, compiled ones, and what is told of one that cannot be."""

from __future__ import annotations

import shutil

import pytest
import torch

from models.bundle import Bundle
from models.engine import EngineUnavailable, Precision, Rows
from models.engines import create
from models.engines._torch_graphs import GraphedTorchEngine
from models.engines._twin_gpu import TwinViolation
from models.engines._twin_recorder import TwinRecorder
from models.engines.torch import VARIABLE, Mode, TorchEngine, mode_for
from models.graph import graphs
from models.spec import Stage
from tests.driving import on_cpu
from tests.tiny import tiny_bundle

BUCKETS = (1, 2, 4)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def eager(bundle: Bundle) -> TorchEngine:
    return on_cpu(TorchEngine, bundle, Stage.COARSE, buckets=BUCKETS)


def graphed(bundle: Bundle, gpu: TwinRecorder) -> GraphedTorchEngine:
    engine = GraphedTorchEngine(bundle.net(Stage.COARSE), gpu=gpu, precision=Precision.FP32, buckets=BUCKETS)
    engine.prepare()
    return engine


def rows(bundle: Bundle, count: int, *, seed: int) -> tuple[Rows, torch.Tensor]:
    """A batch, and features as deep blocks would add."""
    reusing = graphs(bundle, Stage.COARSE)[1]
    x, modulation, deep = reusing.example(count, seed=seed)
    return Rows(x, modulation), deep


def test_recorded_runs_give_the_bits_of_eager_ones(bundle: Bundle, eager: TorchEngine) -> None:
    engine = graphed(bundle, TwinRecorder())
    for seed, count in enumerate((1, 2, 4, 4, 2, 1)):
        batch, deep = rows(bundle, count, seed=seed)
        assert torch.equal(engine.run(batch), eager.run(batch))
        for mine, right in zip(engine.run_keeping(batch), eager.run_keeping(batch), strict=True):
            assert torch.equal(mine, right)
        assert torch.equal(engine.run_reusing(batch, deep), eager.run_reusing(batch, deep))


def test_a_replay_asks_no_python(bundle: Bundle) -> None:
    engine = graphed(bundle, TwinRecorder())
    batch, _ = rows(bundle, 2, seed=1)
    expected = engine.run(batch).clone()
    engine._net = None
    assert torch.equal(engine.run(batch), expected)
    with pytest.raises(AssertionError, match="closed"):
        engine.run_keeping(batch)  # which would have to be recorded first


def test_all_buckets_share_one_set_of_buffers_which_closing_gives_back(bundle: Bundle) -> None:
    gpu = TwinRecorder()
    engine = graphed(bundle, gpu)
    batch, _ = rows(bundle, 4, seed=1)
    engine.run_keeping(batch)
    assert gpu.alive == 4
    replay = next(iter(engine._recorded.values()))
    engine.close()
    engine.close()
    assert gpu.alive == 0
    with pytest.raises(TwinViolation, match="no living buffer"), gpu.ordered():
        replay()


def test_buckets_for_which_there_is_no_memory_are_left_out(bundle: Bundle, eager: TorchEngine) -> None:
    plenty = TwinRecorder()
    whole = graphed(bundle, plenty)
    assert whole.buckets == BUCKETS
    engine = graphed(bundle, TwinRecorder(memory=plenty.used * 3 // 4))
    assert engine.buckets == (1, 2)
    batch, _ = rows(bundle, 2, seed=3)
    assert torch.equal(engine.run(batch), eager.run(batch))
    with pytest.raises(EngineUnavailable, match=r"too little memory for a batch of 1.*GRIDIT_DEVICE"):
        graphed(bundle, TwinRecorder(memory=100))


def test_a_mode_that_cannot_be_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode_for(CPU) is Mode.EAGER
    assert mode_for(torch.device("cuda")) is Mode.GRAPHS
    monkeypatch.setenv(VARIABLE, "graphs")
    with pytest.raises(EngineUnavailable, match="set it to auto"):
        mode_for(CPU)
    monkeypatch.setenv(VARIABLE, "fast")
    with pytest.raises(EngineUnavailable, match="'fast'; it must be one of: auto, eager"):
        mode_for(CPU)


def test_torch_has_no_quantised_precision(bundle: Bundle) -> None:
    with pytest.raises(EngineUnavailable, match="set GRIDIT_PRECISION to auto, fp32 or bf16"):
        create("torch", bundle=bundle, net=Stage.COARSE, precision=Precision.INT8, device=CPU)


@pytest.mark.engines
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when its compiler is loaded
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_runs_pass_the_parity_gate(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "compile")
    engine = create("torch", bundle=bundle, net=Stage.COARSE, precision=Precision.FP32, buckets=(2,), device=CPU)
    engine.prepare()
    assert engine.name == "torch-compiled"
    batch, _ = rows(bundle, 2, seed=5)
    eager = on_cpu(TorchEngine, bundle, Stage.COARSE, buckets=BUCKETS)
    torch.testing.assert_close(engine.run(batch), eager.run(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.engines
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_a_compiler_the_remedy_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv(VARIABLE, "compile")
    with config.patch({"cpp.cxx": ("/no/such/compiler",), "force_disable_caches": True}):
        engine = create("torch", bundle=bundle, net=Stage.COARSE, precision=Precision.FP32, buckets=(3,), device=CPU)
        with pytest.raises(EngineUnavailable, match=r"install a C\+\+ compiler.*GRIDIT_TORCH_MODE=eager"):
            engine.prepare()
