"""A day of arrivals, drawn: open loop, with a daily curve, bursts, and a mix of tenants, shapes and priorities.

Jobs come as a Poisson process whose rate follows the hour, and now and then a tenant submits many at once, as
batches are. How many there are follows from the load: the seconds of device that all of them need one at a time,
against what the fleet has. The same seed draws the same day.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from workers.contracts.job import JobSpec, Priority, Stage
from workers.simulate.arrivals import Arrival, numbered
from workers.simulate.costs import Costs
from workers.simulate.shapes import Shapes

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job in the mix."""

    weight: float
    frames: tuple[int, int]
    """At least, at most; evenly between."""
    stages: Stage = Stage.REFINED
    more_steps: float = 1.0
    """Steps of both nets, as a multiple of the bundle's default."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Who sends what, and when."""

    kinds: tuple[Kind, ...] = (
        Kind(0.25, (16, 32), Stage.COARSE),
        Kind(0.45, (32, 64)),
        Kind(0.20, (64, 160), more_steps=2.0),
        Kind(0.10, (192, 384)),
    )
    """Previews, the usual, better ones, long ones."""
    tenants: tuple[float, ...] = (0.40, 0.25, 0.15, 0.12, 0.08)
    """Share of the jobs of each."""
    priorities: tuple[tuple[Priority, float], ...] = (
        (Priority.HIGH, 0.10),
        (Priority.NORMAL, 0.75),
        (Priority.LOW, 0.15),
    )
    swing: float = 0.4
    """Of the daily curve: the rate is 1 + swing at 15:00 and 1 - swing at 03:00, on average 1."""
    in_bursts: float = 0.25
    """Share of the jobs that come in bursts."""
    burst: int = 30
    """Jobs of a burst, on average."""


def day(
    costs: Costs, *, capacity: float, load: float, hours: float = 24.0, seed: int = 0, mix: Mix | None = None
) -> tuple[Arrival, ...]:
    """Arrivals over so many hours from midnight.

    `capacity`: the fleet's, in machines that the costs are of. `load`: the seconds that the jobs would take one at a
    time on average over what the fleet has; 1 keeps it busy all the time.
    """
    mix, dice = mix or Mix(), random.Random(seed)
    wanted = load * capacity * hours * HOUR
    jobs = list(_until(wanted, costs, mix, dice))
    return numbered(_spread(jobs, mix, dice, span=hours * HOUR))


def _until(seconds: float, costs: Costs, mix: Mix, dice: random.Random) -> Iterator[tuple[str, JobSpec]]:
    """Jobs until they need so many seconds alone."""
    shapes, tenants = Shapes({costs.model: costs}), [f"tenant-{index + 1}" for index in range(len(mix.tenants))]
    while seconds > 0:
        (tenant,) = dice.choices(tenants, weights=mix.tenants)
        job = _job(costs, mix, dice)
        yield tenant, job
        seconds -= shapes.of(job).seconds


def _job(costs: Costs, mix: Mix, dice: random.Random) -> JobSpec:
    (kind,) = dice.choices(mix.kinds, weights=[kind.weight for kind in mix.kinds])
    ((priority, _),) = dice.choices(mix.priorities, weights=[weight for _, weight in mix.priorities])
    defaults, limits = costs.bundle.defaults, costs.bundle.limits
    steps = [min(limits.steps, round(n * kind.more_steps)) for n in (defaults.coarse_steps, defaults.refine_steps)]
    return costs.job(
        num_frames=min(limits.num_frames, dice.randint(*kind.frames)),
        num_inference_steps=steps[0],
        refine_steps=steps[1],
        stages=kind.stages,
        priority=priority,
    )


def _spread(
    jobs: Sequence[tuple[str, JobSpec]], mix: Mix, dice: random.Random, *, span: float
) -> Iterator[tuple[float, str, JobSpec]]:
    """A time for each job: given their number, the times of a Poisson process are independent."""
    burst: list[tuple[str, JobSpec]] = []
    for tenant, job in jobs:
        if dice.random() >= mix.in_bursts:
            yield _time(mix, dice, span), tenant, job
            continue
        burst.append((tenant, job))
        if dice.random() < 1 / mix.burst:
            yield from _together(burst, _time(mix, dice, span))
            burst = []
    yield from _together(burst, _time(mix, dice, span))


def _together(burst: Sequence[tuple[str, JobSpec]], at: float) -> Iterator[tuple[float, str, JobSpec]]:
    """The jobs of a burst are of one tenant and come a twentieth of a second apart."""
    for index, (_, job) in enumerate(burst):
        yield at + 0.05 * index, burst[0][0], job


def _time(mix: Mix, dice: random.Random, span: float) -> float:
    """Of one job, in 0..span, by the daily curve: drawn, and drawn again where the curve refuses."""
    while True:
        at = dice.random() * span
        rate = 1 - mix.swing * math.cos(2 * math.pi * (at - 3 * HOUR) / DAY)
        if dice.random() * (1 + mix.swing) < rate:
            return at
