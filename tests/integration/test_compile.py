"""`gridit compile` with the real compiler: nets of the demo's shape become plans, and the cache hands out only those.

TensorRT-RTX builds for named GPUs without having one; nothing here runs a plan.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from models import bundle as bundles
from models import flavours
from models.build import (
    BuildFailed,
    Compiled,
    FusionLost,
    OnDamage,
    Order,
    Outcome,
    Profiles,
    build,
    compile_net,
    order,
    ranges,
)
from models.bundle import Bundle
from models.compile import Done, Phase, compile_bundle, show, targets_of
from models.engine import EngineUnavailable, Precision
from models.engine_cache import VARIABLE, EngineCache, PlanDamaged, Record, plan_name
from models.engines.tensorrt import find, opened
from models.export import source_digest
from models.flavours import Flavour, TensorRTRTX
from models.nn.dit import DiT
from models.spec import BundleSpec, Stage
from service import cli
from tests.exported import graph, needs_export, net
from tests.tiny import DEPTH, awake, tiny_spec

BUCKETS = (1, 8)
"""Enough to see several profiles; each costs seconds to build."""


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


def demo_shaped() -> BundleSpec:
    """The demo bundle's shapes: 4x4 grids of 16-px frames, refined to 128 px."""
    shapes = {
        Stage.COARSE: {"input_size": 64, "patch": 4, "width": 160, "depth": 6, "heads": 5, "classes": 0},
        Stage.REFINE: {"input_size": 128, "patch": 8, "width": 128, "depth": 4, "heads": 4, "classes": 0},
    }
    spec = tiny_spec()
    nets = {stage: spec.nets[stage].model_copy(update=shapes[stage]) for stage in Stage}
    sizes = {"coarse_size": 16, "refined_size": 128, "nets": nets}
    return BundleSpec.model_validate(spec.model_copy(update=sizes).model_dump())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    spec = demo_shaped()
    nets = {stage: awake(DiT(spec.nets[stage])).state_dict() for stage in Stage}
    return bundles.write(tmp_path_factory.mktemp("bundle") / "demo", spec=spec, nets=nets)


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


def test_both_nets_compile_with_every_attention_fused(first: list[Phase | Done], cache: EngineCache) -> None:
    assert [fact.record.net for fact in done(first)] == list(Stage)
    for fact in done(first):
        record = fact.record
        assert fact.outcome is Outcome.BUILT
        assert record.fused_attentions == record.depth > 0
        assert 0 < record.kernels < 12 * record.depth
        assert record.recipe.profiles == ranges(BUCKETS, profiles=Profiles.PER_BUCKET)
        assert record.recipe.targets == ("sm89",)
        plan = fact.path.read_bytes()
        assert (len(plan), hashlib.sha256(plan).hexdigest()) == (record.plan_bytes, record.plan_sha256)
        assert plan == cache.plan(record)


def test_the_phases_are_told(first: list[Phase | Done]) -> None:
    told = [(fact.net, fact.doing) for fact in first if isinstance(fact, Phase)]
    assert told == [(stage, doing) for stage in Stage for doing in ("check", "export", "build")]


def test_the_second_time_nothing_is_built(first: list[Phase | Done], demo: Bundle, cache: EngineCache) -> None:
    again = list(compiled(demo, cache))
    assert {fact.doing for fact in again if isinstance(fact, Phase)} == {"check"}
    assert {fact.outcome for fact in done(again)} == {Outcome.HIT}
    assert [fact.record for fact in done(again)] == [fact.record for fact in done(first)]


def test_the_engine_finds_what_was_compiled(first: list[Phase | Done], demo: Bundle, cache: EngineCache) -> None:
    for fact in done(first):
        stage, flavour = Stage(fact.record.net), rtx()
        assert flavour is not None
        found = find(demo, flavour, here="sm89", stage=stage, precision=Precision.FP16, buckets=BUCKETS, cache=cache)
        assert found == fact.path.read_bytes()


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
    cache, wanted, onnx = EngineCache(tmp_path / "engines"), small(), graph(Stage.REFINE, Precision.FP16)
    made = build(onnx, wanted, depth=DEPTH)
    record = stored(cache, wanted, onnx=onnx, plan=made.plan)
    cache.path(record).write_bytes(made.plan[:-1])
    rebuild = OnDamage.REBUILD
    facts = list(compile_net(net(Stage.REFINE), wanted, cache=cache, bundle="tiny", name="refine", on_damage=rebuild))
    assert [*facts[:2], facts[2].outcome if isinstance(facts[2], Compiled) else None] == ["export", "build", "built"]
    (found,) = cache.records()
    assert found.recipe == record.recipe
    assert cache.plan(found) == made.plan


def stored(cache: EngineCache, wanted: Order, *, onnx: bytes, plan: bytes) -> Record:
    recipe, digest = wanted.recipe(hashlib.sha256(onnx).hexdigest()), hashlib.sha256(plan).hexdigest()
    record = Record(
        recipe=recipe,
        source=source_digest(net(Stage.REFINE), precision=wanted.precision),
        bundle="tiny",
        net="refine",
        graph="coarse-whole",
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
    assert next(compile_net(demo.net(Stage.COARSE), wanted, cache=cache, bundle="demo", name="coarse")) == "export"


def test_other_weights_miss(first: list[Phase | Done], demo: Bundle, cache: EngineCache) -> None:
    coarse = demo.net(Stage.COARSE)
    with torch.no_grad():
        coarse.get_parameter("blocks.3.attn.proj.bias")[7] += 1e-3
    facts = compile_net(coarse, small(buckets=BUCKETS), cache=cache, bundle="demo", name="coarse")
    assert next(facts) == "export"


def test_fusion_is_counted(tmp_path: Path) -> None:
    onnx, wanted = graph(Stage.REFINE, Precision.FP16), small(buckets=[1, 4])
    assert build(onnx, wanted, depth=DEPTH).fused_attentions == DEPTH
    with pytest.raises(FusionLost, match=f"{2 * DEPTH} of {2 * (DEPTH + 1)}"):
        build(onnx, wanted, depth=DEPTH + 1)


def test_one_wide_profile_and_many_targets_build_too() -> None:
    every = small(targets=["sm75", "sm80", "sm86", "sm89", "sm120", "sm121"], buckets=[1, 8], profiles=Profiles.ONE)
    assert build(graph(Stage.REFINE, Precision.FP16), every, depth=DEPTH).fused_attentions == DEPTH


def test_a_graph_that_is_none_is_told_in_the_compilers_words() -> None:
    with pytest.raises(BuildFailed, match="parse"):
        build(b"no graph", small(), depth=DEPTH)


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match="cannot build for sm90, only for sm75, sm80, sm86, sm89, sm120, sm121"):
        small(targets=["sm90"])
    with pytest.raises(ValueError, match="fp32"):
        small(precision=Precision.FP32)
    with pytest.raises(ValueError, match="sm75 has no bfloat16"):
        small(targets=["sm75", "sm89"], precision=Precision.BF16)
    with pytest.raises(ValueError, match="nothing to compile"):
        next(compile_bundle(Path(), engine="torch"))
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
        with pytest.raises(EngineUnavailable, match="no NVIDIA GPU"):
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
        assert shown.count(Outcome.HIT) == len(Stage)
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
