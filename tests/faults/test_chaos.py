"""A minute of chaos: Redis, API, workers and supervisor killed and stopped at random, several at once, under load.

Every job that was accepted completes, each reader hears each event once, each byte is that of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle import Bundle
from service.client import Unreachable
from tests.faults.host import SUPERVISOR, Host
from tests.faults.ordeal import Ordeal
from workers.contracts.errors import Unavailable
from workers.contracts.job import Priority

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]

SECONDS = 60.0
AT_ONCE = 6
LONGEST_STOP = 6.0
"""Longer than a lease."""


@pytest.fixture
def host(tiny: Bundle, tmp_path: Path) -> Iterator[Host]:
    """Two workers."""
    host = Host(tmp_path, workers=2, tick_seconds=0.02, environment={"GRIDIT_BUNDLES": str(tiny.path)})
    host.start()
    yield host
    host.close()


class Chaos:
    """Strikes at random; `end` lets all go on."""

    def __init__(self, host: Host, dice: random.Random) -> None:
        self._host = host
        self._dice = dice
        self._stopped: dict[str, float] = {}
        self.strikes: Counter[str] = Counter()

    def strike(self) -> None:
        """Kill something or stop it for a while; what was killed with nobody to start it again is started."""
        self._let_go(now=time.monotonic())
        name = self._dice.choice(self._host.names)
        if not self._host.runs(name):
            return
        if self._dice.random() < 0.5:
            self._kill(name)
        elif name not in self._stopped:
            self.strikes[f"{name} stopped"] += 1
            self._host.stop(name)
            self._stopped[name] = time.monotonic() + self._dice.uniform(0.5, LONGEST_STOP)

    def end(self) -> None:
        """No process is stopped any more."""
        self._let_go(now=float("inf"))

    def _kill(self, name: str) -> None:
        self.strikes[f"{name} killed"] += 1
        self._host.kill(name)
        self._stopped.pop(name, None)
        if name == SUPERVISOR:  # and its children with it
            self._stopped.clear()
            self._host.start()

    def _let_go(self, *, now: float) -> None:
        for name in [name for name, until in self._stopped.items() if until < now]:
            del self._stopped[name]
            if self._host.runs(name):
                self._host.go_on(name)


def test_a_minute_of_chaos_costs_no_job(host: Host, tiny: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    dice = random.Random(60)
    chaos, ordeal = Chaos(host, dice), Ordeal(host, tiny)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(Unreachable, Unavailable):  # the next round asks again
            for _ in range(AT_ONCE - ordeal.unfinished):
                ordeal.submit(1, **wish(len(ordeal.job_ids)))
        time.sleep(dice.uniform(0.1, 1.5))
        chaos.strike()
    chaos.end()
    jobs = ordeal.passed()
    attempts = [job.attempt for job in jobs]
    redone = sum(host.notes.redone(job.id) for job in jobs)
    with capsys.disabled():
        print(f"\n  {chaos.strikes.total()} strikes ({', '.join(f'{n} {name}' for name, n in chaos.strikes.items())})")
        print(f"  {len(jobs)} jobs, all completed in up to {max(attempts)} attempts, {redone} units computed again")
        print(f"  {ordeal.told}", end="")
    assert len(jobs) >= AT_ONCE


def wish(number: int) -> dict[str, Any]:
    """What that job is to be: the same whenever it is asked for again."""
    dice = random.Random(number)
    return {"num_frames": dice.randrange(32, 128), "priority": dice.choice(list(Priority)).value}
