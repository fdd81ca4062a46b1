"""Who goes first: our policy, and two plain queues on the same fleet to compare with.

Ours is not written here: the order of waiting jobs is `line`'s, which jobs a worker leaves to others is `sharing`'s,
and a device's ticks are `workers.scheduler.choose`, called as the runner calls it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from workers.scheduler import Closed, Net, Past, Slice, Tick, Waiting, choose
from workers.simulate.arrivals import Arrival
from workers.simulate.fleet import WorkerSpec
from workers.simulate.line import FairLine, Fifo, Line
from workers.simulate.sharing import Hand, better_elsewhere

Buckets = Mapping[Net, Sequence[int]]


class Ticks(Protocol):
    """The policy of one device, with its memory."""

    def choose(self, waiting: Sequence[Waiting], *, now: float) -> Tick | None:
        """The next batch."""

    def ran(self, tick: Tick, waiting: Sequence[Waiting], *, seconds: float) -> None:
        """It was chosen among `waiting` and took so long."""


class Policy(Protocol):
    """A way to run a fleet."""

    name: str

    def line(self) -> Line:
        """An empty queue."""

    def slots(self, worker: WorkerSpec) -> int:
        """Jobs that a worker has in hand at once."""

    def ticks(self, buckets: Buckets) -> Ticks:
        """The policy of one device that serves these nets."""

    def leaves(self, arrival: Arrival, mine: Hand, others: Sequence[Hand], *, waited: float) -> bool:
        """Whether a worker with room leaves the job that is first in line to another."""


class Ours:
    """As the workers do."""

    name = "ours"

    def line(self) -> Line:
        """Tenants by turns, priorities that age."""
        return FairLine()

    def slots(self, worker: WorkerSpec) -> int:
        """All it has."""
        return worker.slots

    def ticks(self, buckets: Buckets) -> Ticks:
        """The scheduler's."""
        return _Scheduled(buckets)

    def leaves(self, arrival: Arrival, mine: Hand, others: Sequence[Hand], *, waited: float) -> bool:
        """To one that would be done with it sooner."""
        return better_elsewhere(arrival.job.model, mine, others, waited=waited)


class OneByOne:
    """First come, first served, one job at a time on each worker: a plain queue."""

    name = "one job at a time"

    def line(self) -> Line:
        """First come."""
        return Fifo()

    def slots(self, worker: WorkerSpec) -> int:
        """One, whatever it has."""
        return 1

    def ticks(self, buckets: Buckets) -> Ticks:
        """Unit after unit."""
        return _InOrder(buckets)

    def leaves(self, arrival: Arrival, mine: Hand, others: Sequence[Hand], *, waited: float) -> bool:
        """Never."""
        return False


class FirstCome(OneByOne):
    """First come, first served, but in batches: the evaluation that has waited longest picks the net."""

    name = "first come, batched"

    def slots(self, worker: WorkerSpec) -> int:
        """All it has."""
        return worker.slots

    def ticks(self, buckets: Buckets) -> Ticks:
        """By submission, then by place in the plan."""
        return _BySubmission(buckets)


class _Scheduled:
    def __init__(self, buckets: Buckets) -> None:
        self._buckets, self._past = buckets, Past()

    def choose(self, waiting: Sequence[Waiting], *, now: float) -> Tick | None:
        return choose(waiting, buckets=self._buckets, past=self._past, now=now)

    def ran(self, tick: Tick, waiting: Sequence[Waiting], *, seconds: float) -> None:
        self._past = self._past.after(tick, waiting, seconds=seconds)


class _InOrder:
    """The unit that comes first in its job's plan, by itself."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def choose(self, waiting: Sequence[Waiting], *, now: float) -> Tick | None:
        return None if not waiting else _batch([min(waiting, key=lambda entry: entry.place)], self._buckets)

    def ran(self, tick: Tick, waiting: Sequence[Waiting], *, seconds: float) -> None:
        pass


class _BySubmission(_InOrder):
    """The oldest evaluation picks the net, and later ones fill the bucket."""

    def choose(self, waiting: Sequence[Waiting], *, now: float) -> Tick | None:
        if not waiting:
            return None
        ordered = sorted(waiting, key=lambda entry: (entry.submitted_at, entry.job_id, entry.place))
        return _batch([entry for entry in ordered if entry.net == ordered[0].net], self._buckets)


def _batch(entries: Sequence[Waiting], buckets: Buckets) -> Tick:
    """As many rows of these as the largest bucket holds."""
    sizes, slices, room = buckets[entries[0].net], list[Slice](), buckets[entries[0].net][-1]
    for entry in entries:
        stop = min(entry.rows, entry.first + room)
        slices.append(Slice(entry.job_id, entry.unit, entry.first, stop))
        room -= stop - entry.first
        if not room:
            break
    rows = sizes[-1] - room
    bucket = next(size for size in sizes if size >= rows)
    return Tick(entries[0].net, tuple(slices), bucket, Closed.NO_MORE if room else Closed.FULL)


ALL: tuple[Policy, ...] = (Ours(), OneByOne(), FirstCome())
"""Ours, and what it is compared with."""
