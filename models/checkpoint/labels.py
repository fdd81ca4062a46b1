"""Names of class labels: from a file of the user's, from what a checkpoint says, or numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from models.checkpoint.errors import CheckpointError


def names(count: int, *, told: Sequence[str] = (), file: Path | None = None) -> tuple[str, ...]:
    """`count` different names, in the order of the labels; a file (lines, or JSON) must have exactly so many."""
    if file is not None:
        given = _read(file)
        if len(given) != count:
            remedy = "one name a label, in the order of the labels, without the null label"
            raise CheckpointError(str(file), found=f"{len(given)} names", expected=f"{count}", remedy=remedy)
        return _different(given)
    return _different(told) if len(told) == count else tuple(f"class-{label}" for label in range(count))


def _read(file: Path) -> list[str]:
    """Lines, a JSON list, or a JSON object from label to name."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "check --classes"
        raise CheckpointError(str(file), found=str(error), expected="a text file", remedy=remedy) from error
    try:
        content = json.loads(text)
    except ValueError:
        return [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(content, dict):
        return [str(content[key]) for key in sorted(content, key=lambda key: (len(key), key))]
    return [str(name) for name in content] if isinstance(content, list) else [str(content)]


def _different(given: Sequence[str]) -> tuple[str, ...]:
    """The same names, the second "crane" being "crane (2)"."""
    made: list[str] = []
    for index, name in enumerate(given):
        before = list(given[:index]).count(name)
        made.append(f"{name} ({before + 1})" if before else name)
    return tuple(made)
