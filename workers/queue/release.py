"""Handing back the jobs of a worker that is known to be dead, at once instead of when its lease ends.

For the supervisor, which sees its children die, and for a worker that ends itself after a fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from redis import Redis

from workers.queue.ledger import lost_args
from workers.queue.scripts import source

KEEP_SECONDS = 86400


class Cause(StrEnum):
    """Why a worker is no more."""

    CRASH = "crash"
    """By itself: a job in its hands may be the cause."""
    OUTAGE = "outage"
    """Its machine or supervisor died under it: no job is to blame."""


def release(
    redis: Redis, worker_name: str, *, keep_seconds: float = KEEP_SECONDS, cause: Cause = Cause.CRASH
) -> Mapping[str, str]:
    """Queue what this worker had in hand and unregister it; by job what became of it. Repeat-safe.

    Only for a worker that is dead: a live one would lose its jobs (its writes are fenced off, its work wasted).
    After a crash a job lost too often fails; the other ones run alone until they get any further.
    """
    script = redis.register_script(source("release"))
    arguments = [worker_name, *lost_args(max(1, int(keep_seconds))), cause.value]
    reply = [_text(part) for part in script(args=arguments)]
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
