"""Statistics of a report: how long jobs waited, what workers and tenants got.

Fairness is judged against max-min shares: in every window, what was served is dealt out to the tenants so that none
gets more than it wanted and none could get more without one that has less getting even less (water filling).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from workers.contracts.job import Priority
from workers.simulate.report import WINDOW, Report, Served

Measure = Callable[[Served], float | None]

MEASURES: Mapping[str, Measure] = {
    "queue_wait": lambda job: job.claimed - job.submitted,
    "first_coarse": lambda job: job.coarse - job.submitted,
    "first_refined": lambda job: None if job.refined is None else job.refined - job.submitted,
    "completion": lambda job: job.finished - job.submitted,
}
"""Seconds from submission until a worker takes a job, until its first frame of each stage, until its end."""

CONTENDED = 1.01
"""A window counts for fairness if the tenants wanted so many times what was served, or more."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of seconds."""

    p50: float
    p95: float
    p99: float
    mean: float


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker did."""

    name: str
    speed: float
    jobs: int
    ticks: int
    rows_per_tick: float
    utilisation: float
    """Share of the time, until the last arrival, in which a batch ran."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """What one tenant got."""

    jobs: int
    seconds: float
    """Of device that its jobs need alone."""
    slowdown: float
    """Time its jobs were in the system, over what they take alone on the fastest worker."""
    first_refined_p50: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy's day in figures."""

    policy: str
    jobs: int
    until: float
    """Seconds until the last job is done."""
    times: Mapping[str, Quantiles]
    by_priority: Mapping[str, Mapping[str, Quantiles]]
    workers: tuple[Worker, ...]
    gain: float
    """Seconds of work, as it takes alone, by each second that a worker of speed 1 was busy."""
    tenants: Mapping[str, Tenant]
    fairness: float
    """Jain's index over tenants of what each received against its max-min share; 1: all alike."""
    worst_slowdown: float
    """Of the tenant that fared worst."""


def summarise(report: Report) -> Summary:
    """The figures of a report; there is a job in it."""
    tenants = {tenant: _tenant(report, tenant) for tenant in report.demanded}
    busy = sum(sum(use.busy) * use.spec.speed for use in report.workers)
    present = [priority for priority in Priority if any(job.priority is priority for job in report.jobs)]
    return Summary(
        policy=report.policy,
        jobs=len(report.jobs),
        until=max(job.finished for job in report.jobs),
        times=times_of(report.jobs),
        by_priority={one.value: times_of(job for job in report.jobs if job.priority is one) for one in present},
        workers=_workers(report),
        gain=sum(job.alone for job in report.jobs) / busy,
        tenants=tenants,
        fairness=fairness(report),
        worst_slowdown=max(tenant.slowdown for tenant in tenants.values()),
    )


def times_of(jobs: Iterable[Served]) -> dict[str, Quantiles]:
    """Of every measure that some of the jobs have."""
    listed = list(jobs)
    values = {name: [v for job in listed if (v := measure(job)) is not None] for name, measure in MEASURES.items()}
    return {name: quantiles(taken) for name, taken in values.items() if taken}


def quantiles(values: Sequence[float]) -> Quantiles:
    """Of some values, at least one."""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return Quantiles(float(p50), float(p95), float(p99), float(np.mean(values)))


def utilisation(report: Report) -> tuple[float, ...]:
    """Share of the fleet that is busy, by window."""
    together = zip(*(use.busy for use in report.workers), strict=True)
    return tuple(sum(busy) / (WINDOW * len(report.workers)) for busy in together)


def fairness(report: Report) -> float:
    """Jain's index over tenants, the mean over windows in which there was less than was wanted, by what was served."""
    tenants = list(report.demanded)
    demanded = {tenant: [0.0, *accumulate(report.demanded[tenant])] for tenant in tenants}
    received = {tenant: [0.0, *accumulate(report.received[tenant])] for tenant in tenants}
    total, weighted = 0.0, 0.0
    for index in range(len(report.waiting)):
        wanted = [max(0.0, demanded[tenant][index + 1] - received[tenant][index]) for tenant in tenants]
        got = [report.received[tenant][index] for tenant in tenants]
        served = sum(got)
        if served and sum(wanted) >= CONTENDED * served:
            pairs = zip(got, max_min(served, wanted), strict=True)
            weighted += served * jain([have / share for have, share in pairs if share > 0])
            total += served
    return weighted / total if total else 1.0


def jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 where all are alike, 1 / n where one has all (Jain et al. 1984)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def max_min(total: float, wanted: Sequence[float]) -> list[float]:
    """Deal `total` out, in `wanted`'s order: nobody gets more than it wanted."""
    shares, left = [0.0] * len(wanted), total
    ordered = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for place, index in enumerate(ordered):
        shares[index] = min(wanted[index], left / (len(ordered) - place))
        left -= shares[index]
    return shares


def _tenant(report: Report, tenant: str) -> Tenant:
    jobs = [job for job in report.jobs if job.tenant == tenant]
    fastest = max(use.spec.speed for use in report.workers)
    seconds = sum(job.alone for job in jobs)
    times = times_of(jobs)
    slowdown = sum(job.finished - job.submitted for job in jobs) / (seconds / fastest)
    refined = times.get("first_refined")
    return Tenant(len(jobs), seconds, slowdown, refined.p50 if refined else None)


def _workers(report: Report) -> tuple[Worker, ...]:
    windows = max(1, round(max(job.submitted for job in report.jobs) / WINDOW))
    return tuple(
        Worker(
            use.spec.name,
            use.spec.speed,
            use.jobs,
            use.ticks,
            use.rows / max(1, use.ticks),
            sum(use.busy[:windows]) / (WINDOW * windows),
        )
        for use in report.workers
    )
