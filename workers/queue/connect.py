"""Connections of the workers' half, and what to do while Redis is away.

redis-py's silent retries are off: a script that claims is not to run twice unnoticed, and the heartbeat must see each
gap. `persist` is the one place that waits for Redis to come back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers.queue.sockets import watched

log = logging.getLogger(__name__)

AWAY = (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.OutOfMemoryError, OSError)
"""Redis cannot be reached, is loading, or is full: later it may be otherwise."""
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0

T = TypeVar("T")


def connect(url: str, *, timeout: float = 5.0) -> Redis:
    """A client with decoded strings; each call is tried once and takes at most about `timeout` seconds."""
    return Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=2,
        decode_responses=True,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **watched(url),
    )


def connect_bytes(url: str) -> Redis:
    """A client as RQ wants it: bytes, not strings."""
    return Redis.from_url(url, socket_timeout=5, socket_connect_timeout=2, protocol=2, **watched(url))


@contextmanager
def full_is_away() -> Iterator[None]:
    """Make a server whose disk is full, and which refuses every write, one of those that are AWAY."""
    try:
        yield
    except exceptions.ResponseError as error:
        if not is_full(error):
            raise
        raise exceptions.OutOfMemoryError(str(error)) from error


def is_full(error: exceptions.ResponseError) -> bool:
    """Whether the server refuses to write because it cannot write to its own disk."""
    return str(error).startswith("MISCONF")


def persist(operation: Callable[[], T], *, action: str) -> T:
    """Do it, however long Redis is away; `operation` is such that doing it twice is doing it once."""
    wait = FIRST_WAIT
    while True:
        try:
            with full_is_away():
                return operation()
        except AWAY as error:
            level = logging.WARNING if wait == FIRST_WAIT else logging.DEBUG  # once is enough
            log.log(level, "redis is away", extra={"action": action, "error": str(error)})
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
