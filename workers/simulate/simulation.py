"""The event loop: arrivals, batches that end, and workers that look into the queue again.

A worker asks for jobs when one arrives, when one of its own is done, and, as long as it has room and something waits,
every half second. What real workers spend on disk, network and encoding costs no time here; a slot is free as soon as
the last unit is done.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Mapping, Sequence
from enum import IntEnum

from workers.contracts.errors import SimulationInput
from workers.simulate.arrivals import Arrival
from workers.simulate.costs import Costs
from workers.simulate.fleet import WorkerSpec
from workers.simulate.host import Host
from workers.simulate.line import Line
from workers.simulate.policies import Policy
from workers.simulate.report import Book, Report
from workers.simulate.shapes import Shapes

POLL_SECONDS = 0.5
"""A worker with room looks so often whether something waits, as real ones do."""


class _Kind(IntEnum):
    """What happens; of things at one time, the first of these first."""

    END = 0
    ARRIVE = 1
    POLL = 2


def simulate(
    fleet: Sequence[WorkerSpec], arrivals: Sequence[Arrival], policy: Policy, costs: Mapping[str, Costs]
) -> Report:
    """What becomes of the arrivals (in order of time): every job runs to its end. `costs` by model.

    Raises SimulationInput where nobody serves a job's model, or a model has no costs.
    """
    _check(fleet, arrivals, costs)
    return _Simulation(fleet, arrivals, policy, costs).run()


class _Simulation:
    def __init__(
        self, fleet: Sequence[WorkerSpec], arrivals: Sequence[Arrival], policy: Policy, costs: Mapping[str, Costs]
    ) -> None:
        self._policy, self._arrivals = policy, arrivals
        self._hosts = [Host(spec, policy, costs) for spec in fleet]
        self._shapes = Shapes(costs)
        self._line: Line = policy.line()
        self._book = Book(policy.name, fleet, costs)
        self._polling: set[int] = set()
        self._dice = random.Random(0)  # who of several idle workers is first to look is chance
        self._count = 0
        self._events: list[tuple[float, _Kind, int, int]] = []
        """(time, kind, a number that no other has, which arrival or host)."""

    def run(self) -> Report:
        for index, arrival in enumerate(self._arrivals):
            self._at(arrival.at, _Kind.ARRIVE, index)
        while self._events:
            now, kind, _, index = heapq.heappop(self._events)
            match kind:
                case _Kind.END:
                    self._end(index, now)
                case _Kind.ARRIVE:
                    self._arrive(self._arrivals[index], now)
                case _Kind.POLL:
                    self._polling.discard(index)
                    self._look(index, now)
        assert not len(self._line), "whatever arrives is served"
        return self._book.close()

    def _at(self, time: float, kind: _Kind, index: int) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, kind, self._count, index))

    def _arrive(self, arrival: Arrival, now: float) -> None:
        self._line.submit(arrival)
        self._book.submitted(arrival, self._shapes.of(arrival.job))
        self._book.waiting(now, len(self._line))
        with_room = [index for index, host in enumerate(self._hosts) if host.held < host.slots]
        self._dice.shuffle(with_room)
        for index in with_room:
            self._look(index, now)

    def _end(self, index: int, now: float) -> None:
        host = self._hosts[index]
        tick, finished = host.end()
        self._book.ran(index, tick)
        for unit in finished:
            self._book.finished(unit, now)
        if any(unit.last for unit in finished):
            self._look(index, now)
        self._begin(index, now)

    def _look(self, index: int, now: float) -> None:
        """Claim what there is room for."""
        host = self._hosts[index]
        while host.held < host.slots and (first := self._line.first(host.spec.models, now=now)) is not None:
            if self._leaves(first, host, now):
                if index not in self._polling:
                    self._polling.add(index)
                    self._at(now + POLL_SECONDS, _Kind.POLL, index)
                break
            self._line.take(first)
            self._book.claimed(first, index, now)
            self._book.waiting(now, len(self._line))
            host.admit(first, self._shapes.of(first.job))
        self._begin(index, now)

    def _leaves(self, arrival: Arrival, host: Host, now: float) -> bool:
        others = [other.hand() for other in self._hosts if other is not host]
        return self._policy.leaves(arrival, host.hand(), others, waited=now - arrival.at)

    def _begin(self, index: int, now: float) -> None:
        host = self._hosts[index]
        if not host.running and (seconds := host.begin(now)) is not None:
            self._book.began(index, now, seconds)
            self._at(now + seconds, _Kind.END, index)


def _check(fleet: Sequence[WorkerSpec], arrivals: Sequence[Arrival], costs: Mapping[str, Costs]) -> None:
    served = {model for worker in fleet for model in worker.models}
    if missing := sorted(served - set(costs)):
        raise SimulationInput(f"fleet: {missing[0]!r} is served, but there are step costs of {sorted(costs)} only")
    for arrival in arrivals:
        if arrival.job.model not in served:
            raise SimulationInput(f"{arrival.id}: model: nobody serves {arrival.job.model!r}, only {sorted(served)}")
