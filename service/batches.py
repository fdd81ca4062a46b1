"""/v1/batches: many requests from one JSONL file, in OpenAI's shapes; `service.pump` drives them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service import views
from service.bodies import read_fields
from service.context import Context
from service.invalid import InvalidFields, describe
from workers.contracts.batch import Batch, BatchStatus, Purpose, new_id
from workers.contracts.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/v1/batches", tags=["files and batches"])
BatchId = Annotated[str, Path(pattern=r"^batch_[A-Za-z0-9_-]{1,64}$")]
ENDPOINT = "/v1/videos"
WINDOW_SECONDS = 86400.0
CREATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BatchRequest"}}},
    }
}


class BatchRequest(BaseModel):
    """The body of POST /v1/batches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_file_id: Annotated[str, Field(description="An upload with purpose=batch.")]
    endpoint: Literal["/v1/videos"]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[str, Annotated[str, StringConstraints(max_length=512)]] | None, Field(max_length=16)] = (
        None
    )


@router.post("", summary="Start a batch", openapi_extra=CREATE_BODY)
async def create(request: Request, services: Context) -> dict[str, Any]:
    """Bad lines become errors by line; good ones are queued at low priority as the admission bound allows."""
    asked = _parse(await read_fields(request))
    try:
        file = await services.batches.file(asked.input_file_id)
    except NotFound as error:
        raise InvalidRequest(f"input_file_id: {error.message}; upload it first.", param="input_file_id") from None
    if file.purpose is not Purpose.BATCH:
        raise InvalidRequest("input_file_id must be an upload with purpose 'batch'.", param="input_file_id")
    now = services.now()
    batch = Batch(
        id=new_id("batch_"),
        created_at=now,
        input_file_id=file.id,
        endpoint=asked.endpoint,
        completion_window=asked.completion_window,
        expires_at=now + WINDOW_SECONDS,
        metadata=asked.metadata or {},
    )
    await services.batches.add_batch(batch)
    services.batch_news.set()
    return view(batch)


@router.get("", summary="List batches")
async def list_batches(
    services: Context, after: str | None = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
) -> dict[str, Any]:
    found = await services.batches.batches(after=after, limit=limit)
    return views.page([view(batch) for batch in found.items], has_more=found.has_more)


@router.get("/{batch_id}", summary="The batch")
async def get_batch(batch_id: BatchId, services: Context) -> dict[str, Any]:
    return view(await services.batches.batch(batch_id))


@router.post("/{batch_id}/cancel", summary="Stop a batch; lines that are completed keep their results")
async def cancel(batch_id: BatchId, services: Context) -> dict[str, Any]:
    """Repeat-safe; a batch that is ending or has ended stays as it is."""
    batch = await services.batches.batch(batch_id)
    stopping = batch.evolve(status=BatchStatus.CANCELLING, cancelling_at=services.now())
    await services.batches.move(stopping, sources=(batch.status,) if _can_stop(batch) else ())
    services.batch_news.set()
    return view(await services.batches.batch(batch_id))


def view(batch: Batch) -> dict[str, Any]:
    """OpenAI's `batch` object."""
    errors = [error.model_dump() for error in batch.errors]
    times = {name: _whole(value) for name, value in batch.model_dump().items() if name.endswith("_at")}
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status.value,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        **times,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata,
    }


def _parse(fields: dict[str, Any]) -> BatchRequest:
    try:
        return BatchRequest.model_validate(fields)
    except ValidationError as error:
        raise InvalidFields(describe(error.errors(), known=BatchRequest.model_fields)) from None


def _can_stop(batch: Batch) -> bool:
    return batch.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
