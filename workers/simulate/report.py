"""What became of a day: every job's times, and what each worker and tenant had in each window of ten minutes.

`Book` is written during a simulation; `Report` is its frozen end. Statistics of it are `summary`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.plan import UnitKind
from workers.contracts.job import Priority
from workers.scheduler import Tick
from workers.simulate.arrivals import Arrival
from workers.simulate.costs import Costs
from workers.simulate.fleet import WorkerSpec
from workers.simulate.host import Finished
from workers.simulate.shapes import JobShape

WINDOW = 600.0
"""Seconds."""
Account = tuple[Priority, str]
"""A tenant's jobs of one priority."""


@dataclass(frozen=True, slots=True)
class Served:
    """One job; times are seconds from the beginning."""

    id: str
    tenant: str
    priority: Priority
    alone: float
    """Seconds that it takes by itself on the machine that the costs are of."""
    worker: str
    submitted: float
    claimed: float
    coarse: float
    """Its first coarse frame was there."""
    refined: float | None
    """Its first refined frame; None: only coarse frames were asked for."""
    finished: float


@dataclass(frozen=True, slots=True)
class WorkerUse:
    """One worker."""

    spec: WorkerSpec
    jobs: int
    ticks: int
    rows: int
    busy: tuple[float, ...]
    """Seconds of each window in which a batch ran."""


@dataclass(frozen=True, slots=True)
class Report:
    """A day under one policy."""

    policy: str
    jobs: tuple[Served, ...]
    """By submission."""
    workers: tuple[WorkerUse, ...]
    waiting: tuple[float, ...]
    """Jobs in line, on average over each window."""
    demanded: Mapping[Account, tuple[float, ...]]
    """Seconds alone of the jobs submitted in each window."""
    received: Mapping[Account, tuple[float, ...]]
    """Seconds alone of the units done in each window."""


@dataclass(slots=True)
class _Open:
    """A job in the making."""

    arrival: Arrival
    shape: JobShape
    worker: int = -1
    claimed: float = 0.0
    coarse: float | None = None
    refined: float | None = None


@dataclass(slots=True)
class _Counts:
    """Of one worker."""

    jobs: int = 0
    ticks: int = 0
    rows: int = 0


@dataclass(slots=True)
class Windows:
    """A quantity by window of time."""

    values: list[float] = field(default_factory=list)

    def add(self, at: float, amount: float) -> None:
        """An amount at one moment."""
        self._reach(at)
        self.values[int(at / WINDOW)] += amount

    def spread(self, start: float, stop: float, *, rate: float = 1.0) -> None:
        """`rate` a second from `start` to `stop`."""
        self._reach(stop)
        while start < stop:
            index = int(start / WINDOW)
            until = min(stop, (index + 1) * WINDOW)
            self.values[index] += rate * (until - start)
            start = until

    def _reach(self, at: float) -> None:
        self.values.extend([0.0] * (int(at / WINDOW) + 1 - len(self.values)))

    def padded(self, length: int) -> tuple[float, ...]:
        """With nothing in the windows behind the last."""
        return (*self.values, *[0.0] * (length - len(self.values)))


class Book:
    """What is noted while a simulation runs."""

    def __init__(self, policy: str, fleet: Sequence[WorkerSpec], costs: Mapping[str, Costs]) -> None:
        self._policy, self._fleet, self._costs = policy, fleet, costs
        self._open: dict[str, _Open] = {}
        self._served: list[Served] = []
        self._busy = [Windows() for _ in fleet]
        self._counts = [_Counts() for _ in fleet]
        self._line, self._line_since, self._line_length = Windows(), 0.0, 0
        self._demanded: dict[Account, Windows] = {}
        self._received: dict[Account, Windows] = {}

    def submitted(self, arrival: Arrival, shape: JobShape) -> None:
        """A job is in line."""
        self._open[arrival.id] = _Open(arrival, shape)
        self._demanded.setdefault(_account(arrival), Windows()).add(arrival.at, shape.seconds)

    def waiting(self, now: float, length: int) -> None:
        """So many jobs are in line from now on."""
        self._line.spread(self._line_since, now, rate=self._line_length)
        self._line_since, self._line_length = now, length

    def claimed(self, arrival: Arrival, worker: int, now: float) -> None:
        """A worker has taken it."""
        job = self._open[arrival.id]
        job.worker, job.claimed = worker, now
        self._counts[worker].jobs += 1

    def began(self, worker: int, now: float, seconds: float) -> None:
        """A batch runs for so long."""
        self._busy[worker].spread(now, now + seconds)

    def ran(self, worker: int, tick: Tick) -> None:
        """A batch has run."""
        self._counts[worker].ticks += 1
        self._counts[worker].rows += tick.rows

    def finished(self, done: Finished, now: float) -> None:
        """A unit is done, and perhaps its job."""
        job, unit = self._open[done.arrival.id], done.unit.unit
        self._received.setdefault(_account(done.arrival), Windows()).add(now, job.shape.alone[done.unit.place])
        if 0 in unit.frames and unit.kind is UnitKind.REFINE:
            job.refined = now
        elif 0 in unit.frames:
            job.coarse = now
        if done.last:
            self._served.append(self._end(self._open.pop(done.arrival.id), now))

    def close(self) -> Report:
        """Everything is done."""
        assert not self._open, "every job has ended"
        accounts = sorted(self._demanded)
        books = [self._line, *self._busy, *self._demanded.values(), *self._received.values()]
        length = max((len(book.values) for book in books), default=0)
        return Report(
            self._policy,
            tuple(sorted(self._served, key=lambda job: job.id)),
            tuple(
                WorkerUse(spec, counts.jobs, counts.ticks, counts.rows, busy.padded(length))
                for spec, counts, busy in zip(self._fleet, self._counts, self._busy, strict=True)
            ),
            tuple(amount / WINDOW for amount in self._line.padded(length)),
            {account: self._demanded[account].padded(length) for account in accounts},
            {account: self._received[account].padded(length) for account in accounts},
        )

    def _end(self, job: _Open, now: float) -> Served:
        assert job.coarse is not None, "a job's first coarse frame comes before its end"
        arrival = job.arrival
        return Served(
            arrival.id,
            arrival.tenant,
            arrival.job.priority,
            job.shape.seconds,
            self._fleet[job.worker].name,
            arrival.at,
            job.claimed,
            job.coarse,
            job.refined,
            now,
        )


def _account(arrival: Arrival) -> Account:
    return arrival.job.priority, arrival.tenant
