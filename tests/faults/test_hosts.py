"""Several hosts, one of them cut off for fifteen seconds and healed: nothing is lost or doubled, nobody waits for ever.

Links fail in two ways: the interface goes down, or everything is silently dropped, so that only time-outs tell. Readers
follow every job by server-sent events throughout. Figures are printed (pytest -s).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from redis import Redis

from service.client import Client, Event
from tests.faults import network
from tests.faults.network import Cut, Host
from tests.faults.site import PORT, WORKERS, Kept, Site, site, wait_for, worker_of
from tests.integration.following import check_whole_in
from workers.contracts import keys
from workers.contracts.event import EventType
from workers.queue.client import JobQueue

REFUSAL = network.refusal()
pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(REFUSAL), reason=REFUSAL or "can be laid"),
]

AWAY_SECONDS = 15.0
UNIT_SECONDS = 1.0
"""A unit of a job that has the device to itself. Jobs whose worker vanished prove themselves one after another."""
GO_ON_SECONDS = 6.0
"""From the cut until another worker has the jobs: a lease of 4 s and the look for ended ones."""
BACK_SECONDS = 10.0
"""From the healing of Redis' own link until frames flow again."""
NOTICE_SECONDS = 12.0
"""What the kernel is told to allow a silent link, and a little for its timers."""
REFUSE_SECONDS = 10.0
"""Within which an API that cannot reach Redis says so."""
LONG: dict[str, Any] = {"model": "twin", "num_frames": 64, "num_inference_steps": 12}
"""A job that takes some twenty seconds."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as made:
        yield made


class Reader(threading.Thread):
    """Follows a job to its end, whatever breaks in between."""

    def __init__(self, place: Site, job_id: str) -> None:
        super().__init__(daemon=True)
        self.job_id = job_id
        self.events: list[Event] = []
        self._place = place
        self.start()

    def run(self) -> None:
        with self._place.client() as client:
            self.events.extend(client.events(self.job_id))

    def check(self) -> None:
        """It has heard every event of the job, once and in order."""
        self.join(120)
        numbers = [event.id for event in self.events if event.id]
        assert numbers == list(range(1, len(numbers) + 1))
        assert self.events[-1].type is EventType.COMPLETED


@contextlib.contextmanager
def cut(host: Host, how: Cut) -> Iterator[float]:
    """The host is away inside, for AWAY_SECONDS in all; when that began."""
    began = time.time()
    host.cut(how)
    try:
        yield began
        time.sleep(max(0.0, began + AWAY_SECONDS - time.time()))
    finally:
        host.heal()


def run_four(place: Site) -> list[Reader]:
    """Four jobs, all in progress, each with a reader."""
    with place.client() as client:
        readers = [Reader(place, client.submit(seed=seed, **LONG).id) for seed in range(4)]
        for reader in readers:
            wait_for(lambda reader=reader: client.get(reader.job_id).frames.refined_done)  # type: ignore[misc]
    return readers


def check_all(place: Site, readers: list[Reader]) -> None:
    """Every reader heard all of its job, and every job is whole: each frame once, in order, with the right bytes."""
    for reader in readers:
        reader.check()

    async def check() -> None:
        queue = JobQueue.connect(place.redis_url)
        for reader in readers:
            await check_whole_in(queue, place.store, reader.job_id)
        await queue.close()

    asyncio.run(check())


def attempts(client: Client, readers: list[Reader]) -> list[int]:
    return [int((client.get(reader.job_id).model_extra or {})["attempt"]) for reader in readers]


def times(redis: Redis, job_id: str, kind: EventType) -> list[float]:
    """When the job's events of this kind were written, by Redis' clock."""
    entries = cast("list[tuple[str, dict[str, str]]]", redis.xrange(keys.events(job_id)))
    return [float(fields["at"]) for _, fields in entries if fields["type"] == kind]


@pytest.mark.parametrize("how", list(Cut))
def test_a_worker_cut_off_loses_its_jobs_to_the_other_and_comes_back(place: Site, how: Cut) -> None:
    lose_a_worker(place, how)


def test_the_same_with_the_store_on_a_host_of_its_own(tmp_path: Path) -> None:
    with site(tmp_path, kept=Kept.S3) as place:
        lose_a_worker(place, Cut.SILENT)


def lose_a_worker(place: Site, how: Cut) -> None:
    """Cut off the one with most of four jobs, and heal it."""
    with Redis.from_url(place.redis_url, decode_responses=True) as redis, place.client() as client:
        readers = run_four(place)
        holders = {reader.job_id: worker_of(redis, reader.job_id) for reader in readers}
        victim = max(WORKERS, key=list(holders.values()).count)
        with cut(place.workers[victim], how) as began:
            check_noticed(place.workers[victim])
        moved = [reader for reader in readers if holders[reader.job_id] == victim]
        check_all(place, readers)
        went_on = [times(redis, reader.job_id, EventType.STARTED)[1] - began for reader in moved]
        print(f"\n{how.value}: {len(moved)} jobs of {victim} went on after {', '.join(f'{s:.1f} s' for s in went_on)}")
        assert min(went_on) < GO_ON_SECONDS
        assert max(went_on) < GO_ON_SECONDS + UNIT_SECONDS * len(moved)
        assert sorted(attempts(client, readers)) == sorted([1] * (4 - len(moved)) + [2] * len(moved))
        check_fenced(place, victim, moved)
        check_takes_jobs(place, victim)


def check_noticed(host: Host) -> None:
    """While the link is away each connection to Redis is given up, those that only listen too."""
    began = time.monotonic()
    wait_for(lambda: not host.connections(PORT), seconds=NOTICE_SECONDS)
    print(f"\nno connection of {host.name} is held to be alive {time.monotonic() - began:.1f} s later")


def check_fenced(place: Site, victim: str, moved: list[Reader]) -> None:
    """It computed on while it was away, and what it had to say of that was refused."""
    wait_for(lambda: {reader.job_id for reader in moved} <= {line["job_id"] for line in place.said(victim, "left")})
    assert {line["why"] for line in place.said(victim, "left")} == {"lost"}
    for reader in moved:
        assert place.units(reader.job_id, 1) & place.units(reader.job_id, 2), "it had nothing late to write"


def check_takes_jobs(place: Site, worker: str) -> None:
    """New jobs go to it as well."""
    with place.client() as client:
        new = [Reader(place, client.submit(seed=seed, **LONG | {"num_frames": 8}).id) for seed in range(4)]
        check_all(place, new)
    claimed = {line["job_id"] for line in place.said(worker, "claimed")}
    assert claimed & {reader.job_id for reader in new}


@pytest.mark.parametrize("how", list(Cut))
def test_an_api_cut_off_from_redis_says_so_and_its_readers_miss_nothing(place: Site, how: Cut) -> None:
    readers = run_four(place)
    with cut(place.api, how):
        refused = [refusal(place) for _ in range(2)]
        check_noticed(place.api)
    with place.client() as client:
        check_all(place, readers)
        assert attempts(client, readers) == [1] * 4
    print(f"\n{how.value}: refused after {', '.join(f'{seconds:.1f} s' for seconds in refused)}")
    assert max(refused) < REFUSE_SECONDS


def refusal(place: Site) -> float:
    """Seconds until a request is refused as one that may be tried again."""
    began = time.monotonic()
    answer = httpx.post(f"{place.url}/v1/videos", json=LONG, timeout=60)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    return time.monotonic() - began


def test_redis_cut_off_costs_no_job_an_attempt(place: Site) -> None:
    with Redis.from_url(place.redis_url, decode_responses=True) as redis, place.client() as client:
        readers = run_four(place)
        with cut(place.redis_host, Cut.SILENT) as began:
            pass
        healed = began + AWAY_SECONDS
        check_all(place, readers)
        assert attempts(client, readers) == [1] * 4
        frames = [times(redis, reader.job_id, EventType.FRAME) for reader in readers]
    back = [min(at for at in written if at > healed) - healed for written in frames]
    print(f"\nsilent: frames flow {max(back):.1f} s after the healing")
    assert max(back) < BACK_SECONDS


def test_what_a_killed_run_left_is_taken_away(tmp_path: Path) -> None:
    """It leaves hosts but no program; the next one clears the place."""
    laid = subprocess.run([sys.executable, "-c", LEAVING, str(tmp_path / "log")], cwd=network.ROOT, check=False)
    assert laid.returncode == -signal.SIGKILL
    program = int((tmp_path / "log").read_text())
    wait_for(lambda: not Path(f"/proc/{program}").exists(), seconds=5)
    prefix = f"{network.MARK}{int((tmp_path / 'log.pid').read_text())}-"
    assert any(name.startswith(prefix) for name in network.namespaces())
    network.clear()
    assert not any(name.startswith(prefix) for name in network.namespaces())


LEAVING = """
import os, signal, sys, time
from pathlib import Path
from tests.faults.network import Network
log = Path(sys.argv[1])
log.with_suffix(".pid").write_text(str(os.getpid()))
Network().__enter__().host("left").start(["sh", "-c", "echo $$; exec sleep 600"], log=log, environment={})
while not log.read_text().strip():
    time.sleep(0.02)
os.kill(os.getpid(), signal.SIGKILL)
"""
