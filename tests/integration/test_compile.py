"""`gridit compile` with the real compiler: the demo bundle becomes plans, and the cache hands out only those.

TensorRT-RTX builds for named GPUs without having one; nothing here runs a plan.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models import bundle as bundles
from models import flavours
from models.build import (
    Compiled,
    Doing,
    FusionLost,
    OnDamage,
    Order,
    Outcome,
    Profiles,
    build,
    compile_graph,
    order,
    ranges,
)
from models.bundle import Bundle
from models.compile import Done, Phase, compile_bundle, graph_count, show, targets_of
from models.compiler import BuildFailed
from models.engine import EngineUnavailable, Precision
from models.engine_cache import VARIABLE, EngineCache, PlanDamaged, Record, plan_name
from models.engines._tensorrt_plan import opened
from models.engines.tensorrt import find, plans_of
from models.export import source_digest
from models.flavours import Flavour, TensorRTRTX
from models.graph import Part, graphs, graphs_of
from models.parity import LIMITS
from models.spec import Codec, Stage
from models.terminal import DEMO
from service import cli
from tests.codecs import codecs, needs_diffusers
from tests.exported import exported, graph, needs_export
from tests.tiny import DEPTH

BUCKETS = (1, 8)
"""Enough to see several profiles; each costs seconds to build."""
RANGE = (1, 2, 4, 8)
"""For one profile of all."""


def rtx() -> Flavour | None:
    try:
        found = flavours.detect()
    except EngineUnavailable:
        return None
    return found if isinstance(found, TensorRTRTX) else None


pytestmark = [
    needs_export,
    pytest.mark.timeout(1800),  # exporting and building take half a minute of one idle core
    pytest.mark.skipif(rtx() is None, reason="TensorRT-RTX comes with the extra tensorrt-rtx, which is not installed"),
]


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return bundles.load(DEMO)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("cache") / "engines")


def compiled(bundle: Bundle, cache: EngineCache, **options: Any) -> Iterator[Phase | Done]:
    wanted = {"targets": ["sm89"], "precision": Precision.FP16, "buckets": BUCKETS}
    return compile_bundle(bundle.path, cache=cache, **(wanted | options))


@pytest.fixture(scope="module")
def first(demo: Bundle, cache: EngineCache) -> list[Phase | Done]:
    """Everything that the first compilation told."""
    return list(compiled(demo, cache))


def done(facts: list[Phase | Done]) -> list[Done]:
    return [fact for fact in facts if isinstance(fact, Done)]


def small(**options: Any) -> Order:
    """An order that is quick to build."""
    flavour = rtx()
    assert flavour is not None
    wanted = {"targets": ["sm89"], "precision": Precision.FP16, "buckets": [2]} | options
    return order(flavour, **wanted)


NAMES = [f"{stage}-{part}" for stage in Stage for part in Part]


def test_every_graph_compiles_with_every_attention_fused(first: list[Phase | Done], cache: EngineCache) -> None:
    assert [fact.record.graph for fact in done(first)] == NAMES
    for fact in done(first):
        record = fact.record
        assert fact.outcome is Outcome.BUILT
        assert record.fused_attentions == record.depth > 0
        assert 0 < record.kernels < 12 * (record.depth + 1)
        assert record.exported_parity is not None
        assert 0 < record.exported_parity <= LIMITS[Precision.FP16]
        assert record.measured is None  # there is no such GPU here
        assert record.recipe.profiles == ranges(BUCKETS, profiles=Profiles.PER_BUCKET)
        assert record.recipe.targets == ("sm89",)
        plan = fact.path.read_bytes()
        assert (len(plan), hashlib.sha256(plan).hexdigest()) == (record.plan_bytes, record.plan_sha256)
        assert plan == cache.plan(record)


def test_bfloat16_compiles_too(demo: Bundle, tmp_path: Path) -> None:
    options = {"precision": Precision.BF16, "buckets": RANGE, "profiles": Profiles.ONE}
    facts = list(compiled(demo, EngineCache(tmp_path / "engines"), **options))
    assert [fact.record.graph for fact in done(facts)] == NAMES
    for fact in done(facts):
        assert fact.record.fused_attentions == fact.record.depth
        assert fact.record.exported_parity is None  # nothing here runs it
        assert all(fact.record.recipe.serves(rows) for rows in RANGE)
    assert Doing.VERIFY not in [fact.doing for fact in facts if isinstance(fact, Phase)]


def test_the_phases_are_told(first: list[Phase | Done], demo: Bundle) -> None:
    told = [(fact.graph, fact.doing, fact.index) for fact in first if isinstance(fact, Phase)]
    doings = (Doing.CHECK, Doing.EXPORT, Doing.VERIFY, Doing.BUILD)
    assert told == [(name, doing, index) for index, name in enumerate(NAMES, start=1) for doing in doings]
    assert {fact.total for fact in first if isinstance(fact, Phase)} == {len(NAMES)} == {graph_count(demo.spec)}


def test_the_second_time_nothing_is_exported_or_built(
    first: list[Phase | Done], demo: Bundle, cache: EngineCache
) -> None:
    again = list(compiled(demo, cache))
    assert {fact.doing for fact in again if isinstance(fact, Phase)} == {Doing.CHECK}
    assert {fact.outcome for fact in done(again)} == {Outcome.HIT}
    assert [fact.record for fact in done(again)] == [fact.record for fact in done(first)]


def test_the_engine_finds_what_was_compiled(first: list[Phase | Done], demo: Bundle, cache: EngineCache) -> None:
    flavour = rtx()
    assert flavour is not None
    for stage in Stage:
        parts, options = graphs(demo, stage), {"precision": Precision.FP16, "buckets": BUCKETS}
        records = find(parts, flavour, here="sm89", cache=cache, path=demo.path, **options)  # type: ignore[arg-type]
        plans = plans_of(parts, records, cache=cache, path=demo.path)
        made = [fact.path.read_bytes() for fact in done(first) if fact.record.net == stage]
        assert [plan.content for plan in plans] == made


@needs_diffusers
def test_half_an_autoencoder_compiles_for_one_image(tmp_path: Path) -> None:
    *_, encoder = codecs(Codec.ENCODER)
    cache, wanted = EngineCache(tmp_path / "engines"), small(buckets=RANGE)
    facts = list(compile_graph(encoder, wanted, cache=cache, bundle="latent"))
    assert [fact for fact in facts if isinstance(fact, str)] == [Doing.EXPORT, Doing.VERIFY, Doing.BUILD]
    (record,) = cache.records()
    assert (record.net, record.graph, record.depth) == ("encoder", "encoder-whole-16", 1)
    assert record.recipe.profiles == ranges([1], profiles=Profiles.ONE)
    assert record.recipe.precision is Precision.FP16


def test_a_flipped_byte_is_refused_then_rebuilt_on_demand(
    first: list[Phase | Done], demo: Bundle, cache: EngineCache, tmp_path: Path
) -> None:
    damaged = EngineCache(tmp_path / "engines")
    shutil.copytree(cache.root, damaged.root)
    path = damaged.path(done(first)[0].record)
    plan = path.read_bytes()
    path.write_bytes(plan[:5000] + bytes([plan[5000] ^ 1]) + plan[5001:])
    with pytest.raises(PlanDamaged, match=path.name):
        list(compiled(demo, damaged))
    assert path.exists()
    doing = [fact.doing for fact in head(compiled(demo, damaged, on_damage=OnDamage.REBUILD), 2)]
    assert doing == ["check", "export"]


def head(facts: Iterator[Phase | Done], count: int) -> list[Phase]:
    """The first phases; the work after them is not done."""
    return [fact for _, fact in zip(range(count), facts, strict=False) if isinstance(fact, Phase)]


def test_a_rebuilt_plan_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    cache, wanted, onnx = EngineCache(tmp_path / "engines"), small(), exported(Stage.REFINE, Precision.FP16)
    made = build(onnx, wanted, graph=graph(Stage.REFINE))
    record = stored(cache, wanted, onnx=onnx, plan=made.plan)
    cache.path(record).write_bytes(made.plan[:-1])
    rebuild = OnDamage.REBUILD
    facts = list(compile_graph(graph(Stage.REFINE), wanted, cache=cache, bundle="tiny", on_damage=rebuild))
    assert facts[:3] == [Doing.EXPORT, Doing.VERIFY, Doing.BUILD]
    assert [fact.outcome for fact in facts if isinstance(fact, Compiled)] == [Outcome.BUILT]
    (found,) = cache.records()
    assert found.recipe == record.recipe
    assert cache.plan(found) == made.plan


def stored(cache: EngineCache, wanted: Order, *, onnx: bytes, plan: bytes) -> Record:
    recipe, digest = wanted.recipe(hashlib.sha256(onnx).hexdigest()), hashlib.sha256(plan).hexdigest()
    record = Record(
        recipe=recipe,
        source=source_digest(graph(Stage.REFINE), precision=wanted.precision),
        bundle="tiny",
        net="refine",
        graph="refine-whole",
        plan=plan_name(recipe, digest),
        plan_sha256=digest,
        plan_bytes=len(plan),
        onnx_bytes=len(onnx),
        export_seconds=0,
        build_seconds=0,
        kernels=1,
        fused_attentions=2,
        depth=DEPTH,
    )
    cache.store(record, plan)
    return record


CHANGES: dict[str, dict[str, Any]] = {
    "target": {"targets": ["sm120"]},
    "targets": {"targets": ["sm89", "sm120"]},
    "precision": {"precision": Precision.BF16},
    "buckets": {"buckets": (1, 4, 8)},
    "profiles": {"profiles": Profiles.ONE},
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_order_that_differs_misses(first: list[Phase | Done], demo: Bundle, cache: EngineCache, what: str) -> None:
    wanted = small(**({"buckets": BUCKETS} | CHANGES[what]))
    facts = compile_graph(graphs(demo, Stage.COARSE)[0], wanted, cache=cache, bundle="demo")
    assert next(facts) == Doing.EXPORT


def test_other_weights_miss(first: list[Phase | Done], demo: Bundle, cache: EngineCache) -> None:
    coarse = demo.net(Stage.COARSE)
    with torch.no_grad():
        coarse.get_parameter("blocks.3.attn.proj.bias")[7] += 1e-3
    changed = graphs_of(Stage.COARSE, coarse)[0]
    facts = compile_graph(changed, small(buckets=BUCKETS), cache=cache, bundle="demo")
    assert next(facts) == Doing.EXPORT


def test_the_same_order_hits(first: list[Phase | Done], demo: Bundle, cache: EngineCache) -> None:
    """What the two tests above change is what makes them miss."""
    facts = compile_graph(graphs(demo, Stage.COARSE)[0], small(buckets=BUCKETS), cache=cache, bundle="demo")
    assert isinstance(next(facts), Compiled)


def test_fusion_is_counted() -> None:
    onnx, wanted, of = exported(Stage.REFINE, Precision.FP16), small(buckets=[1, 4]), graph(Stage.REFINE)
    assert build(onnx, wanted, graph=of).fused_attentions == DEPTH
    with pytest.raises(FusionLost, match=f"refine-whole: {DEPTH} of {DEPTH + 1} attentions are fused"):
        build(onnx, wanted, graph=replace(of, attentions=DEPTH + 1))


def test_one_wide_profile_and_many_targets_build_too() -> None:
    every = small(targets=["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"], buckets=[1, 8], profiles=Profiles.ONE)
    onnx, of = exported(Stage.REFINE, Precision.FP16, Part.REUSING), graph(Stage.REFINE, Part.REUSING)
    assert build(onnx, every, graph=of).fused_attentions == 2


def test_a_graph_that_is_none_is_told_in_the_compilers_words() -> None:
    with pytest.raises(BuildFailed, match="parse"):
        build(b"no graph", small(), graph=graph(Stage.REFINE))


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"targets": ["sm90"]}, "cannot build for sm90, only for sm75, sm80, sm86, sm89, sm120, sm121"),
    ({"precision": Precision.FP32}, "fp32; ask for fp16 or bf16"),
    ({"precision": Precision.INT8}, "int8 is for CPUs"),
    ({"precision": Precision.BF16, "targets": ["sm75", "sm89"]}, "sm75 has no bf16, which sm80 and later have"),
    ({"precision": Precision.FP8, "targets": ["sm86", "sm89"]}, "sm86 has no fp8, which sm89 and later have"),
    ({"buckets": [0, 4]}, "buckets: 0 is no batch size; choose some of 1 to 1024"),
    ({"buckets": [1, 2048]}, "2048 is no batch size"),
    ({"buckets": []}, "buckets: none are named"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED)
def test_what_cannot_be_asked_for(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**options)


def test_engines_and_targets_that_there_are_not(demo: Bundle, cache: EngineCache) -> None:
    with pytest.raises(ValueError, match="nothing to compile; openvino and tensorrt have"):
        next(compile_bundle(demo.path, engine="torch", cache=cache))
    with pytest.raises(ValueError, match=r"for this machine's CPU only .* not sm89"):
        next(compile_bundle(demo.path, engine="openvino", targets=["sm89"], cache=cache))
    with pytest.raises(ValueError, match="no target"):
        targets_of(" ,")


def test_targets_are_put_in_order() -> None:
    assert small(targets=targets_of("SM120, sm89,sm89")).targets == ("sm89", "sm120")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
class TestWithoutAGpu:
    """A machine that cannot run a plan says so, and does not blame the plan."""

    def test_opening_a_good_plan_blames_the_machine(self, first: list[Phase | Done]) -> None:
        flavour = rtx()
        assert flavour is not None
        with pytest.raises(EngineUnavailable, match="no usable NVIDIA driver or GPU; the plan was not judged"):
            opened(done(first)[0].path.read_bytes(), flavour)

    def test_the_current_gpu_cannot_be_a_target(self) -> None:
        with pytest.raises(EngineUnavailable, match=r"no NVIDIA GPU .* such as --target sm89"):
            small(targets=["current"])


class TestTheCommand:
    """`gridit compile`, over a cache that has the plans."""

    @pytest.fixture(autouse=True)
    def here(self, first: list[Phase | Done], cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, str(cache.root))
        monkeypatch.setenv("COLUMNS", "160")

    def call(self, demo: Bundle, *options: str) -> int:
        given = ["--engine", "tensorrt", "--target", "sm89", "--precision", "fp16", "--buckets", "1,8"]
        return cli.run(["compile", str(demo.path), *given, *options])

    def test_it_shows_what_it_found(self, demo: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.call(demo) == 0
        shown = capsys.readouterr().out
        assert shown.count(Outcome.HIT) == len(NAMES)
        assert shown.count("not run here") == len(NAMES)
        assert "fp16, for sm89" in shown

    @pytest.mark.parametrize(
        ("options", "said"),
        [(("--target", "sm90"), "cannot build for sm90"), (("--buckets", "0"), "0 is no batch size")],
    )
    def test_a_mistake_is_one_line(
        self, demo: Bundle, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
    ) -> None:
        assert self.call(demo, *options) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert said in told
        assert "Traceback" not in told

    def test_a_path_that_is_no_bundle(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.run(["compile", str(tmp_path), "--target", "sm89"]) == 1
        assert "bundle.json" in capsys.readouterr().err


def test_the_table_names_every_plan(first: list[Phase | Done]) -> None:
    from rich.console import Console

    console = Console(record=True, width=160, quiet=False)
    assert show(first, console=console) == tuple(done(first))
    text = console.export_text()
    for fact in done(first):
        assert f"{fact.record.depth} / {fact.record.depth}" in text
        assert str(fact.path) in text.replace("\n", "")
