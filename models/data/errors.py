"""What can be wrong with a user's own sequences: messages name the place, what was found, the limit and the remedy."""

from __future__ import annotations

from pathlib import Path


class BadData(ValueError):
    """A file or folder cannot be trained on as it is."""

    def __init__(self, where: Path | str, *, found: str, expected: str, remedy: str) -> None:
        super().__init__(f"{where}: found {found}, expected {expected}; {remedy}")
