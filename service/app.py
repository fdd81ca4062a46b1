"""`create_app(settings)`: the HTTP surface as one FastAPI app, whose lifespan owns every connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any, TypedDict

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse

from service import batches, errors, events, files, frames, health, metrics, models, videos
from service.context import Services
from service.middleware import BodyLimit, Limits, RequestId
from service.problem import Problem
from service.pump import Pump
from service.requests import VideoRequest
from workers.contracts.settings import Settings
from workers.queue.batches import BatchRecords
from workers.queue.client import JobQueue
from workers.queue.feed import EventFeed
from workers.storage import Store, open_store

VERSION = "0.1.0"
LARGEST_REQUEST = 1024 * 1024
"""Bytes of any body but an upload or a job."""
LARGEST_JOB = 16 * 1024 * 1024
"""Bytes of a job with the user's own frames."""
ROUTERS = (videos, frames, events, files, batches, models, health, metrics)
DESCRIPTION = """Long image sequences from grid-based diffusion: a coarse preview of the whole sequence first, refined
frames as they are made. Shapes are those of OpenAI's Videos, Files and Batch APIs; errors are problem+json."""
PAGE_HEADERS = {"content-security-policy": "default-src 'self'; style-src 'unsafe-inline'"}


class State(TypedDict):
    """What the lifespan hands to every request."""

    services: Services


def create_app(settings: Settings) -> FastAPI:
    """The app; nothing is connected before its lifespan begins. Raises StoreError if its files cannot be kept."""
    store = open_store(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        async with connect(settings, store) as services:
            app.state.services = services
            yield {"services": services}

    most = settings.max_body_bytes
    limits = Limits(upload=most, job=min(LARGEST_JOB, most), other=min(LARGEST_REQUEST, most))
    app = FastAPI(
        title="GriDiT Serve",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=[Middleware(RequestId), Middleware(BodyLimit, limits=limits)],
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses={"4XX": {"model": Problem}, "5XX": {"model": Problem}},
    )
    errors.install(app)
    for module in ROUTERS:
        app.include_router(module.router)
    app.add_api_route("/", page, include_in_schema=False)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def connect(settings: Settings, store: Store) -> AsyncIterator[Services]:
    """Every connection of the process, and the batch pump, for as long as the app lives."""
    async with contextlib.AsyncExitStack() as stack:
        queue = JobQueue.connect(settings.redis_url, keep_seconds=settings.artifact_seconds)
        stack.push_async_callback(queue.close)
        feed = await stack.enter_async_context(EventFeed(queue))
        services = Services(settings, queue, feed, store, BatchRecords(queue))
        pump = asyncio.create_task(Pump(services).run(), name="batch pump")
        stack.push_async_callback(_cancelled, pump)
        yield services
        services.draining.set()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def page() -> HTMLResponse:
    """The placeholder of the playground."""
    html = resources.files("service").joinpath("web/index.html").read_text(encoding="utf-8")
    return HTMLResponse(html, headers=PAGE_HEADERS)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's document, with the request body that is parsed by our own hand."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, bodies = models_json_schema(
            [(VideoRequest, "validation"), (batches.BatchRequest, "validation")],
            ref_template="#/components/schemas/{model}",
        )
        schema["components"]["schemas"] |= bodies["$defs"]
        app.openapi_schema = schema
    return app.openapi_schema
