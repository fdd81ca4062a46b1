"""Which rows run next: pure policy, no clock and no device of its own.

Every evaluation that waits is a `Waiting`; `choose` picks a net, the rows that go together and the bucket. Rows of many
jobs share a batch when they wait for the same net, whatever their step, and an evaluation may be split over ticks. The
first in order picks the net, the next ones fill the bucket. Order: priority, for as long as its steps hold others back;
the tenant that has had least; a job that was passed over too often; early pictures before late ones, coarse before
refined, with the coarse pass far ahead; submission. What earlier ticks leave behind comes in as values (`Past`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from models.spec import Stage
from workers.contracts.job import Priority
from workers.queue.line import AGING_SECONDS, RANK
from workers.shares import Costs, Depth, Net, Shares

__all__ = ["Closed", "Company", "Depth", "Net", "Past", "Slice", "Tick", "Waiting", "choose"]

LEAD = 4
"""The coarse pass runs so many times as far as refinement before it waits for it."""

SAVING = 0.9
"""Rows that would need padding are run in parts where that costs less than so much of it."""

Buckets = Mapping[Net, Sequence[int]]
"""Rows that a net can be run with, ascending."""


class Company(StrEnum):
    """Who may run beside a job."""

    ANY = "any"
    OWN_BATCH = "own_batch"
    """No other job in its batches: it made one fail."""
    NOBODY = "nobody"
    """No other job at all: a process died with it."""


class Closed(StrEnum):
    """Why no more rows went into a batch."""

    FULL = "full"
    """The largest bucket is full."""
    NO_MORE = "no_more"
    """No other row waits for this net."""
    CHEAPER = "cheaper"
    """A smaller bucket now and the rest later costs less than padding."""
    ALONE = "alone"
    """The job runs without company."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows of one evaluation that wait, `first` .. `rows` - 1."""

    job_id: str
    unit: str
    net: Net
    first: int
    rows: int
    submitted_at: float
    place: int
    """The unit's place in its job's plan."""
    stage: Stage
    """Of the pictures that it is for."""
    frame: int
    """The first frame that needs it."""
    tenant: str = "default"
    priority: Priority = Priority.NORMAL
    company: Company = Company.ANY

    position: tuple[float, str] = field(init=False, repr=False, compare=False)
    """How far into its job it is: a frame, and the stage ("coarse" comes first)."""

    def __post_init__(self) -> None:
        frame = self.frame / LEAD if self.stage is Stage.COARSE else self.frame
        object.__setattr__(self, "position", (frame, self.stage.value))


@dataclass(frozen=True, slots=True)
class Slice:
    """Some rows of a waiting evaluation."""

    job_id: str
    unit: str
    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.first


@dataclass(frozen=True, slots=True)
class Tick:
    """One batch: slices in order, the first of which chose the net."""

    net: Net
    slices: tuple[Slice, ...]
    bucket: int
    """Rows that are run, padding included."""
    closed: Closed

    @property
    def rows(self) -> int:
        """Rows in use."""
        return sum(part.rows for part in self.slices)

    @property
    def jobs(self) -> int:
        """Jobs that share the batch."""
        return len({part.job_id for part in self.slices})


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier ticks leave behind."""

    shares: Shares = field(default_factory=Shares)
    costs: Costs = field(default_factory=Costs)

    def after(self, tick: Tick, waiting: Sequence[Waiting], *, seconds: float) -> Past:
        """`tick` was chosen among `waiting` and took so long."""
        costs = self.costs.noted(tick.net, tick.bucket, seconds=seconds)
        return replace(self.charged(tick, waiting, seconds=seconds), costs=costs)

    def charged(self, tick: Tick, waiting: Sequence[Waiting], *, seconds: float) -> Past:
        """The same of a tick that failed: it was somebody's, but tells nothing of what a bucket costs."""
        tenants = {entry.job_id: entry.tenant for entry in waiting}
        charges: dict[str, float] = {}
        for part in tick.slices:
            tenant = tenants[part.job_id]
            charges[tenant] = charges.get(tenant, 0.0) + part.rows / tick.rows * seconds
        shares = self.shares.charged(charges, waited=set(tenants.values()))
        lead, *rode = (part.job_id for part in tick.slices)
        return replace(self, shares=shares.passing(tenants, lead=lead, rode=set(rode)))


def choose(waiting: Sequence[Waiting], *, buckets: Buckets, past: Past, now: float) -> Tick | None:
    """The next batch, in one of the net's buckets; None when nothing waits. `now` on the clock of `submitted_at`."""
    if not waiting:
        return None
    ordered = _ordered(waiting, shares=past.shares, now=now)
    lead = next((entry for entry in ordered if entry.company is Company.NOBODY), ordered[0])
    mates = [entry for entry in ordered if entry.net == lead.net and _together(entry, lead)]
    rows, bucket, closed = _size(mates, buckets=buckets[lead.net], costs=past.costs)
    if closed is Closed.NO_MORE and lead.company is not Company.ANY:
        closed = Closed.ALONE
    return Tick(lead.net, _fill(mates, room=rows), bucket, closed)


def _ordered(waiting: Sequence[Waiting], *, shares: Shares, now: float) -> list[Waiting]:
    jobs = {entry.job_id: entry for entry in waiting}
    crowd = Counter(job.tenant for job in jobs.values())
    top = min(RANK[job.priority] for job in jobs.values())
    standing = {
        job_id: (
            held_back(job, top=top, now=now),
            shares.turn(job.tenant),
            -shares.overdue(job_id, among=crowd[job.tenant]),
        )
        for job_id, job in jobs.items()
    }
    return sorted(
        waiting,
        key=lambda entry: (
            *standing[entry.job_id],
            entry.position,
            entry.submitted_at,
            entry.job_id,
            entry.place,
        ),
    )


def held_back(job: Waiting, *, top: int, now: float) -> int:
    """Steps of priority below the highest that waits (`top`, its rank), less one for each `AGING_SECONDS` of age."""
    steps, aged = RANK[job.priority] - top, (now - job.submitted_at) / AGING_SECONDS
    return max(0, math.ceil(steps - max(0.0, aged))) if steps else 0


def _together(entry: Waiting, lead: Waiting) -> bool:
    return entry.job_id == lead.job_id or entry.company is lead.company is Company.ANY


def _size(mates: Sequence[Waiting], *, buckets: Sequence[int], costs: Costs) -> tuple[int, int, Closed]:
    """Rows to take, the bucket for them, and why no more."""
    net, rows = mates[0].net, sum(entry.rows - entry.first for entry in mates)
    seconds = [(size, costs.of(net, size)) for size in buckets]
    bucket, _ = _cheapest(min(rows, buckets[-1]), seconds=seconds)
    if bucket >= rows:
        return rows, bucket, Closed.FULL if rows == buckets[-1] else Closed.NO_MORE
    return bucket, bucket, Closed.FULL if bucket == buckets[-1] else Closed.CHEAPER


def _cheapest(rows: int, *, seconds: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """The bucket to begin with and the cost of all `rows`: in the one that holds them, or in parts where that saves."""
    place = next(place for place, (size, _) in enumerate(seconds) if size >= rows)
    bucket, cost = seconds[place]
    if place and rows < bucket:
        smaller, first = seconds[place - 1]
        _, rest = _cheapest(rows - smaller, seconds=seconds)
        if first + rest < SAVING * cost:
            return smaller, first + rest
    return bucket, cost


def _fill(ordered: Sequence[Waiting], *, room: int) -> tuple[Slice, ...]:
    slices: list[Slice] = []
    for entry in ordered:
        if room == 0:
            break
        stop = min(entry.rows, entry.first + room)
        slices.append(Slice(entry.job_id, entry.unit, entry.first, stop))
        room -= stop - entry.first
    return tuple(slices)
