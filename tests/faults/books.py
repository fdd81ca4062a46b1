"""What Redis says of jobs and workers, read directly: the tests' view past the API."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from redis import Redis

from workers.contracts import keys
from workers.contracts.catalogue import WorkerState
from workers.contracts.event import Event
from workers.contracts.job import Job, StoredObject

Fields = dict[str, str]


class Books:
    """Read only; on a connection with decoded strings."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def job(self, job_id: str) -> Job:
        """The job's record."""
        return Job.from_hash(self._hash(keys.job(job_id)))

    def unfinished(self, job_ids: Iterable[str]) -> list[Job]:
        """Those of these jobs that have not ended."""
        return [job for job in map(self.job, job_ids) if not job.status.terminal]

    def events(self, job_id: str) -> list[Event]:
        """The job's stream."""
        entries = cast("list[tuple[str, Fields]]", self._redis.xrange(keys.events(job_id)))
        return [Event.from_entry(entry, fields) for entry, fields in entries]

    def persisted(self, job_id: str) -> set[str]:
        """Units of a running job that are kept."""
        return set(self._hash(keys.units(job_id)))

    def frames(self, job_id: str) -> dict[str, StoredObject]:
        """Published frames by "<stage>:<index>"."""
        found = self._hash(keys.frames(job_id))
        return {name: StoredObject.model_validate_json(value) for name, value in found.items()}

    def worker(self, name: str) -> WorkerState | None:
        """Its last word, while that is young."""
        fields = self._hash(keys.worker(name))
        return WorkerState.from_hash(fields) if fields else None

    def _hash(self, key: str) -> Fields:
        return cast(Fields, self._redis.hgetall(key))
