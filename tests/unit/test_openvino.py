"""The OpenVINO engine on this CPU: it computes what torch computes, row by row, and runs only what is vouched for."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from models import bundle as bundles
from models import parity
from models.bundle import Bundle
from models.compiling.build import Compiled, OnDamage, Outcome
from models.compiling.engine_cache import EngineCache, PlanDamaged, plan_name
from models.compiling.export import source_digest
from models.engine import EngineUnavailable, Precision, Rows
from models.engines import create, openvino
from models.engines._openvino import core, properties, recipe_of
from models.engines.openvino import CachingOpenVINOEngine, OpenVINOEngine
from models.graph import Graph, graphs
from models.spec import Codec, Stage
from models.terminal import DEMO
from tests.codecs import latent_bundle, needs_diffusers
from tests.compiled import build, quality, record
from tests.installed import need_openvino
from tests.tiny import tiny_bundle

need_openvino()


ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
BF16 = pytest.param(
    Precision.BF16,
    marks=pytest.mark.skipif(
        "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this CPU has no bfloat16"
    ),
)
PLAIN = [Precision.FP32, BF16]


@cache
def demo_graphs(net: Stage) -> tuple[Graph, ...]:
    return graphs(bundles.load(DEMO), net)


@cache
def demo_plans(net: Stage, precision: Precision) -> dict[str, bytes]:
    return {graph.name: openvino.plan_of(model, precision=precision) for graph, model in demo_models(net)}


@cache
def demo_models(net: Stage) -> tuple[tuple[Graph, Any], ...]:
    return tuple((graph, openvino.convert(graph)) for graph in demo_graphs(net))


def demo_engine(net: Stage, precision: Precision) -> CachingOpenVINOEngine:
    plans = demo_plans(net, precision)
    return CachingOpenVINOEngine(demo_graphs(net), plans, precision=precision, buckets=(1, 4))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "tiny")


class TestParity:
    """Against the graph in float32."""

    @pytest.mark.parametrize("precision", PLAIN)
    @pytest.mark.parametrize("net", Stage)
    def test_the_demos_nets(self, net: Stage, precision: Precision) -> None:
        """Both parts of them: an opened plan must not compute in what OpenVINO likes best."""
        engine = demo_engine(net, precision)
        engine.prepare()
        for graph in demo_graphs(net):
            assert (parity.check(engine, graph) > 1e-4) is (precision is Precision.BF16)

    @needs_diffusers
    @pytest.mark.parametrize("half", Codec)
    def test_halves_of_an_autoencoder(self, tmp_path: Path, half: Codec) -> None:
        """One plan for each size of image."""
        found = graphs(latent_bundle(tmp_path / "latent"), half)
        assert len(found) == 2
        plans = {graph.name: openvino.plan_of(openvino.convert(graph), precision=Precision.FP32) for graph in found}
        engine = OpenVINOEngine(found, plans, precision=Precision.FP32, buckets=(1,))
        engine.prepare()
        for graph in found:
            parity.check(engine, graph)


class TestRows:
    """No row depends on how many there are, on its place, or on the number of threads: bit for bit."""

    @pytest.mark.parametrize("precision", PLAIN)
    @pytest.mark.parametrize("net", Stage)
    def test_batch_slot_and_threads(self, net: Stage, precision: Precision) -> None:
        x, modulation = demo_graphs(net)[0].example(4)
        drawn: list[torch.Tensor] = []
        for threads in (1, 2):
            engine = demo_engine(net, precision)
            with threads_of_torch(threads):
                engine.prepare()
            for size in (4, 1, 3):
                for first in {0, 4 - size}:
                    part = slice(first, first + size)
                    out = engine.run(Rows(x[part], modulation[part])).clone()
                    drawn = drawn or [out]
                    assert torch.equal(out, drawn[0][part]), f"{size} rows from {first}, {threads} threads"


class TestBuffers:
    """Answers are written where the engine keeps them."""

    @pytest.fixture
    def engine(self) -> OpenVINOEngine:
        made = demo_engine(Stage.REFINE, Precision.FP32)
        made.prepare()
        return made

    def rows(self, count: int, *, seed: int = 0) -> Rows:
        return Rows(*demo_graphs(Stage.REFINE)[0].example(count, seed=seed))

    def test_each_bucket_has_its_own(self, engine: OpenVINOEngine) -> None:
        first = engine.run(self.rows(2))
        kept = first.clone()
        engine.run(self.rows(4))
        assert torch.equal(first, kept)
        again = engine.run(self.rows(2, seed=1))
        assert again.data_ptr() == first.data_ptr()
        assert not torch.equal(first, kept)

    def test_inputs_may_be_views_and_go_away(self, engine: OpenVINOEngine) -> None:
        rows = self.rows(4)
        assert rows.modulation is not None
        expected = engine.run(rows).clone()
        turned = Rows(rows.x.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), rows.modulation[:, :, :])
        assert not turned.x.is_contiguous()
        found = engine.run(turned)
        del turned, rows
        assert torch.equal(found, expected)

    def test_preparing_and_closing_twice(self, engine: OpenVINOEngine) -> None:
        engine.prepare()
        engine.close()
        engine.close()


class TestTheCache:
    """Only a plan that this version made for this kind of CPU is opened."""

    @pytest.fixture
    def cache(self, tmp_path: Path) -> EngineCache:
        return EngineCache(tmp_path / "engines")

    def facts(self, graph: Graph, cache: EngineCache, on_damage: OnDamage = OnDamage.REFUSE) -> list[str | Compiled]:
        made = openvino.compile_graph(graph, precision=Precision.FP32, cache=cache, bundle="tiny", on_damage=on_damage)
        return list(made)

    def find(self, bundle: Bundle, cache: EngineCache, *, precision: Precision = Precision.FP32) -> int:
        return len(openvino.find(graphs(bundle, Stage.COARSE), precision=precision, cache=cache, path=bundle.path))

    def test_the_second_time_is_a_hit(self, tiny: Bundle, cache: EngineCache) -> None:
        whole, _ = graphs(tiny, Stage.COARSE)
        *phases, built = self.facts(whole, cache)
        assert phases == ["export", "build"]
        assert isinstance(built, Compiled)
        assert (built.outcome, built.record.graph, built.record.recipe.targets) == (
            Outcome.BUILT,
            "coarse-whole",
            (openvino.here(),),
        )
        assert built.record.fused_attentions == built.record.depth == whole.attentions
        assert self.facts(whole, cache) == [Compiled(built.record, Outcome.HIT)]

    def test_it_serves_from_the_cache(self, tiny: Bundle, cache: EngineCache) -> None:
        found, _ = build(tiny, Stage.COARSE, precision=Precision.FP32, cache=cache)
        engine = create(
            "openvino", bundle=tiny, net=Stage.COARSE, precision=Precision.FP32, device=CPU, buckets=(1, 4), cache=cache
        )
        engine.prepare()
        for graph in found:
            parity.check(engine, graph)

    @pytest.mark.parametrize("change", [{"targets": ("another CPU",)}, {"version": "2020.1"}, {"flags": ()}])
    def vouched(
        self, bundle: Bundle, cache: EngineCache, *, precision: Precision = Precision.FP32, **changes: Any
    ) -> None:
        """Entries for both graphs, of plans that are none, whose recipes differ from ours in `changes`."""
        verdict = changes.pop("quality", None)
        for graph in graphs(bundle, Stage.COARSE):
            source = source_digest(graph, precision=precision)
            recipe = recipe_of(graph, precision=precision, source=source).model_copy(update=changes)
            plan_sha256 = hashlib.sha256(b"plan").hexdigest()
            plan: dict[str, Any] = {"plan": plan_name(recipe, plan_sha256), "plan_sha256": plan_sha256, "plan_bytes": 4}
            made: dict[str, Any] = {"recipe": recipe, "source": source, "quality": verdict}
            cache.store(record(graph.name, **made, **plan), b"plan")

    @pytest.mark.parametrize("change", [{"targets": ("another CPU",)}, {"version": "2020.1"}, {"flags": ()}])
    def test_a_plan_of_elsewhere_is_not_seen(self, tiny: Bundle, cache: EngineCache, change: dict[str, Any]) -> None:
        self.vouched(tiny, cache, **change)
        with pytest.raises(EngineUnavailable, match="no fp32 plan of coarse-whole, coarse-reusing for this CPU"):
            self.find(tiny, cache)
        self.vouched(tiny, cache)
        assert self.find(tiny, cache) == 2

    def test_a_plan_that_is_missing_is_named_with_the_command(self, tiny: Bundle, cache: EngineCache) -> None:
        self.facts(graphs(tiny, Stage.COARSE)[0], cache)
        with pytest.raises(EngineUnavailable, match=r"no fp32 plan of coarse-reusing .*gridit compile .* openvino"):
            self.find(tiny, cache)

    def test_a_flipped_byte_is_refused_or_built_again(self, tiny: Bundle, cache: EngineCache) -> None:
        whole, _ = graphs(tiny, Stage.COARSE)
        built = self.facts(whole, cache)[-1]
        assert isinstance(built, Compiled)
        path = cache.path(built.record)
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
        with pytest.raises(PlanDamaged, match="changed after it was built"):
            self.facts(whole, cache)
        again = self.facts(whole, cache, OnDamage.REBUILD)[-1]
        assert isinstance(again, Compiled)
        assert again.outcome is Outcome.BUILT

    @pytest.mark.parametrize("accepted", [True, False, None])
    def test_integers_only_where_they_were_accepted(
        self, tiny: Bundle, cache: EngineCache, accepted: bool | None
    ) -> None:
        verdict = None if accepted is None else quality(accepted=accepted)
        self.vouched(tiny, cache, precision=Precision.INT8, quality=verdict, quantisation="a" * 64)
        if accepted:
            assert self.find(tiny, cache, precision=Precision.INT8) == 2
        else:
            with pytest.raises(EngineUnavailable, match="no int8 plan"):
                self.find(tiny, cache, precision=Precision.INT8)

    def test_bytes_that_are_no_plan(self, tiny: Bundle) -> None:
        found = graphs(tiny, Stage.COARSE)[:1]
        engine = CachingOpenVINOEngine(found, {found[0].name: b"no plan"}, precision=Precision.FP32, buckets=(1,))
        with pytest.raises(EngineUnavailable, match="does not open the plan of coarse-whole"):
            engine.prepare()

    def test_a_plan_of_another_graph(self, tiny: Bundle) -> None:
        whole, reusing = graphs(tiny, Stage.COARSE)
        plan = openvino.plan_of(openvino.convert(reusing), precision=Precision.FP32)
        engine = CachingOpenVINOEngine((whole,), {whole.name: plan}, precision=Precision.FP32, buckets=(1,))
        with pytest.raises(EngineUnavailable, match="the plan of coarse-whole is another's"):
            engine.prepare()


class TestWhatCannotBe:
    def test_on_a_gpu(self, tiny: Bundle) -> None:
        with pytest.raises(EngineUnavailable, match="set GRIDIT_DEVICE=cpu"):
            create("openvino", bundle=tiny, net=Stage.COARSE, precision=Precision.FP32, device=torch.device("cuda"))

    @pytest.mark.parametrize("precision", [Precision.FP16, Precision.FP8])
    def test_in_a_precision_of_gpus(self, tiny: Bundle, precision: Precision) -> None:
        with pytest.raises(EngineUnavailable, match=f"precision {precision} .*fp32, bf16, int8"):
            create("openvino", bundle=tiny, net=Stage.COARSE, precision=precision, device=CPU)

    def test_without_openvino(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(EngineUnavailable, match=r"pip install 'gridit-serve\[openvino\]'"):
            openvino.library.__wrapped__()


def test_the_type_and_the_threads_are_always_said() -> None:
    said = properties(Precision.FP32, threads=3)
    assert (said["INFERENCE_PRECISION_HINT"], said["INFERENCE_NUM_THREADS"]) == ("f32", 3)
    assert said["ENABLE_CPU_PINNING"] is False


def test_nobody_is_told_of_it(tmp_path: Path) -> None:
    """A whole build and run in a fresh process: it looks nothing up, connects to nothing, leaves nothing at home."""
    program = f"""
import sys

def heard(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.fork"):
        raise SystemExit(f"{{event}}: {{args}}")

sys.addaudithook(heard)
from pathlib import Path
from models.bundle import load
from models.engine import Precision, Rows
from models.engines import openvino
from models.graph import graphs
from models.spec import Stage

found = graphs(load(Path({str(tiny_bundle(tmp_path / "tiny").path)!r})), Stage.COARSE)[:1]
plans = {{graph.name: openvino.plan_of(openvino.convert(graph), precision=Precision.FP32) for graph in found}}
engine = openvino.CachingOpenVINOEngine(found, plans, precision=Precision.FP32, buckets=(1,))
engine.prepare()
print(engine.run(Rows(*found[0].example(1))).shape)
"""
    home = tmp_path / "home"
    home.mkdir()
    assert "torch.Size" in ran(program, home=home)
    assert list(home.iterdir()) == []


def ran(program: str, *, home: Path) -> str:
    """What a fresh interpreter prints."""
    environment = os.environ | {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
