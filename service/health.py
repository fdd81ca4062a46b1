"""Is the process alive, and can it take a job: /livez and /readyz, with the names that other probes use.

Ready means Redis answers and a catalogue is known. Whether a worker lives is detail: with none, jobs are accepted up
to the bound, so that scaling from zero works. So is a full store: what exists can be read and, above all, deleted.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from service.admission import lacks_room
from service.context import Context, Services
from workers.contracts.errors import Unavailable

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="The process answers")
@router.get("/v2/health/live", include_in_schema=False)
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Redis answers and a catalogue is known; detail of each worker")
@router.get("/v2/health/ready", include_in_schema=False)
async def ready(services: Context) -> JSONResponse:
    checks, detail = await _checks(services)
    is_ready = all(check == "ok" for check in checks.values())
    body = {"status": "ready" if is_ready else "not_ready", "checks": checks, **detail}
    return JSONResponse(body, 200 if is_ready else 503, headers={} if is_ready else {"retry-after": "2"})


async def _checks(services: Services) -> tuple[dict[str, str], dict[str, Any]]:
    draining = "draining: this process is about to stop" if services.draining.is_set() else "ok"
    try:
        await services.queue.ping()
        catalogue = await services.queue.catalogue()
        workers = await services.queue.workers()
        depths = await services.queue.queue_depths()
    except Unavailable as error:
        return {"redis": error.message, "catalogue": "unknown", "process": draining}, {}
    known = "ok" if catalogue else "empty: no worker was ever seen; start one with `gridit worker`"
    full = await lacks_room(services)
    detail = {
        "storage": "ok" if full is None else full.message,
        "models": sorted(catalogue),
        "queues": depths,
        "workers": [worker.model_dump(mode="json") for worker in workers],
    }
    return {"redis": "ok", "catalogue": known, "process": draining}, detail
