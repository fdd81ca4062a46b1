"""Stored files as answers: `Range`, a strong `ETag`, 304 for what the caller has, 404 for what is gone.

A file on this machine is sent by Starlette; one in an object store is passed on in ranged reads, a piece at a time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import chain
from urllib.parse import quote

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.context import Services
from workers.contracts.errors import NotFound, StoreGone
from workers.contracts.job import StoredObject
from workers.storage import Store

KEEP = "private, max-age=3600"
"""A path may come to mean another file after a DELETE, so not for ever."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def send(
    services: Services, stored: StoredObject, *, if_none_match: str | None, filename: str | None = None
) -> Response:
    """The file; raises NotFound if it is no longer there."""
    headers = {"etag": f'"{stored.sha256}"', "cache-control": KEEP}
    if matches(if_none_match, headers["etag"]):
        return Response(status_code=304, headers=headers)
    path = services.store.local_path(stored)
    if path is None:
        return PassedOn(services.store, stored, headers=headers, filename=filename)
    if not path.is_file():
        raise _gone()
    return FileResponse(
        path, headers=headers, media_type=stored.media_type, filename=filename, content_disposition_type="inline"
    )


def matches(if_none_match: str | None, etag: str) -> bool:
    """Whether an If-None-Match header names this tag."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag.removeprefix("W/") in tags or "*" in tags


def wanted(headers: Headers, *, size: int, etag: str) -> range | None:
    """The bytes that a request asks for, an empty range if there are none such; None: all.

    Several ranges at once, and what is no range of bytes, are answered by all, as RFC 9110 allows.
    """
    found = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if found is None or found.group() == "bytes=-" or headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(size, int(last) + 1) if last else size)


class PassedOn(Response):
    """A file from the store, or the part of it that the request's `Range` names."""

    def __init__(
        self, store: Store, stored: StoredObject, *, headers: dict[str, str], filename: str | None = None
    ) -> None:
        self._store = store
        self._stored = stored
        named = {"content-disposition": f"inline; filename*=utf-8''{quote(filename)}"} if filename else {}
        self._etag = headers["etag"]
        self._given = {**headers, **named, "accept-ranges": "bytes"}
        super().__init__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is sent before the first piece is read, so a file that is gone is still a 404."""
        answer = await self._answer(Headers(scope=scope))
        await answer(scope, receive, send)

    async def _answer(self, headers: Headers) -> Response:
        size = self._stored.bytes
        part = wanted(headers, size=size, etag=self._etag)
        if part is not None and not part:
            return PlainTextResponse(status_code=416, headers={"content-range": f"bytes */{size}"})
        sent = range(size) if part is None else part
        lengths = {"content-length": str(len(sent))}
        if part is not None:
            lengths["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        return StreamingResponse(
            await self._pieces(sent),
            200 if part is None else 206,
            headers=self._given | lengths,
            media_type=self._stored.media_type,
        )

    async def _pieces(self, sent: range) -> AsyncIterator[bytes]:
        pieces = self._store.chunks(self._stored, start=sent.start, stop=sent.stop)
        try:
            first = await run_in_threadpool(next, pieces, b"")
        except StoreGone:
            raise _gone() from None
        return iterate_in_threadpool(chain([first], pieces))


def _gone() -> NotFound:
    return NotFound("The file is gone: its time was up, or it was deleted.")
