"""Bodies in two encodings, one meaning: JSON, or a form with the same fields as strings.

OpenAI's clients send every create as multipart/form-data and nest as `metadata[key]`. What comes out is a plain
mapping for `requests.parse`; nothing is checked here but the encoding itself.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile

from service.invalid import Fault, InvalidFields
from service.references import FIELD
from workers.contracts.errors import InvalidRequest

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_NESTED = re.compile(r"(\w+)\[([^\[\]]+)\]")
_OBJECTS = ("metadata", "output")
MOST_FIELDS = 200
MOST_FILES = 64
"""As many as the largest grid has cells."""


async def read_fields(request: Request) -> dict[str, Any]:
    """The fields of a body, JSON or form."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind in FORMS:
        return await _form_fields(request)
    if kind == "application/json" or kind.endswith("+json"):
        return json_object(await request.body())
    raise InvalidRequest(
        f"content-type must be application/json or multipart/form-data (got {kind!r}).", param="content-type"
    )


def json_object(body: bytes | str) -> dict[str, Any]:
    """The JSON object in a body; raises InvalidRequest that says where it breaks."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {type(value).__name__}.")
    return value


def nest(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Form pairs as fields: `a[b]` nests, an empty string counts as absent, a JSON object stands for itself."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if value == "":
            continue
        inner = _NESTED.fullmatch(name)
        if inner:
            outer = fields.setdefault(inner[1], {})
            if not isinstance(outer, dict):
                raise _twice(inner[1])
            outer[inner[2]] = value
        elif name in fields:
            raise _twice(name)
        else:
            fields[name] = json_object(value) if name in _OBJECTS and value.startswith("{") else value
    return fields


async def _form_fields(request: Request) -> dict[str, Any]:
    async with request.form(max_fields=MOST_FIELDS, max_files=MOST_FILES) as form:
        pairs = [(name.removesuffix("[]"), await _as_text(value)) for name, value in form.multi_items()]
    many = [value for name, value in pairs if name == FIELD]
    fields = nest(pair for pair in pairs if pair[0] != FIELD)
    return fields | {FIELD: many} if many else fields


async def _as_text(value: UploadFile | str) -> str:
    """A file part as a data URL, which is how JSON would bring it."""
    if isinstance(value, str):
        return value
    content = base64.b64encode(await value.read()).decode()
    return f"data:{value.content_type or 'application/octet-stream'};base64,{content}"


def _twice(name: str) -> InvalidFields:
    return InvalidFields([Fault(name, "invalid_value", f"{name} was sent more than once.")])


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
