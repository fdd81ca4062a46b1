"""Files and batches: one JSONL file of requests in, one of results and one of errors out.

Frozen values, kept in Redis as flat hashes whose every field is JSON. The statuses are OpenAI's eight.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self

from pydantic import Field

from workers.contracts.job import StoredObject, Value


class Purpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output"


class BatchStatus(StrEnum):
    """Exactly these words go over the wire."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the batch stays as it is."""
        return self in (BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)


class Record(Value):
    """A value that is kept as a hash."""

    id: str
    created_at: float

    def to_hash(self) -> dict[str, str]:
        """Every field as JSON."""
        return {name: json.dumps(value) for name, value in self.model_dump(mode="json").items()}

    @classmethod
    def from_hash(cls, fields: Mapping[str, str]) -> Self:
        """Inverse of `to_hash`."""
        plain: dict[str, Any] = {name: json.loads(value) for name, value in fields.items()}
        return cls.model_validate(plain)


class File(Record):
    """An upload, or a file that a batch has made."""

    filename: str
    purpose: Purpose
    stored: StoredObject


class LineError(Value):
    """What is wrong with one line (counted from 1) of the input, or with all of it."""

    line: int | None = None
    code: str
    message: str
    param: str | None = None


class Batch(Record):
    """The record of a batch."""

    input_file_id: str
    endpoint: str
    completion_window: str
    expires_at: float
    status: BatchStatus = BatchStatus.VALIDATING
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: tuple[LineError, ...] = ()
    total: int = 0
    completed: int = 0
    """Lines whose job is completed. This and `failed` are counted by Lua alone."""
    failed: int = 0
    metadata: dict[str, str] = Field(default_factory=dict)


class Outcome(Value):
    """How one line ended: with the job's `video` object, or with an error."""

    custom_id: str | None
    body: dict[str, Any] | None = None
    error: LineError | None = None


def new_id(prefix: str) -> str:
    """A fresh id: `prefix` and 24 hex digits."""
    return f"{prefix}{secrets.token_hex(12)}"
