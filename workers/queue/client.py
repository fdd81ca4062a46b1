"""The queue's client half: submit, look, cancel, delete; one `JobQueue` per API process.

Nothing here runs a job. Every change is one script, so a request that dies half way leaves all or nothing. While Redis
does not answer, each call raises Unavailable.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, cast

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from rq.utils import now as utc_now
from rq.utils import utcformat

from workers.contracts import keys
from workers.contracts.catalogue import CatalogueEntry, WorkerState
from workers.contracts.errors import IdempotencyMismatch, InvalidRequest, NotFound, QueueFull, Unavailable
from workers.contracts.event import Event
from workers.contracts.job import Job, JobSpec, JobStatus, Priority, Stage, StoredObject, new_job_id
from workers.queue import line
from workers.queue.connect import is_full
from workers.queue.entry import rq_hash
from workers.queue.scripts import source
from workers.queue.sockets import watched

CONNECTIONS = 32
REMEMBER_SECONDS = 86400
"""How long an idempotency key stands for its job."""
RETRY_AFTER = 5
"""Seconds a refused caller is asked to wait."""
PAGE = 100
"""Records read at once when a list is filtered."""

QUEUES = tuple(f"rq:queue:{priority.queue}" for priority in Priority)
"""RQ's lists, most urgent first."""


class Order(StrEnum):
    """By time of submission."""

    ASC = "asc"
    DESC = "desc"


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job that a request stands for."""

    job: Job
    created: bool
    """False: it was there before (same idempotency key or id)."""
    position: int | None
    """Place in line, 1 is next; None if it waits no more."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs of a list."""

    items: tuple[Job, ...]
    has_more: bool


class JobQueue:
    """Jobs in Redis, as a client sees them."""

    def __init__(self, redis: Redis, *, keep_seconds: float = 86400.0) -> None:
        """`keep_seconds`: how long a job that ends here (cancelled in the queue) is kept."""
        self.redis = redis
        self._keep = max(1, int(keep_seconds))

    @classmethod
    def connect(cls, url: str, *, keep_seconds: float = 86400.0) -> Self:
        """A queue on a pool of its own; nothing is sent yet."""
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=5,
            socket_timeout=5,
            socket_connect_timeout=2,
            decode_responses=True,
            protocol=2,
            retry=Retry(ConstantBackoff(0.05), 1),
            **watched(url),
        )
        return cls(Redis.from_pool(pool), keep_seconds=keep_seconds)

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose()

    async def ping(self) -> None:
        """Raises Unavailable unless Redis answers and has loaded its data."""
        async with reachable():
            await self.redis.ping()

    async def submit(
        self,
        spec: JobSpec,
        *,
        tenant: str = "default",
        job_id: str | None = None,
        idempotency_key: str | None = None,
        body_digest: str,
        max_queued: int,
        warnings: Sequence[str] = (),
        traceparent: str | None = None,
    ) -> Submitted:
        """Queue a job, or find the one that this key or id stands for already.

        Raises IdempotencyMismatch if that one came with another body, QueueFull when `max_queued` jobs wait.
        """
        new = Job(
            id=job_id or new_job_id(),
            spec=spec,
            tenant=tenant,
            created_at=0.0,
            warnings=tuple(warnings),
            traceparent=traceparent,
        )
        own = f"rq:queue:{spec.priority.queue}"
        record = _flat(new.to_hash())
        reply = await self._run(
            "submit",
            keys=[*QUEUES, own],
            args=[
                new.id,
                body_digest,
                keys.idempotency(tenant, idempotency_key) if idempotency_key else "",
                REMEMBER_SECONDS,
                max_queued,
                "" if spec.deadline_seconds is None else spec.deadline_seconds,
                spec.priority.value,
                tenant,
                line.cost(spec),
                len(record),
                *record,
                *_flat(rq_hash(new.id, spec, keep_seconds=self._keep)),
            ],
        )
        match reply:
            case ["created", position]:
                return Submitted(await self.get(new.id), True, int(position))
            case ["exists", known]:
                # A retry of our own that met its first try: only its id is known to nobody else.
                created = job_id is None and known == new.id
                return Submitted(await self.get(known), created, await self.position(known))
            case ["full", waiting]:
                message = f"{waiting} jobs wait, the limit is {max_queued}; try again later"
                raise QueueFull(message, retry_after=RETRY_AFTER)
        which = "idempotency key" if idempotency_key else "id"
        raise IdempotencyMismatch(f"this {which} was used before with another body; take a new one")

    async def get(self, job_id: str) -> Job:
        """The job; raises NotFound."""
        async with reachable():
            fields = await cast("Awaitable[dict[str, str]]", self.redis.hgetall(keys.job(job_id)))
        if not fields:
            raise NotFound(f"no job {job_id}")
        return Job.from_hash(fields)

    async def list_jobs(
        self,
        *,
        after: str | None = None,
        limit: int = 20,
        order: Order = Order.DESC,
        status: JobStatus | None = None,
    ) -> Page:
        """Jobs by time of submission, from the one behind `after`."""
        async with reachable():
            start = 0 if after is None else await self._rank(after, order) + 1
            found: list[Job] = []
            async for job in self._scan(start, order):
                if status is None or job.status is status:
                    found.append(job)
                if len(found) > limit:
                    break
        return Page(tuple(found[:limit]), len(found) > limit)

    async def cancel(self, job_id: str) -> Job:
        """Stop a job: a waiting one ends at once, a running one at its next step. Raises NotFound; repeat-safe."""
        if await self._run("cancel", args=[job_id, utcformat(utc_now()), self._keep]) == "gone":
            raise NotFound(f"no job {job_id}")
        return await self.get(job_id)

    async def delete(self, job_id: str) -> bool:
        """Forget a job, ending it first; whether there was one. Its files are the caller's to delete, after this."""
        return bool(await self._run("delete", args=[job_id, utcformat(utc_now()), self._keep]))

    async def frames(self, job_id: str) -> dict[tuple[Stage, int], StoredObject]:
        """Every published frame."""
        async with reachable():
            fields = await cast("Awaitable[dict[str, str]]", self.redis.hgetall(keys.frames(job_id)))
        return dict(sorted((_frame_name(name), StoredObject.model_validate_json(v)) for name, v in fields.items()))

    async def frame(self, job_id: str, stage: Stage, index: int) -> StoredObject:
        """One published frame; raises NotFound."""
        async with reachable():
            name = f"{stage.value}:{index}"
            value = await cast("Awaitable[str | None]", self.redis.hget(keys.frames(job_id), name))
        if value is None:
            raise NotFound(f"job {job_id} has no {stage.value} frame {index} yet")
        return StoredObject.model_validate_json(value)

    async def position(self, job_id: str) -> int | None:
        """Place in line, 1 is next; None if it does not wait."""
        reply = await self._run("position", args=[job_id])
        return None if reply is None else int(reply)

    async def queue_depths(self) -> dict[str, int]:
        """Waiting jobs by priority."""
        async with reachable():
            pipe = self.redis.pipeline(transaction=True)
            for queue in QUEUES:
                pipe.llen(queue)
            lengths = await pipe.execute()
        return {priority.value: int(length) for priority, length in zip(Priority, lengths, strict=True)}

    async def events(self, job_id: str, *, after: int = 0) -> list[Event]:
        """Stored events behind number `after`."""
        async with reachable():
            entries = await cast(
                "Awaitable[list[tuple[str, dict[str, str]]]]",
                self.redis.xrange(keys.events(job_id), min=f"{after + 1}-0"),
            )
        return [Event.from_entry(entry_id, fields) for entry_id, fields in entries]

    async def catalogue(self) -> dict[str, CatalogueEntry]:
        """Bundles by name, as last seen."""
        async with reachable():
            fields = await cast("Awaitable[dict[str, str]]", self.redis.hgetall(keys.CATALOGUE))
        return {name: CatalogueEntry.model_validate_json(value) for name, value in sorted(fields.items())}

    async def workers(self) -> list[WorkerState]:
        """Workers that are alive."""
        async with reachable():
            names = await cast("Awaitable[set[str]]", self.redis.smembers("rq:workers"))
            pipe = self.redis.pipeline(transaction=False)
            for name in sorted(names):
                pipe.hgetall(keys.worker(name.removeprefix("rq:worker:")))
            replies = cast("list[dict[str, str]]", await pipe.execute())
        return [WorkerState.from_hash(fields) for fields in replies if fields]

    async def _run(self, script: str, *, keys: Sequence[str] = (), args: Sequence[Any] = ()) -> Any:
        async with reachable():
            return await self.redis.register_script(source(script))(keys=list(keys), args=list(args))

    async def _rank(self, job_id: str, order: Order) -> int:
        rank = self.redis.zrank if order is Order.ASC else self.redis.zrevrank
        found = await cast("Awaitable[int | None]", rank(keys.JOBS, job_id))
        if found is None:
            raise InvalidRequest(f"after: no job {job_id}", param="after")
        return found

    async def _scan(self, start: int, order: Order) -> AsyncIterator[Job]:
        while True:
            ids = await cast(
                "Awaitable[list[str]]",
                self.redis.zrange(keys.JOBS, start, start + PAGE - 1, desc=order is Order.DESC),
            )
            pipe = self.redis.pipeline(transaction=False)
            for job_id in ids:
                pipe.hgetall(keys.job(job_id))
            for fields in cast("list[dict[str, str]]", await pipe.execute()):
                if fields:
                    yield Job.from_hash(fields)
            if len(ids) < PAGE:
                return
            start += PAGE


@asynccontextmanager
async def reachable() -> AsyncIterator[None]:
    """Redis's own failures inside become Unavailable."""
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.OutOfMemoryError, OSError) as error:
        raise Unavailable("the queue does not answer; try again shortly", retry_after=RETRY_AFTER) from error
    except exceptions.ResponseError as error:
        if not is_full(error):
            raise
        raise Unavailable("the queue's own disk is full; try again later", retry_after=RETRY_AFTER) from error


def _flat(fields: Mapping[str, str | bytes]) -> list[str | bytes]:
    return [part for pair in fields.items() for part in pair]


def _frame_name(name: str) -> tuple[Stage, int]:
    stage, _, index = name.partition(":")
    return Stage(stage), int(index)


def live_event(message: str) -> tuple[str, Event]:
    """Job and event of a message on the live channel."""
    fields = json.loads(message)
    return fields["job"], Event.from_entry(f"{fields['seq']}-0", fields)
