"""Stored files as answers: `Range`, a strong `ETag`, 304 for what the caller has, 404 for what is gone."""

from __future__ import annotations

from starlette.responses import FileResponse, Response

from service.context import Services
from workers.contracts.errors import NotFound
from workers.contracts.job import StoredObject

KEEP = "private, max-age=3600"
"""A path may come to mean another file after a DELETE, so not for ever."""


def send(
    services: Services, stored: StoredObject, *, if_none_match: str | None, filename: str | None = None
) -> Response:
    """The file; raises NotFound if it is no longer there."""
    headers = {"etag": f'"{stored.sha256}"', "cache-control": KEEP}
    if matches(if_none_match, headers["etag"]):
        return Response(status_code=304, headers=headers)
    path = services.store.path(stored)
    if not path.is_file():
        raise NotFound("The file is gone: its time was up, or it was deleted.")
    return FileResponse(
        path, headers=headers, media_type=stored.media_type, filename=filename, content_disposition_type="inline"
    )


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this tag."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag.removeprefix("W/") in tags or "*" in tags
