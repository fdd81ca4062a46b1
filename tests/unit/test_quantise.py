"""Nets in 8 bits: what scales are made from, that float8 graphs compute what torch says they do, and the verdict.

Oracles: torch's own float8, the net in float32, ONNX Runtime, and figures made by hand. Quantisers in a row are
chaotic, since a hair's breadth decides how a value is rounded, so exact agreement is asked of one layer at a time.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from models import alone
from models.bundle import Bundle
from models.compiling.engine_cache import Quality, Recipe, Record, plan_name
from models.compiling.export import source_digest
from models.engine import BUCKETS, Precision, Rows
from models.engines.torch import TorchEngine
from models.evaluate.limits import Bound
from models.evaluate.reference import Part as RealPart
from models.evaluate.report import Figure
from models.evaluator import Answering, Evaluator, Nets
from models.graph import Part, graphs
from models.nn.dit import DiT
from models.quantise import fp8, preparing, qdq, quality
from models.quantise.calibration import Calibration, calibrate
from models.quantise.fp8 import Scales
from models.quantise.quality import NoReference, QualityRefused, Verdict
from models.quantise.remembered import OtherScales, recall
from models.spec import Stage
from models.units import Evaluate
from tests.exported import exported, graph, needs_export, net
from tests.tiny import DEPTH, awake, released_spec, tiny_bundle, tiny_net, written

_Result = TypeVar("_Result")

KINDS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
FEW = {RealPart.REFERENCE: 6, RealPart.HELD_OUT: 4}


def value_of(work: Generator[object, None, _Result]) -> _Result:
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _Result = end.value
            return result


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("quantise") / "tiny")


@pytest.fixture(scope="module")
def calibration(bundle: Bundle) -> Calibration:
    return value_of(calibrate(bundle, most=24))


@cache
def rows(stage: Stage, count: int = 8) -> Rows:
    """Random ones."""
    return Rows(*graph(stage).example(count, seed=5))


@cache
def scales(stage: Stage) -> Scales:
    return fp8.scales(net(stage), rows(stage))


def fresh(stage: Stage) -> DiT:
    return awake(DiT(tiny_net(stage=stage)))


def gap(found: Tensor, right: Tensor) -> float:
    return float(torch.dist(found, right) / right.norm())


@torch.inference_mode()
def output(net: DiT, stage: Stage) -> Tensor:
    given = rows(stage)
    assert given.modulation is not None
    return net.denoise(given.x, given.modulation)


def in_onnx_runtime(onnx: bytes, stage: Stage) -> Tensor:
    """Without its optimisations, which put an operator there that knows no float8."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    given = rows(stage)
    assert given.modulation is not None
    (out,) = session.run(["out"], {"x": given.x.numpy(), "modulation": given.modulation.numpy()})
    return torch.from_numpy(out)


def test_calibration_is_the_same_for_the_same_bundle_and_bounded(bundle: Bundle, calibration: Calibration) -> None:
    assert value_of(calibrate(bundle, most=24)).digest == calibration.digest
    for stage, kept in calibration.rows.items():
        spec = bundle.spec.nets[stage]
        assert kept.x.shape == (24, spec.in_channels, spec.input_size, spec.input_size)
        assert kept.modulation is not None
        assert kept.modulation.shape == (24, 6 * DEPTH + 2, spec.width)


def test_calibration_keeps_rows_that_the_bundle_asks_its_nets_about(bundle: Bundle, calibration: Calibration) -> None:
    """The oracle draws the same sequences itself and remembers everything."""
    from models.quantise.calibration import requests

    plain = alone.evaluators(bundle)
    ears = {stage: Remembering(plain[stage]) for stage in bundle.spec.stages}
    nets: dict[Any, Answering] = {**plain}
    nets.update(ears)
    for request in requests(bundle.spec):
        for _ in alone.run(bundle.spec, request, nets=nets):
            pass
    everything = value_of(calibrate(bundle, most=10_000))
    for stage, ear in ears.items():
        assert torch.equal(everything.rows[stage].x, torch.stack(ear.heard))
        every = {bytes(row.numpy().tobytes()) for row in ear.heard}
        kept = [row.numpy().tobytes() for row in calibration.rows[stage].x]
        assert set(kept) <= every
        assert kept != [row.numpy().tobytes() for row in ear.heard[: len(kept)]], "not the first ones only"


class Remembering:
    """A net that remembers every row."""

    def __init__(self, inner: Answering) -> None:
        self.inner = inner
        self.heard: list[Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, parts: Sequence[Evaluate]) -> tuple[Tensor, ...]:
        self.heard += [row.clone() for part in parts for row in part.x]
        return self.inner(parts)


@pytest.mark.parametrize("scale", [1.0, 2.0**-7])
def test_float8_is_rounded_to_a_sixteenth_and_cut_where_it_ends(scale: float) -> None:
    values = torch.randn(4096, generator=torch.Generator().manual_seed(1)) * 10 * scale
    held = fp8.rounded(values, scale)
    normal = values.abs() >= 2.0**-6 * scale
    assert float(((held - values).abs() / values.abs())[normal].max()) <= 2.0**-4
    assert torch.equal(fp8.rounded(held, scale), held)
    assert float(fp8.rounded(torch.tensor(1e6), scale)) == fp8.LARGEST * scale
    assert torch.equal(fp8.rounded(values * 4, scale * 4), held * 4)


def test_scales_are_powers_of_two_with_room_for_more_than_was_seen() -> None:
    stage = Stage.COARSE
    seen: dict[str, float] = {}

    def note(name: str, value: Tensor) -> None:
        seen[name] = max(seen.get(name, 0.0), float(value.abs().max()))

    watched = fresh(stage)
    for name, layer in fp8.layers(watched):
        layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))
    output(watched, stage)
    found = scales(stage).of
    assert set(found) == {f"blocks.{block}.{kind}" for block in range(DEPTH) for kind in KINDS}
    for name, scale in found.items():
        assert math.log2(scale) == int(math.log2(scale))
        assert fp8.HEADROOM <= fp8.LARGEST * scale / seen[name] < 2 * fp8.HEADROOM


@pytest.mark.parametrize("stage", Stage)
def test_an_emulated_net_is_near_and_keeps_what_is_not_quantised(stage: Stage) -> None:
    small = fp8.emulate(fresh(stage), scales(stage))
    assert 1e-3 < gap(output(small, stage), output(net(stage), stage)) < 0.1
    changed = {name for name, module in small.named_modules() if isinstance(module, fp8.Linear8)}
    assert changed == set(scales(stage).of)
    assert not list(fp8.layers(small))


@needs_export
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_in_an_onnx_graph_computes_what_the_emulation_computes(kind: str) -> None:
    stage, name = Stage.COARSE, f"blocks.0.{kind}"
    only = Scales({name: scales(stage).of[name]})
    found = in_onnx_runtime(qdq.quantised(exported(stage, Precision.FP32), only), stage)
    emulated = output(fp8.emulate(fresh(stage), only), stage)
    lost = gap(emulated, output(net(stage), stage))
    assert gap(found, emulated) < lost / 20


@needs_export
def test_a_float16_graph_loses_as_much_as_the_emulation_says() -> None:
    stage = Stage.COARSE
    onnx = qdq.quantised(exported(stage, Precision.FP16), scales(stage))
    assert onnx == qdq.quantised(exported(stage, Precision.FP16), scales(stage))
    right = output(net(stage), stage)
    emulated = gap(output(fp8.emulate(fresh(stage), scales(stage)), stage), right)
    assert gap(in_onnx_runtime(onnx, stage), right) == pytest.approx(emulated, rel=0.25)


@needs_export
def test_scales_of_another_net_are_refused() -> None:
    strange = Scales({"blocks.7.mlp.fc1": 1.0})
    with pytest.raises(qdq.LayerMissing, match=r"blocks\.7\.mlp\.fc1"):
        qdq.quantised(exported(Stage.COARSE, Precision.FP16), strange)


@needs_export
def test_a_float8_plan_has_fused_attention_and_float8_products() -> None:
    from models.compiling import flavours
    from models.compiling.build import build
    from models.compiling.orders import order
    from models.engine import EngineUnavailable

    try:
        flavour = flavours.detect()
    except EngineUnavailable as why:
        pytest.skip(str(why))
    stage = Stage.COARSE
    wanted = order(flavour, targets=("sm89",), precision=Precision.FP8, buckets=(2,))
    onnx = qdq.quantised(exported(stage, Precision.FP16), scales(stage))
    built = build(onnx, wanted, graph=graph(stage))
    assert built.fused_attentions == DEPTH
    products = [line for line in flavour.listing(built.plan).splitlines() if "LayerType: gemm" in line]
    small = [line for line in products if "Datatype: FP8" in line.partition("Outputs:")[0]]
    assert len(small) == len(KINDS) * DEPTH


def figure(value: float, *, passed: bool) -> Figure:
    return Figure("frechet", "coarse", value, 1.0, Bound.AT_MOST, 50.0, passed, real_passed=True)


@pytest.mark.parametrize(
    ("before", "after", "accepted"),
    [(True, True, True), (True, False, False), (False, False, True), (False, True, True)],
)
def test_only_what_held_before_can_be_lost(before: bool, after: bool, accepted: bool) -> None:
    verdict = Verdict({"a": figure(40.0, passed=before)}, {"a": figure(60.0, passed=after)})
    assert verdict.quality.accepted is accepted
    assert (verdict.quality.unquantised, verdict.quality.quantised) == ({"a": 40.0}, {"a": 60.0})


def test_a_refusal_tells_the_figures() -> None:
    verdict = Verdict(
        {"sky/coarse/frechet": figure(40.0, passed=True)}, {"sky/coarse/frechet": figure(60.0, passed=False)}
    )
    refusal = QualityRefused(Precision.INT8, verdict)
    assert "sky/coarse/frechet 60 (unquantised 40, at most 50)" in str(refusal)
    assert not refusal.quality.accepted


class Still(TorchEngine):
    """An engine that answers the same grey whatever it is asked."""

    def run(self, batch: Rows) -> Tensor:
        return torch.zeros_like(super().run(batch))


def evaluators(bundle: Bundle, kind: type[TorchEngine]) -> Nets:
    engines = {
        stage: kind(bundle.net(stage), device=torch.device("cpu"), precision=Precision.FP32, buckets=BUCKETS)
        for stage in bundle.spec.stages
    }
    return {stage: Evaluator(bundle.net(stage), engine) for stage, engine in engines.items()}


def test_the_gate_judges_both_nets_on_the_same_seeds(bundle: Bundle, tmp_path: Path) -> None:
    plain, same, still = (evaluators(bundle, kind) for kind in (TorchEngine, TorchEngine, Still))
    beside = value_of(quality.standard(bundle.spec, plain, work=tmp_path, sequences=2, frames=20, real=FEW))
    alike = value_of(quality.judge(beside, same))
    assert alike.quality.accepted
    assert alike.quality.quantised == alike.quality.unquantised
    assert {name.split("/")[0] for name in alike.plain} == set(bundle.spec.classes)
    spoiled = value_of(quality.judge(beside, still))
    assert not spoiled.quality.accepted
    assert "lava/coarse/motion" in spoiled.lost


def test_a_bundle_with_nothing_to_be_held_against_is_refused_before_any_work(tmp_path: Path) -> None:
    strange = written(tmp_path / "strange", released_spec())
    work = preparing.prepare(strange, Precision.FP8)
    with pytest.raises(NoReference, match="--data"):
        next(work)


def test_nets_that_were_accepted_once_are_not_judged_again(bundle: Bundle) -> None:
    (made,) = (step for step in preparing.candidates(bundle, Precision.FP8) if not isinstance(step, str))
    known = [record_of(bundle, stage, made.digest) for stage in bundle.spec.stages]
    again = value_of(preparing.prepare(bundle, Precision.FP8, known=known, sequences=0))
    assert (again.digest, again.quality) == (made.digest, ACCEPTED)
    assert again.onnx(b"as it was", graph(Stage.COARSE, Part.REUSING)) == b"as it was"


@pytest.mark.parametrize("spoilt", ["refused", "other weights", "one net only"])
def test_a_verdict_is_only_recalled_for_the_same_nets(bundle: Bundle, spoilt: str) -> None:
    known = [record_of(bundle, stage, "c" * 64) for stage in bundle.spec.stages]
    assert recall(bundle, Precision.FP8, known) == ("c" * 64, ACCEPTED)
    assert recall(bundle, Precision.INT8, known) is None
    if spoilt == "refused":
        known = [one.model_copy(update={"quality": ACCEPTED.model_copy(update={"accepted": False})}) for one in known]
    elif spoilt == "other weights":
        known[0] = known[0].model_copy(update={"source": "d" * 64})
    else:
        known = known[:1]
    assert recall(bundle, Precision.FP8, known) is None


def test_nets_that_come_out_otherwise_are_not_built_on_an_old_verdict(bundle: Bundle) -> None:
    known = [record_of(bundle, stage, "c" * 64) for stage in bundle.spec.stages]
    again = value_of(preparing.prepare(bundle, Precision.FP8, known=known))
    with pytest.raises(OtherScales, match="gridit engines rm"):
        again.onnx(b"", graph(Stage.COARSE))


ACCEPTED = Quality(accepted=True, unquantised={"a": 1.0}, quantised={"a": 1.1})


def record_of(bundle: Bundle, stage: Stage, digest: str) -> Record:
    """Of a plan in float8, as far as a verdict needs it."""
    whole = next(found for found in graphs(bundle, stage) if found.part is Part.WHOLE)
    recipe = Recipe(
        onnx_sha256="a" * 64,
        flavour="tensorrt",
        version="1",
        targets=("sm89",),
        profiles=(),
        precision=Precision.FP8,
        quantisation=digest,
    )
    return Record(
        recipe=recipe,
        source=source_digest(whole, precision=Precision.FP8),
        bundle=bundle.spec.name,
        net=stage,
        graph=whole.name,
        plan=plan_name(recipe, "a" * 64),
        plan_sha256="a" * 64,
        plan_bytes=1,
        onnx_bytes=1,
        export_seconds=1.0,
        build_seconds=1.0,
        kernels=1,
        fused_attentions=DEPTH,
        depth=DEPTH,
        quality=ACCEPTED,
    )
