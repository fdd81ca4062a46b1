"""Pure ASGI middleware: a request id for every request, and a bound on every body.

Neither reads ahead nor buffers, so streams pass through untouched.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import problem
from workers.contracts.errors import TooLarge

log = logging.getLogger(__name__)

ID_HEADER = "x-request-id"
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
PROBES = ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")
"""Asked for every few seconds by machines."""
DRAINED_BYTES = 8 * 1024 * 1024
"""Read and dropped of a body that is too large, so that a client that is still sending hears the answer."""


class RequestId:
    """The caller's `x-request-id` if it is a plain word, else a fresh one; in the answer, errors and the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(ID_HEADER, "")
        request_id = given if _SAFE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[ID_HEADER] = request_id
                _log_request(scope, status=message["status"], seconds=time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, send_with_id)


@dataclass(frozen=True)
class Limits:
    """Most bytes of a body: of uploads, of jobs with the user's own frames, and of everything else."""

    upload: int
    job: int
    other: int

    def of(self, scope: Scope) -> int:
        """The limit of this request."""
        path = scope["path"].rstrip("/")
        if path == "/v1/files":
            return self.upload
        return self.job if path.startswith("/v1/videos") else self.other


class BodyLimit:
    """Refuses a body above its limit: at once if it says its length, else when it gets there."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limits.of(scope)
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > limit:
            await _drain(receive)
            await problem(_too_large(limit, got=f"{length} bytes"), scope=scope)(scope, receive, send)
            return
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit, got="more")
            return message

        await self.app(scope, receive_bounded, send)


def _too_large(limit: int, *, got: str) -> TooLarge:
    remedy = "send less, or raise GRIDIT_MAX_BODY_BYTES for uploads"
    return TooLarge(f"The body must be at most {limit} bytes (got {got}); {remedy}.", param="content-length")


async def _drain(receive: Receive) -> None:
    dropped = 0
    while dropped <= DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def _log_request(scope: Scope, *, status: int, seconds: float) -> None:
    log.log(
        logging.DEBUG if scope["path"] in PROBES else logging.INFO,
        "request",
        extra={
            "action": "request",
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 4),
            "request_id": scope["state"]["request_id"],
        },
    )
