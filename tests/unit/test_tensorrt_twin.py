"""The twin of TensorRT's execution half notices what it is there for: what is tested with it means something."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.compiling.engine_cache import Profile
from models.engine import Precision
from models.engines._twin_gpu import TwinGpu, TwinViolation
from models.graph import DEEP, MODULATION, OUT, X
from models.spec import Stage
from tests.exported import exported, graph, needs_export

twin = pytest.importorskip("models.engines._tensorrt_twin", reason="onnxruntime comes with the extra tensorrt-rtx")
pytestmark = [needs_export, pytest.mark.timeout(900)]  # an export takes several seconds of one idle core

STATIC = tuple(Profile(least=size, best=size, most=size) for size in (1, 2, 4))


class TestTheTwinKeepsTheRules:
    """On one context with all its buffers; each test breaks one rule."""

    def context(self) -> tuple[Any, Any]:
        gpu = TwinGpu()
        opened = twin.TwinRuntime(gpu).open(twin.pack(exported(Stage.REFINE, Precision.FP32), STATIC))
        context = opened.create_execution_context(None)
        context.kept = opened
        assert context.set_optimization_profile_async(1, gpu.handle)
        return gpu, context

    def bound(self) -> tuple[Any, Any, dict[str, torch.Tensor]]:
        gpu, context = self.context()
        of = graph(Stage.REFINE)
        ports = {port.name: (2, *port.shape) for port in (*of.inputs, *of.outputs)}
        held = {name: gpu.zeros(shape, dtype=torch.float32) for name, shape in ports.items()}
        held["scratch"] = gpu.zeros((twin.SCRATCH_PER_ROW * 2,), dtype=torch.uint8)
        context.set_device_memory(held["scratch"].data_ptr(), held["scratch"].numel())
        for port in of.inputs:
            assert context.set_input_shape(port.name, ports[port.name])
        for name in ports:
            assert context.set_tensor_address(name, held[name].data_ptr())
        return gpu, context, held

    def run(self, gpu: Any, context: Any) -> bool:
        with gpu.ordered():
            return bool(context.execute_async_v3(gpu.handle))

    def test_all_bound_runs(self) -> None:
        gpu, context, _held = self.bound()
        assert self.run(gpu, context)

    @pytest.mark.parametrize("name", [X, MODULATION, OUT, DEEP, "scratch"])
    def test_a_dead_buffer(self, name: str) -> None:
        gpu, context, held = self.bound()
        del held[name]
        with pytest.raises(TwinViolation, match="no living buffer"):
            self.run(gpu, context)

    @pytest.mark.parametrize("name", [X, MODULATION, OUT, DEEP])
    def test_a_short_buffer(self, name: str) -> None:
        gpu, context, held = self.bound()
        held[name] = gpu.zeros((8,), dtype=torch.float32)
        assert context.set_tensor_address(name, held[name].data_ptr())
        with pytest.raises(TwinViolation, match="no living buffer"):
            self.run(gpu, context)

    def test_too_little_scratch_memory(self) -> None:
        gpu, context, held = self.bound()
        context.set_device_memory(held["scratch"].data_ptr(), 16)
        with pytest.raises(TwinViolation, match="too few"):
            self.run(gpu, context)

    def test_another_stream(self) -> None:
        _gpu, context, _held = self.bound()
        with pytest.raises(TwinViolation, match="another stream"):
            context.execute_async_v3(0)

    def test_an_engine_gone_before_its_context(self) -> None:
        gpu, context, _held = self.bound()
        del context.kept
        with pytest.raises(TwinViolation, match="gone before"):
            self.run(gpu, context)

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
        assert not self.run(gpu, context)

    def test_a_new_profile_forgets_the_shapes(self) -> None:
        gpu, context, _held = self.bound()
        assert context.set_optimization_profile_async(1, gpu.handle)
        assert not self.run(gpu, context)
        assert not context.set_optimization_profile_async(9, gpu.handle)

    def test_a_run_that_is_not_ordered_after_the_callers_work(self) -> None:
        gpu, context, _held = self.bound()
        with pytest.raises(TwinViolation, match="not ordered"):
            context.execute_async_v3(gpu.handle)

    def recorded(self) -> tuple[Any, Any, dict[str, torch.Tensor], Any]:
        gpu, context, held = self.bound()
        assert self.run(gpu, context)
        handle = gpu.handle
        return gpu, context, held, gpu.record(lambda: context.execute_async_v3(handle))

    def test_a_recorded_run_reads_and_writes_where_it_was_recorded(self) -> None:
        gpu, context, held, replay = self.recorded()
        elsewhere = gpu.zeros(tuple(held[OUT].shape), dtype=torch.float32)
        context.set_tensor_address(OUT, elsewhere.data_ptr())
        given = graph(Stage.REFINE).example(2)
        for name, tensor in zip((X, MODULATION), given, strict=True):
            held[name].copy_(tensor)
        with gpu.ordered():
            replay()
        torch.testing.assert_close(held[OUT], graph(Stage.REFINE).answer(given)[0], atol=1e-5, rtol=1e-5)
        assert not elsewhere.any()

    def test_a_recorded_run_into_a_dead_buffer(self) -> None:
        gpu, context, held, replay = self.recorded()
        del held[X]
        with pytest.raises(TwinViolation, match="no living buffer"), gpu.ordered():
            replay()
        assert context

    def test_a_recorded_run_whose_context_is_gone(self) -> None:
        gpu, context, held = self.bound()
        assert self.run(gpu, context)
        contexts, handle = [context], gpu.handle
        del context
        replay = gpu.record(lambda: contexts[0].execute_async_v3(handle))
        contexts.clear()
        with pytest.raises(TwinViolation, match="context is gone"), gpu.ordered():
            replay()
        assert held

    def test_recording_what_was_never_run(self) -> None:
        gpu, context, _held = self.bound()
        with pytest.raises(TwinViolation, match="never run"):
            gpu.record(lambda: context.execute_async_v3(gpu.handle))

    @pytest.mark.parametrize("what", ["zeros", "synchronize"])
    def test_memory_or_waiting_while_recording(self, what: str) -> None:
        gpu = TwinGpu()
        calls: dict[str, Any] = {"zeros": lambda: gpu.zeros((1,), dtype=torch.uint8), "synchronize": gpu.synchronize}
        with pytest.raises(TwinViolation, match="while a graph was recorded"):
            gpu.record(calls[what])
