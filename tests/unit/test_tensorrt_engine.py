"""The TensorRT engine, driven by the twin of TensorRT's execution half: names, shapes, profiles, buffer lifetimes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from models import parity
from models.compiling.engine_cache import Profile
from models.compiling.flavours import Log
from models.engine import ALONE, CachingEngine, EngineUnavailable, Precision, Rows
from models.engines._tensorrt_plan import ExecutionFailed, Plan, opened, profile_for
from models.engines._twin_gpu import TwinGpu
from models.engines.tensorrt import engine_of
from models.graph import Graph, Part
from models.spec import Codec, Stage
from tests.codecs import SIDES, codecs, needs_diffusers
from tests.codecs import exported as exported_codec
from tests.exported import exported, graph, needs_export

twin = pytest.importorskip("models.engines._tensorrt_twin", reason="onnxruntime comes with the extra tensorrt-rtx")
pytestmark = [needs_export, pytest.mark.timeout(900)]  # an export takes several seconds of one idle core

BUCKETS = (1, 2, 4)
STATIC = tuple(Profile(least=size, best=size, most=size) for size in BUCKETS)
WIDE = (Profile(least=1, best=2, most=4),)
PORTS = {Part.WHOLE: 4, Part.REUSING: 4}
"""Buffers of a bucket."""


def plan(part: Part = Part.WHOLE, *, profiles: Sequence[Profile] = STATIC, of: Graph | None = None) -> Plan:
    """Of the refine net; `of`: with the ports of another graph."""
    of = of or graph(Stage.REFINE, part)
    content = twin.pack(exported(Stage.REFINE, Precision.FP32, part), profiles)
    return Plan(of.name, of.part, of.inputs, of.outputs, content)


def engine(*plans: Plan, gpu: Any = None, captures: bool = False, buckets: tuple[int, ...] = BUCKETS) -> Any:
    """An engine of these plans, or of both parts; its type is what `engine_of` decides."""
    gpu = gpu or TwinGpu()
    runtime = twin.TwinRuntime(gpu)
    runtime.captures = captures
    return engine_of(
        plans or (plan(), plan(Part.REUSING)), runtime=runtime, gpu=gpu, precision=Precision.FP32, buckets=buckets
    )


def inputs(count: int, part: Part = Part.WHOLE, *, seed: int = 0) -> tuple[torch.Tensor, ...]:
    return graph(Stage.REFINE, part).example(count, seed=seed)


def rows(count: int, *, seed: int = 0) -> Rows:
    return Rows(*inputs(count, seed=seed))


@pytest.mark.parametrize("captures", [False, True])
@pytest.mark.parametrize("profiles", [STATIC, WIDE, (*WIDE, *STATIC)])
def test_every_bucket_of_every_part_computes_what_torch_computes(
    profiles: tuple[Profile, ...],
    captures: bool,
) -> None:
    made = engine(plan(profiles=profiles), plan(Part.REUSING, profiles=profiles), captures=captures)
    made.prepare()
    for seed, count in enumerate((*BUCKETS, *reversed(BUCKETS))):
        for part in Part:
            given = inputs(count, part, seed=seed)
            batch, expected = Rows(*given[:2]), graph(Stage.REFINE, part).answer(given)
            found = made.run_keeping(batch) if part is Part.WHOLE else (made.run_reusing(batch, given[2]),)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(made.run(rows(count, seed=seed)), made.run_keeping(rows(count, seed=seed))[0])


def test_it_passes_the_gate() -> None:
    made = engine()
    made.prepare()
    for part in Part:
        assert parity.check(made, graph(Stage.REFINE, part)) <= 1e-5


def test_features_are_reused_where_there_is_a_plan_for_that() -> None:
    assert isinstance(engine(), CachingEngine)
    assert not isinstance(engine(plan()), CachingEngine)


def test_features_go_from_one_step_to_the_next_as_in_torch() -> None:
    made, net = engine(), graph(Stage.REFINE)
    made.prepare()
    first, second = rows(4), rows(4, seed=1)
    deep = made.run_keeping(first)[1].clone()
    _, torchs = net.answer((first.x, first.modulation))  # type: ignore[arg-type]
    (expected,) = graph(Stage.REFINE, Part.REUSING).answer((second.x, second.modulation, torchs))  # type: ignore[arg-type]
    torch.testing.assert_close(made.run_reusing(second, deep), expected, atol=1e-5, rtol=1e-5)


def test_the_answer_is_the_buckets_own_buffer() -> None:
    made = engine()
    made.prepare()
    first = made.run(rows(2))
    kept = first.clone()
    assert made.run(rows(4)).data_ptr() != first.data_ptr()
    assert torch.equal(first, kept)  # another bucket leaves it alone
    assert made.run(rows(2, seed=1)).data_ptr() == first.data_ptr()
    assert not torch.equal(first, kept)


@needs_diffusers
def test_half_an_autoencoder_has_a_plan_for_each_size_of_image() -> None:
    decoders = codecs(Codec.DECODER)
    one = (Profile(least=1, best=1, most=1),)
    contents = [twin.pack(exported_codec(Codec.DECODER, side), one) for side in SIDES]
    plans = [Plan(of.name, of.part, of.inputs, of.outputs, done) for of, done in zip(decoders, contents, strict=True)]
    made = engine(*plans, buckets=ALONE)
    made.prepare()
    assert not isinstance(made, CachingEngine)
    for decoder, side in zip(decoders, SIDES, strict=True):
        (x,) = decoder.example(1)
        (expected,) = decoder.answer((x,))
        assert expected.shape[-1] == side
        torch.testing.assert_close(made.run(Rows(x)), expected, atol=1e-5, rtol=1e-5)
        parity.check(made, decoder)


def test_closing_gives_every_buffer_back() -> None:
    gpu = TwinGpu()
    made = engine(gpu=gpu)
    made.prepare()
    made.run(rows(1))
    assert gpu.alive == sum(PORTS.values()) * len(BUCKETS) + 1  # one scratch memory for all
    made.close()
    made.close()
    assert gpu.alive == 0


def test_preparing_twice_is_preparing_once() -> None:
    gpu = TwinGpu()
    made = engine(gpu=gpu)
    made.prepare()
    before = gpu.used
    made.prepare()
    assert gpu.used == before


class TestTooLittleMemory:
    """The largest buckets are left out; `buckets` says which are there, and a line in the log why."""

    def needed(self, buckets: tuple[int, ...]) -> int:
        gpu = TwinGpu()
        made = engine(gpu=gpu, buckets=buckets)
        made.prepare()
        return gpu.used

    @pytest.mark.parametrize("left", [1, 2])
    def test_the_largest_buckets_are_left_out(self, left: int, caplog: pytest.LogCaptureFixture) -> None:
        gpu = TwinGpu(memory=self.needed(BUCKETS[:left]))
        made = engine(gpu=gpu)
        with caplog.at_level(logging.WARNING):
            made.prepare()
        assert made.buckets == BUCKETS[:left]
        assert gpu.used == self.needed(BUCKETS[:left])
        told = [(line.bucket, line.largest) for line in caplog.records]  # type: ignore[attr-defined]
        assert told == list(zip(BUCKETS[: left - 1 : -1], BUCKETS[-2::-1], strict=False))[: len(BUCKETS) - left]
        parity.check(made, graph(Stage.REFINE))

    def test_with_no_room_for_any_nothing_is_held(self) -> None:
        gpu = TwinGpu(memory=self.needed(ALONE) - 1)
        with pytest.raises(EngineUnavailable, match="too little memory for a batch of 1: the twin has"):
            engine(gpu=gpu).prepare()
        assert gpu.used == 0


def test_a_bucket_without_a_profile_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="no profile for a batch of 4, only for 1-1, 2-2"):
        engine(plan(profiles=STATIC[:2])).prepare()


def test_the_narrowest_profile_is_taken() -> None:
    opened = twin.TwinRuntime(TwinGpu()).open(plan(profiles=(*WIDE, *STATIC)).content)
    assert [profile_for(opened, size) for size in (1, 2, 3, 4)] == [1, 2, 0, 3]


def test_a_plan_of_another_net_is_refused() -> None:
    with pytest.raises(ExecutionFailed, match="shape of x not set"):
        engine(plan(of=graph(Stage.COARSE))).prepare()


def test_a_plan_of_another_part_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="the tensors of the plan of refine-reusing are"):
        engine(plan(), plan(of=graph(Stage.REFINE, Part.REUSING))).prepare()


def test_a_plan_that_is_none_is_refused() -> None:
    of = graph(Stage.REFINE)
    with pytest.raises(EngineUnavailable, match="does not open the plan"):
        engine(Plan(of.name, of.part, of.inputs, of.outputs, b"no plan")).prepare()


class Full:
    """A runtime on a GPU that has no room for a plan."""

    name, captures = "full", False

    def __init__(self) -> None:
        self.log = Log()

    def open(self, plan: bytes) -> None:
        self.log.problems.append("Error Code 2: OutOfMemory (Requested size was 915000000 bytes.)")

    def diagnose(self, plan: bytes) -> tuple[str, ...]:
        return ("MALFORMED_ENGINE",)

    def runtime_config(self, engine: Any) -> Any:
        raise AssertionError("nothing is open")


def test_a_plan_that_does_not_fit_is_not_called_bad() -> None:
    with pytest.raises(EngineUnavailable, match=r"too little free memory for the plan's 1 MB: .*OutOfMemory"):
        opened(bytes(915_000), Full())
