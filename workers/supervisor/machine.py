"""One machine's service from start to stop, as a generator of what happens.

Order: hold the directory and look at the port before anything is started; the embedded server; API and workers
together; then restarts for as long as nobody asks to stop. Stopping goes the other way and the server goes last.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from prometheus_client.multiprocess import mark_process_dead

from workers import embedded
from workers.contracts.catalogue import WorkerState
from workers.contracts.errors import GriditError
from workers.contracts.settings import Settings
from workers.queue.connect import AWAY, connect
from workers.queue.release import Cause, release
from workers.supervisor import address
from workers.supervisor.children import Children, ChildSpec, Died, log_tail
from workers.supervisor.devices import Seat
from workers.supervisor.directory import DataDirectory
from workers.supervisor.facts import Fact, OrphansStopped, Ready, Released, Stopping
from workers.supervisor.process import stop_all
from workers.supervisor.wake import Wake

SERVER, API, WORKER = "server", "api", "worker"
GRIDIT = (sys.executable, "-P", "-m", "service.cli")
HOME = Path(__file__).resolve().parents[2]
"""Where the packages lie; `-P` keeps a directory of the user's with such a name from being taken for them."""
ERROR = "error: "
"""How a command of ours begins its last line."""
ORPHAN_PATIENCE = 3.0
PATIENCE = 5.0
START_SECONDS = 30.0
LOOK_SECONDS = 0.05
ASK_SECONDS = 0.2
"""Between two looks whether the service is warm."""
IDLE_SECONDS = 5.0


class StartFailed(GriditError):
    """A process ended before the service was ready; the message holds its last words."""

    code = "start_failed"


class Machine:
    """The processes of one `gridit up`."""

    worker_command: ClassVar[tuple[str, ...]] = (*GRIDIT, "worker")
    """A twin's command may stand here; `--name` is added."""

    def __init__(
        self, settings: Settings, *, directory: DataDirectory, where: address.Address, seats: Sequence[Seat]
    ) -> None:
        """A worker for each of `seats`."""
        self.settings = settings
        self.directory = directory
        self.where = where
        self.seats = tuple(seats)
        self.workers = tuple(f"{WORKER}-{number}" for number in range(1, len(self.seats) + 1))
        self.children = Children()
        self._metrics = directory.path / "metrics"
        self.stops = 0
        """How often somebody asked to stop."""

    def run(self, wake: Wake) -> Generator[Fact, None, None]:
        """Until asked to stop; whatever happens, no child is left when this ends."""
        began = time.monotonic()
        launch = embedded.prepare(self.directory.path / SERVER, configured=self.settings.redis_server)
        try:
            yield from self._clear_orphans()
            yield from self._start_server(launch, wake=wake)
            yield from self._start_rest(launch.endpoint.url, wake=wake)
            if warm := self._warm():
                self.directory.record(ready=True)
                yield Ready(self.where.url, time.monotonic() - began, launch.binary, warm, self.seats)
            while not self.stops:
                yield from self._turn(launch.endpoint.url, wake=wake, timeout=IDLE_SECONDS)
            yield Stopping(self.settings.drain_seconds)
            self._stop(wake)
        finally:
            self.children.kill()

    def _clear_orphans(self) -> Iterator[Fact]:
        orphans = stop_all(self.directory.left_behind, patience=ORPHAN_PATIENCE)
        self.directory.record(url=self.where.url)
        if orphans:
            yield OrphansStopped(tuple(orphans))

    def _start_server(self, launch: embedded.Launch, *, wake: Wake) -> Iterator[Fact]:
        self.children.add(server_spec(launch, logs=self.directory.path / "logs"))
        deadline = time.monotonic() + START_SECONDS
        while not self.stops and not embedded.answers(launch.endpoint.url):
            yield from self._starting_turn(launch.endpoint.url, wake=wake, timeout=LOOK_SECONDS)
            if time.monotonic() > deadline:
                raise StartFailed(f"the embedded server did not answer within {START_SECONDS:g} s")
        for left in self.directory.left_behind:
            yield from self._release(left.instance, url=launch.endpoint.url, cause=Cause.OUTAGE)

    def _start_rest(self, url: str, *, wake: Wake) -> Iterator[Fact]:
        for spec in self._specs(url):
            self.children.add(spec)
        while not self.stops and not self._warm():
            yield from self._starting_turn(url, wake=wake, timeout=ASK_SECONDS)

    def _specs(self, url: str) -> Iterator[ChildSpec]:
        logs = self.directory.path / "logs"
        environment = self._environment(url)
        yield ChildSpec(API, (*GRIDIT, "serve"), logs / f"{API}.log", environment, patience=PATIENCE)
        for name, seat in zip(self.workers, self.seats, strict=True):
            yield ChildSpec(
                name,
                (*self.worker_command, "--name", "{instance}"),
                logs / f"{name}.log",
                {**environment, **seat.environment},
                patience=self.settings.drain_seconds + PATIENCE,
            )

    def _environment(self, url: str) -> dict[str, str]:
        """What API and workers are told; everything else they read from the environment this process has."""
        shutil.rmtree(self._metrics, ignore_errors=True)
        self._metrics.mkdir()
        threads = self.settings.threads or max(1, (os.cpu_count() or 1) // len(self.workers))
        return {
            "GRIDIT_REDIS_URL": url,
            "GRIDIT_DATA_DIR": str(self.directory.path),
            "GRIDIT_HOST": self.where.host,
            "GRIDIT_PORT": str(self.where.port),
            "GRIDIT_LOG_LEVEL": self.settings.log_level.value,
            "GRIDIT_THREADS": str(threads),
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(HOME), os.environ.get("PYTHONPATH")))),
        }

    def _turn(self, url: str, *, wake: Wake, timeout: float) -> Iterator[Fact]:
        """Wait for a signal, a due start or `timeout`; then do what is due."""
        due = self.children.next_due()
        wait = timeout if due is None else min(timeout, due - time.monotonic())
        self.stops += wake.stop_asked(wait)
        if self.stops:
            return
        deaths = self.children.reap(now=time.monotonic())
        for death in deaths:  # before anything is started, which would compete for the processor: jobs wait
            released = list(self._release(death.instance, url=url)) if death.name in self.workers else []
            yield death
            yield from released
            # Else its gauges would be counted among the living for ever.
            mark_process_dead(death.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        starts = self.children.start(now=time.monotonic())
        if deaths or starts:
            self.directory.record(children=tuple(self.children.processes()))
        yield from starts

    def _starting_turn(self, url: str, *, wake: Wake, timeout: float) -> Iterator[Fact]:
        for fact in self._turn(url, wake=wake, timeout=timeout):
            if isinstance(fact, Died):
                raise StartFailed(self._last_words(fact))
            yield fact

    def _last_words(self, death: Died) -> str:
        """Why a child ended: the error it names, else the end of its log."""
        log = self.directory.path / "logs" / f"{death.name}.log"
        tail = log_tail(log)
        _, named, error = f"\n{tail}".rpartition(f"\n{ERROR}")
        reason = error if named else f"\n{tail}\n"
        return f"{death.name} ended (status {death.status}) before it was ready: {reason} (log: {log})"

    def _release(self, instance: str, *, url: str, cause: Cause = Cause.CRASH) -> Iterator[Fact]:
        """Give a dead worker's jobs back now; with the server out as well, its lease does it later."""
        with connect(url) as redis:
            try:
                jobs = release(redis, instance, keep_seconds=self.settings.artifact_seconds, cause=cause)
            except AWAY:
                return
        if jobs:
            yield Released(instance, len(jobs))

    def _warm(self) -> tuple[WorkerState, ...]:
        """This run's workers, in order, once all of them, and the API, take jobs; empty until then."""
        known = {state.name: state for state in address.readiness(self.where) or () if state.phase == "ready"}
        instances = [self.children.instance(name) for name in self.workers]
        return tuple(known[name] for name in instances) if known.keys() >= set(instances) else ()

    def _stop(self, wake: Wake) -> None:
        """Workers first, so that what they finish is still stored and shown; a second request hurries all but the
        server."""
        for names in (self.workers, (API,), (SERVER,)):
            with contextlib.closing(self.children.stop(names)) as waiting:
                for _ in waiting:
                    self.stops += wake.stop_asked(LOOK_SECONDS)
                    if self.stops > 1 and SERVER not in names:
                        break


def server_spec(launch: embedded.Launch, *, logs: Path) -> ChildSpec:
    """The embedded server; when the supervisor dies it may still close its files."""
    return ChildSpec(
        SERVER,
        launch.command,
        logs / f"{SERVER}.log",
        launch.environment,
        orphan_signal=signal.SIGTERM,
        patience=PATIENCE,
    )
