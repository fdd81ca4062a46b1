"""/metrics: what this process counts, and the queue as Redis has it at the moment of the scrape.

Counters live in the process (or, with PROMETHEUS_MULTIPROC_DIR set, in files that all processes share). The depth of
the queues is read from the one Redis, so that several API processes never report it as a sum.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service.context import Context
from workers.contracts.errors import Unavailable

router = APIRouter(tags=["operations"])
REGISTRY = CollectorRegistry()

JOBS = Counter("gridit_jobs", "Jobs that ended.", ("model", "status"), registry=REGISTRY)
JOBS_REJECTED = Counter("gridit_jobs_rejected", "Requests refused, by error code.", ("reason",), registry=REGISTRY)
STREAM_CLIENTS = Gauge("gridit_stream_clients", "Open event streams.", registry=REGISTRY, multiprocess_mode="livesum")


class QueueDepth(Collector):
    """Jobs that wait, by queue, as read a moment ago."""

    def __init__(self, depths: Mapping[str, int]) -> None:
        self.depths = depths

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("gridit_queue_depth", "Jobs that wait.", labels=["queue"])
        for queue, depth in self.depths.items():
            family.add_metric([queue], depth)
        yield family


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(services: Context) -> Response:
    try:
        depths = await services.queue.queue_depths()
    except Unavailable:
        depths = {}  # the process' own counters are still worth having
    own = generate_latest(_process_registry())
    return Response(own + generate_latest(_with(QueueDepth(depths))), media_type=CONTENT_TYPE_LATEST)


def _process_registry() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return shared


def _with(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
