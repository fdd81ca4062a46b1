"""Jobs that go through faults on a host, with readers that come and go; and the law that they obey in the end."""

from __future__ import annotations

import secrets
from typing import Any

from models.bundle import Bundle
from service.client import Client
from tests.faults.host import PATIENCE, Host
from tests.faults.oracle import delivered, undisturbed
from tests.faults.readers import Reader, assert_whole
from tests.integration.up_fixtures import wait_for
from workers.contracts.job import Job, JobStatus

END_SECONDS = 120.0
"""By when jobs have ended once the faults are over; far more than it takes."""
SUBMIT_SECONDS = 3.0
"""How long the service may take to accept a job."""


class Ordeal:
    """Jobs of one host and their readers."""

    def __init__(self, host: Host, bundle: Bundle | None, *, readers: int = 2) -> None:
        """So many `readers` for each job; no bundle: the host's workers run the twin."""
        self.host = host
        self._bundle = None if bundle is None else bundle.path
        self._each = readers
        self._name = secrets.token_hex(4)
        self._readers: list[Reader] = []
        self.job_ids: list[str] = []

    def submit(self, count: int, **fields: Any) -> list[str]:
        """Queue so many jobs that differ in their seeds, each with its readers; their ids.

        Raises Unreachable or Unavailable; a job that was queued nevertheless is found again by the next call.
        """
        return [self._submit(**fields) for _ in range(count)]

    @property
    def unfinished(self) -> int:
        """Jobs whose end has not been heard by all of their readers."""
        return len({reader.job_id for reader in self._readers if reader.is_alive()})

    def in_hand(self) -> list[Job]:
        """The jobs that have not ended, once each of them has been claimed and has made a frame."""
        with self.host.books() as books:
            assert wait_for(lambda: all(map(_under_way, books.unfinished(self.job_ids))), seconds=PATIENCE)
            return books.unfinished(self.job_ids)

    def passed(self) -> list[Job]:
        """All jobs, which have completed: each reader heard the whole story once, each byte is as undisturbed."""
        jobs = self.ended()
        with self.host.client() as client:
            for job in jobs:
                self.check(job, client)
        return jobs

    def ended(self) -> list[Job]:
        """All jobs as they ended, however; no reader missed anything, or heard it twice."""
        for reader in self._readers:
            reader.story(within=END_SECONDS)
        with self.host.books() as books:
            return [books.job(job_id) for job_id in self.job_ids]

    def check(self, job: Job, client: Client) -> None:
        """The law of a job that has completed."""
        for reader in self._readers:
            if reader.job_id == job.id:
                assert_whole(reader.heard, count=job.frames_total)
        assert delivered(client, job.id) == undisturbed(job.spec, self._bundle), job.id

    def _submit(self, **fields: Any) -> str:
        seed = len(self.job_ids)
        wish: dict[str, Any] = {"num_frames": 64, "num_inference_steps": 8, "seed": seed} | fields
        if self._bundle is not None:
            wish["prompt"] = "sky"
        with Client(self.host.url, timeout=SUBMIT_SECONDS) as client:
            job_id = client.submit(idempotency_key=f"{self._name}-{seed}", **wish).id
        self.job_ids.append(job_id)
        for number in range(self._each):
            reader = Reader(self.host.url, job_id, seed=seed * self._each + number)
            reader.start()
            self._readers.append(reader)
        return job_id

    @property
    def told(self) -> str:
        """How the readers fared, in a few words."""
        events = sum(len(reader.heard) for reader in self._readers)
        connections = sum(reader.connections for reader in self._readers)
        return f"{len(self._readers)} readers heard {events} events over {connections} connections"


def _under_way(job: Job) -> bool:
    return job.status is JobStatus.IN_PROGRESS and job.coarse_done > 0
