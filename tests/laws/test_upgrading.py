"""The law of another engine: a job is the job alone on one engine, the one that served when it came, to its end.

The other engine is torch's with every output shifted a little, so whoever served shows in the bits. All comparisons
are bitwise; the oracle is `models.alone` on either engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from models import alone
from models.bundle import Bundle
from models.engine import Engine, EngineUnavailable, NetName, Precision, Rows
from models.engines import Choice
from models.engines.torch import TorchEngine
from models.evaluator import Answering, Evaluator
from models.spec import Stage
from tests.driving import Results, assert_equal, by_itself, on_cpu, results, run_to_end, spec_of, task
from tests.tiny import tiny_bundle
from workers.builds import Builds, Ended, Wish
from workers.inhand import request_of
from workers.loading import parts, prepared
from workers.offering import info_of
from workers.runner import Runner
from workers.shares import Net
from workers.tasks import EngineBuildEnded, EngineKept, EngineSwapped, Fact, TickRan
from workers.upgrading import Improving, wishes_of


class Shifted(TorchEngine):
    """Another engine."""

    name = "shifted"
    closed = 0

    def run(self, batch: Rows) -> Tensor:
        return super().run(batch) + 2.0**-10

    def run_keeping(self, batch: Rows) -> tuple[Tensor, Tensor]:
        out, deep = super().run_keeping(batch)
        return out + 2.0**-10, deep

    def run_reusing(self, batch: Rows, deep: Tensor) -> Tensor:
        return super().run_reusing(batch, deep) + 2.0**-10

    def close(self) -> None:
        self.closed += 1
        super().close()


class Plain(TorchEngine):
    """Torch's, as the first one; it counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@dataclass
class Workshop:
    """Builds what is wished for when it is told to; `choose` then takes it for the nets in `better`."""

    bundle: Bundle
    better: tuple[Stage, ...] = tuple(Stage)
    end: Ended | None = None
    trouble: Exception | None = None
    made: dict[Stage, list[TorchEngine]] = field(default_factory=lambda: {stage: [] for stage in Stage})

    def refuses(self, wish: Wish) -> str:
        return ""

    def start(self, wish: Wish) -> Workshop:
        return self

    def poll(self) -> Ended | None:
        return self.end

    def stop(self) -> None:
        """Nothing runs."""

    def choose(self, bundle: Bundle, part: NetName) -> Choice:
        assert isinstance(part, Stage)
        if self.end is None:
            self.made[part].append(on_cpu(Plain, bundle, part, buckets=(1, 2, 4, 8)))
            return Choice(self.made[part][-1], "for want of another", (("shifted", Precision.FP32),))
        if self.trouble is not None:
            raise self.trouble
        kind = Shifted if part in self.better else Plain
        self.made[part].append(on_cpu(kind, bundle, part, buckets=(1, 2, 4, 8)))
        return Choice(self.made[part][-1], f"{kind.name} is the fastest")

    def runner(self) -> Runner:
        name = self.bundle.spec.name
        choices = {Net(name, part): self.choose(self.bundle, part) for part in parts(self.bundle)}
        nets = {net: prepared(self.bundle, net.part, choice) for net, choice in choices.items()}
        wanted = {net: wishes_of(self.bundle, choice) for net, choice in choices.items()}
        infos = {net: info_of(choice) for net, choice in choices.items()}
        improving = Improving(Builds(self, tries=1), self.choose, wanted)
        return Runner({name: self.bundle}, nets, engines=infos, improving=improving)


def on_the_other(bundle: Bundle, changes: Mapping[str, object]) -> Results:
    """A job alone on the other engine."""
    nets: dict[NetName, Answering] = {s: Evaluator(bundle.net(s), on_cpu(Shifted, bundle, s)) for s in Stage}
    request = request_of(spec_of(**changes), bundle)
    return {unit.key: result.numpy() for unit, result in alone.run(bundle.spec, request, nets=nets)}


def swap(runner: Runner) -> None:
    """As the device thread does it."""
    assert runner.improved() is None  # the build begins, or goes on
    opening = runner.improved()
    assert opening is not None
    opening.open()
    opening.swap()


def told(runner: Runner) -> dict[str, tuple[str, str, str]]:
    (entry,) = runner.catalogue()
    return {net: (info.engine, info.building, info.failed) for net, info in entry.engines.items()}


@pytest.mark.parametrize("cache", [1, 2])
def test_a_job_is_served_to_its_end_by_the_engine_it_began_with(bundle: Bundle, cache: int) -> None:
    shop = Workshop(bundle)
    runner = shop.runner()
    wish = {"num_inference_steps": 4, "refine_steps": 4, "cache": cache}
    runner.admit(task("before", spec_of(seed=1, **wish)))
    facts: list[Fact] = [*runner.tick(), *runner.tick()]
    shop.end = Ended()
    swap(runner)
    runner.admit(task("after", spec_of(seed=1, **wish)))
    facts += run_to_end(runner)
    assert_equal(results(facts, "before"), by_itself(bundle)(spec_of(seed=1, **wish)))
    assert_equal(results(facts, "after"), on_the_other(bundle, {"seed": 1, **wish}))
    first = results(facts, "before")["coarse/0"], results(facts, "after")["coarse/0"]
    assert (first[0] != first[1]).any(), "the engines can be told apart"
    assert all(fact.jobs == 1 for fact in facts if isinstance(fact, TickRan)), "their rows share no batch"
    swapped = [(f.net, f.was_engine, f.engine) for f in facts if isinstance(f, EngineSwapped)]
    assert swapped == [("coarse", "torch", "shifted"), ("refine", "torch", "shifted")]


def test_the_old_engine_is_closed_when_its_last_job_leaves_and_not_before(bundle: Bundle) -> None:
    shop = Workshop(bundle)
    runner = shop.runner()
    runner.admit(task("before", spec_of()))
    runner.tick()
    shop.end = Ended()
    swap(runner)
    old = [made[0] for made in shop.made.values()]
    runner.improved()
    assert [engine.closed for engine in old if isinstance(engine, Plain)] == [0, 0]
    run_to_end(runner)
    runner.improved()
    runner.improved()
    assert [engine.closed for engine in old if isinstance(engine, Plain)] == [1, 1]
    runner.admit(task("after", spec_of()))
    assert results(run_to_end(runner), "after")


def test_what_is_told_of_an_engine_follows(bundle: Bundle) -> None:
    shop = Workshop(bundle, better=(Stage.REFINE,))
    runner = shop.runner()
    waiting = ("torch", "shifted fp32", "")
    assert told(runner) == {"coarse": waiting, "refine": waiting}
    assert runner.catalogue()[0].engines["coarse"].is_fallback
    shop.end = Ended()
    swap(runner)
    assert told(runner) == {"coarse": ("torch", "", ""), "refine": ("shifted", "", "")}
    reasons = {net: info.reason for net, info in runner.catalogue()[0].engines.items()}
    assert reasons == {"coarse": "torch is the fastest", "refine": "shifted is the fastest"}
    kept = [fact for fact in run_to_end(runner) if isinstance(fact, EngineKept)]
    assert [(fact.net, fact.engine, fact.reason) for fact in kept] == [("coarse", "shifted", "torch is the fastest")]
    assert [engine.closed for engine in shop.made[Stage.COARSE] if isinstance(engine, Plain)] == [0, 1]


def test_a_build_that_fails_leaves_torch_serving_and_says_why(bundle: Bundle) -> None:
    shop = Workshop(bundle)
    runner = shop.runner()
    runner.improved()
    shop.end = Ended("no memory")
    assert runner.improved() is None
    assert told(runner) == dict.fromkeys(("coarse", "refine"), ("torch", "", "shifted fp32: no memory"))
    runner.admit(task("job", spec_of()))
    facts = run_to_end(runner)
    assert_equal(results(facts, "job"), by_itself(bundle)(spec_of()))
    assert [fact.reason for fact in facts if isinstance(fact, EngineBuildEnded)] == ["no memory"]


@pytest.mark.parametrize("trouble", [EngineUnavailable("differs from torch by 0.3"), RuntimeError("no such plan")])
def test_what_was_built_and_is_not_right_does_not_serve(bundle: Bundle, trouble: Exception) -> None:
    shop = Workshop(bundle)
    runner = shop.runner()
    shop.trouble = trouble
    shop.end = Ended()
    swap(runner)
    assert told(runner) == dict.fromkeys(("coarse", "refine"), ("torch", "", f"shifted fp32: {trouble}"))
    runner.admit(task("job", spec_of()))
    assert_equal(results(run_to_end(runner), "job"), by_itself(bundle)(spec_of()))


def test_an_error_of_the_device_while_opening_escapes(bundle: Bundle) -> None:
    shop = Workshop(bundle, trouble=torch.AcceleratorError("an illegal memory access"))
    runner = shop.runner()
    runner.improved()
    shop.end = Ended()
    opening = runner.improved()
    assert opening is not None
    with pytest.raises(torch.AcceleratorError):
        opening.open()


def test_features_that_are_reused_are_not_given_up_for_speed(bundle: Bundle) -> None:
    class Forgetful:
        """An engine with no more than every engine has."""

        name, precision, device = "forgetful", Precision.FP32, torch.device("cpu")
        buckets: tuple[int, ...] = (1, 2)

        def prepare(self) -> None:
            """Ready."""

        def run(self, batch: Rows) -> Tensor:
            return batch.x[:, :3]

        def close(self) -> None:
            """Nothing is held."""

    class Swift(Workshop):
        """Its engines keep no features."""

        def choose(self, bundle: Bundle, part: NetName) -> Choice:
            engine: Engine = Forgetful()
            return super().choose(bundle, part) if self.end is None else Choice(engine, "the fastest")

    shop = Swift(bundle)
    runner = shop.runner()
    shop.end = Ended()
    swap(runner)
    assert {engine for engine, _, _ in told(runner).values()} == {"torch"}
    assert all("reuse" in failed for _, _, failed in told(runner).values())
    assert runner.catalogue()[0].caches


def test_a_runner_that_settles_builds_and_changes_nothing_more(bundle: Bundle) -> None:
    shop = Workshop(bundle)
    runner = shop.runner()
    runner.improved()
    runner.settle()
    shop.end = Ended()
    assert runner.improved() is None
    assert told(runner) == dict.fromkeys(("coarse", "refine"), ("torch", "", ""))
