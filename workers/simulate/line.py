"""Jobs that wait, and in what order they are claimed: the pure twin of the scripts `submit` and `claim`.

The rules are those of `workers.queue.line`; a test submits and claims at random here and on a real server and finds
the same order. `Fifo` is the order of a plain queue.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from workers.contracts.job import Priority
from workers.queue.line import AGING_SECONDS, RANK, TURN, cost
from workers.simulate.arrivals import Arrival


class Line(Protocol):
    """Jobs that wait."""

    def __len__(self) -> int: ...

    def submit(self, arrival: Arrival) -> None:
        """It waits from now on."""

    def first(self, models: Collection[str], *, now: float) -> Arrival | None:
        """The job that goes first among those of these models."""

    def take(self, arrival: Arrival) -> None:
        """It was claimed; it is what `first` gave last."""


@dataclass(slots=True)
class _Accounts:
    """One priority: start-time fair queueing over its tenants."""

    virtual: float = 0.0
    ends: dict[str, float] = field(default_factory=dict)
    """By tenant: the end of its last job, in virtual time."""
    waiting: dict[str, list[tuple[float, str, Arrival]]] = field(default_factory=dict)
    """By model: (tag, id, job), a heap."""
    listed: dict[str, Arrival] = field(default_factory=dict)
    """By id, as submitted."""
    passed: int = 0
    """Claims since its last one, while it was old."""

    def submit(self, arrival: Arrival) -> None:
        self.listed[arrival.id] = arrival
        tag = max(self.virtual, self.ends.get(arrival.tenant, 0.0))
        self.ends[arrival.tenant] = tag + cost(arrival.job)
        heapq.heappush(self.waiting.setdefault(arrival.job.model, []), (tag, arrival.id, arrival))

    def first(self, models: Collection[str]) -> Arrival | None:
        heads = [self.waiting[model][0] for model in models if self.waiting.get(model)]
        return min(heads)[-1] if heads else None

    def aged(self, models: Collection[str], *, now: float) -> bool:
        oldest = next((arrival for arrival in self.listed.values() if arrival.job.model in models), None)
        return oldest is not None and now - oldest.at >= AGING_SECONDS

    def take(self, arrival: Arrival) -> None:
        tag, _, taken = heapq.heappop(self.waiting[arrival.job.model])
        assert taken is arrival, "only the first of a line is taken"
        del self.listed[arrival.id]
        self.virtual, self.passed = max(self.virtual, tag), 0
        if not any(self.waiting.values()):
            self.virtual, self.ends = 0.0, {}  # accounts begin anew


class FairLine:
    """Ours: tenants take turns by work, and low priorities get turns when they have grown old."""

    def __init__(self) -> None:
        self._accounts = {priority: _Accounts() for priority in Priority}
        self._count = 0
        self._aged: list[Priority] = []
        """Those that were old when `first` was asked last, the lowest first."""

    def __len__(self) -> int:
        return self._count

    def submit(self, arrival: Arrival) -> None:
        """As `submit.lua`."""
        self._accounts[arrival.job.priority].submit(arrival)
        self._count += 1

    def first(self, models: Collection[str], *, now: float) -> Arrival | None:
        """Of the highest priority, unless it is a lower one's turn."""
        upwards = list(reversed(self._accounts.items()))
        self._aged = [priority for priority, accounts in upwards if accounts.aged(models, now=now)]
        best: Arrival | None = None
        for priority, accounts in upwards:
            best = accounts.first(models) or best
            if priority in self._aged and accounts.passed >= TURN - 1:
                break
        return best

    def take(self, arrival: Arrival) -> None:
        """As `claim.lua`."""
        for priority in self._aged:
            if RANK[priority] > RANK[arrival.job.priority]:
                self._accounts[priority].passed += 1
        self._accounts[arrival.job.priority].take(arrival)
        self._count -= 1


class Fifo:
    """First come, first served, whoever it is."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Arrival]] = {}

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._waiting.values())

    def submit(self, arrival: Arrival) -> None:
        """To the end."""
        self._waiting.setdefault(arrival.job.model, deque()).append(arrival)

    def first(self, models: Collection[str], *, now: float) -> Arrival | None:
        """The one that has waited longest."""
        heads = [self._waiting[model][0] for model in models if self._waiting.get(model)]
        return min(heads, key=lambda head: head.id, default=None)

    def take(self, arrival: Arrival) -> None:
        """From the front."""
        taken = self._waiting[arrival.job.model].popleft()
        assert taken is arrival, "only the first of a line is taken"
