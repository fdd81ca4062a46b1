"""The queue's worker half: claim, beat, publish, finish, give back. Each is one script, fenced by the attempt.

Nothing here retries or keeps state; while Redis is away every call raises one of `connect.AWAY`.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from redis import Redis
from rq.utils import now as utc_now
from rq.utils import utcformat

from workers.contracts import keys
from workers.contracts.catalogue import CatalogueEntry, WorkerState
from workers.contracts.errors import WorkerLost
from workers.contracts.job import (
    MAX_ATTEMPTS,
    Job,
    JobError,
    JobStatus,
    Numerics,
    Stage,
    StoredObject,
    UnitRecord,
)
from workers.queue.connect import full_is_away
from workers.queue.line import AGING_SECONDS, TURN
from workers.queue.scripts import source

RQ_SECONDS = 75
"""RQ's own keys of a worker and of its executions outlive the last beat by so long; leases are far shorter."""
LOST = WorkerLost(f"its worker died {MAX_ATTEMPTS} times without the job getting any further")


class Verdict(StrEnum):
    """What a worker learns about a job in its hands."""

    OK = "ok"
    CANCEL = "cancel"
    DEADLINE = "deadline"
    LOST = "lost"
    """Another attempt owns it, or it ended."""
    GONE = "gone"
    """It was deleted."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is this worker's, and what earlier attempts persisted."""

    job: Job
    units: Mapping[str, UnitRecord]
    deadline_in: float | None = None
    """Seconds to its deadline."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A stored frame to be published."""

    stage: Stage
    index: int
    stored: StoredObject


@dataclass(frozen=True, slots=True)
class Published:
    """How far a job is after a publication."""

    coarse_done: int
    refined_done: int
    at: float


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep found."""

    swept: Mapping[str, str]
    """By job: what became of it."""
    expired: tuple[str, ...]
    """Jobs whose files are due to go."""
    littered: tuple[str, ...]
    """Ended jobs whose raw results nobody has deleted."""


class Ledger:
    """One worker's pen in the queue's books."""

    def __init__(self, redis: Redis, worker: str, *, lease_seconds: float, keep_seconds: float) -> None:
        self._redis = redis
        self._worker = worker
        self._lease = lease_seconds
        self._keep = max(1, int(keep_seconds))

    def claim(self, numerics: Mapping[str, Numerics], *, row_seconds: float | None = None) -> Claim | None:
        """The job that goes first among those for this worker, or None.

        `numerics` of each model it serves: noted at a job's first claim; later claims need the same bundle.
        `row_seconds`: its pace, by which it leaves jobs to workers that are done with them sooner.
        """
        noted = json.dumps({model: value.model_dump(mode="json") for model, value in numerics.items()})
        pace = "" if row_seconds is None else row_seconds
        worker = [self._worker, self._lease, _iso(), self._keep, RQ_SECONDS, noted, pace]
        reply = self._run("claim", [*worker, AGING_SECONDS, TURN])
        if not reply:
            return None
        _, record, units, left = reply
        return Claim(
            Job.from_hash(_pairs(record)),
            {key: UnitRecord.model_validate_json(value) for key, value in _pairs(units).items()},
            float(left) if left else None,
        )

    def beat(self, state: WorkerState, held: Sequence[tuple[str, int]]) -> tuple[bool, list[Verdict]]:
        """Renew the lease on each (job, attempt); whether RQ still knows this worker, and a verdict on each."""
        fields = _flat(state.to_hash())
        jobs = [part for job_id, attempt in held for part in (job_id, attempt)]
        known, *verdicts = self._run(
            "beat", [self._worker, self._lease, _iso(), RQ_SECONDS, len(fields), *fields, *jobs]
        )
        return bool(known), [Verdict(verdict) for verdict in verdicts]

    def publish(
        self,
        job: Job,
        *,
        frames: Sequence[Frame],
        unit: tuple[str, UnitRecord] | None = None,
        unit_started_at: float = 0.0,
    ) -> Published | Verdict:
        """Note a persisted unit and publish frames, in order from the first unpublished one of their stages."""
        key, record = ("", "") if unit is None else (unit[0], unit[1].model_dump_json())
        parts = [part for frame in frames for part in _frame_args(frame)]
        head = [job.id, job.attempt, job.frames_total, key, record, f"{unit_started_at:.6f}"]
        status, *rest = self._run("publish", [*head, *parts])
        if status != "ok":
            return Verdict(status)
        return Published(int(rest[0]), int(rest[1]), float(rest[2]))

    def finish(
        self,
        job: Job,
        *,
        status: JobStatus,
        error: JobError | None = None,
        artifacts: Mapping[str, StoredObject] | None = None,
        encode_seconds: float | None = None,
    ) -> Job | Verdict:
        """End the job with its one terminal event; the record as it ended. Repeating it is success."""
        stored = {
            variant: value.model_dump(mode="json", exclude_none=True) for variant, value in (artifacts or {}).items()
        }
        reply = self._run(
            "finish",
            [
                job.id,
                job.attempt,
                status.value,
                _iso(),
                self._keep,
                error.code if error else "",
                error.message if error else "",
                _exc(f"{error.code}: {error.message}") if error else "",
                json.dumps(stored) if stored else "",
                "" if encode_seconds is None else f"{encode_seconds:.6f}",
            ],
        )
        return Job.from_hash(_pairs(reply[1])) if reply[0] == "ok" else Verdict(reply[0])

    def give_back(self, job_id: str, attempt: int) -> str:
        """Return a job to the front of its queue, at no cost to it; what became of it."""
        return str(self._run("give_back", [job_id, attempt, _iso(), self._keep]))

    def sweep(self, *, judge_leases: Judge, store_bytes: int | None = None) -> Sweep:
        """Queue jobs whose lease has ended, fail waiting ones past their deadline, list expired ones.

        Above `store_bytes` held by all jobs, the ones that ended first expire before their time.
        """
        bound = "" if store_bytes is None else store_bytes
        args = [*lost_args(self._keep), 1 if judge_leases is Judge.YES else 0, bound]
        swept, expired, littered = self._run("sweep", args)
        return Sweep(_pairs(swept), tuple(expired), tuple(littered))

    def purge(self, job_id: str) -> None:
        """Forget a finished job whose files are gone."""
        self._run("purge", [job_id])

    def executions(self) -> dict[str, int]:
        """Jobs that Redis says this worker has, with their attempts."""
        members = cast("set[str]", self._redis.smembers(f"rq:worker:{self._worker}:executions"))
        pairs = (member.rsplit(":", 1) for member in members)
        return {job_id: int(attempt) for job_id, attempt in pairs}

    def announce(self, entries: Sequence[CatalogueEntry]) -> None:
        """Write what this worker serves to the catalogue, which outlives it."""
        for entry in entries:
            self._redis.hset(keys.CATALOGUE, entry.name, entry.model_dump_json())

    def uptime(self) -> float:
        """Seconds since the server was started."""
        return float(self._redis.info("server")["uptime_in_seconds"])

    def _run(self, script: str, args: Sequence[Any], *, keys: Sequence[str] = ()) -> Any:
        with full_is_away():
            return self._redis.register_script(source(script))(keys=list(keys), args=list(args))


class Judge(StrEnum):
    """Whether a sweeper's own contact with Redis was steady enough to judge others' leases."""

    YES = "yes"
    NO = "no"


def lost_args(keep_seconds: int) -> list[Any]:
    """How a job ends that was lost too often: the scripts' limit, iso, keep, message and exc."""
    return [MAX_ATTEMPTS, _iso(), keep_seconds, LOST.message, _exc(f"{LOST.code}: {LOST.message}")]


def _frame_args(frame: Frame) -> tuple[str, int, str, str]:
    stored = frame.stored
    event = {
        "index": frame.index,
        "stage": frame.stage.value,
        "width": stored.width,
        "height": stored.height,
        "sha256": stored.sha256,
    }
    return frame.stage.value, frame.index, stored.model_dump_json(exclude_none=True), json.dumps(event)


def _exc(text: str) -> str:
    """As RQ keeps the reason of a failure in its results."""
    return base64.b64encode(zlib.compress(text.encode())).decode()


def _iso() -> str:
    return utcformat(utc_now())


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]
