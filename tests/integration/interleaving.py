"""A worker's publishing half at work while others cancel, delete and expire its jobs between any two of its operations.

The publisher, the store, the scripts and the deletions are the real ones. Only the device and the main thread are led
by hand. Before an operation (a file written, a script run) the gate may let somebody else act; where, is the dice's.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any, cast

import redis

from tests.integration.following import SERVED
from tests.twins import TwinRunner
from workers import results
from workers.contracts import keys
from workers.contracts.catalogue import WorkerState
from workers.device import Dropped, Out, Why
from workers.holdings import Holding, Holdings
from workers.mailbox import Mailbox, TakeOff
from workers.patience import Patience
from workers.publisher import Publisher
from workers.queue.accounts import Accounts
from workers.queue.client import JobQueue
from workers.queue.ledger import Judge, Ledger, Verdict
from workers.storage import DirectoryStore
from workers.tidying import Tidier

WORKER = "w"


@dataclass
class Gate:
    """Counts operations, and acts before those that it is told."""

    plan: dict[int, Callable[[], None]]
    passed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        with self.lock:  # whoever comes meanwhile waits: nothing else happens during an act
            act = self.plan.pop(self.passed, None)
            self.passed += 1
            if act is not None:
                act()


class GatedStore(DirectoryStore):
    """The worker's store."""

    def __init__(self, root: Path, gate: Gate) -> None:
        super().__init__(root)
        self._gate = gate

    def _create(self, path: str, data: bytes) -> bool:
        self._gate()
        return super()._create(path, data)

    def _content(self, path: str) -> bytes:
        self._gate()
        return super()._content(path)

    def delete_tree(self, prefix: str) -> None:
        self._gate()
        super().delete_tree(prefix)


class GatedRedis(redis.Redis):
    """The worker's connection."""

    gate: Gate = Gate({})

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.gate()
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class Others:
    """Whoever acts from elsewhere on one job: clients, the service, the sweeper of another worker."""

    def __init__(self, url: str, root: Path, job_id: str) -> None:
        self._url = url
        self._store = DirectoryStore(root)
        self._job_id = job_id
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._ledger = Ledger(self._redis, "other", lease_seconds=60, keep_seconds=600)

    def cancel(self) -> None:
        if self._redis.exists(keys.job(self._job_id)):
            self._ask(lambda queue: queue.cancel(self._job_id))

    def delete(self) -> None:
        """As the service does."""
        self._ask(lambda queue: queue.delete(self._job_id))
        self._store.delete_tree(results.tree(self._job_id))

    def lose(self) -> None:
        """Its worker seems dead."""
        self._redis.zadd(keys.LEASES, {self._job_id: 1.0}, xx=True)
        self._ledger.sweep(judge_leases=Judge.YES)

    def expire(self) -> None:
        """Its time is up, if it has ended."""
        self._redis.zadd(keys.EXPIRY, {self._job_id: 1.0}, xx=True)
        for job_id in self._ledger.sweep(judge_leases=Judge.NO).expired:
            self._store.delete_tree(results.tree(job_id))
            self._ledger.purge(job_id)

    def clean(self) -> None:
        """What the cleaner of a worker does a few seconds later."""
        tidier = Tidier(self._store, Accounts(self._redis))
        for job_id in cast("list[str]", self._redis.zrange(keys.LITTER, 0, -1)):
            tidier.tidy(job_id)

    def close(self) -> None:
        self._redis.close()

    def _ask(self, request: Callable[[JobQueue], Awaitable[object]]) -> None:
        async def ask() -> None:
            queue = JobQueue.connect(self._url)
            try:
                await request(queue)
            finally:
                await queue.close()

        asyncio.run(ask())


class Crew:
    """One worker: the real publisher, with a device and a main thread that are a loop in `run`."""

    def __init__(self, url: str, root: Path, gate: Gate) -> None:
        self._redis = GatedRedis.from_url(url, decode_responses=True)
        assert isinstance(self._redis, GatedRedis)
        self._redis.gate = gate
        self._ledger = Ledger(self._redis, WORKER, lease_seconds=60, keep_seconds=600)
        self._store = GatedStore(root, gate)
        self._runner = TwinRunner()
        self._attempts: dict[str, int] = {}
        self._holdings, self._mailbox = Holdings(), Mailbox()
        self._inbox: Queue[Out | None] = Queue()

    def run(self, dice: random.Random) -> None:
        """Claim what waits, run it to its end or until it is taken off, and let the publisher end."""
        publisher = Publisher(
            self._ledger,
            self._store,
            holdings=self._holdings,
            inbox=self._inbox,
            mailbox=self._mailbox,
            tidier=Tidier(self._store, Accounts(self._redis)),
            patience=Patience(0.0),
        )
        publisher.start()
        while self._claim() or len(self._holdings):
            for fact in self._runner.tick():
                self._inbox.put(fact)
            if dice.random() < 0.3:
                self._beat()
            self._take_off()
        self._inbox.put(None)
        publisher.join(60)
        assert not publisher.is_alive()
        assert not publisher.failed
        self._redis.close()

    def _claim(self) -> bool:
        claim = None if len(self._holdings) else self._ledger.claim(SERVED)
        if claim is None:
            return False
        task = results.task_of(claim, self._store)
        self._holdings.add(Holding.of(claim))
        self._attempts[task.job_id] = task.attempt
        self._runner.admit(task)
        return True

    def _beat(self) -> None:
        held = self._holdings.all()
        _, verdicts = self._ledger.beat(state(), [(each.job.id, each.job.attempt) for each in held])
        for holding, verdict in zip(held, verdicts, strict=True):
            if verdict is not Verdict.OK:
                self._mailbox.put(TakeOff(holding.job.id, holding.job.attempt, Why(verdict.value)))

    def _take_off(self) -> None:
        """As the main thread and the device do."""
        try:
            message = self._mailbox.get(timeout=0.001)
        except Empty:
            return
        if isinstance(message, TakeOff):
            if self._attempts.get(message.job_id) == message.attempt:
                self._runner.drop(message.job_id)
            self._inbox.put(Dropped(message.job_id, message.attempt, message.why))


def state() -> WorkerState:
    now = time.time()
    return WorkerState(
        name=WORKER, phase="ready", pid=1, host="h", slots=1, running=(), started_at=now, heartbeat_at=now
    )
