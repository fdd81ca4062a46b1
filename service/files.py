"""/v1/files: uploads for batches and the files that batches make, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.datastructures import UploadFile
from starlette.responses import FileResponse, Response

from service import views
from service.admission import lacks_room
from service.context import Context, Services
from service.invalid import Fault, InvalidFields
from service.sending import send
from workers.contracts.batch import File, Purpose, new_id
from workers.contracts.errors import InvalidRequest
from workers.queue.client import Order

router = APIRouter(prefix="/v1/files", tags=["files and batches"])
FileId = Annotated[str, Path(pattern=r"^file-[A-Za-z0-9_-]{1,64}$")]
JSONL = "application/jsonl"
LONGEST_NAME = 255
UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "JSONL, one request a line."},
                        "purpose": {"type": "string", "enum": [Purpose.BATCH.value]},
                    },
                }
            }
        },
    }
}


@router.post("", summary="Upload the JSONL file of a batch", openapi_extra=UPLOAD_BODY)
async def upload(request: Request, services: Context) -> dict[str, Any]:
    async with request.form(max_files=1, max_fields=8) as form:
        part, purpose = form.get("file"), form.get("purpose")
        if not isinstance(part, UploadFile):
            raise InvalidFields([Fault("file", "missing_field", "file is required: the JSONL file as a form part.")])
        if purpose != Purpose.BATCH.value:
            raise InvalidFields([Fault("purpose", "invalid_value", f"purpose must be 'batch' (got {purpose!r}).")])
        name, content = (part.filename or "upload.jsonl")[:LONGEST_NAME], await part.read()
    if not content.strip():
        raise InvalidRequest("file is empty; send at least one line.", param="file")
    if (full := await lacks_room(services)) is not None:
        raise full
    return view(await keep(services, content, name=name, purpose=Purpose.BATCH, file_id=new_id("file-")))


@router.get("", summary="List files")
async def list_files(
    services: Context,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Order = Order.DESC,
) -> dict[str, Any]:
    found = await services.batches.files(after=after, limit=limit, order=order)
    return views.page([view(file) for file in found.items], has_more=found.has_more)


@router.get("/{file_id}", summary="What is known of a file")
async def get_file(file_id: FileId, services: Context) -> dict[str, Any]:
    return view(await services.batches.file(file_id))


@router.get("/{file_id}/content", summary="The file", response_class=FileResponse)
async def get_file_content(
    file_id: FileId, services: Context, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    file = await services.batches.file(file_id)
    return send(services, file.stored, if_none_match=if_none_match, filename=file.filename)


@router.delete("/{file_id}", summary="Delete a file")
async def delete_file(file_id: FileId, services: Context) -> dict[str, Any]:
    """Repeat-safe."""
    await services.batches.delete_file(file_id)
    await asyncio.to_thread(services.store.delete_tree, f"files/{file_id}")
    return views.deleted(file_id, kind="file")


async def keep(services: Services, content: bytes, *, name: str, purpose: Purpose, file_id: str) -> File:
    """Store a file, then its record; the same content under the same id may be kept again."""
    path = f"files/{file_id}/{hashlib.sha256(content).hexdigest()[:12]}.jsonl"
    stored = await asyncio.to_thread(services.store.put, path, content, media_type=JSONL)
    file = File(id=file_id, created_at=services.now(), filename=name, purpose=purpose, stored=stored)
    await services.batches.add_file(file)
    return file


def view(file: File) -> dict[str, Any]:
    """OpenAI's `file` object."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.stored.bytes,
        "created_at": int(file.created_at),
        "expires_at": None,
        "filename": file.filename,
        "purpose": file.purpose.value,
        "status": "processed",
    }
