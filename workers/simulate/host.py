"""One simulated worker: jobs in hand, the units that wait, and the batch that runs.

It is to the policy what the runner is: it offers what waits, runs what is chosen, and advances the plans. A batch takes
the recorded time of its bucket over the worker's speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from models.plan import REFERENCE, UnitKind, first_needed
from workers.scheduler import Net, Slice, Tick, Waiting
from workers.simulate.arrivals import Arrival
from workers.simulate.costs import Costs
from workers.simulate.fleet import WorkerSpec
from workers.simulate.policies import Policy
from workers.simulate.shapes import JobShape, UnitShape
from workers.simulate.sharing import Hand

ROW_SHARE = 0.1
"""Weight of the last batch in what a row has lately taken, as on a real device."""

REFINED_AT_ONCE = 64
"""Frames of one job whose refinement is begun, as by the runner."""


@dataclass(slots=True)
class _Running:
    """A started unit."""

    shape: UnitShape
    entry: Waiting
    ask: int = 0
    """Which of the unit's askings it is at."""
    times: int = 0
    """How often that was answered."""


@dataclass(slots=True)
class _InHand:
    """A claimed job."""

    arrival: Arrival
    todo: list[UnitShape]
    frame: Mapping[str, int]
    done: set[str] = field(default_factory=set)
    running: dict[str, _Running] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """A unit that a batch ended."""

    arrival: Arrival
    unit: UnitShape
    last: bool
    """Whether the job is done with it."""


class Host:
    """One worker and its device."""

    def __init__(self, spec: WorkerSpec, policy: Policy, costs: Mapping[str, Costs]) -> None:
        """`costs` by model."""
        self.spec = spec
        self.slots = policy.slots(spec)
        self._costs = costs
        buckets = {Net(model, part): costs[model].buckets(part) for model in spec.models for part in costs[model].parts}
        self._policy = policy.ticks(buckets)
        self._jobs: dict[str, _InHand] = {}
        self._waiting: list[Waiting] | None = []
        self._tick: tuple[Tick, list[Waiting], float] | None = None
        self._row_seconds: float | None = None

    @property
    def held(self) -> int:
        """Jobs in hand."""
        return len(self._jobs)

    @property
    def running(self) -> bool:
        """Whether a batch runs."""
        return self._tick is not None

    def hand(self) -> Hand:
        """What it tells of itself."""
        return Hand(self.spec.name, self.spec.models, self.slots, self.held, self._row_seconds)

    def admit(self, arrival: Arrival, shape: JobShape) -> None:
        """Take a job; its first units wait from now on."""
        job = _InHand(arrival, list(shape.units), first_needed([unit.unit for unit in shape.units]))
        self._jobs[arrival.id] = job
        self._start_ready(job)

    def begin(self, now: float) -> float | None:
        """Begin the next batch; how long it takes. None when nothing waits."""
        if self._waiting is None:
            self._waiting = [run.entry for job in self._jobs.values() for run in job.running.values()]
        tick = self._policy.choose(self._waiting, now=now)
        if tick is None:
            return None
        seconds = self._costs[tick.net.bundle].bucket(tick.net.part, tick.bucket) / self.spec.speed
        self._tick = tick, self._waiting, seconds
        return seconds

    def end(self) -> tuple[Tick, list[Finished]]:
        """The batch has run: hand its rows over."""
        assert self._tick is not None, "a batch runs"
        (tick, waiting, seconds), self._tick = self._tick, None
        self._policy.ran(tick, waiting, seconds=seconds)
        per_row = seconds / tick.rows
        known = self._row_seconds
        self._row_seconds = per_row if known is None else known + ROW_SHARE * (per_row - known)
        return tick, [finished for part in tick.slices for finished in self._deliver(part)]

    def _deliver(self, part: Slice) -> Iterator[Finished]:
        job = self._jobs[part.job_id]
        run = job.running[part.unit]
        if part.stop < run.entry.rows:
            self._show(run, first=part.stop)
            return
        ask = run.shape.asks[run.ask]
        run.times += 1
        if run.times == ask.times:
            run.ask, run.times = run.ask + 1, 0
        if run.ask == len(run.shape.asks):
            yield self._finish(job, run.shape)
        elif part.first or not run.times:  # else the same rows wait once more
            self._show(run, first=0)

    def _finish(self, job: _InHand, unit: UnitShape) -> Finished:
        del job.running[unit.unit.key]
        job.done.add(unit.unit.key)
        self._start_ready(job)
        if not job.running:
            del self._jobs[job.arrival.id]
        return Finished(job.arrival, unit, last=not job.running)

    def _start_ready(self, job: _InHand) -> None:
        """Start every unit whose requirements are done (the user's own frames are); of refinement, the next frames."""
        here = job.done | {REFERENCE}
        rows = sum(_refined(run.shape) for run in job.running.values())
        for shape in [shape for shape in job.todo if here.issuperset(shape.unit.requires)]:
            if _refined(shape) and rows >= REFINED_AT_ONCE:
                continue
            rows += _refined(shape)
            job.todo.remove(shape)
            job.running[shape.unit.key] = _Running(shape, self._entry(job, shape))
        self._waiting = None

    def _entry(self, job: _InHand, shape: UnitShape) -> Waiting:
        arrival, unit = job.arrival, shape.unit
        return Waiting(
            job_id=arrival.id,
            unit=unit.key,
            net=Net(arrival.job.model, shape.asks[0].part),
            first=0,
            rows=shape.asks[0].rows,
            submitted_at=arrival.at,
            place=shape.place,
            stage=unit.stage,
            frame=job.frame[unit.key],
            tenant=arrival.tenant,
            priority=arrival.job.priority,
        )

    def _show(self, run: _Running, *, first: int) -> None:
        """What of a unit waits now."""
        ask = run.shape.asks[run.ask]
        net = Net(run.entry.net.bundle, ask.part)
        run.entry = replace(run.entry, net=net, first=first, rows=ask.rows)
        self._waiting = None


def _refined(shape: UnitShape) -> int:
    """Frames that a unit refines."""
    return len(shape.unit.frames) if shape.unit.kind is UnitKind.REFINE else 0
