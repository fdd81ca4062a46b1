"""`gridit compile` with the real compiler: a tiny bundle becomes plans, and the cache hands out only those.

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
from models.builds.compile import Done, Phase, compile_bundle, graph_count, show
from models.bundle import Bundle
from models.compiling import flavours
from models.compiling.build import Compiled, Doing, OnDamage, Outcome, compile_graph
from models.compiling.engine_cache import VARIABLE, EngineCache, PlanDamaged
from models.compiling.orders import Profiles, ranges
from models.engine import EngineUnavailable, Precision
from models.engines._tensorrt_plan import opened
from models.engines.tensorrt import find, plans_of
from models.graph import Part, graphs, graphs_of
from models.parity import LIMITS
from models.spec import Codec, Stage
from service import cli
from tests.codecs import codecs, needs_diffusers
from tests.exported import graph, needs_export, net
from tests.ordered import needs_rtx, small
from tests.tiny import tiny_spec

BUCKETS = (1, 8)
"""Enough to see several profiles; each takes time to build."""


pytestmark = [
    needs_export,
    pytest.mark.timeout(1800),  # exporting and building take half a minute of one idle core
    needs_rtx,
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of the coarse net alone."""
    nets = {Stage.COARSE: net(Stage.COARSE)}
    spec = tiny_spec().model_copy(update={"nets": {stage: one.spec for stage, one in nets.items()}, "refined_size": 4})
    tensors = {stage: one.state_dict() for stage, one in nets.items()}
    return bundles.write(tmp_path_factory.mktemp("bundle") / "tiny", spec=spec, nets=tensors, dtype=torch.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> EngineCache:
    return EngineCache(tmp_path_factory.mktemp("cache") / "engines")


def compiled(bundle: Bundle, cache: EngineCache, **options: Any) -> Iterator[Phase | Done]:
    wanted = {"targets": ["sm89"], "precision": Precision.FP16, "buckets": BUCKETS}
    return compile_bundle(bundle.path, cache=cache, **(wanted | options))


@pytest.fixture(scope="module")
def first(tiny: Bundle, cache: EngineCache) -> list[Phase | Done]:
    """Everything that the first compilation told."""
    return list(compiled(tiny, cache))


def done(facts: list[Phase | Done]) -> list[Done]:
    return [fact for fact in facts if isinstance(fact, Done)]


NAMES = [f"{Stage.COARSE}-{part}" for part in Part]


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


def test_the_phases_are_told(first: list[Phase | Done], tiny: Bundle) -> None:
    told = [(fact.graph, fact.doing, fact.index) for fact in first if isinstance(fact, Phase)]
    doings = (Doing.CHECK, Doing.EXPORT, Doing.VERIFY, Doing.BUILD)
    assert told == [(name, doing, index) for index, name in enumerate(NAMES, start=1) for doing in doings]
    assert {fact.total for fact in first if isinstance(fact, Phase)} == {len(NAMES)} == {graph_count(tiny.spec)}


def test_the_second_time_nothing_is_exported_or_built(
    first: list[Phase | Done], tiny: Bundle, cache: EngineCache
) -> None:
    again = list(compiled(tiny, cache))
    assert {fact.doing for fact in again if isinstance(fact, Phase)} == {Doing.CHECK}
    assert {fact.outcome for fact in done(again)} == {Outcome.HIT}
    assert [fact.record for fact in done(again)] == [fact.record for fact in done(first)]


def test_the_engine_finds_what_was_compiled(first: list[Phase | Done], tiny: Bundle, cache: EngineCache) -> None:
    parts, options = graphs(tiny, Stage.COARSE), {"precision": Precision.FP16, "buckets": BUCKETS}
    records = find(parts, flavours.detect(), here="sm89", cache=cache, path=tiny.path, **options)  # type: ignore[arg-type]
    plans = plans_of(parts, records, cache=cache, path=tiny.path)
    assert [plan.content for plan in plans] == [fact.path.read_bytes() for fact in done(first)]


@needs_diffusers
def test_half_an_autoencoder_compiles_for_one_image(tmp_path: Path) -> None:
    *_, decoder = codecs(Codec.DECODER)
    cache, wanted = EngineCache(tmp_path / "engines"), small(buckets=BUCKETS)
    facts = list(compile_graph(decoder, wanted, cache=cache, bundle="latent"))
    assert [fact for fact in facts if isinstance(fact, str)] == [Doing.EXPORT, Doing.VERIFY, Doing.BUILD]
    (record,) = cache.records()
    assert (record.net, record.graph, record.depth) == ("decoder", "decoder-whole-8", 1)
    assert record.recipe.profiles == ranges([1], profiles=Profiles.ONE)
    assert record.recipe.precision is Precision.FP16


def test_a_flipped_byte_is_refused_then_rebuilt_on_demand(
    first: list[Phase | Done], tiny: Bundle, cache: EngineCache, tmp_path: Path
) -> None:
    damaged = EngineCache(tmp_path / "engines")
    shutil.copytree(cache.root, damaged.root)
    path = damaged.path(done(first)[0].record)
    plan = path.read_bytes()
    path.write_bytes(plan[:5000] + bytes([plan[5000] ^ 1]) + plan[5001:])
    with pytest.raises(PlanDamaged, match=path.name):
        list(compiled(tiny, damaged))
    assert path.exists()
    doing = [fact.doing for fact in head(compiled(tiny, damaged, on_damage=OnDamage.REBUILD), 2)]
    assert doing == ["check", "export"]


def head(facts: Iterator[Phase | Done], count: int) -> list[Phase]:
    """The first phases; the work after them is not done."""
    return [fact for _, fact in zip(range(count), facts, strict=False) if isinstance(fact, Phase)]


def test_a_rebuilt_plan_is_the_same_byte_for_byte(
    first: list[Phase | Done], cache: EngineCache, tmp_path: Path
) -> None:
    damaged = EngineCache(tmp_path / "engines")
    shutil.copytree(cache.root, damaged.root)
    *_, reusing = done(first)
    content = reusing.path.read_bytes()
    damaged.path(reusing.record).write_bytes(content[:-1])
    of, rebuild = graph(Stage.COARSE, Part.REUSING), OnDamage.REBUILD
    facts = list(compile_graph(of, small(buckets=BUCKETS), cache=damaged, bundle="tiny", on_damage=rebuild))
    assert facts[:3] == [Doing.EXPORT, Doing.VERIFY, Doing.BUILD]
    assert [fact.outcome for fact in facts if isinstance(fact, Compiled)] == [Outcome.BUILT]
    assert damaged.plan(reusing.record) == content


CHANGES: dict[str, dict[str, Any]] = {
    "target": {"targets": ["sm120"]},
    "targets": {"targets": ["sm89", "sm120"]},
    "precision": {"precision": Precision.BF16},
    "buckets": {"buckets": (1, 4, 8)},
    "profiles": {"profiles": Profiles.ONE},
}


@pytest.mark.parametrize("what", CHANGES)
def test_an_order_that_differs_misses(first: list[Phase | Done], tiny: Bundle, cache: EngineCache, what: str) -> None:
    wanted = small(**({"buckets": BUCKETS} | CHANGES[what]))
    facts = compile_graph(graphs(tiny, Stage.COARSE)[0], wanted, cache=cache, bundle="tiny")
    assert next(facts) == Doing.EXPORT


def test_other_weights_miss(first: list[Phase | Done], tiny: Bundle, cache: EngineCache) -> None:
    coarse = tiny.net(Stage.COARSE)
    with torch.no_grad():
        coarse.get_parameter("blocks.1.attn.proj.bias")[7] += 1e-3
    changed = graphs_of(Stage.COARSE, coarse)[0]
    facts = compile_graph(changed, small(buckets=BUCKETS), cache=cache, bundle="tiny")
    assert next(facts) == Doing.EXPORT


def test_the_same_order_hits(first: list[Phase | Done], tiny: Bundle, cache: EngineCache) -> None:
    """What the two tests above change is what makes them miss."""
    facts = compile_graph(graphs(tiny, Stage.COARSE)[0], small(buckets=BUCKETS), cache=cache, bundle="tiny")
    assert isinstance(next(facts), Compiled)


def test_engines_and_targets_that_there_are_not(tiny: Bundle, cache: EngineCache) -> None:
    with pytest.raises(ValueError, match="nothing to compile; openvino and tensorrt have"):
        next(compile_bundle(tiny.path, engine="torch", cache=cache))
    with pytest.raises(ValueError, match=r"for this machine's CPU only .* not sm89"):
        next(compile_bundle(tiny.path, engine="openvino", targets=["sm89"], cache=cache))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
class TestWithoutAGpu:
    """A machine that cannot run a plan says so, and does not blame the plan."""

    def test_opening_a_good_plan_blames_the_machine(self, first: list[Phase | Done]) -> None:
        with pytest.raises(EngineUnavailable, match="no usable NVIDIA driver or GPU; the plan was not judged"):
            opened(done(first)[0].path.read_bytes(), flavours.detect())


class TestTheCommand:
    """`gridit compile`, over a cache that has the plans."""

    @pytest.fixture(autouse=True)
    def here(self, first: list[Phase | Done], cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, str(cache.root))
        monkeypatch.setenv("COLUMNS", "160")

    def call(self, tiny: Bundle, *options: str) -> int:
        given = ["--engine", "tensorrt", "--target", "sm89", "--precision", "fp16", "--buckets", "1,8"]
        return cli.run(["compile", str(tiny.path), *given, *options])

    def test_it_shows_what_it_found(self, tiny: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.call(tiny) == 0
        shown = capsys.readouterr().out
        assert shown.count(Outcome.HIT) == len(NAMES)
        assert shown.count("not run") == len(NAMES)
        assert "fp16, for sm89" in shown

    @pytest.mark.parametrize(
        ("options", "said"),
        [(("--target", "sm90"), "cannot build for sm90"), (("--buckets", "0"), "0 is no batch size")],
    )
    def test_a_mistake_is_one_line(
        self, tiny: Bundle, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
    ) -> None:
        assert self.call(tiny, *options) == 1
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
        assert f"{fact.record.depth}/{fact.record.depth}" in text
        assert fact.record.graph in text
        assert f"in {fact.path.parent}" in text
