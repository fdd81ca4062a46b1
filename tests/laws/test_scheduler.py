"""Laws of the ticks' policy, under any arrivals: what a batch may hold, who goes first, and that nobody starves.

A device is played here without one: jobs are lists of units, a unit so many steps of so many rows, and a tick costs
what the test says. The policy under test is the one that the runner uses.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import Stage
from workers.contracts.job import Priority
from workers.queue.line import AGING_SECONDS
from workers.scheduler import Closed, Company, Net, Past, Tick, Waiting, choose
from workers.shares import PATIENCE, Costs, Shares

NETS = {stage: Net("demo", stage) for stage in Stage}
BUCKETS = dict.fromkeys(NETS.values(), (1, 2, 4, 8))
LARGEST = 8
IN_HAND = 4
QUICK = settings(max_examples=60, deadline=None)
LONG = settings(max_examples=20, deadline=None)


def waiting(job_id: str = "job", *, stage: Stage = Stage.COARSE, **changes: object) -> Waiting:
    plain = Waiting(
        job_id=job_id,
        unit=f"{stage}/{changes.get('frame', 0)}",
        net=NETS[stage],
        first=0,
        rows=2,
        submitted_at=0.0,
        place=0,
        stage=stage,
        frame=0,
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def first_of(*entries: Waiting, past: Past | None = None, now: float = 0.0) -> str:
    """The job that chooses the net."""
    tick = choose(entries, buckets=BUCKETS, past=past or Past(), now=now)
    assert tick is not None
    return tick.slices[0].job_id


@st.composite
def crowds(draw: st.DrawFn) -> list[Waiting]:
    """What may wait: up to six jobs with a few units each."""
    crowd: list[Waiting] = []
    for number in range(draw(st.integers(1, 6))):
        of_job = {
            "submitted_at": draw(st.floats(0, 100)),
            "tenant": draw(st.sampled_from("abc")),
            "priority": draw(st.sampled_from(Priority)),
            "company": draw(st.sampled_from([Company.ANY, Company.ANY, Company.OWN_BATCH, Company.NOBODY])),
        }
        for place in range(draw(st.integers(1, 4))):
            rows = draw(st.integers(1, 20))
            first = draw(st.integers(0, rows - 1))
            stage, frame = draw(st.sampled_from(Stage)), draw(st.integers(0, 64))
            unit = {"unit": str(place), "place": place, "frame": frame, "rows": rows, "first": first}
            crowd.append(waiting(f"job-{number}", stage=stage, **of_job, **unit))
    return crowd


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """Whatever earlier ticks may have left."""
    seconds = draw(st.dictionaries(st.sampled_from([(n, b) for n in BUCKETS for b in BUCKETS[n]]), st.floats(0.01, 9)))
    spent = draw(st.dictionaries(st.sampled_from("abc"), st.floats(0, 9)))
    passed = draw(st.dictionaries(st.sampled_from([f"job-{n}" for n in range(6)]), st.integers(0, 50)))
    return Past(Shares(draw(st.floats(0, 5)), spent, passed), Costs(seconds))


@QUICK
@given(crowd=crowds(), past=pasts(), now=st.floats(0, 5000), order=st.randoms())
def test_a_batch_holds_waiting_rows_of_one_net_once_each(
    crowd: list[Waiting], past: Past, now: float, order: Random
) -> None:
    before = copy.deepcopy((crowd, past))
    tick = choose(crowd, buckets=BUCKETS, past=past, now=now)
    assert tick is not None
    assert (crowd, past) == before, "nothing that comes in is changed"
    shuffled = order.sample(crowd, len(crowd))
    assert choose(shuffled, buckets=BUCKETS, past=past, now=now) == tick, "the order of arguments says nothing"
    assert 0 < tick.rows <= tick.bucket <= LARGEST
    assert tick.bucket in BUCKETS[tick.net]
    entries = {(entry.job_id, entry.unit): entry for entry in crowd}
    assert len({(part.job_id, part.unit) for part in tick.slices}) == len(tick.slices)
    for part in tick.slices:
        entry = entries[part.job_id, part.unit]
        assert (entry.net, entry.first) == (tick.net, part.first)
        assert part.first < part.stop <= entry.rows


@QUICK
@given(crowd=crowds(), past=pasts())
def test_who_wants_no_company_has_none(crowd: list[Waiting], past: Past) -> None:
    tick = choose(crowd, buckets=BUCKETS, past=past, now=0.0)
    assert tick is not None
    company = {entry.job_id: entry.company for entry in crowd}
    ran = {part.job_id for part in tick.slices}
    if Company.NOBODY in company.values():
        assert [company[job] for job in ran] == [Company.NOBODY]
    assert len(ran) == 1 or all(company[job] is Company.ANY for job in ran)


@QUICK
@given(crowd=crowds(), past=pasts())
def test_a_batch_is_closed_for_the_reason_it_gives(crowd: list[Waiting], past: Past) -> None:
    tick = choose(crowd, buckets=BUCKETS, past=past, now=0.0)
    assert tick is not None
    left = sum(entry.rows - entry.first for entry in crowd if entry.net == tick.net) - tick.rows
    match tick.closed:
        case Closed.FULL:
            assert tick.rows == LARGEST
        case Closed.NO_MORE:
            assert left == 0 or any(entry.company is not Company.ANY for entry in crowd)
        case Closed.CHEAPER:
            assert tick.rows == tick.bucket < LARGEST
        case Closed.ALONE:
            assert tick.jobs == 1


def test_nothing_waits() -> None:
    assert choose([], buckets=BUCKETS, past=Past(), now=0.0) is None


@pytest.mark.parametrize(
    ("sooner", "later"),
    [
        ({"stage": Stage.COARSE, "submitted_at": 9.0}, {"stage": Stage.REFINE, "frame": 0}),
        ({"stage": Stage.COARSE, "frame": 48, "submitted_at": 9.0}, {"stage": Stage.REFINE, "frame": 16}),
        ({"stage": Stage.REFINE, "submitted_at": 9.0}, {"stage": Stage.COARSE, "frame": 16}),
        ({"stage": Stage.REFINE, "frame": 16, "submitted_at": 9.0}, {"stage": Stage.COARSE, "frame": 240}),
        ({"stage": Stage.REFINE, "frame": 8, "submitted_at": 9.0}, {"stage": Stage.REFINE, "frame": 24}),
        ({"submitted_at": 1.0}, {"submitted_at": 2.0}),
        ({"priority": Priority.HIGH, "frame": 99, "submitted_at": 9.0}, {"priority": Priority.NORMAL}),
        ({"priority": Priority.NORMAL, "frame": 99, "submitted_at": 9.0}, {"priority": Priority.LOW}),
    ],
    ids=[
        "a new job's first grid before refinement",
        "the coarse pass before a backlog of refinement",
        "the first refined frames before a long coarse pass",
        "refinement before the end of a very long coarse pass",
        "early frames before late ones",
        "submission",
        "high before normal",
        "normal before low",
    ],
)
def test_order(sooner: dict[str, object], later: dict[str, object]) -> None:
    assert first_of(waiting("later", **later), waiting("sooner", **sooner), now=9.0) == "sooner"  # type: ignore[arg-type]


@QUICK
@given(gap=st.floats(0, 5 * AGING_SECONDS), priority=st.sampled_from([Priority.NORMAL, Priority.LOW]))
def test_a_step_of_priority_holds_back_for_a_while_only(gap: float, priority: Priority) -> None:
    steps = {Priority.NORMAL: 1, Priority.LOW: 2}[priority]
    old = waiting("old", priority=priority)
    high = waiting("high", priority=Priority.HIGH, submitted_at=gap)
    assert first_of(old, high, now=gap) == ("old" if gap >= steps * AGING_SECONDS else "high")


@dataclass
class Played:
    """A job that is played: what is left of it."""

    id: str
    tenant: str
    arrived: int
    units: list[tuple[Stage, int, int, int]]
    """(stage, first frame, steps left, rows)."""
    first: int = 0

    def waits(self) -> Waiting:
        stage, frame, _, rows = self.units[0]
        return waiting(
            self.id,
            stage=stage,
            frame=frame,
            rows=rows,
            first=self.first,
            tenant=self.tenant,
            submitted_at=float(self.arrived),
        )

    def step(self, stop: int) -> None:
        stage, frame, steps, rows = self.units[0]
        self.first = stop % rows
        if self.first == 0:
            self.units[0] = (stage, frame, steps - 1, rows)
            if steps == 1:
                del self.units[0]


def play(line: Iterator[Played], *, ticks: int, costs: Sequence[float]) -> Iterator[tuple[int, Tick, list[Waiting]]]:
    """Jobs from the line into free slots, tick after tick; each tick with what waited."""
    hand: dict[str, Played] = {}
    past = Past()
    for now in range(ticks):
        while len(hand) < IN_HAND and (new := next(line, None)) is not None:
            hand[new.id] = replace(new, arrived=now)
        crowd = [job.waits() for job in hand.values()]
        tick = choose(crowd, buckets=BUCKETS, past=past, now=float(now))
        if tick is None:
            return
        past = past.after(tick, crowd, seconds=costs[now % len(costs)])
        yield now, tick, crowd
        for part in tick.slices:
            hand[part.job_id].step(part.stop)
        hand = {job.id: job for job in hand.values() if job.units}


units = st.tuples(
    st.sampled_from(Stage), st.integers(0, 9).map(lambda n: 16 * n), st.integers(1, 6), st.integers(1, 16)
)


@LONG
@given(shapes=st.lists(st.lists(units, min_size=1, max_size=4), min_size=1, max_size=20))
def test_nobody_starves_while_new_jobs_come_for_ever(shapes: list[list[tuple[Stage, int, int, int]]]) -> None:
    def line() -> Iterator[Played]:
        yield Played("victim", "one", 0, [(Stage.REFINE, 10**6, 5, 16)])
        for number in count():
            yield Played(f"job-{number}", "one", 0, list(shapes[number % len(shapes)]))

    bound = (PATIENCE + 1) * IN_HAND
    since: dict[str, int] = {}
    for _, tick, crowd in play(line(), ticks=15 * bound + 1, costs=[1.0]):
        ran = {part.job_id for part in tick.slices}
        since = {entry.job_id: 0 if entry.job_id in ran else since.get(entry.job_id, 0) + 1 for entry in crowd}
        assert max(since.values()) <= bound
    assert "victim" not in since, "five steps of two batches, or three where it rode with a few rows"
