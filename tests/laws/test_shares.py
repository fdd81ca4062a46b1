"""Laws of what ticks leave behind: tenants share by seconds, nobody pays long, buckets are taken by what they cost.

Held against the policy itself, which takes these values as arguments.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import Stage
from tests.laws.test_scheduler import BUCKETS, LARGEST, LONG, NETS, QUICK, Played, waiting
from workers.scheduler import Past, choose
from workers.shares import DEBT_SECONDS, TURN_SECONDS, Costs, Shares


@LONG
@given(
    jobs=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    costs=st.lists(st.floats(0.01, 3), min_size=1, max_size=9),
    late=st.integers(0, 30),
)
def test_tenants_share_by_seconds(jobs: tuple[int, int], costs: list[float], late: int) -> None:
    endless = [(Stage.REFINE, 0, 10**6, LARGEST)]
    hand = [Played(f"a{n}", "a", 0, list(endless)) for n in range(jobs[0])]
    rivals = [Played(f"b{n}", "b", 0, list(endless)) for n in range(jobs[1])]
    past, had = Past(), {"a": 0.0, "b": 0.0}
    for now in range(late + 150):
        crowd = [job.waits() for job in (hand + rivals if now >= late else hand)]
        tick = choose(crowd, buckets=BUCKETS, past=past, now=0.0)
        assert tick is not None
        seconds = costs[now % len(costs)]
        past = past.after(tick, crowd, seconds=seconds)
        if now >= late:  # what one had while it was by itself is not held against it, nor made up for
            had[tick.slices[0].job_id[0]] += seconds
        assert abs(had["a"] - had["b"]) <= TURN_SECONDS + 2 * max(costs)


@QUICK
@given(seconds=st.floats(0.01, 100), tenants=st.sets(st.sampled_from("abcdef"), min_size=1), ticks=st.integers(1, 40))
def test_no_account_runs_far_ahead_nor_grows_without_end(seconds: float, tenants: set[str], ticks: int) -> None:
    shares = Shares()
    for number in range(ticks):
        shares = shares.charged({sorted(tenants)[number % len(tenants)]: seconds}, waited=tenants)
        assert all(shares.served < at <= shares.served + DEBT_SECONDS for at in shares.spent.values())
    assert Shares().charged({}, waited=()) == Shares()


def test_filling_up_others_batches_is_not_held_against_a_tenant_for_long() -> None:
    rider = [waiting(f"rider-{n}", tenant="rider", rows=1, submitted_at=1.0) for n in range(7)]
    crowd = [waiting("small", tenant="small", rows=1), *rider]
    past = Past()
    for _ in range(1000):
        tick = choose(crowd, buckets=BUCKETS, past=past, now=0.0)
        assert tick is not None
        assert tick.rows == LARGEST
        past = past.after(tick, crowd, seconds=1.0)
    big = [waiting("small", tenant="small", rows=LARGEST), *rider]
    turns = []
    for _ in range(20):
        tick = choose(big, buckets=BUCKETS, past=past, now=0.0)
        assert tick is not None
        past = past.after(tick, big, seconds=1.0)
        turns.append(tick.slices[0].job_id[:5])
    assert turns.index("rider") <= DEBT_SECONDS + 1


sizes = st.sampled_from([(1, 2, 4, 8), (1, 2, 4, 8, 16, 32), (1, 3, 7), (2, 4)])
curves = st.tuples(st.floats(0.001, 10), st.floats(0.001, 10))


@QUICK
@given(rows=st.integers(1, 32), buckets=sizes, curve=curves)
def test_rows_that_do_not_fill_a_bucket_run_the_cheapest_way(
    rows: int, buckets: tuple[int, ...], curve: tuple[float, float]
) -> None:
    fixed, each = curve
    net = NETS[Stage.REFINE]
    past = Past(costs=Costs({(net, size): fixed + each * size for size in buckets}))
    left, spent = rows, 0.0
    while left:
        entry = waiting(stage=Stage.REFINE, rows=left)
        tick = choose([entry], buckets={net: buckets}, past=past, now=0.0)
        assert tick is not None
        spent += fixed + each * tick.bucket
        left -= tick.rows
    whole, rest = divmod(rows, buckets[-1])
    padded = whole * (fixed + each * buckets[-1])
    padded += fixed + each * next(size for size in buckets if size >= rest) if rest else 0.0
    assert spent <= padded * (1 + 1e-9)


def test_unmeasured_buckets_are_tried_and_then_known() -> None:
    net = NETS[Stage.REFINE]
    real = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}
    past, used = Past(), []
    for _ in range(6):
        entry = waiting(stage=Stage.REFINE, rows=5)
        tick = choose([entry], buckets=BUCKETS, past=past, now=0.0)
        assert tick is not None
        past = past.after(tick, [entry], seconds=real[tick.bucket])
        used.append(tick.bucket)
    assert used[0] == 8
    assert set(used[1:]) == {4}
    assert past.costs.of(net, 4) == pytest.approx(4.0)


@QUICK
@given(hiccup=st.floats(1.0, 100.0), at=st.integers(0, 5))
def test_a_hiccup_does_not_make_a_bucket_dear(hiccup: float, at: int) -> None:
    net = NETS[Stage.REFINE]
    costs = Costs()
    for number in range(6):
        for size in BUCKETS[net]:
            slow = hiccup if number == at and size == LARGEST else 1.0
            costs = costs.noted(net, size, seconds=slow * (1.0 + 0.1 * size))
    assert costs.of(net, LARGEST) < 2 * costs.of(net, LARGEST // 2) * 1.05
    tick = choose([waiting(stage=Stage.REFINE, rows=7)], buckets=BUCKETS, past=Past(costs=costs), now=0.0)
    assert tick is not None
    assert tick.bucket == LARGEST
