"""The TensorRT engine, driven by the twin of TensorRT's execution half: names, shapes, profiles, buffer lifetimes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from models import bundle as bundles
from models.bundle import Bundle
from models.engine import EngineUnavailable, Precision, Rows
from models.engine_cache import EngineCache, Profile, Recipe, Record, plan_name
from models.engines.tensorrt import ExecutionFailed, TensorRTEngine, find, profile_for
from models.export import MODULATION, OUT, X, example, source_digest
from models.spec import NetSpec, Stage
from tests.exported import graph, needs_export, net
from tests.tiny import awake, tiny_net, tiny_spec

twin = pytest.importorskip("models.engines._tensorrt_twin", reason="onnxruntime comes with the extra tensorrt-rtx")
pytestmark = [needs_export, pytest.mark.timeout(900)]  # an export takes several seconds of one idle core

BUCKETS = (1, 2, 4)
STATIC = tuple(Profile(least=size, best=size, most=size) for size in BUCKETS)
WIDE = (Profile(least=1, best=2, most=4),)


def engine(
    profiles: Sequence[Profile] = STATIC, *, spec: NetSpec | None = None, gpu: Any = None, plan: bytes | None = None
) -> TensorRTEngine:
    gpu = gpu or twin.TwinGpu()
    return TensorRTEngine(
        plan or twin.pack(graph(Stage.REFINE, Precision.FP32), profiles),
        spec=spec or net(Stage.REFINE).spec,
        runtime=twin.TwinRuntime(gpu),
        gpu=gpu,
        precision=Precision.FP32,
        buckets=BUCKETS,
    )


def rows(count: int, *, seed: int = 0) -> Rows:
    return Rows(*example(net(Stage.REFINE).spec, rows=count, seed=seed))


@pytest.mark.parametrize("profiles", [STATIC, WIDE, (*WIDE, *STATIC)])
def test_every_bucket_computes_what_torch_computes(profiles: tuple[Profile, ...]) -> None:
    made = engine(profiles)
    made.prepare()
    for seed, count in enumerate((*BUCKETS, *reversed(BUCKETS))):
        batch = rows(count, seed=seed)
        assert batch.modulation is not None
        with torch.inference_mode():
            expected = net(Stage.REFINE).denoise(batch.x, batch.modulation)
        torch.testing.assert_close(made.run(batch), expected, atol=1e-5, rtol=1e-5)


def test_the_answer_is_the_buckets_own_buffer() -> None:
    made = engine()
    made.prepare()
    first = made.run(rows(2))
    kept = first.clone()
    assert made.run(rows(4)).data_ptr() != first.data_ptr()
    assert torch.equal(first, kept)  # another bucket leaves it alone
    assert made.run(rows(2, seed=1)).data_ptr() == first.data_ptr()
    assert not torch.equal(first, kept)


def test_closing_gives_every_buffer_back() -> None:
    gpu = twin.TwinGpu()
    made = engine(gpu=gpu)
    made.prepare()
    made.run(rows(1))
    assert gpu.alive == 3 * len(BUCKETS) + 1  # one scratch memory for all
    made.close()
    made.close()
    assert gpu.alive == 0


def test_preparing_twice_is_preparing_once() -> None:
    gpu = twin.TwinGpu()
    made = engine(gpu=gpu)
    made.prepare()
    made.prepare()
    assert gpu.alive == 3 * len(BUCKETS) + 1


def test_a_bucket_without_a_profile_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="no profile for a batch of 4"):
        engine(STATIC[:2]).prepare()


def test_the_narrowest_profile_is_taken() -> None:
    opened = twin.TwinRuntime(twin.TwinGpu()).open(twin.pack(graph(Stage.REFINE, Precision.FP32), (*WIDE, *STATIC)))
    assert [profile_for(opened, size) for size in (1, 2, 3, 4)] == [1, 2, 0, 3]


def test_a_plan_of_another_net_is_refused() -> None:
    with pytest.raises(ExecutionFailed, match="shape of x not set"):
        engine(spec=tiny_net(stage=Stage.COARSE)).prepare()


def test_a_plan_that_is_none_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="does not open the plan"):
        engine(plan=b"no plan").prepare()


class TestTheTwinKeepsTheRules:
    """The laws above mean something only if the twin notices."""

    def context(self) -> tuple[Any, Any]:
        gpu = twin.TwinGpu()
        opened = twin.TwinRuntime(gpu).open(twin.pack(graph(Stage.REFINE, Precision.FP32), STATIC))
        context = opened.create_execution_context(None)
        context.kept = opened
        assert context.set_optimization_profile_async(1, gpu.handle)
        return gpu, context

    def bound(self) -> tuple[Any, Any, dict[str, torch.Tensor]]:
        gpu, context = self.context()
        spec = net(Stage.REFINE).spec
        x, modulation = example(spec, rows=2)
        shapes = {
            X: x.shape,
            MODULATION: modulation.shape,
            OUT: (2, spec.out_channels, spec.input_size, spec.input_size),
        }
        held = {name: gpu.zeros(tuple(shape), dtype=torch.float32) for name, shape in shapes.items()}
        held["scratch"] = gpu.zeros((twin.SCRATCH_PER_ROW * 2,), dtype=torch.uint8)
        context.set_device_memory(held["scratch"].data_ptr(), held["scratch"].numel())
        for name in (X, MODULATION):
            assert context.set_input_shape(name, tuple(held[name].shape))
        for name in shapes:
            assert context.set_tensor_address(name, held[name].data_ptr())
        return gpu, context, held

    def test_all_bound_runs(self) -> None:
        gpu, context, _held = self.bound()
        assert context.execute_async_v3(gpu.handle)

    @pytest.mark.parametrize("name", [X, MODULATION, OUT, "scratch"])
    def test_a_dead_buffer(self, name: str) -> None:
        gpu, context, held = self.bound()
        del held[name]
        with pytest.raises(twin.TwinViolation, match="no living buffer"):
            context.execute_async_v3(gpu.handle)

    @pytest.mark.parametrize("name", [X, MODULATION, OUT])
    def test_a_short_buffer(self, name: str) -> None:
        gpu, context, held = self.bound()
        held[name] = gpu.zeros((8,), dtype=torch.float32)
        assert context.set_tensor_address(name, held[name].data_ptr())
        with pytest.raises(twin.TwinViolation, match="no living buffer"):
            context.execute_async_v3(gpu.handle)

    def test_too_little_scratch_memory(self) -> None:
        gpu, context, held = self.bound()
        context.set_device_memory(held["scratch"].data_ptr(), 16)
        with pytest.raises(twin.TwinViolation, match="too few"):
            context.execute_async_v3(gpu.handle)

    def test_another_stream(self) -> None:
        _gpu, context, _held = self.bound()
        with pytest.raises(twin.TwinViolation, match="another stream"):
            context.execute_async_v3(0)

    def test_an_engine_gone_before_its_context(self) -> None:
        gpu, context, _held = self.bound()
        del context.kept
        with pytest.raises(twin.TwinViolation, match="gone before"):
            context.execute_async_v3(gpu.handle)

    def test_a_wrong_name(self) -> None:
        _gpu, context, held = self.bound()
        assert not context.set_tensor_address("y", held[X].data_ptr())
        assert not context.set_input_shape(OUT, tuple(held[OUT].shape))

    def test_a_wrong_shape(self) -> None:
        _gpu, context, held = self.bound()
        assert not context.set_input_shape(X, (4, *held[X].shape[1:]))
        assert not context.set_input_shape(X, (2, 1, *held[X].shape[2:]))
        assert not context.set_input_shape(X, tuple(held[X].shape[:3]))

    def test_something_never_bound(self) -> None:
        gpu, context = self.context()
        assert not context.execute_async_v3(gpu.handle)

    def test_a_new_profile_forgets_the_shapes(self) -> None:
        gpu, context, _held = self.bound()
        assert context.set_optimization_profile_async(1, gpu.handle)
        assert not context.execute_async_v3(gpu.handle)
        assert not context.set_optimization_profile_async(9, gpu.handle)


class Flavour:
    """As much of a flavour as finding a plan takes."""

    name, version = "tensorrt-rtx", "1.7"


@pytest.fixture
def tiny(tmp_path: Path) -> Bundle:
    nets = {stage: net(stage).state_dict() for stage in Stage}
    return bundles.write(tmp_path / "tiny", spec=tiny_spec(), nets=nets, dtype=torch.float32)


class TestFinding:
    """Which plan of the cache is run, and what is said when there is none."""

    def store(self, cache: EngineCache, bundle: Bundle, plan: bytes, **changes: object) -> Record:
        fields = {"flavour": "tensorrt-rtx", "version": "1.7", "targets": ("sm89",), "profiles": STATIC}
        recipe = Recipe.model_validate({"onnx_sha256": "a" * 64, "precision": Precision.FP16} | fields | changes)
        digest = hashlib.sha256(plan).hexdigest()
        record = Record(
            recipe=recipe,
            source=source_digest(bundle.net(Stage.COARSE), precision=recipe.precision),
            bundle="tiny",
            net="coarse",
            graph="coarse-whole",
            plan=plan_name(recipe, digest),
            plan_sha256=digest,
            plan_bytes=len(plan),
            onnx_bytes=1,
            export_seconds=0,
            build_seconds=0,
            kernels=1,
            fused_attentions=2,
            depth=2,
        )
        cache.store(record, plan)
        return record

    def find(self, cache: EngineCache, bundle: Bundle, *, here: str = "sm89", stage: Stage = Stage.COARSE) -> bytes:
        return find(
            bundle,
            Flavour(),  # type: ignore[arg-type]
            here=here,
            stage=stage,
            precision=Precision.FP16,
            buckets=BUCKETS,
            cache=cache,
        )

    def test_the_plan_for_this_gpu_before_one_for_many(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"many", targets=("sm80", "sm89"))
        assert self.find(cache, tiny) == b"many"
        self.store(cache, tiny, b"wide", profiles=WIDE)
        assert self.find(cache, tiny) == b"wide"
        self.store(cache, tiny, b"static")
        assert self.find(cache, tiny) == b"static"
        assert self.find(cache, tiny, here="sm80") == b"many"

    @pytest.mark.parametrize(
        "changes",
        [
            {"targets": ("sm86",)},
            {"version": "1.8"},
            {"flavour": "tensorrt"},
            {"precision": Precision.BF16},
            {"profiles": STATIC[:2]},
        ],
    )
    def test_a_plan_of_another_kind_is_not_taken(
        self, tmp_path: Path, tiny: Bundle, changes: dict[str, object]
    ) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"other", **changes)
        with pytest.raises(EngineUnavailable, match="no fp16 plan of the coarse net for sm89"):
            self.find(cache, tiny)

    def test_the_command_that_makes_it_is_named(self, tmp_path: Path, tiny: Bundle) -> None:
        with pytest.raises(EngineUnavailable) as caught:
            self.find(EngineCache(tmp_path / "engines"), tiny, here="sm90 NVIDIA H200 driver 1.2")
        assert f"gridit compile {tiny.path} --engine tensorrt --target sm90 --precision fp16" in str(caught.value)

    def test_plans_of_other_weights_are_not_taken(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        self.store(cache, tiny, b"first")
        nets = {stage: awake(tiny.net(stage), seed=5).state_dict() for stage in Stage}
        other = bundles.write(tmp_path / "other", spec=tiny.spec, nets=nets, dtype=torch.float32)
        with pytest.raises(EngineUnavailable):
            self.find(cache, other)

    def test_a_changed_plan_is_not_loaded(self, tmp_path: Path, tiny: Bundle) -> None:
        cache = EngineCache(tmp_path / "engines")
        record = self.store(cache, tiny, b"plan")
        cache.path(record).write_bytes(b"plam")
        with pytest.raises(EngineUnavailable, match=r"changed after it was built.*--on-damage rebuild"):
            self.find(cache, tiny)
