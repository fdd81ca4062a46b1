"""Errors on the wire: one table from error class to HTTP status, one body for all of them.

The body is problem+json (RFC 9457) and holds, in the same object, the `error` that OpenAI clients read.
FastAPI's and Starlette's own errors go through the same function, so no other shape of error leaves the service.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from service.invalid import InvalidFields, describe
from workers.contracts import errors

log = logging.getLogger(__name__)

STATUS: Mapping[type[errors.GriditError], int] = {
    errors.InvalidRequest: 422,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.TooLarge: 413,
    errors.QueueFull: 429,
    errors.Unavailable: 503,
    errors.StoreUnavailable: 503,
    errors.StorageFull: 503,
    errors.GriditError: 500,
}
"""The table; a class that is not in it has the status of its nearest ancestor."""

LONGEST_RETRY_AFTER = 120
DEFAULT_RETRY_AFTER = 5
MEDIA_TYPE = "application/problem+json"
_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: errors.TooLarge.code}


def status_of(kind: type[errors.GriditError]) -> int:
    """The HTTP status of an error class."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def problem(error: errors.GriditError, *, scope: Scope) -> Response:
    """The answer to a request that met this error."""
    status = status_of(type(error))
    extra = {"errors": [vars(fault) for fault in error.faults]} if isinstance(error, InvalidFields) else {}
    body = _body(
        status, _public(error), code=error.code, param=error.param, retryable=error.retryable, scope=scope, extra=extra
    )
    return JSONResponse(body, status, headers=_headers(status, error.retry_after), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Send every error of an app through the table."""
    app.add_exception_handler(errors.GriditError, _on_gridit_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_bug)


def _public(error: errors.GriditError) -> str:
    """What a caller may know: where files lie, and how an object store is reached, is for the log alone."""
    if isinstance(error, errors.StoreUnavailable):
        return "The store of files does not answer; try again shortly."
    if isinstance(error, errors.StoreError) and not isinstance(error, errors.StorageFull):
        return "A stored file cannot be read or written; the log has the reason under this request_id."
    return error.message


def _body(
    status: int,
    message: str,
    *,
    code: str,
    scope: Scope,
    param: str | None = None,
    retryable: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "type": f"urn:gridit:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "instance": scope["path"],
        "code": code,
        "request_id": scope.get("state", {}).get("request_id"),
        "retryable": retryable,
        "error": {"message": message, "type": _openai_type(status), "param": param, "code": code},
        **(extra or {}),
    }


def _headers(status: int, retry_after: int | None) -> dict[str, str]:
    if status in (429, 503):
        seconds = DEFAULT_RETRY_AFTER if retry_after is None else retry_after
        return {"retry-after": str(min(max(1, math.ceil(seconds)), LONGEST_RETRY_AFTER))}
    # OpenAI's clients would otherwise repeat a 409 by themselves.
    return {"x-should-retry": "false"} if status in (409, 422) else {}


def _openai_type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


async def _on_gridit_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.GriditError)
    if status_of(type(error)) >= 500:
        log.warning("request refused", extra={"action": "refuse", "code": error.code, "detail": error.message})
    return problem(error, scope=request.scope)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(InvalidFields(describe(error.errors())), scope=request.scope)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path}: {error.detail}"
    code = _HTTP_CODES.get(error.status_code, "http_error")
    body = _body(error.status_code, detail, code=code, scope=request.scope)
    return JSONResponse(body, error.status_code, headers=error.headers, media_type=MEDIA_TYPE)


async def _on_bug(request: Request, error: Exception) -> Response:
    """A bug of ours: the caller learns the request id, the log learns the rest."""
    body = _body(
        500, "Internal error; the log has it under this request_id.", code="internal_error", scope=request.scope
    )
    return JSONResponse(body, 500, media_type=MEDIA_TYPE)
