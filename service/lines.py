"""The lines of a batch's input file: each is a request of its own, good or bad; and the lines of its result files.

Pure: text in, values out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.bodies import json_object
from service.invalid import InvalidFields
from service.requests import VideoRequest, parse
from service.resolving import resolve
from workers.contracts.batch import LineError, Outcome
from workers.contracts.catalogue import CatalogueEntry
from workers.contracts.errors import InvalidRequest
from workers.contracts.job import Priority

MOST_LINES = 10_000
LONGEST_CUSTOM_ID = 256
FIELDS = ("custom_id", "method", "url", "body")
METHOD, URL = "POST", "/v1/videos"


@dataclass(frozen=True)
class Line:
    """One line of the input, counted from 1: a request, or what is wrong with it."""

    number: int
    custom_id: str | None
    request: VideoRequest | None
    error: LineError | None = None

    def job_id(self, batch_id: str) -> str:
        """Always the same, so that a line that is submitted again is not queued again."""
        return f"video_{batch_id}_{self.number}"


def read_lines(content: bytes, *, catalogue: Mapping[str, CatalogueEntry]) -> list[Line]:
    """Every line that is not blank; raises InvalidRequest if the file as a whole cannot be read."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The file is not UTF-8: {error.reason} at byte {error.start}.") from None
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not 1 <= len(numbered) <= MOST_LINES:
        raise InvalidRequest(f"The file must have 1 to {MOST_LINES} lines (got {len(numbered)}).")
    seen: set[str] = set()
    return [_line(number, line, seen=seen, catalogue=catalogue) for number, line in numbered]


def _line(number: int, text: str, *, seen: set[str], catalogue: Mapping[str, CatalogueEntry]) -> Line:
    custom_id = None
    try:
        fields = json_object(text)
        custom_id = _custom_id(fields, seen=seen)
        return Line(number, custom_id, _request(fields, catalogue=catalogue))
    except InvalidRequest as error:
        return Line(number, custom_id, None, as_line_error(number, error))


def as_line_error(number: int, error: InvalidRequest) -> LineError:
    """An error of a request as the error of a line."""
    code = error.faults[0].code if isinstance(error, InvalidFields) else error.code
    return LineError(line=number, code=code, message=error.message, param=error.param)


def _custom_id(fields: Mapping[str, Any], *, seen: set[str]) -> str:
    custom_id = fields.get("custom_id")
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= LONGEST_CUSTOM_ID:
        raise InvalidRequest(f"custom_id must be a string of 1 to {LONGEST_CUSTOM_ID} characters.", param="custom_id")
    if custom_id in seen:
        raise InvalidRequest(
            f"custom_id {custom_id!r} is that of an earlier line; each must be unique.", param="custom_id"
        )
    seen.add(custom_id)
    return custom_id


def _request(fields: Mapping[str, Any], *, catalogue: Mapping[str, CatalogueEntry]) -> VideoRequest:
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise InvalidRequest(f"Unknown field {unknown[0]!r}. Known fields: {', '.join(FIELDS)}.", param=unknown[0])
    for name, only in (("method", METHOD), ("url", URL)):
        if fields.get(name) != only:
            raise InvalidRequest(f"{name} must be {only!r} (got {fields.get(name)!r}).", param=name)
    if not isinstance(fields.get("body"), dict):
        raise InvalidRequest("body must be an object: the body of a POST /v1/videos.", param="body")
    request = parse(fields["body"])
    resolve(request, catalogue=catalogue)
    return request.model_copy(update={"priority": Priority.LOW})


def result_lines(batch_id: str, outcomes: Mapping[int, Outcome]) -> tuple[bytes, bytes]:
    """The output file and the error file, in the order of the input."""
    entries = [(number, outcome, _result(batch_id, number, outcome)) for number, outcome in outcomes.items()]
    good = (entry for _, outcome, entry in entries if not outcome.error)
    bad = (entry for _, outcome, entry in entries if outcome.error)
    return _jsonl(good), _jsonl(bad)


def _result(batch_id: str, number: int, outcome: Outcome) -> dict[str, Any]:
    name = f"{batch_id}_req_{number}"
    response = {"status_code": 200, "request_id": name, "body": outcome.body}
    return {
        "id": name,
        "custom_id": outcome.custom_id,
        "line": number,
        "response": None if outcome.error else response,
        "error": outcome.error.model_dump() if outcome.error else None,
    }


def _jsonl(entries: Iterator[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in entries).encode()
