"""What earlier ticks leave behind: who had the device, who was passed over, what a bucket costs. Frozen values.

Tenants share by start-time fair queueing (Goyal et al. 1996), as in the queue, but in measured seconds: an account
never lags behind the one that is served, so whoever was idle gains nothing by it, and never runs further ahead than
`DEBT_SECONDS`, so nobody pays long for rows that only filled up a batch. No clock and no device here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from models.spec import Codec, Stage

TURN_SECONDS = 0.5
"""Accounts that differ by less are even: a tenant's units are not cut up for nothing."""
DEBT_SECONDS = 4.0
"""The furthest that an account is ahead of the one that is served."""
PATIENCE = 4
"""A job is passed over at most so many times for each job of its tenant that waits."""
NEW_SHARE = 0.2
"""Weight of the last tick in the measured cost of its bucket."""
RISE = 1.1
"""A tick counts for at most so many times the cost known before: a machine's hiccup is not a bucket's cost."""
FADE = 0.9998
"""What the cost of every other bucket is multiplied with at a tick, so that one that looked dear is tried again.

Faster, and dear buckets are tried all day: 0.995 costs a saturated device 8 % of its work, simulated on CPU costs.
"""


class Depth(StrEnum):
    """How much of a net is run."""

    WHOLE = "whole"
    SHALLOW = "shallow"
    """Without the deep blocks: what they added at an earlier step is added again."""


@dataclass(frozen=True, slots=True)
class Net:
    """One net of one bundle, to a depth: rows of different ones never share a batch."""

    bundle: str
    part: Stage | Codec
    depth: Depth = Depth.WHOLE
    generation: int = 0
    """Engines that have served the net before this one: a job goes on with the one it began with."""


@dataclass(frozen=True, slots=True)
class Shares:
    """Accounts of tenants, in seconds, and turns that jobs were passed over."""

    served: float = 0.0
    """The least account among those that waited at the last tick; accounts below it stand at it."""
    spent: Mapping[str, float] = field(default_factory=dict)
    """Of tenants ahead of `served`."""
    passed: Mapping[str, int] = field(default_factory=dict)
    """By job: turns of its tenant, since it chose the net itself, that it waited and had no row in."""

    def account(self, tenant: str) -> float:
        """Where a tenant stands."""
        return max(self.served, self.spent.get(tenant, 0.0))

    def turn(self, tenant: str) -> int:
        """The account in whole turns: the least goes first."""
        return int(self.account(tenant) / TURN_SECONDS)

    def overdue(self, job_id: str, *, among: int) -> int:
        """Turns that a job was passed over, if they are too many `among` so many jobs of its tenant; else 0."""
        passed = self.passed.get(job_id, 0)
        return passed if passed >= PATIENCE * among else 0

    def charged(self, seconds: Mapping[str, float], *, waited: Collection[str]) -> Shares:
        """After a tick that cost tenants so many seconds, while tenants `waited`."""
        served = min((self.account(tenant) for tenant in waited), default=self.served)
        tenants = {*self.spent, *seconds}
        spent = {one: min(self.account(one) + seconds.get(one, 0.0), served + DEBT_SECONDS) for one in tenants}
        return replace(self, served=served, spent={one: at for one, at in spent.items() if at > served})

    def passing(self, waited: Mapping[str, str], *, lead: str, rode: Collection[str]) -> Shares:
        """After a turn of job `lead`, whose batch others `rode`; `waited`: the tenant of each job that wanted to.

        Who rides is not passed over, but has not had its turn: it may be no more than a row that filled up the batch.
        """
        passed = {
            job: self.passed.get(job, 0) + (tenant == waited[lead] and job not in rode)
            for job, tenant in waited.items()
            if job != lead
        }
        return replace(self, passed={job: turns for job, turns in passed.items() if turns})


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of one run by net and bucket, as measured, within what the other buckets of the net leave possible."""

    seconds: Mapping[tuple[Net, int], float] = field(default_factory=dict)

    def noted(self, net: Net, bucket: int, *, seconds: float) -> Costs:
        """After one more run."""
        known = self.seconds.get((net, bucket), seconds)
        others = {key: cost * (FADE if key[0] == net else 1.0) for key, cost in self.seconds.items()}
        return Costs(others | {(net, bucket): known + NEW_SHARE * (min(seconds, RISE * known) - known)})

    def of(self, net: Net, bucket: int) -> float:
        """No less than a smaller bucket's, and by the row than a larger one's; no more than running smaller ones.

        A bucket that was never measured is hoped to cost the least of that, and so tried.
        """
        measured = {size: seconds for (other, size), seconds in self.seconds.items() if other == net}
        smaller = {size: seconds for size, seconds in measured.items() if size < bucket}
        least = max(smaller.values(), default=0.0)
        least = max((seconds * bucket / size for size, seconds in measured.items() if size > bucket), default=least)
        most = min((seconds * -(-bucket // size) for size, seconds in smaller.items()), default=math.inf)
        return min(max(measured.get(bucket, 0.0), least), most)
