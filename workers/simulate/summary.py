"""Statistics of a report: how long jobs waited, what workers and tenants got.

Fairness is judged as fair queueing defines it: whoever has work waiting all through a window of time should have had as
much done as any other who has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

SOME = 1e-6
"""Seconds of work that are more than an error of rounding."""


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
    """Jain's index over tenants, within each priority, of the work done for those that wanted more; 1: all alike."""
    worst_slowdown: float
    """Of the tenant that fared worst."""


def summarise(report: Report) -> Summary:
    """The figures of a report; there is a job in it."""
    tenants = {tenant: _tenant(report, tenant) for tenant in sorted({job.tenant for job in report.jobs})}
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
    """Jain's index over tenants, priority by priority, of the work done for those that had some left in each window.

    The mean over all windows in which two or more had; they count by what was done in them.
    """
    windows = [had for priority in Priority for had in _short(report, priority) if len(had) > 1 and any(had)]
    amounts = [sum(had) for had in windows]
    weighted = sum(amount * jain(had) for amount, had in zip(amounts, windows, strict=True))
    return weighted / sum(amounts) if amounts else 1.0


def _short(report: Report, priority: Priority) -> Iterator[list[float]]:
    """By window: what was done for each tenant whose jobs from before it were not all done in it."""
    accounts = [account for account in report.demanded if account[0] is priority]
    demanded = [[0.0, *accumulate(report.demanded[account])] for account in accounts]
    received = [[0.0, *accumulate(report.received[account])] for account in accounts]
    for index in range(len(report.waiting)):
        pairs = zip(demanded, received, strict=True)
        yield [done[index + 1] - done[index] for asked, done in pairs if asked[index] - done[index + 1] > SOME]


def jain(values: Sequence[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 where all are alike, 1 / n where one has all (Jain et al. 1984)."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


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
