"""`python -m tests.benchmarks.memory`: megabytes that a worker holds after each hundred jobs.

A whole worker process with its Redis, store, encoder and heartbeat, and tiny nets, so that hundreds of jobs take
seconds. What grows by the job shows; what a large model needs does not. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.driving import spec_of
from tests.integration.following import ended
from tests.tiny import tiny_bundle
from workers import embedded
from workers.contracts.job import JobStatus
from workers.queue.client import JobQueue

PAGE = os.sysconf("SC_PAGE_SIZE")
GOODBYE = 20.0


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE / 1e6


@contextlib.contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, for as long as this lasts."""
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(GOODBYE)


async def held(url: str, pid: int, *, bundle_hash: str, hundreds: int) -> AsyncIterator[float]:
    """Megabytes after each hundred jobs."""
    queue = JobQueue.connect(url)
    job = spec_of(bundle_hash=bundle_hash, num_frames=16, num_inference_steps=1, refine_steps=1)
    for number in range(hundreds):
        specs = [job.evolve(seed=100 * number + seed) for seed in range(100)]
        ids = [(await queue.submit(spec, body_digest="", max_queued=200)).job.id for spec in specs]
        for job_id in ids:
            found = await ended(queue, job_id)
            assert found.status is JobStatus.COMPLETED, found.error
        yield resident(pid)
    await queue.close()


async def measure(place: Path, *, hundreds: int) -> list[float]:
    """Start the server and the worker, and run the jobs."""
    bundle = tiny_bundle(place / "tiny")
    launch = embedded.prepare(place / "redis")
    url = launch.endpoint.url
    worker = [sys.executable, "-m", "service.cli", "worker", "--redis-url", url, "--data-dir", str(place / "data")]
    settings = {"GRIDIT_BUNDLES": str(bundle.path), "GRIDIT_LOG_LEVEL": "warning", "GRIDIT_DEVICE": "cpu"}
    with running(list(launch.command), **launch.environment):
        embedded.wait_until_ready(url, timeout=GOODBYE)
        with running(worker, **settings) as process:
            return [megabytes async for megabytes in held(url, process.pid, bundle_hash=bundle.hash, hundreds=hundreds)]


def main() -> None:
    """Measure, and print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--hundreds", type=int, default=5, help="hundreds of jobs")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = asyncio.run(measure(Path(place), hundreds=given.hundreds))
    table = Table("jobs", "MB held", "more, MB (wanted: <= 1)", title="memory of a worker")
    for hundred, (before, after) in enumerate(pairwise([found[0], *found]), start=1):
        table.add_row(str(100 * hundred), f"{after:.1f}", f"{after - before:+.2f}" if hundred > 1 else "")
    table.add_section()
    table.add_row("by the hundred", "", f"{(found[-1] - found[0]) / max(1, len(found) - 1):+.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
