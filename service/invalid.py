"""What is wrong with a request's fields, in words that name the field, its limit and the values that are allowed.

Translates pydantic's error records; every check of a request, FastAPI's own included, is worded here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workers.contracts.errors import InvalidRequest

_CONTAINERS = ("body", "query", "path", "header", "cookie")
_CODES = {"extra_forbidden": "unknown_field", "missing": "missing_field"}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "string": "a string",
    "bool": "true or false",
    "dict": "an object",
    "model": "an object",
}


@dataclass(frozen=True)
class Fault:
    """One field at fault."""

    param: str | None
    code: str
    message: str


class InvalidFields(InvalidRequest):
    """One or more fields at fault; the first gives `param`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__(" ".join(fault.message for fault in faults), param=faults[0].param)
        self.faults = tuple(faults)


def describe(details: Iterable[Mapping[str, Any]], *, known: Iterable[str] = ()) -> list[Fault]:
    """Pydantic's error records as faults; the last unknown field is told the `known` names."""
    faults = [_fault(detail) for detail in details]
    strange = [place for place, fault in enumerate(faults) if fault.code == _CODES["extra_forbidden"]]
    if strange and known:
        last = faults[strange[-1]]
        faults[strange[-1]] = replace(last, message=f"{last.message} Known fields: {', '.join(known)}.")
    return faults


def _fault(detail: Mapping[str, Any]) -> Fault:
    location = [str(part) for part in detail["loc"]]
    if location and location[0] in _CONTAINERS:
        location = location[1:]
    param = ".".join(location) or None
    kind = str(detail["type"])
    return Fault(param, _CODES.get(kind, "invalid_value"), _message(param or "The body", kind, detail=detail))


def _message(name: str, kind: str, *, detail: Mapping[str, Any]) -> str:
    context = detail.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return f"Unknown field {name!r}."
        case "missing":
            return f"{name} is required."
        case "enum" | "literal_error":
            return f"{name} must be {context['expected']}{_got(detail)}."
        case "string_pattern_mismatch":
            return f"{name} must match {context['pattern']}{_got(detail)}."
        case "value_error":
            return f"{name}: {context['error']}"
    for operator, words in _BOUNDS.items():
        if operator in context and kind == words[0]:
            return f"{name} must be {words[1]} {context[operator]}{_got(detail)}."
    for operator, bound in _LENGTHS.items():
        if operator in context:
            return f"{name} must have {bound} {context[operator]} characters or entries."
    expected = _KINDS.get(kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float"))
    return f"{name} must be {expected}{_got(detail)}." if expected else f"{name}: {detail['msg']}{_got(detail)}."


_BOUNDS = {
    "ge": ("greater_than_equal", "at least"),
    "gt": ("greater_than", "greater than"),
    "le": ("less_than_equal", "at most"),
    "lt": ("less_than", "less than"),
}
_LENGTHS = {"max_length": "at most", "min_length": "at least"}


def _got(detail: Mapping[str, Any]) -> str:
    value = repr(detail.get("input"))
    return f" (got {value if len(value) <= 64 else value[:61] + '...'})"
