"""What Redis knows of files: which a job names, whose a folder is, whose the store is, and who looks for orphans.

For whoever deletes: a file that no record names is nobody's, and a store that another queue has claimed is left alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from redis import Redis

from workers.contracts import keys
from workers.contracts.job import JobStatus, StoredObject
from workers.queue.connect import full_is_away


class Standing(StrEnum):
    """Of a job, as far as its files are concerned."""

    GONE = "gone"
    """It has no record."""
    ACTIVE = "active"
    """Files may come at any time."""
    ENDED = "ended"
    """It has the files that its record names, and no more will come."""


@dataclass(frozen=True, slots=True)
class Account:
    """A job's standing and, once it has ended, the paths that it names."""

    standing: Standing
    named: frozenset[str] = frozenset()


class Accounts:
    """Reads, and the few writes that deleting needs; each raises one of `connect.AWAY` while Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def of(self, job_id: str) -> Account:
        """A job's account, as it is at one moment."""
        pipe = self._redis.pipeline(transaction=True)
        pipe.hmget(keys.job(job_id), "status", "spec", "artifacts")
        pipe.hvals(keys.frames(job_id))
        (status, spec, artifacts), frames = pipe.execute()
        if status is None:
            return Account(Standing.GONE)
        if not JobStatus(status).terminal:
            return Account(Standing.ACTIVE)
        return Account(Standing.ENDED, frozenset(_paths(spec, artifacts, frames)))

    def tidied(self, job_id: str) -> None:
        """An ended job has no files but those it names."""
        with full_is_away():
            self._redis.zrem(keys.LITTER, job_id)

    def are_known(self, records: Sequence[str]) -> list[bool]:
        """Whether there are records under these keys."""
        pipe = self._redis.pipeline(transaction=False)
        for record in records:
            pipe.exists(record)
        return [bool(found) for found in pipe.execute()]

    def owner(self) -> str:
        """A name of this queue's data, the same for as long as they last."""
        with full_is_away():
            self._redis.set(keys.OWNER, secrets.token_hex(16), nx=True)
        return cast("str", self._redis.get(keys.OWNER))

    def take_turn(self, *, seconds: int) -> bool:
        """Whether it is the caller's to look for orphans; nobody else's for so long."""
        with full_is_away():
            return bool(self._redis.set(keys.ORPHANS, "1", nx=True, ex=seconds))

    def stored_bytes(self) -> int:
        """What all jobs hold in the store."""
        return int(cast("str | None", self._redis.get(keys.STORED)) or 0)


def _paths(spec: str, artifacts: str | None, frames: Sequence[str]) -> set[str]:
    reference: dict[str, Any] | None = json.loads(spec).get("input_reference")
    named = [*json.loads(artifacts or "{}").values(), *([reference] if reference else [])]
    return {entry["path"] for entry in named} | {StoredObject.model_validate_json(frame).path for frame in frames}
