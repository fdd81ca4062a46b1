"""The body of every error, as documented in the OpenAPI description; `service.errors` writes it."""

from __future__ import annotations

from pydantic import BaseModel


class OpenAIError(BaseModel):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: str


class Problem(BaseModel):
    """RFC 9457, and OpenAI's error in the same object."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    """Stable; one of `workers.contracts.errors`."""
    request_id: str | None
    retryable: bool
    error: OpenAIError
