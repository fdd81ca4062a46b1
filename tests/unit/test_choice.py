"""Which engine serves: every branch of the policy on records made by hand, then on plans of a tiny net for this CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import bundle as bundles
from models.bundle import Bundle
from models.compiling.engine_cache import VARIABLE, EngineCache, Record, plan_name
from models.engine import EngineUnavailable, Precision, Rows
from models.engines import Choice, select
from models.engines._candidates import of_this_gpu
from models.engines._choice import Asked, Candidate, objection, praise, rank, regret
from models.engines._opening import RowsDepend, check
from models.engines.torch import TorchEngine
from models.graph import graphs_of
from models.nn.dit import DiT
from models.spec import Stage
from tests.compiled import build, measured, quality, record
from tests.tiny import awake, tiny_bundle, tiny_net

CPU = torch.device("cpu")
FP32, BF16, INT8 = Precision.FP32, Precision.BF16, Precision.INT8


def candidate(precision: Precision = FP32, **changes: object) -> Candidate:
    """A net of two graphs, measured: twice as fast as torch but for what `changes` say."""
    given = {"measured": measured()} | changes
    graphs = ("coarse-whole", "coarse-reusing")
    return Candidate("openvino", precision, tuple(record(graph, precision=precision, **given) for graph in graphs))


def unbuilt(precision: Precision = FP32) -> Candidate:
    return Candidate("openvino", precision, ())


class TestTheRanking:
    """Pure: candidates in, an order out."""

    def test_the_fastest_comes_first(self) -> None:
        slow, fast = candidate(FP32, measured=measured(faster=1.2)), candidate(BF16, measured=measured(faster=1.9))
        ranking = rank([slow, fast], asked=Asked.FOR_THE_BEST)
        assert (ranking.usable, ranking.wanted, ranking.refused) == ((fast, slow), (), ())

    @pytest.mark.parametrize(("faster", "first"), [(1.25, FP32), (1.4, BF16)])
    def test_coarser_arithmetic_must_be_faster_by_a_margin(self, faster: float, first: Precision) -> None:
        exact, coarse = (
            candidate(FP32, measured=measured(faster=1.2)),
            candidate(BF16, measured=measured(faster=faster)),
        )
        assert rank([coarse, exact], asked=Asked.FOR_THE_BEST).usable[0].precision is first

    def test_what_is_not_built_is_wanted_and_the_rest_serves_meanwhile(self) -> None:
        known = candidate(FP32)
        ranking = rank([known, unbuilt(BF16)], asked=Asked.FOR_THE_BEST)
        assert (ranking.usable, ranking.wanted) == ((known,), (("openvino", BF16),))

    @pytest.mark.parametrize("faster", [1.0, 0.6])
    def test_what_is_no_faster_than_torch_serves_only_who_names_it(self, faster: float) -> None:
        slow = candidate(measured=measured(faster=faster))
        ranking = rank([slow], asked=Asked.FOR_THE_BEST)
        assert (ranking.usable, ranking.wanted) == ((), ())
        assert f"{faster:.2f} times as fast as torch fp32" in ranking.refused[0]
        assert rank([slow], asked=Asked.BY_NAME).usable == (slow,)

    def test_what_was_never_timed_serves_only_who_names_it(self) -> None:
        untimed = candidate(measured=None)
        assert rank([untimed], asked=Asked.BY_NAME).usable == (untimed,)
        assert rank([untimed], asked=Asked.BY_NAME).wanted == ()
        assert rank([untimed], asked=Asked.FOR_THE_BEST).usable == ()
        assert rank([untimed], asked=Asked.FOR_THE_BEST).wanted == (("openvino", FP32),)

    def test_of_integers_the_gap_must_be_known(self) -> None:
        untimed = candidate(INT8, measured=None, quality=quality(accepted=True))
        ranking = rank([untimed], asked=Asked.BY_NAME)
        assert (ranking.usable, ranking.wanted) == ((), (("openvino", INT8),))

    @pytest.mark.parametrize("asked", Asked)
    @pytest.mark.parametrize(("precision", "parity"), [(FP32, 1.1e-5), (BF16, 0.016), (FP32, math.nan)])
    def test_what_differs_too_much_serves_nobody(self, asked: Asked, precision: Precision, parity: float) -> None:
        wrong = candidate(precision, measured=measured(parity=parity))
        ranking = rank([wrong], asked=asked)
        assert (ranking.usable, ranking.wanted) == ((), ())
        assert "differs from torch by" in ranking.refused[0]

    def test_one_graph_that_differs_is_enough(self) -> None:
        good, bad = record("coarse-whole", measured=measured()), record("coarse-reusing", measured=measured(parity=1))
        assert objection(Candidate("openvino", FP32, (good, bad)), Asked.BY_NAME) is not None

    @pytest.mark.parametrize("asked", Asked)
    @pytest.mark.parametrize(("verdict", "serves"), [(True, True), (False, False), (None, False)])
    def test_integers_serve_only_when_the_quality_gate_accepted_them(
        self, asked: Asked, verdict: bool | None, serves: bool
    ) -> None:
        judged = None if verdict is None else quality(accepted=verdict)
        integers = candidate(INT8, measured=measured(parity=0.08), quality=judged)
        assert bool(rank([integers], asked=asked).usable) is serves

    def test_only_whole_nets_count_as_fast(self) -> None:
        whole, reusing = measured(faster=0.5), measured(faster=9)
        records = (record("coarse-whole", measured=whole), record("coarse-reusing", measured=reusing))
        assert Candidate("openvino", FP32, records).speedup == pytest.approx(0.5)

    def test_sizes_of_an_autoencoder_are_averaged(self) -> None:
        records = (
            record("decoder-whole-32", measured=measured(faster=1)),
            record("decoder-whole-64", measured=measured(faster=4)),
        )
        assert Candidate("openvino", FP32, records).speedup == pytest.approx(2)


class TestTheReason:
    """For people."""

    def test_of_what_serves(self) -> None:
        said = praise(candidate(measured=measured(faster=1.4)), gap=8e-7)
        assert said == "openvino fp32 is 1.40 times as fast as torch fp32 here and differs by 8e-07"

    def test_of_torch(self) -> None:
        assert regret(["OpenVINO is not installed"], ()) == "OpenVINO is not installed"
        assert regret([], [("openvino", BF16)]) == "not built and measured here: openvino bf16"
        assert regret([], ()) == "nothing else was asked for"


class Leaning(TorchEngine):
    """Torch, but for a last digit that depends on how many rows there are."""

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        out, deep = super().run_keeping(batch)
        return out * (1 + 1e-6 * len(out)), deep

    def run(self, batch: Rows) -> Tensor:
        return self.run_keeping(batch)[0]


@pytest.mark.parametrize(("kind", "passes"), [(TorchEngine, True), (Leaning, False)])
def test_an_engine_whose_rows_lean_on_each_other_is_not_opened(kind: type[TorchEngine], passes: bool) -> None:
    """Each row is near enough to torch, but a job among others would not be what it is alone."""
    net = awake(DiT(tiny_net(stage=Stage.COARSE)))
    graph, _ = graphs_of(Stage.COARSE, net)
    engine = kind(net, device=CPU, precision=FP32, buckets=(1, 4))
    if passes:
        assert check(engine, graph, record()) <= 1e-6
    else:
        with pytest.raises(RowsDepend, match="depend on the size of their batch"):
            check(engine, graph, record())


def test_what_was_timed_on_another_gpu_is_not_known_here() -> None:
    timed = measured().model_copy(update={"device": "cuda:0 NVIDIA L4 GPU-1"})
    known = record(measured=timed)
    assert of_this_gpu(known, "NVIDIA L4") == known
    assert of_this_gpu(known, "NVIDIA L40S").measured is None


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "engines"))
    return EngineCache.default()


def taken(bundle: Bundle, *, engine: str = "auto", precision: str = "auto") -> Choice:
    return select(bundle, Stage.COARSE, engine=engine, precision=precision, device=CPU, buckets=(1, 4))


class TestOnThisCpu:
    """Real plans; only what was measured is made up."""

    @pytest.fixture(autouse=True)
    def installed(self) -> None:
        pytest.importorskip("openvino", reason="openvino comes with the extra openvino, which is not installed")

    def known(self, cache: EngineCache, bundle: Bundle, *, faster: float = 2.0) -> list[Record]:
        _, records = build(bundle, Stage.COARSE, precision=FP32, cache=cache)
        return [cache.amend(each.model_copy(update={"measured": measured(faster=faster)})) for each in records]

    def test_with_nothing_built_torch_serves_and_says_what_it_waits_for(self, cache: EngineCache, tiny: Bundle) -> None:
        choice = taken(tiny)
        assert (choice.engine.name, choice.engine.precision) == ("torch", FP32)
        assert ("openvino", FP32) in choice.wanted
        assert all(engine == "openvino" and not precision.quantised for engine, precision in choice.wanted)
        assert "not built and measured here: openvino fp32" in choice.reason

    def test_what_is_faster_serves_and_is_ready_to_run(self, cache: EngineCache, tiny: Bundle) -> None:
        self.known(cache, tiny, faster=1.4)
        choice = taken(tiny, precision="fp32")
        assert (choice.engine.name, choice.engine.precision, choice.wanted) == ("openvino", FP32, ())
        assert choice.reason.startswith("openvino fp32 is 1.40 times as fast as torch fp32 here and differs by ")

    def test_what_is_slower_does_not(self, cache: EngineCache, tiny: Bundle) -> None:
        self.known(cache, tiny, faster=0.9)
        choice = taken(tiny, precision="fp32")
        assert (choice.engine.name, choice.wanted) == ("torch", ())
        assert choice.reason == "openvino fp32 is 0.90 times as fast as torch fp32 here"
        assert taken(tiny, engine="openvino", precision="fp32").engine.name == "openvino"

    def test_asked_for_by_name_it_is_waited_for_on_torch(self, cache: EngineCache, tiny: Bundle) -> None:
        choice = taken(tiny, engine="openvino", precision="int8")
        assert (choice.engine.name, choice.engine.precision) == ("torch", FP32)
        assert choice.wanted == (("openvino", INT8),)

    def test_a_plan_that_computes_something_else_does_not_serve(self, cache: EngineCache, tiny: Bundle) -> None:
        """Plan and record are whole, but of another net: only running it shows that."""
        mine = self.known(cache, tiny, faster=3)
        nets = {stage: tiny.net(stage) for stage in Stage}
        for parameter in nets[Stage.COARSE].parameters():
            parameter.data.mul_(1.01)
        states = {stage: net.state_dict() for stage, net in nets.items()}
        other = bundles.write(tiny.path.parent / "other", spec=tiny.spec, nets=states, dtype=torch.float32)
        _, theirs = build(other, Stage.COARSE, precision=FP32, cache=cache)
        for ours, foreign in zip(mine, theirs, strict=True):
            cache.store(relabelled(ours, foreign), cache.plan(foreign))
        choice = taken(tiny, precision="fp32")
        assert choice.engine.name == "torch"
        assert "openvino fp32 differs from torch by" in choice.reason

    def test_a_damaged_plan_is_built_again(self, cache: EngineCache, tiny: Bundle) -> None:
        damaged = cache.path(self.known(cache, tiny)[0])
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        choice = taken(tiny, precision="fp32")
        assert (choice.engine.name, choice.wanted) == ("torch", (("openvino", FP32),))
        assert "was changed after it was built" in choice.reason

    def test_torch_by_name_asks_for_nothing_else(self, cache: EngineCache, tiny: Bundle) -> None:
        self.known(cache, tiny, faster=9)
        choice = taken(tiny, engine="torch")
        assert (choice.engine.name, choice.reason, choice.wanted) == ("torch", "asked for", ())

    @pytest.mark.parametrize("precision", ["fp16", "fp8"])
    def test_a_precision_it_cannot_have_is_refused_at_once(
        self, cache: EngineCache, tiny: Bundle, precision: str
    ) -> None:
        with pytest.raises(EngineUnavailable, match=f"precision {precision} .*set GRIDIT_PRECISION to fp32"):
            taken(tiny, engine="openvino", precision=precision)

    def test_tensorrt_without_a_gpu_is_refused_at_once(self, cache: EngineCache, tiny: Bundle) -> None:
        with pytest.raises(EngineUnavailable, match=r"GPU|not installed"):
            taken(tiny, engine="tensorrt")


def relabelled(ours: Record, foreign: Record) -> Record:
    """Our record, vouching for the other's plan."""
    plan = {"plan_sha256": foreign.plan_sha256, "plan_bytes": foreign.plan_bytes}
    return ours.model_copy(update=plan | {"plan": plan_name(ours.recipe, foreign.plan_sha256)})
