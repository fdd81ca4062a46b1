"""Following many jobs' events live, over one connection per process.

The stream in Redis is the truth; the live channel only says early what it holds. A follower first reads the stream,
then takes what the channel brings, and reads the stream again wherever numbers are missing: after a lost connection,
or when it was slower than its small buffer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Self

from redis import exceptions
from redis.asyncio.client import PubSub

from workers.contracts import keys
from workers.contracts.errors import GriditError
from workers.contracts.event import Event
from workers.queue.client import JobQueue, live_event

log = logging.getLogger(__name__)

BUFFER = 256
"""Events kept for a follower that is behind; beyond it the stream is read again."""
RECHECK_SECONDS = 15.0
"""A follower that hears nothing for so long looks into the stream itself."""
RECONNECT_SECONDS = 0.5


class ReplayTruncated(GriditError):
    """The events asked for are no longer kept; `skipped` of them are missing."""

    code = "replay_truncated"

    def __init__(self, skipped: int) -> None:
        super().__init__(f"{skipped} events are no longer kept")
        self.skipped = skipped


class EventFeed:
    """One listener and its followers. An async context manager: `async with EventFeed(queue) as feed`."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._followers: dict[str, set[_Follower]] = defaultdict(set)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen(), name="event-feed")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            while not self._task.done():  # redis-py may swallow a cancellation while it connects
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=0.2)

    @property
    def followers(self) -> int:
        """How many follow now."""
        return sum(map(len, self._followers.values()))

    async def follow(self, job_id: str, *, after: int = 0) -> AsyncIterator[Event]:
        """Every stored event behind number `after`, once and in order; ends after the terminal one.

        Raises NotFound, ReplayTruncated if numbers are missing from the stream, Unavailable while Redis is out.
        """
        follower = _Follower()
        self._followers[job_id].add(follower)
        try:
            job = await self._queue.get(job_id)
            last = after
            if job.status.terminal and after >= job.seq:
                return
            while True:
                for event in await self._stored(job_id, after=last, known=job.seq):
                    last = event.seq
                    yield event
                    if event.type.terminal:
                        return
                while (fresh := await follower.next()) is not None and fresh.seq <= last + 1:
                    if fresh.seq == last + 1:
                        last = fresh.seq
                        yield fresh
                        if fresh.type.terminal:
                            return
        finally:
            self._forget(job_id, follower)

    async def _stored(self, job_id: str, *, after: int, known: int) -> list[Event]:
        """What the stream holds behind `after`; nothing up to number `known` may be missing."""
        events = await self._queue.events(job_id, after=after)
        first = events[0].seq if events else known + 1
        if first > after + 1:
            raise ReplayTruncated(first - after - 1)
        if not events:
            await self._queue.get(job_id)  # deleted meanwhile: NotFound
        return events

    def _forget(self, job_id: str, follower: _Follower) -> None:
        self._followers[job_id].discard(follower)
        if not self._followers[job_id]:
            del self._followers[job_id]

    async def _listen(self) -> None:
        while True:
            try:
                async with self._queue.redis.pubsub() as pubsub:
                    await pubsub.subscribe(keys.LIVE)
                    await self._hand_out(pubsub)
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                log.warning("event feed lost its connection", extra={"action": "feed_reconnect"})
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _hand_out(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=RECHECK_SECONDS)
            if message is None:
                await pubsub.ping()  # a dead connection shows only when it is used
            elif message["type"] == "subscribe":  # also when redis-py has connected again by itself
                self._lost_some()  # whatever was said before this moment
            elif message["type"] == "message":
                job_id, event = live_event(message["data"])
                for follower in self._followers.get(job_id, ()):
                    follower.give(event)

    def _lost_some(self) -> None:
        for followers in self._followers.values():
            for follower in followers:
                follower.lose()


class _Follower:
    """A bounded buffer of live events."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue(BUFFER)

    def give(self, event: Event) -> None:
        """Called by the listener; a full buffer is emptied and marked as lost."""
        if self._events.full():
            self.lose()
        else:
            self._events.put_nowait(event)

    def lose(self) -> None:
        """Make the reader look into the stream."""
        while not self._events.empty():
            self._events.get_nowait()
        self._events.put_nowait(None)

    async def next(self) -> Event | None:
        """The next event; None when some were lost or none came for long."""
        try:
            return await asyncio.wait_for(self._events.get(), RECHECK_SECONDS)
        except TimeoutError:
            return None
