"""Which rows run next: pure policy, no clock and no device of its own.

Every evaluation that waits is a `Waiting`; `choose` picks a net, the rows that go together and the bucket. Rows of many
jobs share a batch when they wait for the same net, whatever their step, and an evaluation may be split over ticks.
The policy is first come, first served: the oldest evaluation picks the net, and later ones fill the bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from models.spec import Codec, Stage


@dataclass(frozen=True, slots=True)
class Net:
    """One net of one bundle: rows of different nets never share a batch."""

    bundle: str
    part: Stage | Codec


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

    @property
    def rank(self) -> tuple[float, str, int]:
        """Order of service."""
        return self.submitted_at, self.job_id, self.place


@dataclass(frozen=True, slots=True)
class Slice:
    """Some rows of a waiting evaluation."""

    job_id: str
    unit: str
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Tick:
    """One batch: slices in order, which fill `rows` of a bucket."""

    net: Net
    slices: tuple[Slice, ...]

    @property
    def rows(self) -> int:
        """Rows in use."""
        return sum(part.stop - part.first for part in self.slices)

    @property
    def jobs(self) -> int:
        """Jobs that share the batch."""
        return len({part.job_id for part in self.slices})


def choose(waiting: Sequence[Waiting], *, largest: Mapping[Net, int]) -> Tick | None:
    """The next batch, at most `largest[net]` rows; None when nothing waits."""
    if not waiting:
        return None
    ordered = sorted(waiting, key=lambda entry: entry.rank)
    net = ordered[0].net
    return Tick(net, tuple(_fill((entry for entry in ordered if entry.net == net), room=largest[net])))


def _fill(ordered: Iterable[Waiting], *, room: int) -> Iterable[Slice]:
    for entry in ordered:
        if room == 0:
            return
        stop = min(entry.rows, entry.first + room)
        yield Slice(entry.job_id, entry.unit, entry.first, stop)
        room -= stop - entry.first
