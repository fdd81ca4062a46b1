"""Checks of single values against what a bundle allows, each worded with the field and the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from workers.contracts.errors import InvalidRequest

N = TypeVar("N", int, float)


def one_of(name: str, value: str, *, allowed: Sequence[str]) -> str:
    """The value, if it is among those allowed."""
    if value not in allowed:
        raise InvalidRequest(f"{name} must be one of {listed(allowed)} (got {value[:64]!r}).", param=name)
    return value


def at_most(name: str, value: N, *, limit: N) -> N:
    """The value, if it is not above the limit."""
    if value > limit:
        raise InvalidRequest(f"{name} must be at most {limit} for this model (got {value}).", param=name)
    return value


def listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    """Quoted, between commas."""
    return ", ".join(repr(str(name)) for name in names)
