"""What RQ sees of a worker: its registration, its state, and the commands that RQ's tools send it.

Not RQ's stock worker: it pops nothing, forks nothing, has no timers. Jobs are claimed and ended by `ledger`'s scripts;
messages only go to the worker's mailbox.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from redis import Redis
from rq.command import parse_payload
from rq.serializers import JSONSerializer
from rq.worker.base import BaseWorker

from workers.contracts import keys
from workers.contracts.job import Priority
from workers.mailbox import Mailbox, StopJob, Terminate, Wake
from workers.queue.connect import AWAY

log = logging.getLogger(__name__)

WORKER_TTL = 15
"""Makes RQ's keys of this worker last 75 s after its last beat, and its socket timeout 11 s."""


class GriditWorker(BaseWorker):
    """A BaseWorker that hands everything it hears to a mailbox."""

    def __init__(self, name: str, *, connection: Redis, mailbox: Mailbox) -> None:
        """`connection` answers in bytes. Asks Redis for its address."""
        super().__init__(
            [priority.queue for priority in Priority],
            name=name,
            connection=connection,
            worker_ttl=WORKER_TTL,
            serializer=JSONSerializer,
        )
        self._mailbox = mailbox

    def enter(self) -> None:
        """Register and listen. ValueError: a live worker has this name."""
        self.register_birth()  # type: ignore[no-untyped-call]
        self.subscribe()

    def enter_again(self) -> None:
        """After Redis forgot this worker, which still runs."""
        with self.connection.pipeline() as pipe:
            pipe.hset(self.key, mapping=self.serialize())
            pipe.expire(self.key, WORKER_TTL + 60)
            pipe.sadd(self.redis_workers_keys, self.key)
            for queue in self.queue_names():
                pipe.sadd(f"rq:workers:{queue}", self.key)
            pipe.execute()

    def leave(self) -> None:
        """Unregister and stop listening."""
        self.register_death()  # type: ignore[no-untyped-call]
        if self.pubsub_thread is not None:
            self.pubsub_thread.stop()  # before the answer to unsubscribing wakes it, else it waits for another second
        self.unsubscribe()  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """Hear commands of RQ's tools, and that jobs are queued."""
        self.pubsub = self.connection.pubsub()  # type: ignore[no-untyped-call]
        self.pubsub.subscribe(**{self.pubsub_channel_name: self.handle_payload, keys.WAKE: self._on_wake})
        self.pubsub_thread = self.pubsub.run_in_thread(  # type: ignore[assignment]
            sleep_time=60, daemon=True, exception_handler=self._pubsub_exception_handler
        )

    def handle_payload(self, message: dict[str, Any]) -> None:
        """A command from `rq.command`, e.g. stop-job."""
        try:
            payload = parse_payload(message)
            command, job_id = payload["command"], payload.get("job_id")
        except (ValueError, KeyError, AttributeError):
            log.warning("command not understood", extra={"action": "bad_command", "data": repr(message.get("data"))})
            return
        match command:
            case "stop-job" | "stop-execution" if job_id:
                self._mailbox.put(StopJob(job_id))
            case "shutdown":
                self._mailbox.put(Terminate())
            case _:
                log.warning("command ignored", extra={"action": "command_ignored", "command": command})

    def _on_wake(self, message: dict[str, Any]) -> None:
        self._mailbox.put(Wake())

    def _pubsub_exception_handler(self, exc: Exception, pubsub: Any, pubsub_thread: Any) -> None:
        """Go on whatever happens: redis-py subscribes again, and the heartbeat hears of stops too."""
        if not isinstance(exc, AWAY):
            log.error("listening failed", exc_info=exc, extra={"action": "listen_failed"})
        time.sleep(0.5)
