"""The Lua scripts by name; `lua/lib.lua` stands in front of each."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "lua"


@cache
def source(name: str) -> str:
    """Text of the script `lua/<name>.lua`, ready to be registered."""
    return f"{_read('lib')}\n{_read(name)}"


def _read(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text(encoding="utf-8")
