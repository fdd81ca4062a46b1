"""What a request handler works with: the connections that the app's lifespan owns, handed over as one value."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from workers.contracts.settings import Settings
from workers.queue.batches import BatchRecords
from workers.queue.client import JobQueue
from workers.queue.feed import EventFeed
from workers.storage import Store


@dataclass(frozen=True)
class Services:
    """Everything behind the HTTP surface; one per process."""

    settings: Settings
    queue: JobQueue
    feed: EventFeed
    store: Store
    batches: BatchRecords
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is about to stop: streams end, /readyz says so."""
    batch_news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the batch pump has something new to look at."""

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        return time.time()


def _services(request: Request) -> Services:
    services = request.state.services
    assert isinstance(services, Services)
    return services


Context = Annotated[Services, Depends(_services)]
"""The parameter type by which a route gets the services."""
