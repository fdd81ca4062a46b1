"""What may be in Redis and in the store when nothing moves: records of jobs that are known, and the files they name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import redis

from workers.contracts import keys
from workers.contracts.job import Job
from workers.queue.accounts import Accounts, Standing
from workers.storage import Store
from workers.tidying import OWNER

EVENTS_SECONDS = 60
"""A deleted job's events, for readers who are at their end."""
ATTEMPT_SECONDS = 3600
"""Its last attempt, for a worker that does not know yet."""


def check_nothing_left(database: redis.Redis, store: Store, ever: set[str]) -> None:
    """`ever`: ids of every job there was. Each key and file is accounted for by a job that is known, and is there."""
    known = {job_id for job_id in ever if database.exists(keys.job(job_id))}
    assert all(Job.from_hash(_hash(database, keys.job(job_id))).status.terminal for job_id in known)
    found = cast("Iterator[str]", database.scan_iter(count=1000))
    strays = [key for key in found if _is_stray(database, key, ever - known)]
    assert not strays, strays
    assert set(cast("list[str]", database.zrange(keys.JOBS, 0, -1))) == known
    for empty in (keys.LEASES, keys.DEADLINES, keys.LITTER, *(f"gridit:job:{job_id}:units" for job_id in known)):
        assert not database.exists(empty), empty
    accounts = Accounts(database)
    named = {job_id: accounts.of(job_id) for job_id in known}
    assert all(account.standing is Standing.ENDED for account in named.values())
    files = {found.path: found.bytes for found in store.files() if found.path != OWNER}
    paths = {path for account in named.values() for path in account.named}
    assert set(files) == paths, f"nobody's: {sorted(set(files) - paths)}, missing: {sorted(paths - set(files))}"
    assert accounts.stored_bytes() == sum(files.values())


def _is_stray(database: redis.Redis, key: str, gone: set[str]) -> bool:
    """Whether a key tells of a job that is gone, by its name or by what is in it."""
    if any(job_id in key for job_id in gone):
        kept = {":events": EVENTS_SECONDS, ":attempt": ATTEMPT_SECONDS}
        return not any(key.endswith(tail) and 0 <= database.ttl(key) <= most for tail, most in kept.items())
    return any(job_id in member for member in _members(database, key) for job_id in gone)


def _members(database: redis.Redis, key: str) -> list[str]:
    match database.type(key):
        case "zset":
            return cast("list[str]", database.zrange(key, 0, -1))
        case "set":
            return list(cast("set[str]", database.smembers(key)))
        case "list":
            return cast("list[str]", database.lrange(key, 0, -1))
        case "hash":
            return cast("list[str]", database.hkeys(key))
    return []


def _hash(database: redis.Redis, key: str) -> dict[str, str]:
    return cast("dict[str, str]", database.hgetall(key))
