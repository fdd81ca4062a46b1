"""Jobs that go through faults on a host, with readers that come and go; and the law that they obey in the end."""

from __future__ import annotations

from typing import Any

from models.bundle import Bundle
from tests.faults.host import PATIENCE, Host
from tests.faults.oracle import delivered, undisturbed
from tests.faults.readers import Reader, assert_whole
from tests.integration.up_fixtures import wait_for
from workers.contracts.job import Job, JobStatus

END_SECONDS = 120.0
"""By when jobs have ended once the faults are over; far more than it takes."""


class Ordeal:
    """Jobs of one host and their readers."""

    def __init__(self, host: Host, bundle: Bundle, *, readers: int = 2) -> None:
        """So many `readers` for each job."""
        self.host = host
        self._bundle = bundle.path
        self._each = readers
        self._readers: list[Reader] = []
        self.job_ids: list[str] = []

    def submit(self, count: int, **fields: Any) -> list[str]:
        """Queue so many jobs that differ in their seeds, each with its readers; their ids."""
        plain: dict[str, Any] = {"prompt": "sky", "num_frames": 64, "num_inference_steps": 8}
        with self.host.client() as client:
            seeds = range(len(self.job_ids), len(self.job_ids) + count)
            new = [client.submit(seed=seed, **(plain | fields)).id for seed in seeds]
        self.job_ids += new
        readers = [Reader(self.host.url, job_id, seed=seed) for seed, job_id in enumerate(new * self._each)]
        for reader in readers:
            reader.start()
        self._readers += readers
        return new

    def in_hand(self) -> list[Job]:
        """The jobs that have not ended, once each of them has been claimed and has made a frame."""
        with self.host.books() as books:
            assert wait_for(lambda: all(map(_under_way, books.unfinished(self.job_ids))), seconds=PATIENCE)
            return books.unfinished(self.job_ids)

    def passed(self) -> list[Job]:
        """All jobs as they ended: each reader heard the whole story once, each byte is that of an undisturbed run."""
        for reader in self._readers:
            story = reader.story(within=END_SECONDS)
            with self.host.client() as client:
                assert_whole(story, count=client.get(reader.job_id).num_frames)
        with self.host.books() as books:
            jobs = [books.job(job_id) for job_id in self.job_ids]
        with self.host.client() as client:
            for job in jobs:
                assert delivered(client, job.id) == undisturbed(job.spec, self._bundle), job.id
        return jobs

    @property
    def told(self) -> str:
        """How the readers fared, in a few words."""
        events = sum(len(reader.heard) for reader in self._readers)
        connections = sum(reader.connections for reader in self._readers)
        return f"{len(self._readers)} readers heard {events} events over {connections} connections"


def _under_way(job: Job) -> bool:
    return job.status is JobStatus.IN_PROGRESS and job.coarse_done > 0
