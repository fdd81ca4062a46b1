"""Laws of simulated days: nothing is lost, nobody idles beside a job that waits, queueing theory is met, and a device's
ticks are those of the real runner.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from models.bundle import Bundle
from models.engines.torch import TorchEngine
from models.spec import Stage
from tests.driving import on_cpu, runner_for, task
from tests.simulated import BASE, ROW, by_model, costs_of, fleet_of, some_arrivals
from tests.tiny import tiny_bundle
from workers.contracts.errors import SimulationInput
from workers.contracts.job import JobSpec, Priority
from workers.contracts.job import Stage as JobStage
from workers.runner import Runner
from workers.simulate.arrivals import Arrival, numbered
from workers.simulate.fleet import WorkerSpec, alike
from workers.simulate.host import Host
from workers.simulate.policies import ALL, FirstCome, OneByOne, Ours, Policy
from workers.simulate.report import Report, Served
from workers.simulate.shapes import Shapes
from workers.simulate.sharing import PATIENCE_SECONDS
from workers.simulate.simulation import POLL_SECONDS, simulate
from workers.simulate.summary import quantiles, summarise
from workers.tasks import TickRan

TABLES = (costs_of(), costs_of(name="other", base=0.05))
WAITS = {Ours.name: PATIENCE_SECONDS + POLL_SECONDS}
"""How long an idle worker may leave a job to another, by policy."""

policies = pytest.mark.parametrize("policy", ALL, ids=lambda policy: policy.name)
seeds = pytest.mark.parametrize("seed", range(3))


def simulated(policy: Policy, seed: int) -> Report:
    """More work than there is room for, on three workers of different kind."""
    arrivals = some_arrivals(TABLES, count=120, seconds=8, seed=seed)
    return simulate(fleet_of(TABLES, count=3, seed=seed), arrivals, policy, by_model(*TABLES))


@cache
def a_day(name: str, seed: int) -> Report:
    """The same by the policy's name, simulated once."""
    return simulated(next(policy for policy in ALL if policy.name == name), seed)


def models_of(arrivals: tuple[Arrival, ...]) -> dict[str, str]:
    return {arrival.id: arrival.job.model for arrival in arrivals}


@seeds
@policies
def test_every_job_is_done_once_and_its_times_are_in_order(policy: Policy, seed: int) -> None:
    arrivals = some_arrivals(TABLES, count=120, seconds=8, seed=seed)
    report = a_day(policy.name, seed)
    assert [job.id for job in report.jobs] == [arrival.id for arrival in arrivals]
    for job, arrival in zip(report.jobs, arrivals, strict=True):
        refined = job.finished if job.refined is None else job.refined
        assert arrival.at == job.submitted <= job.claimed < job.coarse <= refined <= job.finished
        assert (job.refined is None) == (arrival.job.stages is JobStage.COARSE)
    for demanded, received in zip(report.demanded.values(), report.received.values(), strict=True):
        assert sum(received) == pytest.approx(sum(demanded))


def in_hand(report: Report, worker: str) -> list[Served]:
    """Its jobs, in order of claim."""
    return sorted((job for job in report.jobs if job.worker == worker), key=lambda job: job.claimed)


def idle_spells(own: list[Served], since: float, until: float) -> Iterator[float]:
    """How long a worker had nothing in hand, each time, between two moments."""
    free = since
    for job in own:
        if job.claimed > free and job.claimed < until:
            yield job.claimed - free
        free = max(free, job.finished)
    if free < until:
        yield until - free


@seeds
@policies
def test_no_worker_idles_while_a_job_waits_that_it_may_run(policy: Policy, seed: int) -> None:
    """Ours: but for the moment that an idle worker leaves a job to a better one."""
    report, patience = a_day(policy.name, seed), WAITS.get(policy.name, 0.0)
    models = models_of(some_arrivals(TABLES, count=120, seconds=8, seed=seed))
    waits = 0
    for use in report.workers:
        own = in_hand(report, use.spec.name)
        for job in report.jobs:
            if models[job.id] in use.spec.models:
                waits += job.claimed - job.submitted > patience
                assert max(idle_spells(own, job.submitted, job.claimed), default=0.0) <= patience, (use.spec, job)
    assert waits > 50, "the day must be busy enough to show anything"


@seeds
@policies
def test_a_device_works_exactly_while_it_has_jobs_in_hand(policy: Policy, seed: int) -> None:
    report = a_day(policy.name, seed)
    for use in report.workers:
        occupied, until = 0.0, 0.0
        for job in in_hand(report, use.spec.name):
            occupied += max(0.0, job.finished - max(until, job.claimed))
            until = max(until, job.finished)
        assert sum(use.busy) == pytest.approx(occupied)


@policies
def test_the_same_day_gives_the_same_report(policy: Policy) -> None:
    assert simulated(policy, 1) == a_day(policy.name, 1)
    assert a_day(policy.name, 1) != a_day(policy.name, 2)


def poisson(job: JobSpec, *, rate: float, count: int, seed: int) -> tuple[Arrival, ...]:
    dice, at, jobs = random.Random(seed), 0.0, []
    for _ in range(count):
        at += dice.expovariate(rate)
        jobs.append((at, "a", job))
    return numbered(jobs)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_one_plain_worker_waits_as_theory_says(load: float) -> None:
    """M/D/1 (Pollaczek-Khinchine): the mean wait is load / (2 (1 - load)) times the service time."""
    table = costs_of()
    job = table.job(num_frames=4, num_inference_steps=1, stages=JobStage.COARSE, class_label=None)
    service = BASE + ROW
    arrivals = poisson(job, rate=load / service, count=10_000, seed=3)
    report = simulate(alike(1, models=("tiny",)), arrivals, OneByOne(), by_model(table))
    waited = [job.claimed - job.submitted for job in report.jobs]
    assert sum(waited) / len(waited) == pytest.approx(service * load / (2 * (1 - load)), rel=0.05)


@policies
def test_more_workers_make_nobody_wait_much_longer(policy: Policy) -> None:
    table = costs_of()
    arrivals = some_arrivals([table], count=150, seconds=45, seed=5)
    reports = [simulate(alike(count, models=("tiny",)), arrivals, policy, by_model(table)) for count in (1, 2, 4, 8)]
    for few, more in pairwise(reports):
        for key in ("first_coarse", "first_refined", "completion"):
            assert summarise(more).times[key].p95 <= 1.05 * summarise(few).times[key].p95, key


def test_a_plain_worker_does_unit_after_unit() -> None:
    table = costs_of()
    job = table.job(num_frames=40, num_inference_steps=3)
    alone = Shapes(by_model(table)).of(job).alone
    (served,) = simulate(alike(1, models=("tiny",)), numbered([(0.0, "a", job)]), OneByOne(), by_model(table)).jobs
    assert (served.coarse, served.refined) == pytest.approx((alone[0], alone[0] + alone[1]))
    assert served.finished == pytest.approx(sum(alone)) == pytest.approx(served.alone)


@pytest.mark.parametrize("policy", [OneByOne(), FirstCome()], ids=lambda policy: policy.name)
def test_plain_queues_end_equal_jobs_as_they_came(policy: Policy) -> None:
    table = costs_of()
    jobs = [(0.01 * index, tenant, table.job(num_frames=40)) for index, tenant in enumerate("abcabc")]
    report = simulate(alike(1, models=("tiny",)), numbered(jobs), policy, by_model(table))
    ends = [job.finished for job in report.jobs]
    assert ends == sorted(ends)
    assert len(set(ends)) == len(ends)


def test_a_flood_of_one_tenant_delays_another_less_than_in_a_plain_queue() -> None:
    table = costs_of(base=1.0, row=0.5)
    long, short = (table.job(num_frames=n, num_inference_steps=4, refine_steps=2) for n in (40, 16))
    flood = [(0.0, "greedy", long) for _ in range(60)]
    modest = [(50.0 + 100 * index, "modest", short) for index in range(8)]
    reports = [
        simulate(alike(2, models=("tiny",), slots=4), numbered(flood + modest), policy, by_model(table))
        for policy in ALL
    ]
    ours, *plain = [summarise(report) for report in reports]
    assert all(ours.tenants["modest"].slowdown < 0.25 * other.tenants["modest"].slowdown for other in plain)
    assert all(ours.fairness > other.fairness for other in plain)


def test_higher_priorities_go_first_and_low_ones_are_not_starved() -> None:
    table = costs_of()
    jobs = [
        (0.01 * index, "a", table.job(num_frames=20, num_inference_steps=4, priority=priority))
        for index, priority in enumerate(list(Priority) * 20)
    ]
    report = simulate(alike(1, models=("tiny",)), numbered(jobs), Ours(), by_model(table))
    waits = {
        priority: quantiles([job.coarse - job.submitted for job in report.jobs if job.priority is priority]).p50
        for priority in Priority
    }
    assert waits[Priority.HIGH] < waits[Priority.NORMAL] < waits[Priority.LOW]


def test_the_faster_worker_gets_the_larger_part() -> None:
    table = costs_of()
    fleet = (WorkerSpec("fast", ("tiny",), speed=4.0), WorkerSpec("slow", ("tiny",), speed=1.0))
    jobs = numbered((0.2 * index, "a", table.job(num_frames=20)) for index in range(100))
    fast, slow = simulate(fleet, jobs, Ours(), by_model(table)).workers
    assert fast.jobs > 2 * slow.jobs > 0


def test_a_job_that_nobody_serves_is_told() -> None:
    table, other = costs_of(), costs_of(name="other")
    with pytest.raises(SimulationInput, match=r"job-000000: model: nobody serves 'other'"):
        simulate(alike(1, models=("tiny",)), numbered([(0.0, "a", other.job())]), FirstCome(), by_model(table, other))
    with pytest.raises(SimulationInput, match=r"fleet: 'tiny' is served"):
        simulate(alike(1, models=("tiny",)), (), FirstCome(), by_model(other))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.mark.parametrize("mix", range(8))
def test_a_devices_ticks_are_those_of_the_real_runner(bundle: Bundle, mix: int) -> None:
    """The same jobs admitted at the same ticks; one bucket, so that no choice hangs on how fast this machine is."""
    dice, table = random.Random(mix), costs_of(bundle.spec, base=1e-4, row=1e-5)
    table = table.model_copy(update={"seconds": {stage.value: {8: 1e-4} for stage in Stage}})
    engines = {stage: on_cpu(TorchEngine, bundle, stage, buckets=(8,)) for stage in Stage}
    runner = runner_for(bundle, engines, clock=lambda: 0.0)
    host, shapes = Host(WorkerSpec("w", ("tiny",)), Ours(), by_model(table)), Shapes(by_model(table))
    arrivals = [
        replace(one, at=float(dice.randrange(4))) for one in some_arrivals([table], count=5, seconds=1, seed=mix)
    ]
    for arrival in arrivals:
        real = task(arrival.id, arrival.job, submitted_at=arrival.at, tenant=arrival.tenant)
        runner.admit(real)
        host.admit(arrival, shapes.of(arrival.job))
        compare(runner, host, ticks=dice.randrange(6))
    assert compare(runner, host, ticks=12_000) > 5
    assert not host.held
    assert not runner.has_work


def compare(runner: Runner, host: Host, *, ticks: int) -> int:
    """Tick both until one has nothing to do; how many ticks there were."""
    for count in range(ticks):
        real = [fact for fact in runner.tick() if isinstance(fact, TickRan)]
        if host.begin(0.0) is None:
            assert not real
            return count
        tick, _ = host.end()
        assert [(fact.net, fact.rows, fact.jobs) for fact in real] == [(tick.net.part.value, tick.rows, tick.jobs)]
    return ticks
