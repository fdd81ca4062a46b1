"""Records of files and batches in Redis: kept, listed, and changed by scripts that can be repeated.

A batch's lines end in `gridit:batch:<id>:lines`, each exactly once; its counts are changed by the same script. What
the records mean, and when they change, is the business of the service's batch pump.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from workers.contracts import keys
from workers.contracts.batch import Batch, BatchStatus, File, Outcome, Record
from workers.contracts.errors import InvalidRequest, NotFound
from workers.queue.client import JobQueue, Order, reachable

ACTIVE = f"{keys.BATCHES}:active"
PUMP = f"{keys.BATCHES}:pump"

R = TypeVar("R", bound=Record)

_MOVE = """
local status = redis.call('HGET', KEYS[1], 'status')
for i = 4, 3 + ARGV[2] do
  if status == ARGV[i] then
    redis.call('HSET', KEYS[1], unpack(ARGV, 4 + ARGV[2]))
    if ARGV[3] == '1' then redis.call('SREM', KEYS[2], ARGV[1]) end
    return 1
  end
end
return 0
"""
_RECORD = """
if redis.call('EXISTS', KEYS[1]) == 0 or redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then return 0 end
return redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
"""
_LEAD = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Listed(Generic[R]):
    """Some records of a list."""

    items: tuple[R, ...]
    has_more: bool


class BatchRecords:
    """Files and batches; shares the queue's connections."""

    def __init__(self, queue: JobQueue) -> None:
        self._redis = queue.redis

    async def add_file(self, file: File) -> None:
        """Keep a file's record; the same id again replaces it."""
        await self._add(file, key=keys.file(file.id), index=keys.FILES)

    async def file(self, file_id: str) -> File:
        """Raises NotFound."""
        return await self._get(File, key=keys.file(file_id), name=f"file {file_id}")

    async def files(self, *, after: str | None, limit: int, order: Order = Order.DESC) -> Listed[File]:
        """By time of creation."""
        return await self._list(File, index=keys.FILES, after=after, limit=limit, order=order)

    async def delete_file(self, file_id: str) -> None:
        """Repeat-safe."""
        async with reachable():
            pipe = self._redis.pipeline(transaction=True)
            pipe.delete(keys.file(file_id))
            pipe.zrem(keys.FILES, file_id)
            await pipe.execute()

    async def add_batch(self, batch: Batch) -> None:
        """Keep a new batch and put it before the pump."""
        await self._add(batch, key=keys.batch(batch.id), index=keys.BATCHES, also=ACTIVE)

    async def batch(self, batch_id: str) -> Batch:
        """Raises NotFound."""
        return await self._get(Batch, key=keys.batch(batch_id), name=f"batch {batch_id}")

    async def batches(self, *, after: str | None, limit: int) -> Listed[Batch]:
        """The newest first."""
        return await self._list(Batch, index=keys.BATCHES, after=after, limit=limit, order=Order.DESC)

    async def active(self) -> list[Batch]:
        """Batches that are not at their end, the oldest first."""
        async with reachable():
            ids = await cast("Awaitable[set[str]]", self._redis.smembers(ACTIVE))
            pipe = self._redis.pipeline(transaction=False)
            for batch_id in ids:
                pipe.hgetall(keys.batch(batch_id))
            found = cast("list[dict[str, str]]", await pipe.execute())
        return sorted((Batch.from_hash(fields) for fields in found if fields), key=lambda batch: batch.created_at)

    async def move(self, batch: Batch, *, sources: Collection[BatchStatus]) -> bool:
        """Write the batch if its status is still among `sources`; whether it was. Counts are left alone."""
        fields = {name: value for name, value in batch.to_hash().items() if name not in ("completed", "failed")}
        statuses = [f'"{status.value}"' for status in sources]
        end = int(batch.status.terminal)
        flat = [part for pair in fields.items() for part in pair]
        moved = await self._run(_MOVE, [keys.batch(batch.id), ACTIVE], [batch.id, len(statuses), end, *statuses, *flat])
        return bool(moved)

    async def record(self, batch_id: str, line: int, outcome: Outcome) -> bool:
        """Note how a line ended and count it; False if that was done before."""
        count = "failed" if outcome.error else "completed"
        arguments = [line, outcome.model_dump_json(), count]
        return bool(await self._run(_RECORD, [keys.batch(batch_id), _lines(batch_id)], arguments))

    async def recorded(self, batch_id: str) -> set[int]:
        """Lines that have ended."""
        async with reachable():
            return {int(line) for line in await cast("Awaitable[list[str]]", self._redis.hkeys(_lines(batch_id)))}

    async def outcomes(self, batch_id: str) -> dict[int, Outcome]:
        """How each line ended, by line."""
        async with reachable():
            found = await cast("Awaitable[dict[str, str]]", self._redis.hgetall(_lines(batch_id)))
        return dict(sorted((int(line), Outcome.model_validate_json(value)) for line, value in found.items()))

    async def lead(self, token: str, *, seconds: float) -> bool:
        """Whether the holder of this token drives the batches for the next `seconds`; to be asked again before."""
        return bool(await self._run(_LEAD, [PUMP], [token, int(seconds * 1000)]))

    async def _run(self, script: str, names: list[str], arguments: list[Any]) -> Any:
        async with reachable():
            return await self._redis.register_script(script)(keys=names, args=arguments)

    async def _add(self, record: Record, *, key: str, index: str, also: str | None = None) -> None:
        async with reachable():
            pipe = self._redis.pipeline(transaction=True)
            pipe.hset(key, items=[part for pair in record.to_hash().items() for part in pair])
            pipe.zadd(index, {record.id: record.created_at})
            if also:
                pipe.sadd(also, record.id)
            await pipe.execute()

    async def _get(self, kind: type[R], *, key: str, name: str) -> R:
        async with reachable():
            fields = await cast("Awaitable[dict[str, str]]", self._redis.hgetall(key))
        if not fields:
            raise NotFound(f"no {name}")
        return kind.from_hash(fields)

    async def _list(self, kind: type[R], *, index: str, after: str | None, limit: int, order: Order) -> Listed[R]:
        key = keys.file if kind is File else keys.batch
        async with reachable():
            start = 0 if after is None else await self._rank(index, after, order=order) + 1
            descending = order is Order.DESC
            ids = await cast("Awaitable[list[str]]", self._redis.zrange(index, start, start + limit, desc=descending))
            pipe = self._redis.pipeline(transaction=False)
            for record_id in ids[:limit]:
                pipe.hgetall(key(record_id))
            found = cast("list[dict[str, str]]", await pipe.execute())
        return Listed(tuple(kind.from_hash(fields) for fields in found if fields), len(ids) > limit)

    async def _rank(self, index: str, record_id: str, *, order: Order) -> int:
        rank = self._redis.zrank if order is Order.ASC else self._redis.zrevrank
        found = await cast("Awaitable[int | None]", rank(index, record_id))
        if found is None:
            raise InvalidRequest(f"after: there is no {record_id} in this list", param="after")
        return found


def _lines(batch_id: str) -> str:
    return f"{keys.batch(batch_id)}:lines"
